"""The protocol's datatypes: names, numbers in JSON, raw bytes.

Takes: a dtype of the format; JSON values or bytes of a request. Gives: arrays, and back.
Invariant: a number that the datatype cannot hold is refused, never rounded to another integer, wrapped or made
infinite; bytes are taken only when their count is exactly that of the shape.
"""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Final, cast

import numpy as np

from tessera_runtime.arrays import Array, TensorSpec
from tessera_runtime.serve.errors import RequestError, malformed

# The protocol has no name for eight-bit floats; these are numpy's, and such tensors travel only as bytes.
NAMES: Final = {
    "bool": "BOOL",
    "i8": "INT8",
    "i16": "INT16",
    "i32": "INT32",
    "i64": "INT64",
    "u8": "UINT8",
    "u16": "UINT16",
    "u32": "UINT32",
    "u64": "UINT64",
    "f16": "FP16",
    "f32": "FP32",
    "f64": "FP64",
    "bf16": "BF16",
    "f8e4m3": "FLOAT8_E4M3FN",
    "f8e5m2": "FLOAT8_E5M2",
}
_BYTES_ONLY: Final = frozenset(("f8e4m3", "f8e5m2"))


def element_count(shape: Sequence[int]) -> int:
    """How many elements a shape has."""
    return math.prod(shape)


def from_bytes(data: memoryview, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    """An array over the bytes of a request: no copy where they lie well."""
    dtype = spec.numpy
    expected = element_count(shape) * dtype.itemsize
    if data.nbytes != expected:
        found = f"{data.nbytes} bytes"
        raise malformed(
            "the binary data has another size than its shape",
            where=spec.name,
            expected=f"{expected} bytes",
            found=found,
        )
    if spec.dtype == "bool" and data.nbytes and int(np.frombuffer(data, np.uint8).max()) > 1:
        raise malformed("a byte of BOOL data is neither 0 nor 1", where=spec.name)
    array = np.frombuffer(data, dtype).reshape(shape)
    return array if array.flags.aligned else array.copy()


def from_json(values: object, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    """An array of the numbers of a request, nested by rows or flat."""
    if spec.dtype in _BYTES_ONLY:
        raise malformed("tensors of this datatype travel only as binary data", where=spec.name)
    return _converted(_numbers(values, spec, shape), spec).reshape(shape)


def to_json(array: Array, spec: TensorSpec) -> list[object]:
    """The numbers of an answer, flat, row by row."""
    if spec.dtype in _BYTES_ONLY:
        raise _bytes_only(spec, "tensors of this datatype travel only as binary data")
    if spec.dtype == "bf16":
        array = (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
        raise _bytes_only(spec, "the answer holds infinities or NaN, which JSON cannot")
    return cast("list[object]", array.ravel().tolist())


def _bytes_only(spec: TensorSpec, message: str) -> RequestError:
    expected = 'an output with "parameters": {"binary_data": true}'
    return RequestError(400, "JSON_CANNOT_HOLD", message, where=spec.name, expected=expected)


def _numbers(values: object, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    """One axis of numbers. numpy is given nothing but numbers: a list of strings could make it ask for any memory."""
    if not isinstance(values, list):
        raise malformed("the data of an input is not a list", where=spec.name)
    flat, kinds, depth = cast("list[object]", values), _kinds(cast("list[object]", values)), 0
    while kinds == {list} and depth + 1 < len(shape):
        rows = cast("list[list[object]]", flat)
        if len(rows) != element_count(shape[: depth + 1]) or any(len(row) != shape[depth + 1] for row in rows):
            raise malformed("the nested data has another form than its shape", where=spec.name, expected=str(shape))
        flat, depth = list(chain.from_iterable(rows)), depth + 1
        kinds = _kinds(flat)
    if len(flat) != element_count(shape) or (depth and depth + 1 != len(shape)):
        found = f"{len(flat)} elements"
        raise malformed("the data does not fill its shape", where=spec.name, expected=str(shape), found=found)
    if not (kinds <= {int, float} or kinds == {bool}) or (kinds == {bool} and spec.dtype != "bool"):
        raise malformed("the data has values of another kind", where=spec.name, expected=NAMES[spec.dtype])
    return cast(Array, np.array(flat))


def _kinds(values: list[object]) -> set[type]:
    return set(map(type, values))


def _converted(found: Array, spec: TensorSpec) -> Array:
    dtype, kind = spec.numpy, found.dtype.kind
    if found.size == 0:
        return np.empty(found.shape, dtype)
    if spec.dtype == "bool":
        return _integers(found, spec, 0, 1).astype(np.bool_)
    if spec.dtype[0] in "iu":
        limits = np.iinfo(cast("np.dtype[np.int64]", dtype))
        return _integers(found, spec, limits.min, limits.max).astype(dtype)
    if kind not in "iuf":
        raise malformed("the data has a number too large for its datatype", where=spec.name, expected=NAMES[spec.dtype])
    with np.errstate(over="ignore"):
        if spec.dtype == "bf16":
            return _to_bfloat(found.astype(np.float32), spec).view(dtype)
        return _finite(found.astype(dtype), spec)


def _integers(found: Array, spec: TensorSpec, low: int, high: int) -> Array:
    if found.dtype.kind not in "biu" or int(found.min()) < low or int(found.max()) > high:
        wanted = f"integers from {low} to {high}"
        raise malformed("the data has values that its datatype cannot hold", where=spec.name, expected=wanted)
    return found


def _finite(array: Array, spec: TensorSpec) -> Array:
    if not bool(np.isfinite(array).all()):
        raise malformed("the data has a number too large for its datatype", where=spec.name, expected=NAMES[spec.dtype])
    return array


def _to_bfloat(values: Array, spec: TensorSpec) -> Array:
    """Round to the nearest, ties to even, as conversions of the processor do."""
    bits = _finite(values, spec).view(np.uint32)
    rounded = ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)
    _finite((rounded.astype(np.uint32) << 16).view(np.float32), spec)
    return rounded
