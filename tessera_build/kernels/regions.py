"""Regions of images as equal numbers of bins: averages or maxima of samples between pixels, and maxima of pixels.

Takes images with their channels last, and for every region its image and where its bins lie; gives out[R, PH, PW, C].
Invariant: how many samples or pixels a bin has is data, and nothing is kept for them: each is read where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass

from tessera.kernel import kernel
from tessera.tile import LOWEST, Carry, TileBuilder
from tessera.values import Buffer, Tile
from tessera_build.ir.core.dims import Extent, floordiv, minimum, mod
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import I64
from tessera_build.kernels.scatter import row_width
from tessera_build.kernels.subject import KernelSubject

# Samples along one axis of a bin; a region so large ends the run with a status instead of going on for years.
MOST_SAMPLES = 1 << 16


def sample_regions(subject: KernelSubject) -> Function:
    """out[r, i, j] = the average or maximum over counts[r] samples of bin (i, j), each read between four pixels."""
    regions, down, across, channels = subject.results[0].shape
    width, average = row_width(channels, subject.lanes), subject.word("kind") == "avg"
    names = ("x", "images", "starts", "sizes", "counts")
    operands = {name: subject.buffer(position) for position, name in enumerate(names)}

    @kernel(**operands, out=subject.target(0))
    def sample_regions(tile: TileBuilder, images: Buffer, out: Buffer, **given: Buffer) -> None:
        x = given["x"]
        for line in tile.range(regions * down):
            r, i = floordiv(line, down), mod(line, down)
            image = tile.index(tile.cast(tile.element(images, r), I64), x.shape[0])
            axes = [_Axis(tile, given, r, axis) for axis in (0, 1)]
            for j in tile.range(across):
                for c in tile.range(channels, width):
                    state = Carry(total=tile.full((width,), 0.0 if average else float("-inf"), x.dtype))
                    for step in tile.range(axes[0].samples, carry=state):
                        above, below = axes[0].sample(i, step)
                        for other in tile.range(axes[1].samples, carry=state):
                            left, right = axes[1].sample(j, other)
                            parts = [
                                tile.load(x[image, row.index, column.index, c : c + width])
                                * (row.weight * column.weight)
                                for row in (above, below)
                                for column in (left, right)
                            ]
                            state.total = _joined(tile, state.total, parts, average=average)
                    tile.store(out[r, i, j, c : c + width], _finished(tile, state.total, axes, average=average))

    return sample_regions


def max_regions(subject: KernelSubject) -> Function:
    """out[r, i, j] = the maximum over rows[r, i] (first, behind the last) and columns[r, j] of image images[r]."""
    regions, down, across, channels = subject.results[0].shape
    width = row_width(channels, subject.lanes)
    names = ("x", "images", "rows", "columns")
    operands = {name: subject.buffer(position) for position, name in enumerate(names)}

    @kernel(**operands, out=subject.target(0))
    def max_regions(tile: TileBuilder, x: Buffer, images: Buffer, out: Buffer, **given: Buffer) -> None:
        for line in tile.range(regions * down):
            r, i = floordiv(line, down), mod(line, down)
            image = tile.index(tile.cast(tile.element(images, r), I64), x.shape[0])
            top, height = _span(tile, given["rows"], (r, i), x.shape[1])
            for j in tile.range(across):
                left, length = _span(tile, given["columns"], (r, j), x.shape[2])
                for c in tile.range(channels, width):
                    state = Carry(best=tile.full((width,), LOWEST, x.dtype))
                    for step in tile.range(height, carry=state):
                        row = tile.index(tile.number(top + step), x.shape[1])
                        for other in tile.range(length, carry=state):
                            column = tile.index(tile.number(left + other), x.shape[2])
                            found = tile.load(x[image, row, column, c : c + width])
                            state.best = tile.where(found > state.best, found, state.best)
                    area = tile.number(height * length)
                    empty = tile.full((width,), 0.0, x.dtype)
                    tile.store(out[r, i, j, c : c + width], tile.where(area > 0, state.best, empty))

    return max_regions


def _span(tile: TileBuilder, ends: Buffer, at: tuple[Extent, Extent], extent: Extent) -> tuple[Extent, Extent]:
    """The first place and how many there are."""
    first, stop = (tile.index(tile.element(ends, *at, k), extent + 1) for k in (0, 1))
    return first, tile.index(tile.map("max", tile.number(stop - first), tile.constant(0, I64)), extent + 1)


@dataclass(frozen=True, slots=True)
class _Tap:
    index: Extent
    weight: Tile


class _Axis:
    """One axis of a region: how many samples a bin has, and where they lie."""

    def __init__(self, tile: TileBuilder, given: dict[str, Buffer], region: Extent, axis: int) -> None:
        image = given["x"]
        self.tile, self.extent, self.dtype = tile, image.shape[1 + axis], image.dtype
        self.start, self.size = (tile.element(given[name], region, axis) for name in ("starts", "sizes"))
        self.samples = tile.index(tile.element(given["counts"], region, axis), MOST_SAMPLES)
        self.number = tile.cast(tile.number(self.samples), self.dtype)

    def sample(self, part: Extent, step: Extent) -> tuple[_Tap, _Tap]:
        """The pixels before and after a sample; more than one pixel outside the image it counts for nothing."""
        tile = self.tile
        begin = self.start + self._float(part) * self.size
        place = begin + (self._float(step) + 0.5) * self.size / self.number
        last = self._float(self.extent - 1)
        near = tile.map("min", tile.map("max", place, tile.constant(0.0, self.dtype)), last)
        low = tile.map("floor", near)
        over = near - low
        away = tile.map("or", place < -1.0, place > self._float(self.extent))
        nothing = tile.constant(0.0, self.dtype)
        first = tile.index(tile.cast(low, I64), self.extent)
        weights = [tile.where(away, nothing, weight) for weight in (1.0 - over, over)]
        return _Tap(first, weights[0]), _Tap(minimum(first + 1, self.extent - 1), weights[1])

    def _float(self, value: Extent) -> Tile:
        return self.tile.cast(self.tile.number(value), self.dtype)


def _joined(tile: TileBuilder, total: Tile, parts: list[Tile], *, average: bool) -> Tile:
    """The four weighted pixels of a sample, then the total with them."""
    for_all = "add" if average else "max"
    found = parts[0]
    for part in parts[1:]:
        found = tile.map(for_all, found, part)
    return tile.map(for_all, total, found)


def _finished(tile: TileBuilder, total: Tile, axes: list[_Axis], *, average: bool) -> Tile:
    """A bin without samples is zero."""
    if average:
        return total / tile.map("max", axes[0].number * axes[1].number, tile.constant(1.0, total.dtype))
    some = tile.number(axes[0].samples * axes[1].samples) > 0
    return tile.where(some, total, tile.full(total.shape, 0.0, total.dtype))
