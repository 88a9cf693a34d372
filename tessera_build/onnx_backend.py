"""Tessera as a backend of the onnx package: `onnx.backend.test` and everyone who calls its interface can run it.

    from tessera_build.onnx_backend import TesseraBackend
    TesseraBackend.run_model(model, [x])

Takes models and inputs in onnx's own order; gives outputs computed by compiled code, never by a reference. Invariant:
what Tessera does not build raises a `TesseraError`. The interface has no build step, so a bundle is built when inputs
of new shapes come (or new values of operands such as axes, which only a build can use), and kept for the next ones.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto
from onnx.backend.base import Backend, BackendRep

from bundle_format.errors import TesseraError
from tessera_build.driver.build import build
from tessera_build.frontends.onnx import UnsupportedError
from tessera_build.frontends.onnx.specialise import Specialised, Value, bind, needed_values, specialise
from tessera_build.frontends.onnx.standalone import model_of_node
from tessera_build.ir.graph.nodes import Array
from tessera_runtime import Model, load

Result = Array | list["Result"] | None


class TesseraRep(BackendRep):
    """A prepared model: its bundles by the shapes (and build-time values) that they were built for."""

    def __init__(self, model: ModelProto, cache: Path | bool) -> None:
        self._model = model
        self._cache = cache
        self._loaded: dict[object, Model] = {}

    def run(self, inputs: object, **_options: object) -> tuple[Result, ...]:
        """The outputs for inputs in the model's order."""
        given = _sequence(inputs)
        named = bind(self._model, given)
        special, loaded = self._built(named)
        found = loaded.run({spec.name: special.feeds[spec.name] for spec in loaded.inputs})
        return tuple(_result(found, output) for output in self._model.graph.output)

    def _built(self, named: Mapping[str, Value]) -> tuple[Specialised, Model]:
        fixed: frozenset[str] = frozenset()
        while True:
            special = specialise(self._model, named, fixed)
            key = _key(special, {name: named[name] for name in fixed})
            if key in self._loaded:
                return special, self._loaded[key]
            try:
                self._loaded[key] = self._build(special.model)
            except UnsupportedError as error:
                more = needed_values(special.model, error, named) - fixed
                if not more:
                    raise
                fixed |= more

    def _build(self, model: ModelProto) -> Model:
        with tempfile.TemporaryDirectory(prefix="tessera-") as folder:
            path = Path(folder, "model.tessera")
            build(model, targets=["native"], out=path, verify=False, workers=1, cache=self._cache)
            return load(path)  # the file may go: its pages stay mapped


class TesseraBackend(Backend):
    """`onnx.backend.base.Backend` over Tessera's CPU builds."""

    cache: ClassVar[Path | bool] = True

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **_options: object) -> TesseraRep:
        """A model that is ready to run; it is built when the first inputs come."""
        if not cls.supports_device(device):
            raise TesseraError("BAD_DEVICE", f"there is no device {device!r} here", expected="CPU")
        return TesseraRep(model, cls.cache)

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: object,
        device: str = "CPU",
        outputs_info: object = None,  # noqa: ARG003  a hint that a typed graph does not need
        **options: object,
    ) -> tuple[Result, ...]:
        """The results of one operator."""
        given = _sequence(inputs)
        opset = options.get("opset_version")
        model = model_of_node(node, given, opset if isinstance(opset, int) else None)
        return cls.prepare(model, device).run(given)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Only the CPU: nothing here runs on a GPU yet."""
        return device.split(":")[0] == "CPU"


def _sequence(inputs: object) -> Sequence[Value]:
    """Several inputs, or one that came alone."""
    return cast("Sequence[Value]", inputs if isinstance(inputs, (list, tuple)) else [inputs])


def _key(special: Specialised, values: Mapping[str, Value]) -> object:
    shapes = tuple((name, array.dtype, array.shape) for name, array in special.feeds.items())
    return shapes, tuple((name, _bytes(value)) for name, value in sorted(values.items()))


def _bytes(value: Value) -> bytes:
    return value.SerializeToString() if isinstance(value, TensorProto) else np.asarray(value).tobytes()


def _result(found: Mapping[str, Array], output: ValueInfoProto) -> Result:
    """One output as onnx's users expect it: an array, a list for a sequence, None for an absent optional."""
    proto = output.type
    while proto.WhichOneof("value") == "optional_type":
        proto = proto.optional_type.elem_type
    if proto.WhichOneof("value") == "sequence_type":
        members = (f"{output.name}[{index}]" for index in itertools.count())
        return [np.array(found[name]) for name in itertools.takewhile(found.__contains__, members)]
    return np.array(found[output.name]) if output.name in found else None
