"""The body of an inference request and of its answer.

Takes: bytes from the network and the model's signature; arrays. Gives: `InferRequest`; bytes for the network.
Invariant: whatever the bytes are, the outcome is a request that fits the protocol or a `RequestError`; nothing is
allocated by a size that the body merely claims.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, NoReturn, cast

from tessera_runtime.arrays import Array, TensorSpec
from tessera_runtime.serve.datatypes import datatype_name, from_bytes, from_json, to_json
from tessera_runtime.serve.errors import malformed

MAX_RANK: Final = 64
MAX_ELEMENTS: Final = 1 << 48  # of eight bytes each: beyond the addresses of a process
_Object = Mapping[str, object]


class OutputWish(NamedTuple):
    """An output that the caller wants, and whether as bytes."""

    spec: TensorSpec
    binary: bool


class InferRequest(NamedTuple):
    """A request whose names, datatypes and sizes fit each other; shapes are compared by the model."""

    identifier: str | None
    feeds: Mapping[str, Array]
    outputs: tuple[OutputWish, ...]


class Signature(NamedTuple):
    """What the model takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def parse_infer(body: memoryview, json_bytes: int | None, signature: Signature) -> InferRequest:
    """Read a request. `json_bytes`: how many bytes of the body are JSON, from Inference-Header-Content-Length."""
    if json_bytes is not None and json_bytes > len(body):
        raise malformed("Inference-Header-Content-Length is larger than the body", found=json_bytes)
    split = len(body) if json_bytes is None else json_bytes
    root = _object(_parse_json(body[:split]), "the request")
    identifier = root.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise malformed("the id is not a string", where="id")
    binary = _flag(_parameters(root, "the request"), "binary_data_output")
    feeds = _Inputs(signature.inputs, body[split:]).read(_list(root, "inputs"))
    wishes = _wishes(root, signature.outputs, binary)
    return InferRequest(identifier, feeds, wishes)


def _parse_json(data: memoryview) -> object:
    try:
        return cast(object, json.loads(str(data, "utf-8"), parse_constant=_refuse_constant))
    except (ValueError, RecursionError) as error:
        raise malformed("the request is not JSON", found=error) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}; send such values as binary data")


class _Inputs:
    """Reads the tensors of a request, and cuts the binary data behind the JSON."""

    def __init__(self, specs: tuple[TensorSpec, ...], raw: memoryview) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._raw = raw

    def read(self, tensors: Sequence[object]) -> dict[str, Array]:
        """All inputs by name."""
        feeds: dict[str, Array] = {}
        for tensor in tensors:
            found = _object(tensor, "an input")
            spec = self._spec(found)
            if spec.name in feeds:
                raise malformed("an input is given twice", where=spec.name)
            feeds[spec.name] = self._array(found, spec)
        if len(self._raw):
            raise malformed("there is more binary data than the inputs claim", found=f"{len(self._raw)} bytes")
        missing = [name for name in self._specs if name not in feeds]
        if missing:
            raise malformed(f"the input {missing[0]!r} was not given", where=missing[0])
        return feeds

    def _spec(self, found: _Object) -> TensorSpec:
        name = found.get("name")
        spec = self._specs.get(name) if isinstance(name, str) else None
        if spec is None:
            raise malformed("the model has no such input", expected=", ".join(self._specs), found=repr(name))
        datatype = found.get("datatype")
        if datatype != datatype_name(spec.dtype):
            raise malformed(
                "the input has another datatype", where=spec.name, expected=datatype_name(spec.dtype), found=datatype
            )
        return spec

    def _array(self, found: _Object, spec: TensorSpec) -> Array:
        shape, parameters = _shape(found, spec.name), _parameters(found, spec.name)
        size = parameters.get("binary_data_size")
        if size is None:
            return from_json(found.get("data"), spec, shape)
        if type(size) is not int or size < 0 or "data" in found:
            raise malformed("binary_data_size is not a size, or there is data beside it", where=spec.name)
        if size > len(self._raw):
            raise malformed("the body ends before the binary data does", where=spec.name, expected=f"{size} bytes")
        data, self._raw = self._raw[:size], self._raw[size:]
        return from_bytes(data, spec, shape)


def _shape(found: _Object, name: str) -> tuple[int, ...]:
    given = found.get("shape")
    if not isinstance(given, list):
        raise malformed("the shape is not a list", where=name)
    extents = cast("list[object]", given)
    if len(extents) > MAX_RANK or not all(type(extent) is int and 0 <= extent < 1 << 62 for extent in extents):
        raise malformed("the shape is not a list of sizes", where=name, found=extents)
    shape = tuple(cast("list[int]", extents))
    # numpy refuses one that is too large even where an extent of 0 leaves it without elements.
    if math.prod(extent for extent in shape if extent) > MAX_ELEMENTS:
        raise malformed("the shape is larger than memory can be", where=name, found=extents)
    return shape


def _wishes(root: _Object, specs: tuple[TensorSpec, ...], binary: bool) -> tuple[OutputWish, ...]:
    if "outputs" not in root:
        return tuple(OutputWish(spec, binary) for spec in specs)
    known, wishes = {spec.name: spec for spec in specs}, dict[str, OutputWish]()
    for item in _list(root, "outputs"):
        found = _object(item, "an output")
        name = found.get("name")
        spec = known.get(name) if isinstance(name, str) else None
        if spec is None or spec.name in wishes:
            raise malformed("an output is unknown or named twice", expected=", ".join(known), found=repr(name))
        parameters = _parameters(found, spec.name)
        wishes[spec.name] = OutputWish(
            spec, _flag(parameters, "binary_data") if "binary_data" in parameters else binary
        )
    # An empty list asks for nothing in particular, like none at all.
    return tuple(wishes.values()) or tuple(OutputWish(spec, binary) for spec in specs)


def _parameters(found: _Object, where: str) -> _Object:
    parameters = _object(found.get("parameters", {}), f"the parameters of {where}")
    for name in ("shared_memory_region", "classification", "sequence_id"):
        if parameters.get(name):
            raise malformed("this server does not have that extension of the protocol", where=where, found=name)
    return parameters


def _flag(parameters: _Object, name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise malformed(f"{name} is neither true nor false", found=repr(value))
    return value


def _object(value: object, what: str) -> _Object:
    if not isinstance(value, dict):
        raise malformed(f"{what} is not a JSON object", found=type(value).__name__)
    return cast("dict[str, object]", value)


def _list(root: _Object, name: str) -> Sequence[object]:
    value = root.get(name)
    if not isinstance(value, list):
        raise malformed(f"{name!r} is not a list", found=type(value).__name__)
    return cast("list[object]", value)


class Answer(NamedTuple):
    """The body of an answer; `json_bytes` says how many bytes of it are JSON when there are others."""

    body: bytes
    json_bytes: int | None


def render_answer(request: InferRequest, results: Mapping[str, Array], name: str, version: str) -> Answer:
    """The answer with the outputs that were asked for."""
    outputs: list[dict[str, object]] = []
    raw: list[bytes] = []
    for spec, binary in request.outputs:
        array = results[spec.name]
        tensor: dict[str, object] = {
            "name": spec.name,
            "datatype": datatype_name(spec.dtype),
            "shape": list(array.shape),
        }
        if binary:
            tensor["parameters"] = {"binary_data_size": array.nbytes}
            raw.append(array.tobytes())
        else:
            tensor["data"] = to_json(array, spec)
        outputs.append(tensor)
    root: dict[str, object] = {"model_name": name, "model_version": version, "outputs": outputs}
    if request.identifier is not None:
        root["id"] = request.identifier
    head = json.dumps(root).encode()
    return Answer(b"".join((head, *raw)), len(head) if raw else None)


def tensor_metadata(specs: tuple[TensorSpec, ...]) -> list[dict[str, object]]:
    """Names, datatypes and shapes, -1 where an extent is dynamic."""
    return [
        {
            "name": spec.name,
            "datatype": datatype_name(spec.dtype),
            "shape": [extent if isinstance(extent, int) else -1 for extent in spec.shape],
        }
        for spec in specs
    ]
