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

_NAMES: Final = {
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
}
# Elements narrower than a byte lie one to a byte; what the byte may hold.
_RANGES: Final = {
    "i4": (-8, 7),
    "u4": (0, 15),
    "i2": (-2, 1),
    "u2": (0, 3),
    "f6e2m3": (0, 63),
    "f6e3m2": (0, 63),
    "f4e2m1": (0, 15),
    "bool": (0, 1),
}


def datatype_name(dtype: str) -> str:
    """The protocol's name. It has none for elements below 16 bits other than integers of 8: those keep the format's,
    in capitals, and travel only as bytes.
    """
    return _NAMES.get(dtype, dtype.upper())


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
    _check_range(data, spec)
    array = np.frombuffer(data, dtype).reshape(shape)
    return array if array.flags.aligned else array.copy()


def from_json(values: object, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    """An array of the numbers of a request, nested by rows or flat."""
    if spec.dtype not in _NAMES:
        raise malformed("tensors of this datatype travel only as binary data", where=spec.name)
    return _converted(_numbers(values, spec, shape), spec).reshape(shape)


def to_json(array: Array, spec: TensorSpec) -> list[object]:
    """The numbers of an answer, flat, row by row."""
    if spec.dtype not in _NAMES:
        raise _bytes_only(spec, "tensors of this datatype travel only as binary data")
    if spec.dtype == "bf16":
        array = (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
        raise _bytes_only(spec, "the answer holds infinities or NaN, which JSON cannot")
    return cast("list[object]", array.ravel().tolist())


def _bytes_only(spec: TensorSpec, message: str) -> RequestError:
    expected = 'an output with "parameters": {"binary_data": true}'
    return RequestError(400, "JSON_CANNOT_HOLD", message, where=spec.name, expected=expected)


def _check_range(data: memoryview, spec: TensorSpec) -> None:
    """A byte may not hold what its datatype cannot, for the code would believe it."""
    limits = _RANGES.get(spec.dtype)
    if limits is None or not data.nbytes:
        return
    values = np.frombuffer(data, np.int8 if limits[0] < 0 else np.uint8)
    if int(values.min()) < limits[0] or int(values.max()) > limits[1]:
        expected = f"{limits[0]} to {limits[1]}"
        raise malformed("a byte holds what its datatype cannot", where=spec.name, expected=expected)


def _numbers(values: object, spec: TensorSpec, shape: tuple[int, ...]) -> list[object]:
    """The numbers without their nesting, all of a kind that the datatype takes. Nothing else may reach numpy: a list of
    strings could make it ask for any memory.
    """
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
    if not any(kinds <= taken for taken in _taken(spec)):
        raise malformed("the data has values of another kind", where=spec.name, expected=datatype_name(spec.dtype))
    return flat


def _taken(spec: TensorSpec) -> tuple[set[type], ...]:
    """The kinds of JSON values that a datatype takes."""
    if spec.dtype == "bool":
        return {bool}, {int}
    return ({int},) if spec.dtype[0] in "iu" else ({int, float},)


def _kinds(values: list[object]) -> set[type]:
    return set(map(type, values))


def _converted(values: list[object], spec: TensorSpec) -> Array:
    dtype = spec.numpy
    numbers = cast("list[float]", values)
    try:
        if spec.dtype == "bool":
            return _flags(np.array(numbers, np.uint8), spec)
        if spec.dtype[0] in "iu":
            return np.array(numbers, dtype)  # numpy refuses integers out of range
        with np.errstate(over="ignore"):
            exact = np.array(numbers, np.float64)
            if spec.dtype == "bf16":
                return _to_bfloat(exact.astype(np.float32), spec).view(dtype)
            return _finite(exact.astype(dtype), spec)
    except OverflowError:
        raise _too_large(spec) from None


def _flags(array: Array, spec: TensorSpec) -> Array:
    if array.size and int(array.max()) > 1:
        raise malformed("the data has values other than true and false", where=spec.name)
    return array.astype(np.bool_)


def _too_large(spec: TensorSpec) -> RequestError:
    return malformed(
        "the data has a number too large for its datatype", where=spec.name, expected=datatype_name(spec.dtype)
    )


def _finite(array: Array, spec: TensorSpec) -> Array:
    if not bool(np.isfinite(array).all()):
        raise _too_large(spec)
    return array


def _to_bfloat(values: Array, spec: TensorSpec) -> Array:
    """Round to the nearest, ties to even, as conversions of the processor do."""
    bits = _finite(values, spec).view(np.uint32)
    rounded = ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)
    _finite((rounded.astype(np.uint32) << 16).view(np.float32), spec)
    return rounded
