"""What converting an element from one type to another gives, the same on every machine.

Takes an array and an element type; gives the array converted. Invariant: every value of every type has one result,
also where C and ONNX leave it open: a float beyond an integer's range becomes the lowest i32 (i64 for wider types),
cut to the integer's bits, as x86 has it; integers wrap; floats narrower than f32 are reached by way of f32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.types import F32, DType, dtype_of

Array = NDArray[np.generic]

_TWO_63 = 2.0**63


def convert(values: Array, dtype: DType) -> Array:
    """The elements as `dtype`."""
    source = dtype_of(values.dtype)
    if source == dtype:
        return values
    if source.is_float and source.bits < F32.bits:
        values, source = values.astype(np.float32), F32
    if source.bits < 8 and source.kind != "bool":
        values = values.astype(np.int64)  # ml_dtypes knows no cast from one of its types to another
    with np.errstate(all="ignore"):
        if dtype.kind == "bool":
            return np.not_equal(values, np.zeros((), values.dtype))
        if source.is_float and not dtype.is_float:
            return _truncated(values, dtype)
        if dtype.is_float and dtype.bits < F32.bits:
            values = values.astype(np.float32)
        return values.astype(dtype.numpy)


def reinterpret(values: Array, dtype: DType) -> Array:
    """The bits of the elements read as `dtype`, of the same width."""
    source = dtype_of(values.dtype)
    if source.kind == "bool" or dtype.kind == "bool" or source.bits < 8:
        # Kept one to a byte: an integer's sign fills the byte, which the other type's reading must not see.
        values = np.bitwise_and(
            values.astype(np.uint8) if source.kind == "bool" else values.view(np.uint8), 2**source.bits - 1
        )
    if dtype.kind == "signed" and dtype.bits < 8:
        unsigned = values.view(np.uint8).astype(np.int8)
        return np.where(unsigned >> (dtype.bits - 1), unsigned - (1 << dtype.bits), unsigned).astype(dtype.numpy)
    return values.view(dtype.numpy)


def _truncated(values: Array, dtype: DType) -> Array:
    """Floats to integers, towards zero."""
    wide = values.astype(np.float64)
    if dtype.name == "u64":
        high = (wide >= _TWO_63) & (wide < 2 * _TWO_63)
        lowered = _to_signed(np.where(high, wide - _TWO_63, wide), 64).view(np.uint64)
        return np.where(high, lowered + np.uint64(1 << 63), lowered).astype(np.uint64)
    whole = _to_signed(wide, 64 if dtype.bits == 64 or dtype.name == "u32" else 32)
    return whole.astype(dtype.numpy)


def _to_signed(wide: NDArray[np.float64], bits: int) -> NDArray[np.int64]:
    inside = np.abs(wide) < 2.0 ** (bits - 1)
    return np.where(inside, np.where(inside, wide, 0).astype(np.int64), -(1 << (bits - 1)))
