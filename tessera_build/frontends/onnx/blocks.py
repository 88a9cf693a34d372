"""Col2Im: blocks that overlap are added where they meet.

Takes columns, a block each; gives images. Where the block is known, every position in it is one window of the columns,
shifted, and an image of stride s is s by s of their sums, interleaved; else each element is put at a place that is
computed. Invariant: elements are added in the order of their positions in the block, so equal inputs give equal bits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.context import Context, Number, Tensor
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.frontends.onnx.windows import static_extent
from tessera_build.ir.core.dims import Extent, floordiv, symbols_of
from tessera_build.ir.core.types import I64
from tessera_build.ir.graph.ops.shapes import count

# Each position of a block, and each phase of its stride, is an operation of its own; beyond, places are computed.
MOST_OPERATIONS = 64


@dataclass(frozen=True, slots=True)
class Axis:
    """Blocks along one spatial axis of an image that is padded on both sides."""

    image: Extent
    block: Extent
    stride: int
    dilation: int
    low: int
    high: int
    counted: Extent | None = None

    @property
    def padded(self) -> Extent:
        """The image's extent with its padding."""
        return self.image + self.low + self.high

    @property
    def turns(self) -> Extent:
        """How many blocks there are."""
        if self.counted is not None:
            return self.counted
        return floordiv(self.padded - (self.block - 1) * self.dilation - 1, self.stride) + 1


def _col2im(c: Context, n: Call) -> Tensor:
    x, axes = n.input(0), _axes(c, n)
    if x.rank != 3:
        raise ill_formed("Col2Im takes columns", expected="rank 3", found=str(x.type))
    for axis in axes:
        c.require(axis.block, ">=", 1, "Col2Im's blocks are empty")
        c.require(axis.turns, ">=", 1, "a block of Col2Im does not fit its image")
    axes = [_counted(c, axis) for axis in axes]
    turns = tuple(a.turns for a in axes)
    size = count(tuple(a.block for a in axes))
    channels = _as_read(c, floordiv(x.shape[1], size))
    c.require(x.shape[1], "==", channels * size, "Col2Im's channels do not hold whole blocks")
    c.require(x.shape[2], "==", count(turns), "Col2Im's blocks do not cover its image")
    images = x.shape[0] * channels
    columns = c.reshape(c.retyped(x, (x.shape[0], channels * size, count(turns))), (images, size, *turns))
    if not _overlap(axes):
        whole = _side_by_side(c, columns, axes)
    else:
        few = isinstance(size, int) and max(size, math.prod(a.stride for a in axes)) <= MOST_OPERATIONS
        whole = _interleaved(c, columns, axes) if few else _scattered(c, columns, axes)
    starts, stops = (0, *(a.low for a in axes)), (images, *(a.low + a.image for a in axes))
    return c.reshape(c.slice(whole, starts, stops), (x.shape[0], channels, *(a.image for a in axes)))


def _axes(c: Context, n: Call) -> list[Axis]:
    image, block = c.extents_of(n.input(1)), [_positive(c, number) for number in c.numbers(n.input(2))]
    ones = (1,) * len(image)
    strides, dilations = n.integers("strides", ones), n.integers("dilations", ones)
    pads = n.integers("pads", (0,) * (2 * len(image)))
    if not len(image) == len(block) == len(strides) == len(dilations) or len(pads) != 2 * len(image):
        raise ill_formed("Col2Im's attributes do not fit its image", expected=f"{len(image)} axes")
    if min((*strides, *dilations), default=1) < 1 or min(pads, default=0) < 0 or not image:
        found = f"{strides}, {dilations}, {pads}"
        raise ill_formed("Col2Im's strides, dilations or pads are out of range", found=found)
    rows = zip(image, block, strides, dilations, pads[: len(image)], pads[len(image) :], strict=True)
    return [Axis(*row) for row in rows]


def _counted(c: Context, axis: Axis) -> Axis:
    """The axis with its number of blocks by itself, which is a size of its own where data decide it."""
    return replace(axis, counted=_as_read(c, axis.turns))


def _as_read(c: Context, extent: Extent) -> Extent:
    """An extent that is over sizes from data as one more of them: products of such sums have hundreds of terms."""
    if symbols_of(extent).isdisjoint(c.sizes):
        return extent
    number = c.number(extent, I64)
    return c.size(Tensor(number.type, c.value(number)))


def _positive(c: Context, number: Number) -> Extent:
    """A number as an extent that nothing is divided by in vain: one from data is read as what it has above 1."""
    return c.size(c.op("sub", number, c.scalar(1, I64))) + 1 if isinstance(number, Tensor) else number


def _overlap(axes: Sequence[Axis]) -> bool:
    """False where blocks lie side by side and fill the padded image."""
    return any(a.block != a.stride or a.dilation != 1 or a.turns * a.stride != a.padded for a in axes)


def _side_by_side(c: Context, columns: Tensor, axes: Sequence[Axis]) -> Tensor:
    """Nothing is added: turns and positions in the block alternate."""
    split = c.reshape(columns, (columns.shape[0], *(a.block for a in axes), *(a.turns for a in axes)))
    moved = c.transpose(split, (0, *(place for i in range(1, len(axes) + 1) for place in (len(axes) + i, i))))
    return c.reshape(moved, (columns.shape[0], *(a.padded for a in axes)))


def _interleaved(c: Context, columns: Tensor, axes: Sequence[Axis]) -> Tensor:
    """The image of every stride-th element, for each of the phases; then all of them side by side."""
    phases = [_phase(c, columns, axes, phase) for phase in itertools.product(*(range(a.stride) for a in axes))]
    whole = phases[0] if len(phases) == 1 else c.op("concat", *phases, axis=1)
    if len(phases) > 1:
        blocks, extents = tuple(a.stride for a in axes), tuple(a.padded for a in axes)
        whole = c.op("depth_to_space", whole, blocks=blocks, extents=extents)
    return c.reshape(whole, (columns.shape[0], *(a.padded for a in axes)))


def _phase(c: Context, columns: Tensor, axes: Sequence[Axis], phase: Sequence[int]) -> Tensor:
    """The sum of the windows that meet elements at `phase` of each stride."""
    spread = [floordiv(a.padded + (a.stride - 1), a.stride) for a in axes]
    total: Tensor | None = None
    for number, place in enumerate(itertools.product(*(range(static_extent(a.block)) for a in axes))):
        away = [position * a.dilation for position, a in zip(place, axes, strict=True)]
        if any(e % a.stride != p for e, a, p in zip(away, axes, phase, strict=True)):
            continue
        low = [e // a.stride for e, a in zip(away, axes, strict=True)]
        high = [whole - a.turns - e for whole, a, e in zip(spread, axes, low, strict=True)]
        zeros = (0,) * len(axes)
        one = c.slice(columns, (0, number, *zeros), (columns.shape[0], number + 1, *columns.shape[2:]))
        shifted = c.op("pad", one, low=(0, 0, *low), high=(0, 0, *high)) if any((*low, *high)) else one
        total = shifted if total is None else c.op("add", total, shifted)
    nothing = (columns.shape[0], 1, *spread)
    return c.broadcast_to(c.scalar(0, columns.dtype), nothing) if total is None else total


def _scattered(c: Context, columns: Tensor, axes: Sequence[Axis]) -> Tensor:
    """Every element is added at its place in the flat padded image."""
    images, flat = columns.shape[0], count(tuple(a.padded for a in axes))
    place = c.scalar(0, I64)
    for axis, a in enumerate(axes):
        pitch = count(tuple(b.padded for b in axes[axis + 1 :]))
        for at, extent, step in ((axis, a.block, a.dilation), (len(axes) + axis, a.turns, a.stride)):
            shape = tuple(extent if i == at else 1 for i in range(2 * len(axes)))
            index = c.op("iota", shape=shape, axis=at, dtype=I64)
            place = c.op("add", place, c.op("mul", index, c.number(pitch * step, I64)))
    size = count(columns.shape[1:])
    places = c.broadcast_to(c.reshape(place, (1, size)), (images, size))
    zeros = c.broadcast_to(c.scalar(0, columns.dtype), (images, flat))
    updates = c.reshape(columns, (images, size))
    put = c.op("scatter_elements", zeros, places, updates, axis=1, reduction="add")
    return c.reshape(put, (images, *(a.padded for a in axes)))


BLOCK_OPERATORS: Mapping[str, Translator] = {"Col2Im": _col2im}
