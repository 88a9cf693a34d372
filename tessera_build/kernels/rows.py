"""Rows in lexicographic order: a heap of their places, compared column by column.

Takes x[N, W]; gives the places of the rows in order and where a row differs from the one before. Invariant: of equal
rows the first place comes first, and NaN counts as larger than every number.
"""

from __future__ import annotations

from dataclasses import dataclass

from tessera.kernel import kernel
from tessera.tile import Carry, TileBuilder
from tessera.values import Buffer, Tile
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import BOOL, I64
from tessera_build.kernels.ordering import Heap, Item, Order, levels_of
from tessera_build.kernels.subject import KernelSubject


def sort_rows(subject: KernelSubject) -> Function:
    """places[i] = the place of the i-th row in order; heads[i]: it is not the same as the one before."""

    @kernel(x=subject.buffer(0), places=subject.target(0), heads=subject.target(1))
    def sort_rows(tile: TileBuilder, x: Buffer, places: Buffer, heads: Buffer) -> None:
        count = x.shape[0]
        rows = _Rows(tile, x)
        with tile.when(0, "lt", count):
            for i in tile.range(count):
                tile.put(tile.number(i), places, i)

            def get(i: Extent) -> Item:
                return (tile.element(places, i),)

            def put(i: Extent, item: Item) -> None:
                tile.put(item[0], places, i)

            heap = Heap(tile, count, get, put, rows.before, levels_of(tile, count))
            heap.arrange()
            heap.sort()
            tile.put(tile.constant(1, BOOL), heads, 0)
            for i in tile.range(count - 1):
                tile.put(rows.differ(get(i), get(i + 1)), heads, i + 1)

    return sort_rows


@dataclass(frozen=True, slots=True)
class _Rows:
    tile: TileBuilder
    x: Buffer

    def before(self, a: Item, b: Item) -> Tile:
        """Whether the row at place `a` comes before that at place `b`."""
        tile, order = self.tile, Order(self.tile, largest=False)
        first, second = (tile.index(item[0], self.x.shape[0]) for item in (a, b))
        state = Carry(decided=tile.constant(0, I64))
        for column in tile.range(self.x.shape[1], carry=state):
            left, right = tile.element(self.x, first, column), tile.element(self.x, second, column)
            sign = tile.cast(order.better(right, left), I64) - tile.cast(order.better(left, right), I64)
            undecided = tile.map("eq", state.decided, tile.constant(0, I64))
            state.decided = tile.where(undecided, sign, state.decided)
        tie = tile.map("and", tile.map("eq", state.decided, tile.constant(0, I64)), a[0] < b[0])
        return tile.map("or", state.decided < 0, tie)

    def differ(self, a: Item, b: Item) -> Tile:
        """Whether two rows have an element that is not equal."""
        tile = self.tile
        first, second = (tile.index(item[0], self.x.shape[0]) for item in (a, b))
        state = Carry(found=tile.constant(0, BOOL))
        for column in tile.range(self.x.shape[1], carry=state):
            other = tile.map("ne", tile.element(self.x, first, column), tile.element(self.x, second, column))
            state.found = tile.map("or", state.found, other)
        return state.found
