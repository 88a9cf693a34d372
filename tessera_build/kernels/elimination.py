"""Gaussian elimination with the largest element of each column as its pivot: determinants and solutions.

Takes square matrices [B, N, N], and right sides [B, N, M]; gives what the rows become, and what was asked for.
Invariant: the results' own memory is all that is used, and each matrix is worked on alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tessera.kernel import kernel
from tessera.tile import Carry, TileBuilder
from tessera.values import Buffer, Tile
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.node import Function
from tessera_build.kernels.scatter import row_width
from tessera_build.kernels.subject import KernelSubject


def determinant(subject: KernelSubject) -> Function:
    """determinants[b] = that of a[b]; `rows` is what the elimination leaves."""
    batches, size, _ = subject.operands[0].shape

    @kernel(a=subject.buffer(0), rows=subject.target(0), determinants=subject.target(1))
    def determinant(tile: TileBuilder, a: Buffer, rows: Buffer, determinants: Buffer) -> None:
        for b in tile.range(batches):
            state = _Elimination(tile, b, (rows,), subject.lanes)
            state.copy(a, rows)
            total = Carry(product=tile.constant(1.0, a.dtype))
            for k in tile.range(size, carry=total):
                place = state.place_of_pivot(k)
                changed = tile.map("ne", tile.number(place), tile.number(k))
                pivot = state.pivot(k, place)
                total.product = total.product * tile.where(changed, -pivot, pivot)
                for i in tile.range(size):
                    with tile.when(k, "lt", i):
                        state.clear(i, k, pivot)
            tile.put(total.product, determinants, b)

    return determinant


def solve(subject: KernelSubject) -> Function:
    """x[b] = the solution of a[b] x[b] = right[b]; `rows` is what the elimination leaves."""
    batches, size, _ = subject.operands[0].shape

    @kernel(a=subject.buffer(0), right=subject.buffer(1), rows=subject.target(0), x=subject.target(1))
    def solve(tile: TileBuilder, a: Buffer, right: Buffer, rows: Buffer, x: Buffer) -> None:
        for b in tile.range(batches):
            state = _Elimination(tile, b, (rows, x), subject.lanes)
            state.copy(a, rows)
            state.copy(right, x)
            for k in tile.range(size):
                pivot = state.pivot(k, state.place_of_pivot(k))
                for i in tile.range(size):
                    with tile.when(k, "ne", i):
                        state.clear(i, k, pivot)
            for k in tile.range(size):
                state.divide(k)

    return solve


@dataclass(frozen=True, slots=True)
class _Elimination:
    """One matrix of a batch; `buffers` holds its rows, and what they are changed together with."""

    tile: TileBuilder
    batch: Extent
    buffers: Sequence[Buffer]
    lanes: int

    def copy(self, source: Buffer, target: Buffer) -> None:
        """Start from the rows of an operand."""
        width = row_width(source.shape[2], self.lanes)
        for i in self.tile.range(source.shape[1]):
            for c in self.tile.range(source.shape[2], width):
                self.tile.copy(source[self.batch, i, c : c + width], target[self.batch, i, c : c + width])

    def place_of_pivot(self, k: Extent) -> Extent:
        """The row from k on whose element in column k is the largest, the first of equal ones."""
        tile, rows = self.tile, self.buffers[0]
        best = Carry(size=tile.map("abs", self._element(k, k)), place=tile.number(k))
        for i in tile.range(rows.shape[1], carry=best):
            with tile.when(k, "lt", i, carry=best):
                size = tile.map("abs", self._element(i, k))
                better = size > best.size
                best.size = tile.where(better, size, best.size)
                best.place = tile.where(better, tile.number(i), best.place)
        return tile.index(best.place, rows.shape[1])

    def pivot(self, k: Extent, place: Extent) -> Tile:
        """Exchange rows k and `place`; gives the element of row k in column k."""
        tile = self.tile
        for buffer in self.buffers:
            width = row_width(buffer.shape[2], self.lanes)
            for c in tile.range(buffer.shape[2], width):
                here, there = (buffer[self.batch, row, c : c + width] for row in (k, place))
                first, second = tile.load(here), tile.load(there)
                tile.store(here, second)
                tile.store(there, first)
        return self._element(k, k)

    def clear(self, i: Extent, k: Extent, pivot: Tile) -> None:
        """Subtract from row i as much of row k as leaves nothing in column k; where the pivot is zero, nothing."""
        tile = self.tile
        nothing = tile.constant(0.0, pivot.dtype)
        factor = self._element(i, k) / pivot
        if len(self.buffers) == 1:  # the determinant is zero then, and no NaN
            factor = tile.where(tile.map("eq", pivot, nothing), nothing, factor)
        for position, buffer in enumerate(self.buffers):
            width = row_width(buffer.shape[2], self.lanes)
            # Nobody reads the columns before k of the rows again.
            first = k if position == 0 else 0
            for step in tile.range(buffer.shape[2] - first, width):
                c = first + step
                target = buffer[self.batch, i, c : c + width]
                tile.store(target, tile.load(target) - factor * tile.load(buffer[self.batch, k, c : c + width]))

    def divide(self, k: Extent) -> None:
        """The row of the solution by its pivot."""
        tile, x = self.tile, self.buffers[1]
        width, pivot = row_width(x.shape[2], self.lanes), self._element(k, k)
        for c in tile.range(x.shape[2], width):
            target = x[self.batch, k, c : c + width]
            tile.store(target, tile.load(target) / pivot)

    def _element(self, row: Extent, column: Extent) -> Tile:
        return self.tile.element(self.buffers[0], self.batch, row, column)
