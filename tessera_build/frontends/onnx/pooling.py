"""Pools: maxima with or without their places, averages that do or don't count padding, norms, and MaxUnpool.

Takes a tensor with its channels on axis 1; gives core ops over the windows of `windows.py`. Invariant: padding never
wins a maximum and never adds to an average that does not count it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.order import Ranges, larger, smaller
from tessera_build.frontends.onnx.windows import Axis, pool_windows, static_extent, static_padding
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import I32, I64
from tessera_build.ir.graph.ops.reduction import identity
from tessera_build.ir.graph.ops.shapes import count

_LARGEST_TABLE = 1 << 24  # elements that are counted one by one at build time

# Each element of a window is compared by an operation of its own.
MOST_TAPS = 1024


def _pool(c: Context, kind: str, x: Tensor, axes: list[Axis]) -> Tensor:
    """`reduce_window` over the spatial axes."""
    return c.op(
        "reduce_window",
        x,
        kind=kind,
        window=(1, 1, *(a.size for a in axes)),
        strides=(1, 1, *(a.stride for a in axes)),
        low=(0, 0, *(static_extent(a.low) for a in axes)),
        high=(0, 0, *(static_extent(a.high) for a in axes)),
        dilations=(1, 1, *(a.dilation for a in axes)),
    )


def _max_pool(c: Context, n: Call) -> Tensor | tuple[Tensor, Tensor]:
    x = n.input(0)
    by_column, kind = bool(n.integer("storage_order", 0)), x.dtype
    if n.wants(1) and not kind.is_float:
        # Padding is the least number of its type: only in a wider one does it never equal an element.
        x = c.cast(x, I32)
    axes = pool_windows(c, n, x)
    padded, static = static_padding(c, x, axes, float(identity("max", x.dtype)))
    best = _pool(c, "max", padded, static)
    if not n.wants(1):
        return best
    return c.cast(best, kind), _places(c, (padded, best), (axes, static), by_column)


def _places(
    c: Context, tensors: tuple[Tensor, Tensor], windows: tuple[list[Axis], list[Axis]], by_column: bool
) -> Tensor:
    """Where in the whole operand each window's first maximum stands; `tensors`: what is pooled, and the maxima."""
    padded, best = tensors
    axes, static = windows
    if math.prod(a.size for a in axes) > MOST_TAPS:
        raise unsupported(f"places of maxima in windows of more than {MOST_TAPS} elements")
    low, high = ((0, 0, *(getattr(a, name) for a in static)) for name in ("low", "high"))
    if any((*low, *high)):
        padded = c.op("pad", padded, low=low, high=high, value=float(identity("max", best.dtype)))
    pitches = _pitches([a.extent for a in axes], by_column)
    found: Tensor | None = None
    # From the last tap to the first: of equal maxima, the first is written last.
    for tap in itertools.product(*(range(a.size - 1, -1, -1) for a in static)):
        distance: Extent = 0
        for step, axis, pitch in zip(tap, static, pitches, strict=True):
            distance = distance + pitch * (step * axis.dilation)
        place = c.number(distance, I64)
        same = c.op("eq", _tap(c, padded, static, tap), best)
        found = c.broadcast_to(place, best.shape) if found is None else c.op("select", same, place, found)
    assert found is not None
    return c.op("add", found, _corners(c, best, axes, pitches))


def _tap(c: Context, padded: Tensor, axes: Sequence[Axis], tap: Sequence[int]) -> Tensor:
    """The element that one position of the window meets, for every window."""
    first = [step * axis.dilation for step, axis in zip(tap, axes, strict=True)]
    stops = [start + (axis.positions - 1) * axis.stride + 1 for start, axis in zip(first, axes, strict=True)]
    return c.slice(padded, (0, 0, *first), (*padded.shape[:2], *stops), (1, 1, *(a.stride for a in axes)))


def _pitches(extents: Sequence[Extent], by_column: bool) -> list[Extent]:
    """How far neighbours along each spatial axis are apart in the flat image."""
    if by_column:
        return [count(tuple(extents[:i])) for i in range(len(extents))]
    return [count(tuple(extents[i + 1 :])) for i in range(len(extents))]


def _corners(c: Context, best: Tensor, axes: Sequence[Axis], pitches: Sequence[Extent]) -> Tensor:
    """Where in the whole operand each window begins."""
    image = count(tuple(a.extent for a in axes))
    steps = [best.shape[1] * image, image, *(p * a.stride for p, a in zip(pitches, axes, strict=True))]
    total = c.scalar(0, I64)
    for axis, step in enumerate(steps):
        shape = tuple(e if i == axis else 1 for i, e in enumerate(best.shape))
        index = c.op("iota", shape=shape, axis=axis, dtype=I64)
        total = c.op("add", total, c.op("mul", index, c.number(step, I64)))
    before: Extent = 0
    for axis, pitch in zip(axes, pitches, strict=True):
        before = before + axis.low * pitch
    return c.op("sub", total, c.number(before, I64))


def _max_unpool(c: Context, n: Call) -> Tensor:
    """Every element goes back to its place in a tensor of zeros; a stated shape adds zeros behind it."""
    x, places, stated = n.input(0), n.input(1), n.optional(2)
    kernel = n.integers("kernel_shape")
    ones, count_of = (1,) * len(kernel), len(kernel)
    strides, pads = n.integers("strides", ones), n.integers("pads", (0,) * (2 * count_of))
    if x.rank != count_of + 2 or len(strides) != count_of or len(pads) != 2 * count_of:
        raise ill_formed("MaxUnpool's kernel does not fit its operand", found=f"{kernel} over {x.type}")
    if places.rank != x.rank:
        raise ill_formed("MaxUnpool has not a place for each element", found=f"{places.type} for {x.type}")
    for axis, (own, wanted) in enumerate(zip(places.shape, x.shape, strict=True)):
        c.unify(own, wanted, f"MaxUnpool's places differ from its operand at axis {axis}")
    rows = zip(x.shape[2:], kernel, strides, pads[:count_of], pads[count_of:], strict=True)
    shape = (*x.shape[:2], *((extent - 1) * s + k - low - high for extent, k, s, low, high in rows))
    zeros = c.broadcast_to(c.scalar(0, x.dtype), (count(shape),))
    flat = (count(x.shape),)
    values = c.reshape(x, flat), c.reshape(c.retyped(places, x.shape), flat)
    filled = c.reshape(c.op("scatter_elements", zeros, values[1], values[0], axis=0, reduction="none"), shape)
    if stated is None:
        return filled
    wanted = c.known_extents(stated, "the shape of MaxUnpool's result")
    more = tuple(larger(w - e, 0, c.ranges) for w, e in zip(wanted, shape, strict=True))
    if any(w - e != m for w, e, m in zip(wanted, shape, more, strict=True)):
        raise unsupported("MaxUnpool to a smaller shape than its windows cover", found=str([str(w) for w in wanted]))
    return c.op("pad", filled, low=(0,) * x.rank, high=more) if any(m != 0 for m in more) else filled


def _lp_pool(c: Context, n: Call) -> Tensor:
    x, power = n.input(0), n.integer("p", 2)
    axes = pool_windows(c, n, x)
    padded, static = static_padding(c, x, axes, 0.0)
    return _root(c, _pool(c, "sum", _powers(c, padded, power), static), power)


def _powers(c: Context, x: Tensor, power: int) -> Tensor:
    """|x| to a power."""
    if power == 2:
        return c.op("mul", x, x)
    size = c.op("abs", x)
    return size if power == 1 else c.op("pow", size, c.scalar(power, x.dtype))


def _root(c: Context, x: Tensor, power: int) -> Tensor:
    if power == 2:
        return c.op("sqrt", x)
    return x if power == 1 else c.op("pow", x, c.scalar(1.0 / power, x.dtype))


def _average_pool(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    include = bool(n.integer("count_include_pad", 0))
    axes = pool_windows(c, n, x)
    padded, static = static_padding(c, x, axes, 0.0)
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
    ones, static = static_padding(c, ones, counted, 0.0)
    return _pool(c, "sum", ones, static)


def _with_padding(a: Axis, ranges: Ranges) -> Axis:
    """The window over an input that the stated padding belongs to, as far as windows reach into it."""
    reached = smaller(a.high, a.counted, ranges)
    return replace(a, extent=a.extent + a.low + reached, low=0, high=larger(a.high - a.counted, 0, ranges))


def _counts(axis: Axis) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if axis.size * static_extent(axis.positions) > _LARGEST_TABLE:
        raise unsupported(f"{axis.positions} windows of {axis.size} elements that reach into their padding")
    taps = np.arange(axis.size) * axis.dilation - static_extent(axis.low)
    starts = np.arange(static_extent(axis.positions)) * axis.stride
    where = starts[:, None] + taps[None, :]
    return np.sum((where >= 0) & (where < static_extent(axis.extent)), axis=1).astype(np.float64)


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


def _global_norm(c: Context, n: Call) -> Tensor:
    power = n.integer("p", 2)

    def norm(c: Context, x: Tensor, axes: range) -> Tensor:
        return _root(c, c.reduce("sum", _powers(c, x, power), axes, keepdims=True), power)

    result = _global(norm)(c, n)
    assert isinstance(result, Tensor)
    return result


POOLING_OPERATORS: Mapping[str, Translator] = {
    "MaxPool": _max_pool,
    "MaxUnpool": _max_unpool,
    "AveragePool": _average_pool,
    "LpPool": _lp_pool,
    "GlobalAveragePool": _global(_global_mean),
    "GlobalMaxPool": _global(_global_max),
    "GlobalLpPool": _global_norm,
}
