"""Element types as numpy sees them, and a caller's objects as arrays.

Takes: dtype names of the format; numpy arrays, objects that speak DLPack, objects that speak the buffer protocol.
Gives: numpy dtypes; dense, row-major arrays of exactly the dtype asked for.
Invariant: values are never converted: another dtype is an error that names it, for a silent cast hides a caller's bug.
"""

import ctypes
import sys
from collections.abc import Callable
from typing import Final, NamedTuple, cast

import numpy as np

from bundle_format.dims import DimExpression
from bundle_format.foreign import Exports, lent_bits
from bundle_format.schema import Value
from tessera_runtime.errors import RunError

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]

# Behind the header that all objects have, numpy's C interface has the address of an array's first element
# (PyArrayObject_fields.data).
_DATA_AT: Final = object.__basicsize__
_POINTER_AT: Final = ctypes.c_void_p.from_address


def _stated_address(array: Array) -> int:
    """The address that an array says that it has."""
    return int(array.__array_interface__["data"][0])


def _read_address(array: Array) -> int:
    """The same from the object itself: 0.2 µs instead of 1.0, three times in the smallest call."""
    return _POINTER_AT(id(array) + _DATA_AT).value or 0


def _address_reader() -> Callable[[Array], int]:
    """The quick way where this interpreter and this numpy lay arrays out as documented, else the slow one."""
    samples = [np.empty(3, np.float32)[1:], np.zeros((2, 2), np.int8)]
    usual = sys.implementation.name == "cpython"
    return _read_address if usual and all(_read_address(a) == _stated_address(a) for a in samples) else _stated_address


address_of: Final = _address_reader()

_NUMPY: Final = {
    "f64": np.dtype(np.float64),
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "i64": np.dtype(np.int64),
    "i32": np.dtype(np.int32),
    "i16": np.dtype(np.int16),
    "i8": np.dtype(np.int8),
    "u64": np.dtype(np.uint64),
    "u32": np.dtype(np.uint32),
    "u16": np.dtype(np.uint16),
    "u8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
}
# numpy has no such types; their bits travel as integers of whole bytes, or as ml_dtypes' types once those are imported.
_AS_BITS: Final = {
    "bf16": (np.dtype(np.uint16), "bfloat16"),
    "f8e4m3": (np.dtype(np.uint8), "float8_e4m3fn"),
    "f8e5m2": (np.dtype(np.uint8), "float8_e5m2"),
    "f8e4m3fnuz": (np.dtype(np.uint8), "float8_e4m3fnuz"),
    "f8e5m2fnuz": (np.dtype(np.uint8), "float8_e5m2fnuz"),
    "f8e8m0": (np.dtype(np.uint8), "float8_e8m0fnu"),
    "f6e2m3": (np.dtype(np.uint8), "float6_e2m3fn"),
    "f6e3m2": (np.dtype(np.uint8), "float6_e3m2fn"),
    "f4e2m1": (np.dtype(np.uint8), "float4_e2m1fn"),
    "i4": (np.dtype(np.int8), "int4"),
    "u4": (np.dtype(np.uint8), "uint4"),
    "i2": (np.dtype(np.int8), "int2"),
    "u2": (np.dtype(np.uint8), "uint2"),
}


class TensorSpec(NamedTuple):
    """One input or output of a model. `shape` holds integers, and text where an extent is symbolic."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The numpy dtype in which the values travel."""
        return numpy_dtype(self.dtype)


def spec_of(value: Value) -> TensorSpec:
    """What a person sees of a value of the config."""
    shape = tuple(extent.text if isinstance(extent, DimExpression) else extent for extent in value.shape)
    return TensorSpec(value.name, value.dtype, shape)


def numpy_dtype(name: str) -> np.dtype[np.generic]:
    """The numpy dtype of a dtype name."""
    known = _NUMPY.get(name)
    if known is not None:
        return known
    if name not in _AS_BITS:
        raise RunError("DTYPE_UNSUPPORTED", "values of this dtype cannot cross the border to numpy", found=name)
    bits, extended = _AS_BITS[name]
    # Never imported here: whoever has such values has imported it.
    module = sys.modules.get("ml_dtypes")
    return bits if module is None else np.dtype(cast("type[np.generic]", getattr(module, extended)))


def to_array(value: object, dtype_name: str, dtype: np.dtype[np.generic], where: str) -> Array:
    """A dense array of `dtype` with the values of `value`, without a copy where it already is one."""
    array, named = _as_ndarray(value, where)
    if named or array.dtype != dtype:
        bits = _AS_BITS.get(dtype_name)
        if bits is None or _is_other(array, named, (dtype_name, bits[0], bits[1])):
            raise RunError(
                "INPUT_DTYPE",
                f"the input {where!r} has another dtype",
                where=where,
                expected=f"{dtype_name} (numpy {dtype})",
                found=named or f"numpy {array.dtype}",
                hint=f"convert it: numpy.asarray(value, dtype={dtype.name!r})",
            )
    # np.ascontiguousarray would turn a scalar into a vector of one.
    return array if array.flags.c_contiguous else array.copy(order="C")


def _is_other(array: Array, named: str, wanted: tuple[str, np.dtype[np.generic], str]) -> bool:
    """Whether elements are no bits of the wanted ones: by the name that came with them, else by numpy's type."""
    name, bits, extended = wanted
    return named != name if named else array.dtype != bits and array.dtype.name != extended


def _from_dlpack(value: Exports) -> tuple[Array, str]:
    try:
        return cast(Array, np.from_dlpack(value)), ""  # pyright: ignore[reportArgumentType]  for numpy's own types
    except (BufferError, RuntimeError):
        lent = lent_bits(value)
        if lent is None:
            raise
        return np.asarray(lent), lent.name


def _as_ndarray(value: object, where: str) -> tuple[Array, str]:
    """An array, and the name of its elements where numpy has only their bits."""
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(cast(Array, value)), ""
    try:
        if hasattr(value, "__dlpack__"):
            return _from_dlpack(cast(Exports, value))
        return np.asarray(memoryview(value)), ""  # pyright: ignore[reportArgumentType]  TypeError is handled
    except (TypeError, ValueError, BufferError, RuntimeError, AttributeError) as error:
        raise RunError(
            "INPUT_KIND",
            f"the input {where!r} is not an array",
            where=where,
            expected="a numpy array, or an object with DLPack or the buffer protocol, in the memory of the CPU",
            found=f"{type(value).__name__}: {error}",
            hint="for lists and numbers: numpy.asarray(value, dtype=...)",
        ) from error
