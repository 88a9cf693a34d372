"""Reading ONNX files: protobuf to model, tensors to arrays, external data only from the model's own folder.

Takes a path or a `ModelProto`; gives checked protobuf objects and read-only numpy arrays. Invariant: nothing outside
the model's folder is ever opened, and every failure is a `ModelError` or an `UnsupportedError` with a clear text.
"""

from __future__ import annotations

import math
import mmap
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import numpy_helper

from tessera_build.frontends.onnx.errors import ModelError, UnsupportedError, ill_formed, unsupported
from tessera_build.ir.core.conversion import reinterpret
from tessera_build.ir.core.types import DTYPES, DType, dtype_of
from tessera_build.ir.graph.nodes import Array

OLDEST_OPSET = 1
DEFAULT_DOMAINS = ("", "ai.onnx")
# Our names of ONNX's element types.
ELEMENT_TYPES: Mapping[int, str] = {
    onnx.TensorProto.DOUBLE: "f64",
    onnx.TensorProto.FLOAT: "f32",
    onnx.TensorProto.BFLOAT16: "bf16",
    onnx.TensorProto.FLOAT16: "f16",
    onnx.TensorProto.FLOAT8E4M3FN: "f8e4m3",
    onnx.TensorProto.FLOAT8E5M2: "f8e5m2",
    onnx.TensorProto.FLOAT8E4M3FNUZ: "f8e4m3fnuz",
    onnx.TensorProto.FLOAT8E5M2FNUZ: "f8e5m2fnuz",
    onnx.TensorProto.FLOAT8E8M0: "f8e8m0",
    onnx.TensorProto.FLOAT6E2M3: "f6e2m3",
    onnx.TensorProto.FLOAT6E3M2: "f6e3m2",
    onnx.TensorProto.FLOAT4E2M1: "f4e2m1",
    onnx.TensorProto.INT64: "i64",
    onnx.TensorProto.INT32: "i32",
    onnx.TensorProto.INT16: "i16",
    onnx.TensorProto.INT8: "i8",
    onnx.TensorProto.INT4: "i4",
    onnx.TensorProto.INT2: "i2",
    onnx.TensorProto.UINT64: "u64",
    onnx.TensorProto.UINT32: "u32",
    onnx.TensorProto.UINT16: "u16",
    onnx.TensorProto.UINT8: "u8",
    onnx.TensorProto.UINT4: "u4",
    onnx.TensorProto.UINT2: "u2",
    onnx.TensorProto.BOOL: "bool",
}

_COMPLEX = "keep the real and the imaginary part in two tensors, or in one with an axis of two"
_OTHER_TYPES: Mapping[str, str] = {
    "STRING": "strings are refused: do the text processing outside the model",
    "COMPLEX64": _COMPLEX,
    "COMPLEX128": _COMPLEX,
}


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A model that was read from `path` already, and perhaps changed since."""

    model: onnx.ModelProto
    path: Path

    def __str__(self) -> str:
        return str(self.path)


def load_model(source: str | Path | onnx.ModelProto | Loaded) -> tuple[onnx.ModelProto, Path | None]:
    """The model and the folder that external data may lie in (None for a model that comes without a file)."""
    if isinstance(source, onnx.ModelProto):
        return source, None
    if isinstance(source, Loaded):
        return source.model, source.path.parent
    path = Path(source)
    try:
        return onnx.load_model_from_string(path.read_bytes()), path.parent
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelError("NO_MODEL", f"the model cannot be read: {reason}", where=str(path)) from error
    except (DecodeError, ValueError) as error:
        raise _not_onnx(str(path)) from error


def _not_onnx(where: str) -> ModelError:
    return ModelError(
        "BAD_MODEL",
        "this is not an ONNX model, or it is damaged",
        where=where,
        expected="an ONNX protobuf (.onnx) with a graph",
        hint="export the model again, or check that the whole file was copied",
    )


def check_model(model: onnx.ModelProto, where: str) -> int:
    """The opset version of the default domain; raises for a model without graph or of another age."""
    # Protobuf hands out bytes where a damaged file holds no text; versions are 32-bit numbers to onnx's own code.
    if any(not 0 <= o.version < 1 << 31 for o in model.opset_import):
        raise _not_onnx(where)
    if not model.opset_import or not model.graph.output or any(isinstance(t, bytes) for t in _texts(model)):
        raise _not_onnx(where)
    versions = {o.domain: o.version for o in model.opset_import}
    version = max((versions[d] for d in DEFAULT_DOMAINS if d in versions), default=0)
    newest = onnx.defs.onnx_opset_version()
    if version and not OLDEST_OPSET <= version <= newest:
        raise UnsupportedError(
            "UNSUPPORTED_OPSET",
            f"the model uses opset {version}",
            where=where,
            expected=f"opset {OLDEST_OPSET} to {newest}",
            hint="convert it with onnx.version_converter, or install a newer onnx package",
        )
    return version or newest


def _texts(model: onnx.ModelProto) -> Iterator[object]:
    """Every name in the model that the importer reads."""
    yield from (o.domain for o in model.opset_import)
    yield from _texts_of_graph(model.graph)
    for function in model.functions:
        yield from (function.domain, function.name, function.overload, *function.input, *function.output)
        yield from (*function.attribute, *(o.domain for o in function.opset_import))
        for node in function.node:
            yield from _texts_of_node(node)


def _texts_of_graph(graph: onnx.GraphProto) -> Iterator[object]:
    for tensor in graph.initializer:
        yield tensor.name
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))
    for node in graph.node:
        yield from _texts_of_node(node)
    for info in (*graph.input, *graph.output):
        yield info.name
        yield from (d.dim_param for d in info.type.tensor_type.shape.dim)


def _texts_of_node(node: onnx.NodeProto) -> Iterator[object]:
    yield from (node.name, node.op_type, node.domain, node.overload, *node.input, *node.output)
    for attribute in node.attribute:
        yield from (attribute.name, attribute.ref_attr_name)
        for graph in (attribute.g, *attribute.graphs) if attribute.HasField("g") or attribute.graphs else ():
            yield from _texts_of_graph(graph)


def element_type(code: int, what: str) -> DType:
    """Our element type for ONNX's code."""
    if code in ELEMENT_TYPES:
        return DTYPES[ELEMENT_TYPES[code]]
    found = {number: name for name, number in onnx.TensorProto.DataType.items()}.get(code, str(code))
    if found == "UNDEFINED":
        raise ill_formed(f"{what} has no element type")
    hint = _OTHER_TYPES.get(found)
    raise unsupported(f"{what} has an element type that Tessera does not have", found=found, hint=hint)


def array_of(proto: onnx.TensorProto, folder: Path | None) -> Array:
    """The elements of a tensor as a read-only array."""
    what = f"tensor {proto.name!r}"
    dtype = element_type(proto.data_type, what)
    try:
        if proto.data_location == onnx.TensorProto.EXTERNAL:
            array = _external(proto, dtype, folder)
        else:
            array = np.asarray(numpy_helper.to_array(proto))
    except (ValueError, TypeError, KeyError) as error:
        raise ill_formed(f"{what} does not hold what its type says", found=str(error)) from error
    if array.dtype != dtype.numpy:
        array = array.astype(dtype.numpy)
    array = np.ascontiguousarray(array).reshape(array.shape)
    array.flags.writeable = False
    assert dtype_of(array.dtype) == dtype
    return array


def _external(proto: onnx.TensorProto, dtype: DType, folder: Path | None) -> Array:
    entries = {e.key: e.value for e in proto.external_data}
    location = entries.get("location", "")
    path = _inside(folder, location, proto.name)
    if any(d < 0 for d in proto.dims):
        raise ValueError(f"extents {list(proto.dims)}")
    count = math.prod(int(d) for d in proto.dims)
    packed = dtype.bits < 8 and dtype.kind != "bool"
    size = (count * dtype.bits + 7) // 8 if packed else count * dtype.numpy.itemsize
    offset = int(entries.get("offset", "0"))
    if offset < 0 or int(entries.get("length", size)) != size:
        raise ValueError(f"{entries.get('length')} bytes at {offset}, its type needs {size}")
    data = _mapped(path, offset, size, proto.name)
    shape = tuple(int(d) for d in proto.dims)
    if packed:
        return _unpacked(data, count, dtype).reshape(shape)
    return np.frombuffer(data, dtype.numpy.newbyteorder("<")).reshape(shape)


def _mapped(path: Path, offset: int, size: int, name: str) -> NDArray[np.uint8]:
    """Bytes of a regular file, mapped: what no one reads costs no memory, and what is read can be read again."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ModelError("NO_MODEL", f"weights of {name!r} do not lie in a regular file", where=str(path))
            if offset + size > status.st_size:
                raise ValueError(f"{max(0, status.st_size - offset)} bytes at {offset}, its type needs {size}")
            # From a page's start, as mmap wants it, and only this tensor's pages, so that they can be dropped alone.
            rest = offset % mmap.ALLOCATIONGRANULARITY
            page = offset - rest
            whole = mmap.mmap(file.fileno(), size + rest, access=mmap.ACCESS_READ, offset=page) if size else b""
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelError("NO_MODEL", f"weights of {name!r} cannot be read: {reason}", where=str(path)) from error
    return np.frombuffer(whole, np.uint8, size, rest)


def _unpacked(data: NDArray[np.uint8], count: int, dtype: DType) -> Array:
    """Elements narrower than a byte, packed from the lowest bit upwards."""
    bits = np.unpackbits(data, count=count * dtype.bits, bitorder="little").reshape(count, dtype.bits)
    return reinterpret(np.packbits(bits, axis=1, bitorder="little").reshape(count), dtype)


def _inside(folder: Path | None, location: str, name: str) -> Path:
    """The file of external data, which must lie in the model's folder, links followed."""
    hint = "save the model with its weights inside, or beside it in one folder"
    if folder is None:
        raise ModelError("BAD_MODEL", f"weights of {name!r} lie outside the model, which has no folder", hint=hint)
    path = (folder / location).resolve()
    if not location or Path(location).is_absolute() or not path.is_relative_to(folder.resolve()):
        raise ModelError(
            "BAD_MODEL",
            f"weights of {name!r} point outside the model's folder",
            expected="a relative path inside the folder of the model",
            found=location or "no location",
            hint=hint,
        )
    return path
