"""The order in which elements are sorted, and a heap in memory that keeps the best of a row.

Takes tiles of one element; gives comparisons and the steps of a heap. Invariant: the order is total — NaN counts as
larger than every number, and of equal elements the one that came first is better — so a result never depends on the
algorithm that sorts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tessera.tile import Carry, TileBuilder
from tessera.values import Buffer, Tile, View
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import I64

Item = tuple[Tile, ...]  # what is known of one element: its value and its place, or one key for both
LEVELS = 48  # of a heap: more than any tensor has elements


@dataclass(frozen=True, slots=True)
class Order:
    """Which of two elements is better: the larger one where `largest`, else the smaller one."""

    tile: TileBuilder
    largest: bool

    def better(self, a: Tile, b: Tile) -> Tile:
        """Whether `a` is strictly better than `b`, elementwise; their places are not asked."""
        if not a.dtype.is_float:
            return a > b if self.largest else a < b
        kept = b if self.largest else a  # a NaN here cannot be beaten, or cannot win
        number = self.tile.map("eq", kept, kept)
        beaten = self.tile.map("not", a <= b if self.largest else a >= b)
        return self.tile.map("and", beaten, number)

    def before(self, a: Item, b: Item) -> Tile:
        """Whether element `a`, its value and its place, is better than `b`, or as good and came first."""
        tie = self.tile.map("and", self.tile.map("not", self.better(b[0], a[0])), a[1] < b[1])
        return self.tile.map("or", self.better(a[0], b[0]), tie)


@dataclass(frozen=True, slots=True)
class Heap:
    """`size` elements of which none lies above one that `sinks(it, the other)` says belongs lower.

    `get(i)` gives element i, `put(i, item)` stores it; `levels` is the binary logarithm of the size, rounded down.
    """

    tile: TileBuilder
    size: Extent
    get: Callable[[Extent], Item]
    put: Callable[[Extent, Item], None]
    sinks: Callable[[Item, Item], Tile]
    levels: Extent

    def sink(self, start: Tile, count: Tile, item: Item, levels: Extent | None = None) -> None:
        """Put an element at `start` of the first `count` ones, or up to `levels` below, where others move up."""
        tile = self.tile
        last = tile.map("max", count - 1, tile.constant(0, I64))  # nothing but this element: it stays
        state = Carry(at=start)
        for _ in tile.range(self.levels if levels is None else levels, carry=state):
            left = state.at * 2 + 1
            here = tile.index(state.at, self.size)
            near = self.get(tile.index(tile.map("min", left, last), self.size))
            far = self.get(tile.index(tile.map("min", left + 1, last), self.size))
            other = self.sinks(near, far)
            child = tuple(tile.where(other, b, a) for a, b in zip(near, far, strict=True))
            below = tile.map("and", left < count, self.sinks(item, child))
            self.put(here, tuple(tile.where(below, b, a) for a, b in zip(item, child, strict=True)))
            chosen = tile.map("min", tile.where(other, left + 1, left), last)
            state.at = tile.where(below, chosen, state.at)
        self.put(tile.index(state.at, self.size), item)

    def replace(self, item: Item) -> None:
        """Put an element in the place of the first one."""
        self.sink(self.tile.constant(0, I64), self.tile.number(self.size), item)

    def arrange(self) -> None:
        """Make a heap of elements in any order, one level after the other, the lowest first."""
        tile = self.tile
        top = tile.constant(1, I64)
        for _ in tile.range(self.levels - 1, carry=(state := Carry(top=top))):
            state.top = state.top * 2
        below = Carry(width=state.top)
        for level in tile.range(self.levels, carry=below):
            width = tile.index(below.width, self.size + 1)
            for step in tile.range(width):
                at = tile.number(width - 1 + step)
                self.sink(at, tile.number(self.size), self.get(tile.index(at, self.size)), level + 1)
            # Python's loop body runs once: the next level is half as wide.
            below.width = tile.map("div", below.width, tile.constant(2, I64))

    def sort(self) -> None:
        """From a heap with the worst element first to the best one first."""
        tile = self.tile
        for step in tile.range(self.size - 1):
            last = self.size - 1 - step
            item = self.get(last)
            self.put(last, self.get(0))
            self.sink(tile.constant(0, I64), tile.number(last), item)


def levels_of(tile: TileBuilder, size: Extent) -> Extent:
    """The binary logarithm of a size of at least 1, rounded down."""
    if isinstance(size, int):
        return max(size.bit_length() - 1, 0)
    state = Carry(levels=tile.constant(0, I64), power=tile.constant(2, I64))
    for _ in tile.range(LEVELS, carry=state):
        state.levels = state.levels + tile.cast(state.power <= tile.number(size), I64)
        state.power = state.power * 2
    return tile.index(state.levels, LEVELS + 1)


def heap_of_pairs(order: Order, size: Extent, values: Buffer, places: Buffer, row: Extent) -> Heap:
    """A heap, the worst element first, whose values and places are kept in a row of each of two buffers."""
    tile = order.tile

    def views(i: Extent) -> tuple[View, View]:
        return values[row, i : i + 1], places[row, i : i + 1]

    def get(i: Extent) -> Item:
        return tuple(tile.load(view) for view in views(i))

    def put(i: Extent, item: Item) -> None:
        for view, part in zip(views(i), item, strict=True):
            tile.store(view, part)

    return Heap(tile, size, get, put, order.before, levels_of(tile, size))
