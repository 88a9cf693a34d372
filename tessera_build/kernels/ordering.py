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

Line = Callable[[Extent], View]
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

    def before(self, a: Tile, a_place: Tile, b: Tile, b_place: Tile) -> Tile:
        """Whether `a` is better than `b`, or as good and came first."""
        tie = self.tile.map("and", self.tile.map("not", self.better(b, a)), a_place < b_place)
        return self.tile.map("or", self.better(a, b), tie)


@dataclass(frozen=True, slots=True)
class Heap:
    """`size` elements with their places, of which the first is the worst (or the best), and so on below it.

    `element(i)` gives value and place of element i; `put(i, value, place)` stores them.
    """

    order: Order
    size: Extent
    element: Callable[[Extent], tuple[Tile, Tile]]
    put: Callable[[Extent, Tile, Tile], None]
    levels: Extent
    best_first: bool = False

    def _sinks(self, a: tuple[Tile, Tile], b: tuple[Tile, Tile]) -> Tile:
        """Whether element `a` belongs below `b`."""
        return self.order.before(*b, *a) if self.best_first else self.order.before(*a, *b)

    def sink(self, start: Tile, count: Tile, value: Tile, place: Tile) -> None:
        """Put an element at `start` of the first `count` ones, or below, where worse ones move up to make room."""
        tile = self.order.tile
        last = tile.map("max", count - 1, tile.constant(0, I64))  # nothing but this element: it stays
        state = Carry(at=start)
        for _ in tile.range(self.levels, carry=state):
            left = state.at * 2 + 1
            here = tile.index(state.at, self.size)
            near = self.element(tile.index(tile.map("min", left, last), self.size))
            far = self.element(tile.index(tile.map("min", left + 1, last), self.size))
            other = self._sinks(near, far)
            child = (tile.where(other, far[0], near[0]), tile.where(other, far[1], near[1]))
            below = tile.map("and", left < count, self._sinks((value, place), child))
            self.put(here, tile.where(below, child[0], value), tile.where(below, child[1], place))
            chosen = tile.map("min", tile.where(other, left + 1, left), last)
            state.at = tile.where(below, chosen, state.at)
        self.put(tile.index(state.at, self.size), value, place)

    def arrange(self) -> None:
        """Make a heap of elements in any order."""
        tile = self.order.tile
        half = self.size // 2
        for step in tile.range(half):
            at = half - 1 - step
            self.sink(tile.number(at), tile.number(self.size), *self.element(at))

    def sort(self) -> None:
        """From a heap to the best element first."""
        tile = self.order.tile
        for step in tile.range(self.size - 1):
            last = self.size - 1 - step
            value, place = self.element(last)
            self.put(last, *self.element(0))
            self.sink(tile.constant(0, I64), tile.number(last), value, place)


def heap_levels(tile: TileBuilder, size: Extent) -> Extent:
    """How many levels a heap has below its top: the binary logarithm, rounded down."""
    if isinstance(size, int):
        return max(size.bit_length() - 1, 0)
    state = Carry(levels=tile.constant(0, I64), power=tile.constant(2, I64))
    for _ in tile.range(LEVELS, carry=state):
        state.levels = state.levels + tile.cast(state.power <= tile.number(size), I64)
        state.power = state.power * 2
    return tile.index(state.levels, LEVELS + 1)


def stored_heap(order: Order, size: Extent, values: Line, places: Line) -> Heap:
    """A heap whose values and places are both kept in memory, `values(i)` and `places(i)` being element i of each."""
    tile = order.tile

    def element(i: Extent) -> tuple[Tile, Tile]:
        return tile.load(values(i)), tile.load(places(i))

    def put(i: Extent, value: Tile, place: Tile) -> None:
        tile.store(values(i), value)
        tile.store(places(i), place)

    return Heap(order, size, element, put, heap_levels(tile, size))


def line(buffer: Buffer, outer: Extent, inner: Extent) -> Line:
    """Single elements of one line along the middle axis of a buffer with three."""
    return lambda i: buffer[outer, i : i + 1, inner]
