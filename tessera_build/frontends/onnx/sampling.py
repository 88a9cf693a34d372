"""Reading images at places that are data: weighted sums of elements around each place.

Takes an image with its channels on axis 1 and coordinates; gives tensors with the channels last. Invariant: no index
leaves the image, whatever the coordinates are; what padding calls zero gets the weight 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.taps import keys
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import F32, I64
from tessera_build.ir.graph.ops.shapes import count

# Coordinates beyond this are as good as this one; far from where 64-bit indices or whole float32 numbers end.
FAR = float(2**23)


@dataclass(frozen=True, slots=True)
class Tap:
    """One element along an axis: its index inside the image, and its weight."""

    index: Tensor
    weight: Tensor


@dataclass(frozen=True, slots=True)
class Beyond:
    """What stands outside an image: `zeros`, its `border`, or its `reflection` about corners or their centres."""

    padding: str
    corners: bool = False


def rows_of(c: Context, x: Tensor) -> Tensor:
    """An image [N, C, *S] as rows of channels, one for each pixel."""
    moved = c.transpose(x, (0, *range(2, x.rank), 1))
    return c.reshape(moved, (count(moved.shape[:-1]), moved.shape[-1]))


def steps_of(c: Context, shape: Sequence[Extent], axis: int) -> Tensor:
    """The index along one axis, with the other axes left at 1."""
    own = tuple(e if i == axis else 1 for i, e in enumerate(shape))
    return c.op("iota", shape=own, axis=axis, dtype=I64)


def sample(c: Context, rows: Tensor, first: Tensor, axes: Sequence[tuple[Extent, Sequence[Tap]]]) -> Tensor:
    """The weighted sum of all combinations of taps; `first` is the number of each image, `axes` extents and taps."""
    total: Tensor | None = None
    for taps in itertools.product(*(found for _, found in axes)):
        index, weight = first, taps[0].weight
        for (extent, _), tap in zip(axes, taps, strict=True):
            index = c.op("add", c.op("mul", index, c.number(extent, I64)), tap.index)
        for tap in taps[1:]:
            weight = c.op("mul", weight, tap.weight)
        shape = c.broadcast_shape([index.shape, weight.shape])
        picked = c.op("gather", rows, c.broadcast_to(index, shape), axis=0)
        term = c.op("mul", picked, c.reshape(c.cast(weight, rows.dtype), (*weight.shape, 1)))
        total = term if total is None else c.op("add", total, term)
    assert total is not None
    return total


def _near(c: Context, place: Tensor) -> Tensor:
    return c.op("max", c.op("min", place, c.scalar(FAR, place.dtype)), c.scalar(-FAR, place.dtype))


def nearest_tap(c: Context, place: Tensor, extent: Extent, beyond: Beyond) -> list[Tap]:
    """The element nearest to each place; halves go to even indices."""
    return [_tap(c, c.cast(c.op("round", _near(c, place)), I64), c.scalar(1.0, F32), extent, beyond)]


def linear_taps(c: Context, place: Tensor, extent: Extent, beyond: Beyond) -> list[Tap]:
    """The elements before and after each place."""
    place = _near(c, place)
    low = c.op("floor", place)
    over = c.op("sub", place, low)
    below = c.op("sub", c.scalar(1.0, over.dtype), over)
    first = c.cast(low, I64)
    after = c.op("add", first, c.scalar(1, I64))
    return [_tap(c, first, below, extent, beyond), _tap(c, after, over, extent, beyond)]


def cubic_taps(c: Context, place: Tensor, extent: Extent, beyond: Beyond) -> list[Tap]:
    """Two elements before and two after each place, by Keys' cubic with a = -0.75."""
    place = _near(c, place)
    low = c.op("floor", place)
    over = c.op("sub", place, low)
    first = c.cast(low, I64)
    one, two = c.scalar(1.0, F32), c.scalar(2.0, F32)
    distances = [c.op("add", over, one), over, c.op("sub", one, over), c.op("sub", two, over)]
    weights = [keys(c, d, -0.75, near=i in (1, 2)) for i, d in enumerate(distances)]
    return [
        _tap(c, c.op("add", first, c.scalar(i - 1, I64)), weight, extent, beyond) for i, weight in enumerate(weights)
    ]


def _tap(c: Context, index: Tensor, weight: Tensor, extent: Extent, beyond: Beyond) -> Tap:
    if beyond.padding == "zeros":
        inside = c.op("and", c.op("ge", index, c.scalar(0, I64)), c.op("lt", index, c.number(extent, I64)))
        weight = c.op("select", inside, weight, c.scalar(0.0, weight.dtype))
    if beyond.padding == "reflection":
        index = _reflected(c, index, extent, beyond.corners)
    last = c.number(extent - 1, I64)
    return Tap(c.op("max", c.op("min", index, last), c.scalar(0, I64)), weight)


def _reflected(c: Context, index: Tensor, extent: Extent, corners: bool) -> Tensor:
    """About the centres of the first and last elements, or about their outer edges."""
    around = (extent - 1) * 2 if corners else extent * 2
    period = c.op("max", c.number(around, I64), c.scalar(1, I64))
    there = c.op("mod", index, period)
    back = c.op("sub", c.op("sub", period, there), c.scalar(0 if corners else 1, I64))
    return c.op("min", there, back)
