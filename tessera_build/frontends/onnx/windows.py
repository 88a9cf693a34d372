"""Convolution and pooling: padding in all its spellings, ceil mode, averages that do or don't count padding.

Takes a tensor with its channels on axis 1; gives core ops. Invariant: the ops' own padding is static; padding that
depends on a dynamic dim becomes a `pad` in front, so windows keep integer attributes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.order import Ranges, larger, smaller
from tessera_build.ir.core.dims import Extent, floordiv
from tessera_build.ir.graph.ops.reduction import identity


@dataclass(frozen=True, slots=True)
class Axis:
    """A window along one spatial axis. `low` and `high` are all padding; `counted` is what the model stated of high."""

    extent: Extent
    size: int
    stride: int
    dilation: int
    low: Extent = 0
    high: Extent = 0
    counted: Extent = 0

    @property
    def span(self) -> int:
        """Elements from the window's first to its last tap."""
        return (self.size - 1) * self.dilation + 1

    @property
    def positions(self) -> Extent:
        """How often the window fits into the padded axis."""
        return floordiv(self.extent + self.low + self.high - self.span, self.stride) + 1


def _axes(n: Call, x: Tensor, kernel: Sequence[int]) -> list[Axis]:
    """The windows as the node states them, before `auto_pad` and `ceil_mode`."""
    ones = (1,) * len(kernel)
    if len(kernel) != x.rank - 2:
        raise ill_formed("the kernel does not fit the operand", expected=f"{x.rank - 2} axes", found=str(kernel))
    strides, dilations = n.integers("strides", ones), n.integers("dilations", ones)
    pads = n.integers("pads", (0,) * (2 * len(kernel)))
    if not len(strides) == len(dilations) == len(kernel) or len(pads) != 2 * len(kernel):
        raise ill_formed("strides, dilations and pads do not fit the kernel", expected=f"{len(kernel)} axes")
    lows, highs = pads[: len(kernel)], pads[len(kernel) :]
    rows = zip(x.shape[2:], kernel, strides, dilations, lows, highs, highs, strict=True)
    return [Axis(*row) for row in rows]


def _padded(c: Context, n: Call, axes: list[Axis]) -> list[Axis]:
    """The windows with `auto_pad` resolved."""
    mode = n.text("auto_pad", "NOTSET") or "NOTSET"
    if mode == "VALID":
        return [replace(a, low=0, high=0, counted=0) for a in axes]
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        return [_same(c, a, upper=mode == "SAME_UPPER") for a in axes]
    if mode != "NOTSET":
        raise ill_formed("auto_pad is unknown", expected="NOTSET, VALID, SAME_UPPER or SAME_LOWER", found=mode)
    return axes


def _same(c: Context, axis: Axis, upper: bool) -> Axis:
    """Padding that gives ceil(extent / stride) positions; the odd element goes to the end, or to the beginning."""
    positions = floordiv(axis.extent + (axis.stride - 1), axis.stride)
    total = larger((positions - 1) * axis.stride + axis.span - axis.extent, 0, c.ranges)
    less = floordiv(total, 2)
    low, high = (less, total - less) if upper else (total - less, less)
    return replace(axis, low=low, high=high, counted=high)


def _ceiled(c: Context, axis: Axis) -> Axis:
    """Extra padding at the end so that a last, partial window counts if it starts inside the input or low padding."""
    room = axis.extent + axis.low + axis.high - axis.span
    if not isinstance(room, int) and isinstance(axis.high, int) and axis.stride - 1 + axis.high < axis.span:
        # Here no window can start beyond the input, and stride - 1 more elements round the division up.
        return replace(axis, high=axis.high + axis.stride - 1)
    rounded = floordiv(room + (axis.stride - 1), axis.stride) + 1
    inside = floordiv(axis.extent + axis.low - 1, axis.stride) + 1
    last = (smaller(rounded, inside, c.ranges) - 1) * axis.stride
    return replace(axis, high=larger(last + axis.span - axis.extent - axis.low, 0, c.ranges))


def _static_padding(c: Context, x: Tensor, axes: list[Axis], value: float) -> tuple[Tensor, list[Axis]]:
    """Move symbolic padding out of the windows into a `pad` of the operand."""
    for axis in axes:
        c.require(axis.positions, ">=", 1, "a window does not fit its padded operand")
    if all(isinstance(a.low, int) and isinstance(a.high, int) for a in axes):
        return x, axes
    low, high = (0, 0, *(a.low for a in axes)), (0, 0, *(a.high for a in axes))
    moved = [replace(a, extent=a.extent + a.low + a.high, low=0, high=0, counted=0) for a in axes]
    return c.op("pad", x, low=low, high=high, value=value), moved


def _number(extent: Extent) -> int:
    assert isinstance(extent, int)
    return extent


def _pool(c: Context, kind: str, x: Tensor, axes: list[Axis]) -> Tensor:
    """`reduce_window` over the spatial axes."""
    return c.op(
        "reduce_window",
        x,
        kind=kind,
        window=(1, 1, *(a.size for a in axes)),
        strides=(1, 1, *(a.stride for a in axes)),
        low=(0, 0, *(_number(a.low) for a in axes)),
        high=(0, 0, *(_number(a.high) for a in axes)),
        dilations=(1, 1, *(a.dilation for a in axes)),
    )


def conv_windows(c: Context, n: Call, x: Tensor, w: Tensor) -> list[Axis]:
    """The windows of a convolution's node, padding resolved."""
    if n.has("kernel_shape"):
        for stated, extent in zip(n.integers("kernel_shape"), w.shape[2:], strict=False):
            c.unify(stated, extent, "kernel_shape differs from the weights")
    kernel = tuple(e for e in w.shape if isinstance(e, int))[2:]
    if len(kernel) != w.rank - 2:
        raise unsupported("Conv's weights have dynamic dims", found=str(w.type), hint="make the weights constants")
    return _padded(c, n, _axes(n, x, kernel))


def convolution(c: Context, n: Call, x: Tensor, w: Tensor, axes: list[Axis]) -> Tensor:
    """The sums of products under windows that are padded with zeros."""
    x, axes = _static_padding(c, x, axes, 0.0)
    groups = n.integer("group", 1)
    per_group = w.shape[1]
    c.unify(x.shape[1], per_group * groups, "Conv's channels do not fit its weights")
    return c.op(
        "conv",
        x,
        w,
        strides=tuple(a.stride for a in axes),
        low=tuple(_number(a.low) for a in axes),
        high=tuple(_number(a.high) for a in axes),
        dilations=tuple(a.dilation for a in axes),
        groups=groups,
    )


def channel_shape(bias: Tensor, axes: Sequence[Axis]) -> tuple[Extent, ...]:
    """The shape in which one number a channel meets a convolution's result."""
    return (*bias.shape, *(1,) * len(axes))


def _conv(c: Context, n: Call) -> Tensor:
    x, w, bias = n.input(0), n.input(1), n.optional(2)
    axes = conv_windows(c, n, x, w)
    result = convolution(c, n, x, w, axes)
    return result if bias is None else c.op("add", result, c.reshape(bias, channel_shape(bias, axes)))


def _windows(c: Context, n: Call, x: Tensor) -> list[Axis]:
    axes = _padded(c, n, _axes(n, x, n.integers("kernel_shape")))
    return [_ceiled(c, a) for a in axes] if n.integer("ceil_mode", 0) else axes


def _max_pool(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    n.ignore("storage_order")
    if n.wants(1):
        raise unsupported("MaxPool with indices is not built")
    axes = _windows(c, n, x)
    x, axes = _static_padding(c, x, axes, float(identity("max", x.dtype)))
    return _pool(c, "max", x, axes)


def _average_pool(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    include = bool(n.integer("count_include_pad", 0))
    axes = _windows(c, n, x)
    padded, static = _static_padding(c, x, axes, 0.0)
    total = _pool(c, "sum", padded, static)
    window = math.prod(a.size for a in axes)
    if all(a.high == a.counted if include else a.low == 0 and a.high == 0 for a in axes):
        return c.op("mul", total, c.scalar(1.0 / window, x.dtype)) if window > 1 else total
    return c.op("div", total, _divisor(c, x, axes, include))


def _divisor(c: Context, x: Tensor, axes: list[Axis], include: bool) -> Tensor:
    """How many elements each window averages: those of the input, and of the stated padding if that counts."""
    counted = [_with_padding(a, c.ranges) for a in axes] if include else axes
    if all(isinstance(e, int) for a in counted for e in (a.extent, a.low, a.high)):
        counts = [_counts(a) for a in counted]
        shaped = [v.reshape([-1 if i == j else 1 for j in range(len(counts))]) for i, v in enumerate(counts)]
        product = math.prod(shaped[1:], start=shaped[0])
        return c.constant(product.reshape(1, 1, *product.shape).astype(x.dtype.numpy))
    ones = c.broadcast_to(c.scalar(1, x.dtype), (1, 1, *(a.extent for a in counted)))
    ones, static = _static_padding(c, ones, counted, 0.0)
    return _pool(c, "sum", ones, static)


def _with_padding(a: Axis, ranges: Ranges) -> Axis:
    """The window over an input that the stated padding belongs to, as far as windows reach into it."""
    reached = smaller(a.high, a.counted, ranges)
    return replace(a, extent=a.extent + a.low + reached, low=0, high=larger(a.high - a.counted, 0, ranges))


def _counts(axis: Axis) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    taps = np.arange(axis.size) * axis.dilation - _number(axis.low)
    starts = np.arange(_number(axis.positions)) * axis.stride
    where = starts[:, None] + taps[None, :]
    return np.sum((where >= 0) & (where < _number(axis.extent)), axis=1).astype(np.float64)


def _global(body: Callable[[Context, Tensor, range], Tensor]) -> Translator:
    def translate(c: Context, n: Call) -> Tensor:
        x = n.input(0)
        if x.rank < 3:
            raise ill_formed(f"{n.op} has no spatial axes to pool", expected="rank 3 or more", found=str(x.type))
        return body(c, x, range(2, x.rank))

    return translate


def _global_mean(c: Context, x: Tensor, axes: range) -> Tensor:
    return c.mean(x, axes, keepdims=True)


def _global_max(c: Context, x: Tensor, axes: range) -> Tensor:
    return c.reduce("max", x, axes, keepdims=True)


WINDOW_OPERATORS: Mapping[str, Translator] = {
    "Conv": _conv,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global(_global_mean),
    "GlobalMaxPool": _global(_global_max),
}
