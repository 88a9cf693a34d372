"""Fused multiply-add in numpy, rounded once, for every element type.

Takes arrays that broadcast together; gives a*b + c as an exact result rounded once to `dtype`. Invariant: bit for bit
what hardware's FMA gives (barring overflow of intermediate products for f64), which the reference interpreters need.

Wide sums are rounded to odd before the last rounding, so that rounding twice equals rounding once (Boldo and
Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008).
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.types import F64, DType

Array = NDArray[np.generic]
Double = NDArray[np.float64]
_SPLITTER = 134217729.0  # 2**27 + 1: Dekker's constant for 53-bit significands


def fma(a: Array, b: Array, c: Array, dtype: DType) -> Array:
    """a*b + c rounded once to `dtype`; integers wrap."""
    if not dtype.is_float:
        product = np.multiply(a.astype(dtype.numpy), b.astype(dtype.numpy))
        return np.asarray(np.add(product, c.astype(dtype.numpy)), dtype.numpy)
    x, y, z = (v.astype(np.float64) for v in (a, b, c))
    with np.errstate(all="ignore"):
        if dtype == F64:
            return cast(Array, _fma_double(x, y, z))
        # Every narrower type has at most 24 significant bits, so the product is exact in 53.
        return narrow(_sum_to_odd(x * y, z), dtype)


def narrow(values: Double, dtype: DType) -> Array:
    """f64 values (rounded to odd, or exact) rounded once to a narrower float type."""
    if dtype.bits < 32 and dtype.name != "f16":
        # ml_dtypes converts by way of f32, which would round twice.
        values = _to_odd_single(values)
    return values.astype(dtype.numpy)


def _two_sum(a: Double, b: Double) -> tuple[Double, Double]:
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: Double, b: Double) -> tuple[Double, Double]:
    product = a * b
    high_a, high_b = _high(a), _high(b)
    low_a, low_b = a - high_a, b - high_b
    return product, low_a * low_b - (((product - high_a * high_b) - low_a * high_b) - high_a * low_b)


def _high(a: Double) -> Double:
    scaled = a * _SPLITTER
    return scaled - (scaled - a)


def _sum_to_odd(a: Double, b: Double) -> Double:
    """a + b rounded to odd: when inexact, of the two neighbours the one whose last bit is set."""
    total, error = _two_sum(a, b)
    total = np.atleast_1d(total)
    error = np.broadcast_to(error, total.shape)
    bits = total.view(np.int64)
    even = ((bits & 1) == 0) & (error != 0) & np.isfinite(error)
    away = (error > 0) == (total > 0)
    stepped = np.where(even, np.where(away, bits + 1, bits - 1), bits)
    return stepped.view(np.float64).reshape(np.broadcast_shapes(a.shape, b.shape))


def _fma_double(a: Double, b: Double, c: Double) -> Double:
    high, low = _two_product(a, b)
    middle, tail = _two_sum(c, low)
    top, rest = _two_sum(high, middle)
    result = top + _sum_to_odd(tail, rest)
    # The plain sum has the right sign of zero and the right infinity; where it is zero, it is exact.
    return np.where(np.isfinite(result) & (result != 0), result, a * b + c)


def _to_odd_single(values: Double) -> Double:
    """f64 values rounded to odd at the precision of f32."""
    nearest = np.atleast_1d(values).astype(np.float32)
    error = np.atleast_1d(values) - nearest.astype(np.float64)
    bits = nearest.view(np.int32)
    even = ((bits & 1) == 0) & (error != 0) & np.isfinite(error)
    away = (error > 0) == (nearest > 0)
    stepped = np.where(even, np.where(away, bits + 1, bits - 1), bits).astype(np.int32)
    return stepped.view(np.float32).astype(np.float64).reshape(values.shape)
