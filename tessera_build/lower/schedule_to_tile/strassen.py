"""Strassen's algorithm for a product, with what follows the product fused.

Before: result[i, j] = sum over k of x[i, k] * w[k, j], then elementwise definitions.
After: one program makes sums of x's quarters in the task's scratch memory (`quarter_sums`). The next, for each panel of
columns of both halves, adds up seven products a register tile at a time. Sums of the weights' quarters are made by the
first register tile while it multiplies, and used by all others. Four tiles of results, and two that are added to more
than one of them, lie in memory of the thread's own; then follow the elementwise rest, and stores.

Invariant: the bits of an output depend on its place, on its own row and the one that it is paired with, never on tiles
or threads: a last tile of rows that is moved back inside pairs the same rows. A row that is in both halves is computed
as one of the lower half first, then as one of the upper: the last tile of one thread has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tessera_build.ir.core.dims import Extent, minimum, symbol
from tessera_build.ir.core.types import F32, memref, tile
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.schedule_to_tile.halves import (
    Halves,
    loops_over_panels,
    multiplied,
    panel_shape,
    panels_packing,
    quarter_view,
    sum_view,
    sums_buffer,
)
from tessera_build.lower.schedule_to_tile.nest import LoopRange, Nest, Operand
from tessera_build.lower.schedule_to_tile.prefetch import LINE_BYTES
from tessera_build.lower.schedule_to_tile.row_tiles import RowTile, loop_over_rows
from tessera_build.space.strassen import B11, B21, B22, HALVES, MADE, QUARTERS, STORED, SUMS, T1

# Registers of results that the elementwise rest works on at a time: of more, gelu spills. With it 128 x 768 x 3072
# takes 4.9 ms with 2 or 3, 5.0 ms with 4 or 6.
_REST_REGISTERS = 3
# The matrices made, the sums, results and what several results share, as `space.strassen` names them.
_T2, _T3, _T4 = range(MADE)
_S1, _S2, _S3, _S4 = range(SUMS)
_C11, _C12, _C21, _C22 = range(QUARTERS)
_U, _V = range(HALVES)

Left = tuple[int, int] | int  # a quarter of the first operand, or one of its sums


def emit_strassen(nest: Nest, halves: Halves) -> None:
    """Append the nest of the products, which finds the first operand's sums made."""
    sums = sums_buffer(nest, halves)
    index, scope = f"{halves.product.rows}_chunk", halves.schedule.scope(nest.axes[-1])
    groups = LoopRange(index, halves.extents[0], halves.group * halves.block, scope)

    def panel() -> None:
        if halves.group < halves.tiles:
            nest.loop(groups, (), group)
        else:
            group(())

    def group(_: tuple[int, ...]) -> tuple[int, ...]:
        _Panel.of(nest, halves, sums).emit()
        return ()

    loops_over_panels(nest, halves, panel)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a register tile is: its number, its first row, the piece of depth by number."""

    number: Extent
    row: Extent
    piece: Extent


@dataclass(frozen=True, slots=True)
class _Panel:
    """A panel under construction: buffers of the stored matrices and the first operand's sums, and scratch memory.

    `made`: sums of weights; `results`: of the tiles, by quarter; `shared` by several of these.
    """

    nest: Nest
    halves: Halves
    weights: int
    sums: int
    made: int
    results: int
    shared: int

    @classmethod
    def of(cls, nest: Nest, halves: Halves, sums: int) -> _Panel:
        """The panel at the nest's offsets, with scratch memory."""

        def scratch(*shape: int) -> int:
            return nest.builder.emit(lambda r: t.Alloc(r), memref(F32, *shape))

        return cls(
            nest,
            halves,
            nest.buffer(Operand(halves.node.reads[1], panels_packing(halves)), panel_shape(halves)),
            sums,
            scratch(MADE, halves.piece, halves.width),
            scratch(halves.kept, QUARTERS, halves.block, halves.width),
            scratch(1, HALVES, halves.block, halves.width),
        )

    def emit(self) -> None:
        """All rows: piece by piece of the depth, then the rest; at once where there is one piece."""
        if self.halves.pieces == 1:
            self._each_tile(0, _Panel._tile_at_once)
            return
        index = f"{self.halves.product.depth}_chunk"

        def one(_: tuple[int, ...]) -> tuple[int, ...]:
            self._each_tile(symbol(index), _Panel._products)
            return ()

        self._each_tile(0, _Panel._clear)
        self.nest.loop(LoopRange(index, self.halves.pieces), (), one)
        self._each_tile(0, _Panel._rest)

    def _each_tile(self, piece: Extent, make: Callable[[_Panel, _Place], None]) -> None:
        """A loop over register tiles of rows; the last one is moved back inside, and smaller where rows may be any."""
        rows, block, index = self.halves.extents[0], self.halves.block, f"{self.halves.product.rows}_tile"
        if not isinstance(rows, int):
            loop_over_rows(self.nest, rows, index, block, lambda tile: self._make_tile(tile, piece, make))
            return
        grouped = self.halves.group < self.halves.tiles
        first: Extent = symbol(f"{self.halves.product.rows}_chunk") if grouped else 0
        size = self.halves.group * block

        def turn(_: tuple[int, ...]) -> tuple[int, ...]:
            row = first + symbol(index)
            make(self, _Place(symbol(index) // block, row if rows % block == 0 else minimum(row, rows - block), piece))
            return ()

        self.nest.loop(LoopRange(index, minimum(rows - first, size) if grouped else rows, block), (), turn)

    def _make_tile(self, tile: RowTile, piece: Extent, make: Callable[[_Panel, _Place], None]) -> None:
        make(replace(self, halves=replace(self.halves, block=tile.rows)), _Place(tile.number, tile.row, piece))

    def _tile_at_once(self, place: _Place) -> None:
        self._products(place)
        self._rest(place)

    def _clear(self, place: _Place) -> None:
        for quarter in range(QUARTERS):
            self._put(self._result(place, quarter), self._zeros())

    # -- seven products -----------------------------------------------------------------------------------------------

    def _products(self, place: _Place) -> None:
        """Those of one register tile and one piece of depth, added to the results of the pieces before."""
        shared_u, shared_v = (self.shared, 0, _U), (self.shared, 0, _V)
        first = self._stored(place, self._zeros(), (0, 0), (B11, 0))
        self._put(shared_u, first)
        c11 = self._stored(place, self._so_far(place, first, _C11), (0, 1), (B21, 1))
        self._put(self._result(place, _C11), c11)
        u = self._by_made(place, self._get(shared_u), _S2, _T2)
        self._put(shared_u, u)
        v = self._by_made(place, u, _S3, _T3)
        self._put(shared_v, v)
        self._put(self._result(place, _C21), self._by_made(place, self._so_far(place, v, _C21), (1, 1), _T4))
        w = self._stored(place, self._zeros(), _S1, (T1, 2))
        self._put(self._result(place, _C22), self._so_far(place, self._plus(w, self._get(shared_v)), _C22))
        c12 = self._so_far(place, self._plus(w, self._get(shared_u)), _C12)
        self._put(self._result(place, _C12), self._stored(place, c12, _S4, (B22, 3)))

    def _so_far(self, place: _Place, value: int, quarter: int) -> int:
        """The value, added to what the pieces before came to."""
        return self._plus(value, self._get(self._result(place, quarter))) if self.halves.pieces > 1 else value

    def _stored(self, place: _Place, acc: int, left: Left, right: tuple[int, int]) -> int:
        """acc + left * a stored matrix, of which `right` has the number, and which of such products this is."""
        matrix, turn = right
        ahead = self._ahead(place, turn)

        def step(start: Extent, acc: int) -> int:
            view = self._panel_view(self.weights, (*self._stored_at(place), matrix, start, 0))
            return multiplied(self.nest, acc, (self._left(place, left, start), view), ahead(start))

        return self._over_depth(acc, step)

    def _stored_at(self, place: _Place) -> tuple[Extent, Extent]:
        return self.nest.offsets[self.nest.axes[-1]] // self.halves.width, place.piece

    def _ahead(self, place: _Place, turn: int) -> Callable[[Extent], t.Ahead | None]:
        """What to ask for at a step: the products by stored matrices share the next piece of weights evenly."""
        halves, (panel, piece) = self.halves, self._stored_at(place)
        if halves.schedule.prefetched() is None:
            return lambda _start: None
        rate = -(-halves.width // halves.usual_tiles)
        following = (panel * halves.pieces + piece + 1) * (STORED * halves.piece * halves.width)
        begin = following + (place.number * STORED + turn) * (rate * halves.piece)
        lines = -(-rate * halves.steps * F32.bytes // LINE_BYTES)
        return lambda start: t.Ahead(begin + start * rate, lines)

    def _by_made(self, place: _Place, acc: int, left: Left, right: int) -> int:
        """acc + left * a sum of weights, which the first tile of rows makes."""
        builder = self.nest.builder

        def step(start: Extent, acc: int, *, make: bool) -> int:
            view = self._panel_view(self.made, (right, start, 0))
            if make:
                builder.add(t.Store(view, self._weight_sum(place, right, start)))
            return multiplied(self.nest, acc, (self._left(place, left, start), view))

        def product(*, make: bool) -> int:
            return self._over_depth(acc, lambda start, acc: step(start, acc, make=make))

        if self.halves.group == 1:
            return product(make=True)
        with builder.region() as making:
            making.yields(product(make=True))
        with builder.region() as using:
            using.yields(product(make=False))
        (result,) = builder.values([builder.types[acc]])
        builder.add(t.If((result,), place.number, "eq", 0, making.region, using.region))
        return result

    def _weight_sum(self, place: _Place, right: int, start: Extent) -> int:
        """The steps from `start` on of t2 = b22 - t1, t3 = t2 - b11 or t4 = b21 - t2."""

        def weights(matrix: int) -> int:
            return self._loaded(self._panel_view(self.weights, (*self._stored_at(place), matrix, start, 0)))

        def t2() -> int:
            return self._loaded(self._panel_view(self.made, (_T2, start, 0)))

        if right == _T2:
            terms = weights(B22), weights(T1)
        else:
            terms = (t2(), weights(B11)) if right == _T3 else (weights(B21), t2())
        return self.nest.map((self.halves.steps, self.halves.width), terms, lambda s: s.op("sub", 0, 1))

    def _over_depth(self, acc: int, step: Callable[[Extent, int], int]) -> int:
        """The loop over a piece of depth, `steps` at a time."""
        index = self.halves.product.depth

        def body(carried: tuple[int, ...]) -> tuple[int, ...]:
            return (step(symbol(index), carried[0]),)

        return self.nest.loop(LoopRange(index, self.halves.piece, self.halves.steps), (acc,), body)[0]

    def _left(self, place: _Place, left: Left, start: Extent) -> int:
        nest, halves = self.nest, self.halves
        nest.tiles = {halves.product.rows: halves.block, halves.product.depth: halves.steps}
        at = place.row, place.piece * halves.piece + start
        if isinstance(left, int):
            return sum_view(nest, halves, (self.sums, left), at, halves.steps)
        return quarter_view(nest, halves, left, at)

    def _panel_view(self, buffer: int, offsets: tuple[Extent, ...]) -> int:
        last, kind = len(offsets) - 1, memref(F32, self.halves.steps, self.halves.width)
        axes = t.ViewAxis(last - 1), t.ViewAxis(last)
        return self.nest.builder.emit(lambda r: t.View(r, buffer, offsets, axes), kind)

    # -- results ------------------------------------------------------------------------------------------------------

    def _rest(self, place: _Place) -> None:
        """The elementwise definitions over a tile's four quarters, some rows at a time, and stores."""
        nest, halves, rows, vector = self.nest, self.halves, self.halves.product.rows, self.nest.axes[-1]
        most = max(1, _REST_REGISTERS * halves.lanes // halves.width)
        size = max(n for n in range(1, halves.block + 1) if halves.block % n == 0 and n <= most)
        size = 1 if halves.product.over else size  # an image's rows end somewhere
        # The upper half last: it decides a row that both have, however many tiles there are.
        column, quarter, lane = nest.offsets[vector], QUARTERS - 1 - symbol("_p"), symbol(f"{rows}_lane")

        def some(_: tuple[int, ...]) -> tuple[int, ...]:
            nest.tiles = {rows: size, vector: halves.width}
            row = halves.row(place.row + lane, quarter // HALVES)
            nest.offsets[rows] = row % halves.product.line if halves.product.over else row
            nest.offsets[halves.product.over or rows] = row // halves.product.line if halves.product.over else row
            nest.offsets[vector] = column + quarter % HALVES * halves.extents[2]
            nest.memo.clear()
            nest.memo[halves.node.result] = self._loaded(self._slot(self._result(place, quarter), lane, size))
            for output in nest.task.outputs:
                nest.store(output, nest.evaluate(output))
            return ()

        def each(_: tuple[int, ...]) -> tuple[int, ...]:
            nest.loop(LoopRange(f"{rows}_lane", halves.block, size), (), some)
            return ()

        nest.loop(LoopRange("_p", QUARTERS), (), each)
        nest.offsets[vector] = column

    def _result(self, place: _Place, quarter: Extent) -> tuple[int, Extent, Extent]:
        """Buffer, tile and quarter of a result."""
        return self.results, place.number if self.halves.kept > 1 else 0, quarter

    def _slot(self, slot: tuple[int, Extent, Extent], first: Extent, block: int) -> int:
        """A view of rows of a register tile in scratch memory."""
        buffer, number, matrix = slot
        rows = self.halves.product.rows
        axes = tuple(t.ViewAxis(2 if axis == rows else -1) for axis in self.nest.axes[:-1])
        offsets, kind = (number, matrix, first, 0), memref(F32, *self._shape(block))
        return self.nest.builder.emit(lambda r: t.View(r, buffer, offsets, (*axes, t.ViewAxis(3))), kind)

    def _shape(self, block: int) -> tuple[int, ...]:
        rows = self.halves.product.rows
        return (*(block if axis == rows else 1 for axis in self.nest.axes[:-1]), self.halves.width)

    def _get(self, slot: tuple[int, Extent, Extent]) -> int:
        return self._loaded(self._slot(slot, 0, self.halves.block))

    def _put(self, slot: tuple[int, Extent, Extent], value: int) -> None:
        self.nest.builder.add(t.Store(self._slot(slot, 0, self.halves.block), value))

    def _loaded(self, view: int) -> int:
        builder = self.nest.builder
        return builder.emit(lambda r: t.Load(r, view), tile(F32, *builder.types[view].static_shape))

    def _zeros(self) -> int:
        return self.nest.constant(0.0, F32, self._shape(self.halves.block))

    def _plus(self, left: int, right: int) -> int:
        return self.nest.map(self._shape(self.halves.block), (left, right), lambda s: s.op("add", 0, 1))
