"""The k best elements of every row, best first, with their places.

Takes x[R, N]; gives values and places [R, K]. Elements of up to 32 bits become keys in the places' own memory, of which
a heap keeps the k best so far and a network sorts them; wider ones are kept and sorted by a heap of values and places.
Where rows are short and k is small, a vector of rows goes through its columns at once, with the k best of each row in
registers: what a row does then does not depend on its data.
Invariant: the order is total (see `ordering`), and the results' own memory is all that is used.
"""

from __future__ import annotations

from collections.abc import Callable

from tessera.kernel import kernel
from tessera.tile import Carry, TileBuilder
from tessera.values import Buffer, Tile
from tessera_build.ir.core.dims import Extent, minimum
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.types import I32, I64, int_extent
from tessera_build.kernels.keys import Network, fits_key, heap_of_keys, key_of, place_of
from tessera_build.kernels.ordering import Heap, Order, heap_of_pairs
from tessera_build.kernels.subject import KernelSubject

_BLOCK = 16  # rows that are gone through together
_FEW = 4  # rows from which on that is faster than one row after the other
_SHORT = 128  # columns: in longer rows, most blocks of elements have none that is good enough
_SMALL = 8  # best ones that stay in registers


def top_k(subject: KernelSubject) -> Function:
    """values, places = the best `K` of each row; `largest` says which are good."""
    rows, count, largest = subject.operands[0].shape[0], subject.results[0].shape[1], subject.flag("largest")
    body = _by_keys if fits_key(subject.operands[0].dtype) else _by_pairs
    together = _BLOCK if _goes_by_columns(subject) else 1

    @kernel(x=subject.buffer(0), values=subject.target(0), places=subject.target(1))
    def top_k(tile: TileBuilder, x: Buffer, values: Buffer, places: Buffer) -> None:
        def one(row: Extent) -> None:
            with tile.when(0, "lt", count):
                body(_Row(tile, x, row, subject.lanes, largest=largest), values, places)

        for first in tile.range(rows, together):
            if together == 1:
                one(first)
                continue
            with tile.when(_FEW, "le", rows - first):
                _by_columns(tile, (x, values, places), first, largest=largest)
            with tile.when(rows - first, "lt", _FEW):
                for step in tile.range(minimum(_FEW, rows - first)):
                    one(first + step)

    return top_k


def _goes_by_columns(subject: KernelSubject) -> bool:
    length, count = subject.operands[0].shape[1], subject.results[0].shape[1]
    short = isinstance(length, int) and length <= _SHORT and isinstance(count, int) and 0 < count <= _SMALL
    return short and fits_key(subject.operands[0].dtype)


def _by_columns(tile: TileBuilder, buffers: tuple[Buffer, Buffer, Buffer], first: Extent, *, largest: bool) -> None:
    """Insert each column's keys into the sorted best ones of a vector of rows."""
    x, values, places = buffers
    names = [f"best{rank}" for rank in range(int_extent(values.shape[1]))]
    state = Carry(**{name: tile.full((_BLOCK,), (1 << 63) - 1, I64) for name in names})
    for column in tile.range(x.shape[1], carry=state):
        key = key_of(tile, tile.load(x[first : first + _BLOCK, column]), tile.number(column), largest=largest)
        for name in names:
            better = getattr(state, name)
            setattr(state, name, tile.map("min", better, key))
            key = tile.map("max", better, key)
    for rank, name in enumerate(names):
        tile.store(places[first : first + _BLOCK, rank], place_of(tile, getattr(state, name)))
    for step in tile.range(minimum(_BLOCK, x.shape[0] - first)):
        row = first + step
        for rank in range(len(names)):
            place = tile.index(tile.load(places[row : row + 1, rank]), x.shape[1])
            tile.store(values[row : row + 1, rank], tile.load(x[row : row + 1, place]))


class _Row:
    """One row under selection."""

    def __init__(self, tile: TileBuilder, x: Buffer, row: Extent, lanes: int, *, largest: bool) -> None:
        self.tile, self.x, self.row, self.lanes = tile, x, row, lanes
        self.order = Order(tile, largest)
        self.length = x.shape[1]

    def value(self, i: Extent) -> Tile:
        """Element i."""
        return self.tile.load(self.x[self.row, i : i + 1])

    def block(self, first: Extent, width: int) -> Tile:
        """Elements from `first` on; behind the end are ones that are never chosen."""
        pad = float("-inf" if self.order.largest else "inf")
        return self.tile.load(self.x[self.row, first : first + width], pad=pad)

    def keys(self, first: Extent, width: int) -> Tile:
        """Keys of the elements from `first` on."""
        places = self.tile.iota((width,), 0, first, I64)
        return key_of(self.tile, self.block(first, width), places, largest=self.order.largest)


def _by_keys(row: _Row, values: Buffer, places: Buffer) -> None:
    tile, count, lanes = row.tile, values.shape[1], row.lanes
    for n in tile.range(count, lanes):
        tile.store(places[row.row, n : n + lanes], row.keys(n, lanes))
    if count != row.length:
        heap = heap_of_keys(tile, count, places, row.row)
        heap.arrange()
        _consider_rest(row, heap)
    Network(tile, places, row.row, count, lanes).sort()
    for n in tile.range(count, lanes):
        place = place_of(tile, tile.load(places[row.row, n : n + lanes]))
        tile.store(values[row.row, n : n + lanes], tile.load(row.x[row.row, place]))
        tile.store(places[row.row, n : n + lanes], place)


def _consider_rest(row: _Row, heap: Heap) -> None:
    """Elements after the first ones, whose places are later: only a better value brings one in."""
    tile, width = row.tile, 4 * row.lanes

    def consider(start: Extent) -> None:
        kept = tile.alloc(I64, width)
        tile.store(kept[:], row.keys(start, width))
        for n in tile.range(minimum(width, row.length - start)):
            key = tile.element(kept, n)
            enters = tile.cast(key < heap.get(0)[0], I64)
            with tile.when(0, "lt", tile.index(enters, 2)):
                heap.replace((key,))

    def worst() -> Tile:
        return row.value(tile.index(place_of(tile, heap.get(0)[0]), row.length))

    _each_good_block(row, heap.size, worst, consider)


def _by_pairs(row: _Row, values: Buffer, places: Buffer) -> None:
    tile, count = row.tile, values.shape[1]
    heap = heap_of_pairs(row.order, count, values, places, row.row)
    for n in tile.range(count):
        heap.put(n, (row.value(n), tile.number(n)))
    heap.arrange()

    def consider(start: Extent) -> None:
        for n in tile.range(minimum(4 * row.lanes, row.length - start)):
            value = row.value(start + n)
            enters = tile.cast(row.order.better(value, heap.get(0)[0]), I64)
            with tile.when(0, "lt", tile.index(enters, 2)):
                heap.replace((value, tile.number(start + n)))

    _each_good_block(row, count, lambda: heap.get(0)[0], consider)
    heap.sort()


def _each_good_block(row: _Row, first: Extent, worst: Callable[[], Tile], consider: Callable[[Extent], None]) -> None:
    """Four vectors at a time from `first` on: they are considered only where one of them is better than the worst."""
    tile, lanes = row.tile, row.lanes
    for offset in tile.range(row.length - first, 4 * lanes):
        start, bar = first + offset, worst()
        better = [row.order.better(row.block(start + part * lanes, lanes), bar) for part in range(4)]
        some = tile.map("or", tile.map("or", better[0], better[1]), tile.map("or", better[2], better[3]))
        with tile.when(0, "lt", tile.index(any_of(tile, some), 2)):
            consider(start)


def any_of(tile: TileBuilder, flags: Tile) -> Tile:
    """1 where a flag of the tile is set, else 0."""
    numbers = tile.cast(flags, I32)
    combine = ScalarBuilder((I32, I32))
    (result,) = tile.reduce((numbers,), (0,), combine.finish(combine.op("max", 0, 1)), (0.0,), "tree(16)")
    return result
