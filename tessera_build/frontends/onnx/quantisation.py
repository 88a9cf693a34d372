"""What quantised operators are made of: scales along axes, rounding and saturation, exact sums of products of bytes.

Takes tensors; gives core ops. Invariant: integers are exact; a value is divided by its scale, rounded to the nearest
whole number (ties to even), shifted by its zero point and saturated, in this order and in float32, as onnxruntime does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from tessera_build.frontends.onnx.call import Call
from tessera_build.frontends.onnx.casting import converted
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.windows import Axis, channel_shape, conv_windows, convolution
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import BOOL, F32, I8, I32, U8, DType

# Bytes and their zero point.
Pair = tuple[Tensor, Tensor | None]
_LARGEST_WINDOW = 1 << 24  # elements of a table that the importer makes
_TURN = 128  # between a signed byte and the unsigned one that products of bytes want


@dataclass(frozen=True, slots=True)
class Numbers:
    """How integers stand for numbers: (integer - zero) * scale. Both broadcast against the integers."""

    scale: Tensor
    zero: Tensor | None = None


def is_zero(zero: Tensor | None) -> bool:
    """Whether a zero point is known to be 0 everywhere."""
    return zero is None or (zero.content is not None and not np.any(zero.content.astype(np.float32)))


def spread(c: Context, parameter: Tensor, x: Tensor, axis: int, block: int = 0) -> Tensor:
    """A scale or zero point, one for the tensor, for each position on an axis or for each block along it, under x."""
    if parameter.shape in ((), (1,)):
        return c.reshape(parameter, ())
    if block:
        return _blocks(c, parameter, x, axis, block)
    if parameter.rank != 1:
        raise ill_formed("a scale is no scalar and no vector along an axis", found=str(parameter.type))
    extent = c.unify(parameter.shape[0], x.shape[axis], "there is not one scale for every position on the axis")
    return c.reshape(parameter, tuple(extent if i == axis else 1 for i in range(axis, x.rank)))


def _blocks(c: Context, parameter: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    extent, count = x.shape[axis], parameter.shape[axis] if parameter.rank == x.rank else 0
    if not isinstance(extent, int) or not isinstance(count, int):
        raise unsupported("blocks along a dynamic dim are not built", found=f"{x.type} in blocks of {block}")
    if count != -(-extent // block):
        raise ill_formed(
            "scales do not fit their blocks", expected=f"one a block of {block} of {x.type}", found=str(parameter.type)
        )
    before, after = parameter.shape[:axis], parameter.shape[axis + 1 :]
    column = c.reshape(parameter, (*before, count, 1, *after))
    whole = c.reshape(c.broadcast_to(column, (*before, count, block, *after)), (*before, count * block, *after))
    return c.slice(whole, (0,) * x.rank, (*before, extent, *after))


def quantised(c: Context, x: Tensor, numbers: Numbers, dtype: DType) -> Tensor:
    """x as integers of `dtype`; NaN becomes the smallest of them."""
    ratio = c.op("div", c.cast(x, F32), c.cast(numbers.scale, F32))
    return saturated(c, ratio, numbers.zero, dtype)


def saturated(c: Context, ratio: Tensor, zero: Tensor | None, dtype: DType) -> Tensor:
    """float32 numbers rounded, shifted by the zero point, and cut to the range of `dtype`."""
    if dtype.is_float:
        raise unsupported("this operator does not quantise to floats", found=str(dtype))
    low, high = limits(dtype)
    whole = c.op("round", ratio)
    if not is_zero(zero) and zero is not None:
        whole = c.op("add", whole, c.cast(c.cast(zero, I32), F32))
    least, most = c.scalar(low, F32), c.scalar(high, F32)
    # Comparisons in place of max and min: they send a NaN to the lowest integer.
    above = c.op("select", c.op("gt", whole, least), whole, least)
    inside = c.op("select", c.op("lt", above, most), above, most)
    return c.cast(c.cast(inside, I32), dtype)


def quantised_float(c: Context, x: Tensor, numbers: Numbers, dtype: DType, saturate: bool) -> Tensor:
    """x in a narrow float; ONNX wants a zero point of 0 there, and it is added like any other."""
    ratio = c.op("div", c.cast(x, F32), c.cast(numbers.scale, F32))
    if numbers.zero is not None and not is_zero(numbers.zero):
        ratio = c.op("add", ratio, c.cast(numbers.zero, F32))
    return converted(c, ratio, dtype, saturate)


def limits(dtype: DType) -> tuple[int, int]:
    """The smallest and the largest integer."""
    signed = dtype.kind == "signed"
    return -(1 << (dtype.bits - 1)) if signed else 0, (1 << (dtype.bits - signed)) - 1


def dequantised(c: Context, x: Tensor, numbers: Numbers, dtype: DType) -> Tensor:
    """(x - zero) * scale; the difference is exact."""
    return c.cast(c.op("mul", centred(c, x, numbers.zero), c.cast(numbers.scale, F32)), dtype)


def centred(c: Context, x: Tensor, zero: Tensor | None) -> Tensor:
    """x - zero in float32."""
    if x.dtype.is_float or is_zero(zero) or zero is None:
        return c.cast(x, F32)
    return c.cast(c.op("sub", c.cast(x, I32), c.cast(zero, I32)), F32)


def rescaled(c: Context, total: Tensor, factors: tuple[Tensor, Tensor], target: tuple[Numbers, DType]) -> Tensor:
    """Exact sums of products as integers again: times left scale * right scale / result's scale, as one number."""
    numbers, dtype = target
    factor = c.op("mul", c.cast(factors[0], F32), c.cast(factors[1], F32))
    factor = c.op("div", factor, c.cast(numbers.scale, F32))
    return saturated(c, c.op("mul", c.cast(total, F32), factor), numbers.zero, dtype)


# -- products ----------------------------------------------------------------------------------------------------------


def _unsigned(c: Context, x: Tensor, zero: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The same differences from the zero point with x as u8."""
    if x.dtype == U8:
        return x, None if zero is None else c.cast(zero, I32)
    return _turned(c, x, U8), _moved(c, zero, _TURN)


def _signed(c: Context, w: Tensor, zero: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The same differences from the zero point with w as i8."""
    if w.dtype == I8:
        return w, None if zero is None else c.cast(zero, I32)
    return _turned(c, w, I8), _moved(c, zero, -_TURN)


def _turned(c: Context, x: Tensor, dtype: DType) -> Tensor:
    """x + 128 or x - 128 in the other kind of byte: its top bit turned over."""
    if x.content is not None:
        moved = (x.content.astype(np.int16) + (_TURN if dtype == U8 else -_TURN)).astype(dtype.numpy)
        return c.constant(moved, x.name)
    return c.cast(c.op("add", c.cast(x, U8), c.scalar(_TURN, U8)), dtype)


def _moved(c: Context, zero: Tensor | None, by: int) -> Tensor:
    start = c.scalar(0, I32) if zero is None else c.cast(zero, I32)
    return c.op("add", start, c.scalar(by, I32))


def _sum(c: Context, x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Bytes added up in i32, with extent 1 left along the axes."""
    if x.content is not None:
        return c.constant(x.content.sum(axis=axes, keepdims=True, dtype=np.int32))
    return c.reduce("sum", c.cast(x, I32), axes, keepdims=True)


def _bytes_only(op: str, *operands: Tensor) -> None:
    if any(t.dtype not in (U8, I8) for t in operands):
        raise ill_formed(f"{op} multiplies bytes", expected="u8 or i8", found=", ".join(str(t.type) for t in operands))


def integer_matmul(
    c: Context, n: Call, left: tuple[Tensor, Tensor | None], right: tuple[Tensor, Tensor | None]
) -> Tensor:
    """The sum over k of (a - a_zero) * (b - b_zero) in i32, for matrices; a zero point may be one a row or a column.

    a * b - a_zero * sum(b) - b_zero * (sum(a) - k * a_zero), where the sums of constant weights are constants.
    """
    _bytes_only(n.op, left[0], right[0])
    a, a_zero = _unsigned(c, *left)
    b, b_zero = _signed(c, *right)
    k = c.unify(a.shape[-1], b.shape[-2], "the contracted extents of a matrix product differ")
    terms: list[Tensor] = []
    if a_zero is not None and not is_zero(a_zero):
        terms.append(c.op("mul", _column(c, a_zero), _sum(c, b, (b.rank - 2,))))
    if b_zero is not None and not is_zero(b_zero):
        rows = _sum(c, a, (a.rank - 1,))
        if a_zero is not None:
            rows = c.op("sub", rows, c.op("mul", _column(c, a_zero), c.number(k, I32)))
        terms.append(c.op("mul", rows, b_zero))
    batch = c.broadcast_shape([a.shape[:-2], b.shape[:-2]])
    a = c.fitted(a, (*batch, a.shape[-2], k))
    b = c.fitted(b, (*batch, k, b.shape[-1]))
    total = c.op("matmul", a, b)
    for term in terms:
        total = c.op("sub", total, term)
    return total


def _column(c: Context, zero: Tensor) -> Tensor:
    """A zero point for each row stands in a column."""
    return (
        c.reshape(zero, ())
        if zero.shape in ((), (1,))
        else c.reshape(zero, (*zero.shape, 1))
        if zero.rank == 1
        else zero
    )


def integer_conv(
    c: Context, n: Call, left: tuple[Tensor, Tensor | None], right: tuple[Tensor, Tensor | None]
) -> Tensor:
    """The sum under a window of (x - x_zero) * (w - w_zero) in i32; what is padded counts as x_zero."""
    _bytes_only(n.op, left[0], right[0])
    x, x_zero = _unsigned(c, *left)
    w, w_zero = _signed(c, *right)
    axes = conv_windows(c, n, x, w)
    x_zero = None if x_zero is None or is_zero(x_zero) else c.reshape(x_zero, ())
    if x_zero is not None and any(a.low != 0 or a.high != 0 for a in axes):
        low, high = (0, 0, *(a.low for a in axes)), (0, 0, *(a.high for a in axes))
        x = _bordered(c, x, x_zero, (low, high))
        axes = [replace(a, extent=a.extent + a.low + a.high, low=0, high=0, counted=0) for a in axes]
    terms: list[Tensor] = []
    if x_zero is not None:
        sums = _sum(c, w, tuple(range(1, w.rank)))
        terms.append(c.op("mul", x_zero, c.reshape(sums, (w.shape[0], *(1,) * len(axes)))))
    if w_zero is not None and not is_zero(w_zero):
        under = _under_windows(c, n, x, (w, axes))
        taps: Extent = math.prod(e for e in w.shape[1:] if isinstance(e, int))
        if x_zero is not None:
            under = c.op("sub", under, c.op("mul", x_zero, c.number(taps, I32)))
        per_channel = w_zero if w_zero.rank == 0 else c.reshape(w_zero, channel_shape(w_zero, axes))
        terms.append(c.op("mul", under, per_channel))
    total = convolution(c, n, x, w, axes)
    for term in terms:
        total = c.op("sub", total, term)
    return total


def _bordered(c: Context, x: Tensor, zero: Tensor, edges: tuple[tuple[Extent, ...], tuple[Extent, ...]]) -> Tensor:
    """x with a border that holds its zero point; one that is data is chosen element by element."""
    low, high = edges
    if zero.content is not None:
        return c.op("pad", x, low=low, high=high, value=float(zero.content.reshape(())))
    padded = c.op("pad", x, low=low, high=high, value=0.0)
    inside = c.op("pad", c.broadcast_to(c.scalar(1, BOOL), x.shape), low=low, high=high, value=0.0)
    return c.op("select", inside, padded, c.broadcast_to(c.cast(zero, U8), padded.shape))


def _under_windows(c: Context, n: Call, x: Tensor, window: tuple[Tensor, list[Axis]]) -> Tensor:
    """The sum of x under each window, for every output channel."""
    w, axes = window
    groups, outputs = n.integer("group", 1), w.shape[0]
    kernel = tuple(e for e in w.shape[1:] if isinstance(e, int))
    if groups * math.prod(kernel) > _LARGEST_WINDOW:
        raise unsupported(f"an integer convolution with windows of {math.prod(kernel)} elements")
    ones = c.constant(np.ones((groups, *kernel), np.int8))
    sums = convolution(c, n, x, ones, axes)
    if groups == 1 or outputs == groups:
        return sums
    each, (batch, _, *spatial) = outputs // groups, sums.shape
    wide = c.broadcast_to(c.reshape(sums, (batch, groups, 1, *spatial)), (batch, groups, each, *spatial))
    return c.reshape(wide, (batch, outputs, *spatial))
