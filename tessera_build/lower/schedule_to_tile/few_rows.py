"""A product of few rows, out of the panels that its halves are multiplied with.

Before: result[i, j] = sum over k of x[i, k] * w[k, j] with too few rows for halves, then elementwise definitions.
After: for each panel of columns of both halves, register tiles of rows. With x = [a1 a2], the left columns are
u + a2 b21 for u = a1 b11, and the right ones u + a2 b22 + a1 t1, because b12 is not stored, but t1 = b12 - b11. Then
follow the elementwise rest, and stores.

Invariant: steps are added up in one order, so that bits depend on the row alone; a last tile of rows is moved back
inside. So a bundle holds weights once, however many rows a request may have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.types import F32, memref
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.schedule_to_tile.halves import (
    Halves,
    loops_over_panels,
    multiplied,
    panel_shape,
    panels_packing,
    quarter_view,
)
from tessera_build.lower.schedule_to_tile.nest import LoopRange, Nest, Operand
from tessera_build.lower.schedule_to_tile.prefetch import ahead_of
from tessera_build.lower.schedule_to_tile.row_tiles import SMALLER, RowTile, loop_over_rows
from tessera_build.space.strassen import B11, B21, B22, STORED, T1

# Steps of a contraction that are emitted.
_STEPS = 16
_UPPER, _LOWER = range(2)


def emit_few_rows(nest: Nest, halves: Halves) -> None:
    """Append the nest of the direct sum, which reads no sums of the first operand."""
    whole = replace(halves, product=replace(halves.product, blocks=1))
    weights = nest.buffer(Operand(halves.node.reads[1], panels_packing(halves)), panel_shape(halves))
    loops_over_panels(nest, whole, lambda: _Few(nest, whole, weights, nest.offsets[nest.axes[-1]]).emit())


@dataclass(frozen=True, slots=True)
class _Few:
    """A panel under construction: the buffer of the stored matrices, the first of the panel's columns."""

    nest: Nest
    halves: Halves
    weights: int
    column: Extent

    def emit(self) -> None:
        """Tiles of as many rows as there are, the largest first."""
        self._in_tiles(sorted({self.halves.block, min(SMALLER, self.halves.block), 1}, reverse=True))

    def _in_tiles(self, sizes: list[int]) -> None:
        rows, (size, *smaller) = self.halves.product.number, sizes
        index = f"{self.halves.product.rows}_tile"
        if not smaller:
            loop_over_rows(self.nest, rows, index, size, self._tile)
            return
        b = self.nest.builder
        with b.region() as fewer:
            self._in_tiles(smaller)
        with b.region() as held:
            loop_over_rows(self.nest, rows, index, size, self._tile)
        b.add(t.If((), rows, "lt", size, fewer.region, held.region))

    def _tile(self, tile: RowTile) -> None:
        """The sums and the rest of some rows; what the right columns begin with waits, while the left ones end."""
        nest, axis = self.nest, self.halves.product.rows
        shape = [*(tile.rows if each == axis else 1 for each in nest.axes[:-1]), self.halves.width]
        both = self._product(nest.constant(0.0, F32, shape), tile, (_UPPER, B11))
        self._store(self._product(both, tile, (_LOWER, B21)), tile, self.column)
        right = self._product(both, tile, (_LOWER, B22))  # in the order in which they are stored
        right = self._product(right, tile, (_UPPER, T1))
        self._store(right, tile, self.column + self.halves.extents[2])

    def _store(self, total: int, tile: RowTile, column: Extent) -> None:
        """The elementwise rest over a register tile of sums."""
        nest, axis, vector = self.nest, self.halves.product.rows, self.nest.axes[-1]
        nest.tiles = {axis: tile.rows, vector: self.halves.width}
        nest.offsets[axis], nest.offsets[vector] = tile.row, column
        nest.memo.clear()
        nest.memo[self.halves.node.result] = total
        for output in nest.task.outputs:
            nest.store(output, nest.evaluate(output))

    def _product(self, acc: int, tile: RowTile, halves: tuple[int, int]) -> int:
        """acc + a half of the first operand's depth * a stored matrix, over its pieces and the steps of a piece."""
        nest, piece, index = self.nest, self.halves.piece, self.halves.product.depth
        chunk, steps, (half, matrix) = f"{index}_chunk", math.gcd(_STEPS, self.halves.piece), halves

        def pieces(carried: tuple[int, ...]) -> tuple[int, ...]:
            return nest.loop(LoopRange(index, piece, steps), carried, some)

        def some(carried: tuple[int, ...]) -> tuple[int, ...]:
            nest.tiles = {self.halves.product.rows: tile.rows, index: steps}
            at = symbol(chunk) * piece + symbol(index)
            left = quarter_view(nest, self.halves, (_UPPER, half), (tile.row, at))
            right = self._weights(matrix, symbol(chunk), steps)
            return (multiplied(nest, carried[0], (left, right), self._ahead(matrix, symbol(chunk), steps)),)

        return nest.loop(LoopRange(chunk, self.halves.pieces), (acc,), pieces)[0]

    def _weights(self, matrix: int, chunk: Extent, steps: int) -> int:
        offsets = (self.column // self.halves.width, chunk, matrix, symbol(self.halves.product.depth), 0)
        kind, axes = memref(F32, steps, self.halves.width), (t.ViewAxis(3), t.ViewAxis(4))
        return self.nest.builder.emit(lambda r: t.View(r, self.weights, offsets, axes), kind)

    def _ahead(self, matrix: int, chunk: Extent, steps: int) -> t.Ahead | None:
        """Weights further on, since few rows are through a panel soon."""
        halves = self.halves
        if halves.schedule.prefetched() is None:
            return None
        stretch = (self.column // halves.width * halves.pieces + chunk) * STORED + matrix
        read = (stretch * halves.piece + symbol(halves.product.depth)) * halves.width
        return ahead_of(read, steps * halves.width)
