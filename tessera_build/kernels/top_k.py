"""The k best elements of every line, best first, with their places: a heap of the k best so far, then a heap sort.

Takes x[A, N, B] and gives values and places [A, K, B] along the middle axis. Invariant: the order is total (see
`ordering`), and the results' own memory is the heap, so no other memory is used.
"""

from __future__ import annotations

from tessera.kernel import kernel
from tessera.tile import TileBuilder
from tessera.values import Buffer, Tile
from tessera_build.ir.core.dims import Extent, floordiv, minimum, mod
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.types import I64
from tessera_build.kernels.ordering import Heap, Order, line, stored_heap
from tessera_build.kernels.subject import KernelSubject


def top_k(subject: KernelSubject) -> Function:
    """values, places = the best `K` of each line; `largest` says which are good."""
    outer, _, inner = subject.operands[0].shape
    count = subject.results[0].shape[1]

    @kernel(x=subject.buffer(0), values=subject.target(0), places=subject.target(1))
    def top_k(tile: TileBuilder, x: Buffer, values: Buffer, places: Buffer) -> None:
        order = Order(tile, subject.flag("largest"))
        for row in tile.range(outer * inner):
            o, i = floordiv(row, inner), mod(row, inner)
            with tile.when(0, "lt", count):
                heap = stored_heap(order, count, line(values, o, i), line(places, o, i))
                for n in tile.range(count):
                    heap.put(n, tile.load(x[o, n : n + 1, i]), tile.number(n))
                heap.arrange()
                _consider_rest(heap, x, (o, i), subject.lanes)
                heap.sort()

    return top_k


def _consider_rest(heap: Heap, x: Buffer, at: tuple[Extent, Extent], lanes: int) -> None:
    """Elements after the first ones: a block of them is looked at one by one only where one is good enough."""
    tile, (o, i), length = heap.order.tile, at, x.shape[1]
    width = 4 * lanes
    rest = length - heap.size
    for first in tile.range(rest, width):
        start = heap.size + first
        block = tile.load(x[o, start : start + width, i], pad=float("-inf" if heap.order.largest else "inf"))
        good = tile.index(any_of(tile, heap.order.better(block, heap.element(0)[0])), 2)
        with tile.when(0, "lt", good):
            for n in tile.range(minimum(width, length - start)):
                value = tile.load(x[o, start + n : start + n + 1, i])
                enters = tile.cast(heap.order.better(value, heap.element(0)[0]), I64)
                with tile.when(0, "lt", tile.index(enters, 2)):
                    heap.sink(tile.constant(0, I64), tile.number(heap.size), value, tile.number(start + n))


def any_of(tile: TileBuilder, flags: Tile) -> Tile:
    """1 where a flag of the tile is set, else 0."""
    numbers = tile.cast(flags, I64)
    combine = ScalarBuilder((I64, I64))
    (result,) = tile.reduce((numbers,), (0,), combine.finish(combine.op("max", 0, 1)), (0.0,), "tree(16)")
    return result
