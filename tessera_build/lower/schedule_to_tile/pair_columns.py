"""Columns of a product whose terms are taken in pairs, scaled before the rows of weights that they serve.

Before: result[i, j] = sum over k of w[i, k] * x[k, j], x as it lies, j innermost. After: a loop over some registers of
columns; in it these are copied to memory of the thread's own, scaled, with two rows behind them: minus the sum over k
of +- of the products of the first third by the second, and what undoes the scale (0 for a column of zeros); then the
tiles of rows (`pairs`), register by register. A column is scaled as a row is (`pair_rows`), but lanes never meet.
Invariant: an output depends on its row and its column alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent, minimum, mod, symbol
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.types import F32, I32, int_extent, memref, tile
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.schedule_to_tile.halves import strides_of
from tessera_build.lower.schedule_to_tile.nest import SCRATCH, LoopRange, Nest, Operand, Scratch
from tessera_build.lower.schedule_to_tile.pair_scale import add_size, factor_of, undone_of, with_sign
from tessera_build.lower.schedule_to_tile.pairs import ask_for, paired_product, sum_in_pairs
from tessera_build.lower.schedule_to_tile.prefetch import LINE_BYTES, element_at
from tessera_build.space.pairs import BEHIND, PARTS, TURN, Paired

# Elements of a column that are read at a time, those of all registers together.
_STEPS = (8, 4, 2, 1)
_REGISTER = "_v"


def has_scaled_columns(schedule: Schedule) -> bool:
    """Whether a schedule takes terms in pairs and its weights are read first."""
    return schedule.paired() is not None and 0 in schedule.packs()


def registers_of(schedule: Schedule, vector: str, lanes: int) -> int:
    """How many registers of columns are scaled together."""
    return schedule.factors().get(f"{vector}_chunk", lanes) // lanes


def emit_scaled_columns(nest: Nest, schedule: Schedule, body: Callable[[], None]) -> None:
    """Append the loops: `body` is one tile of rows, the innermost loop, by one register of columns."""
    node, paired, pair = paired_product(nest, schedule)
    (row,), vector = paired.scaled, nest.axes[-1]
    count = registers_of(schedule, vector, nest.lanes)
    around = [axis for axis in schedule.order() or nest.axes if axis != row]

    def inside(axes: list[str]) -> None:
        if SCRATCH not in nest.scratch and (not axes or schedule.scope(axes[0]) != "parallel"):
            shape = count, paired.extent + BEHIND, nest.lanes
            buffer = nest.builder.emit(t.Alloc, memref(F32, *shape))
            nest.scratch = {**nest.scratch, SCRATCH: Scratch(buffer, shape, tuple)}
        if not axes:
            of_columns()
            return
        axis, size = axes[0], count * nest.lanes if axes[0] == vector else 1
        start = symbol(axis) if size == 1 else minimum(symbol(axis), nest.domain[axis] - size)
        loop(LoopRange(axis, nest.domain[axis], size, schedule.scope(axis)), start, lambda: inside(axes[1:]))

    def of_columns() -> None:
        start, each = nest.offsets[vector], LoopRange(row, nest.domain[row], nest.tiles.get(row, 1))
        _Columns(nest, node, paired, nest.axes.index(row)).emit(start, count, pair.scale)

        def of_register(_: tuple[int, ...]) -> tuple[int, ...]:
            nest.offsets[vector] = start + symbol(_REGISTER) * nest.lanes
            loop(each, symbol(row), body)
            return ()

        nest.loop(LoopRange(_REGISTER, count), (), of_register)

    def loop(span: LoopRange, place: Extent, turn: Callable[[], None]) -> None:
        def placed(_: tuple[int, ...]) -> tuple[int, ...]:
            nest.offsets[span.index] = place
            turn()
            return ()

        nest.loop(span, (), placed)

    inside(around)


def _scratch_view(nest: Nest, register: Extent, place: Extent, count: tuple[int, int] = (0, 1)) -> int:
    """A view of scaled columns in a register from an element on; `count`: the tile axis along them, and how many."""
    last, (position, rows) = len(nest.axes) - 1, count
    axes = tuple(t.ViewAxis({position: 1, last: 2}.get(axis, -1)) for axis in range(last + 1))
    kind = memref(F32, *({position: rows, last: nest.lanes}.get(axis, 1) for axis in range(last + 1)))
    buffer = nest.scratch[SCRATCH].buffer
    return nest.builder.emit(lambda r: t.View(r, buffer, (register, place, 0), axes), kind)


def _load(nest: Nest, view: int) -> int:
    return nest.builder.emit(lambda r: t.Load(r, view), tile(F32, *nest.builder.types[view].static_shape))


@dataclass(frozen=True, slots=True)
class _Columns:
    """Some registers of columns under construction; `at`: the tile axis along their elements."""

    nest: Nest
    node: Compute
    paired: Paired
    at: int

    def emit(self, start: Extent, count: int, scale: int) -> None:
        """`count` registers of columns from `start` on: their elements as they are and their sizes, then the rest."""
        registers = range(count)

        def copied(place: Extent, totals: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(self._copied(start, (register, place), totals[register]) for register in registers)

        for register, total in enumerate(self._over((0, self.paired.extent), count, copied)):
            self._of_register(register, self._summed(total), scale)

    def _of_register(self, register: int, sizes: int, scale: int) -> None:
        """Elements scaled, and what stands behind them."""
        nest, third, extent = self.nest, self.paired.third, self.paired.extent
        shape = nest.builder.types[sizes].static_shape
        factors = nest.map(shape, (sizes,), lambda s: factor_of(s, 0, scale))

        def multiplied(place: Extent, totals: tuple[int, ...]) -> tuple[int, ...]:
            kind = nest.builder.types[totals[0]].static_shape
            terms = [self._scaled((register, at), kind, factors) for at in (place, place + third)]
            return (nest.map(kind, (totals[0], *terms), lambda s: s.op("fma", 1, 2, 0)),)

        def others(place: Extent, totals: tuple[int, ...]) -> tuple[int, ...]:
            self._scaled((register, place), nest.builder.types[totals[0]].static_shape, factors)
            return totals

        (total,) = self._over((0, third), 1, multiplied)
        kind = nest.builder.types[total].static_shape
        number = nest.builder.emit(lambda r: t.Iota(r, self.at, 0), tile(I32, *self._shape(kind[self.at], 1)))
        total = self._summed(nest.map(kind, (total, number), with_sign))
        self._over(((PARTS - 1) * third, extent), 1, others)
        self._store((register, extent), nest.map(shape, (total,), lambda s: s.op("neg", 0)))
        self._store((register, extent + 1), nest.map(shape, (sizes, factors), undone_of))

    def _over(
        self, ends: tuple[int, int], carried: int, step: Callable[[Extent, tuple[int, ...]], tuple[int, ...]]
    ) -> tuple[int, ...]:
        """Some elements of every column at a time, so many tiles carried."""
        start, extent, index = ends[0], ends[1] - ends[0], self.paired.depth
        count = next(count for count in _STEPS if extent % count == 0 and count * carried <= max(_STEPS[0], carried))
        zeros = tuple(self.nest.constant(0.0, F32, self._shape(count)) for _ in range(carried))
        return self.nest.loop(LoopRange(index, extent, count), zeros, lambda c: step(start + symbol(index), c))

    def _copied(self, start: Extent, where: tuple[int, Extent], total: int) -> int:
        """Elements copied, their sizes added: reading them again where they lie meets other pages every time."""
        nest, kind, (register, place) = self.nest, self.nest.builder.types[total].static_shape, where
        vector, depth = nest.axes[-1], self.paired.depth
        nest.offsets |= {depth: place, vector: start + register * nest.lanes}
        nest.tiles[depth] = kind[self.at]
        axes = [depth if i == self.at else axis for i, axis in enumerate(nest.axes)]
        value = _load(nest, nest.view(self.node.reads[1], self.node.accesses[1], axes))
        del nest.tiles[depth]
        self._store(where, value)
        return nest.map(kind, (total, value), add_size)

    def _scaled(self, where: tuple[int, Extent], kind: tuple[int, ...], factors: int) -> int:
        """Copied elements times their columns' factors, in their place."""
        value = _load(self.nest, _scratch_view(self.nest, *where, (self.at, kind[self.at])))
        value = self.nest.map(kind, (value, factors), lambda s: s.op("mul", 0, 1))
        self._store(where, value)
        return value

    def _store(self, where: tuple[int, Extent], value: int) -> None:
        rows = self.nest.builder.types[value].static_shape[self.at]
        self.nest.builder.add(t.Store(_scratch_view(self.nest, *where, (self.at, rows)), value))

    def _summed(self, totals: int) -> int:
        """The sum of a tile along its columns."""
        builder, kind = ScalarBuilder((F32, F32)), list(self.nest.builder.types[totals].static_shape)
        program, count = builder.finish(builder.op("add", 0, 1)), kind[self.at]
        kind[self.at] = 1
        result = self.nest.builder.value(tile(F32, *kind))
        self.nest.builder.add(t.Reduce((result,), (totals,), (self.at,), program, (0.0,), f"tree({count})"))
        return result

    def _shape(self, count: int, lanes: int | None = None) -> tuple[int, ...]:
        last = len(self.nest.axes) - 1
        found = {self.at: count, last: self.nest.lanes if lanes is None else lanes}
        return tuple(found.get(axis, 1) for axis in range(last + 1))


def sum_of_columns(nest: Nest, schedule: Schedule) -> int:
    """The sums of a tile of rows of weights and a register of scaled columns."""
    node, paired, _ = paired_product(nest, schedule)
    (row,), depth = paired.scaled, paired.depth
    nest.offsets[f"{row}_panel"], nest.offsets[f"{row}_lane"] = nest.offsets[row] // nest.tiles.get(row, 1), 0
    nest.tiles[depth] = 1
    total = sum_in_pairs(nest, _OfColumns(nest, schedule, node, paired), schedule.factors().get(depth, TURN))
    del nest.tiles[depth]
    return total


@dataclass(frozen=True, slots=True)
class _OfColumns:
    """Panels of weights, and scaled columns."""

    nest: Nest
    schedule: Schedule
    node: Compute
    paired: Paired

    def row(self, place: Extent) -> int:
        nest, node = self.nest, self.node
        nest.offsets[self.paired.depth] = place
        return nest.load(node.reads[0], node.accesses[0])

    def column(self, place: Extent) -> int:
        return _load(self.nest, _scratch_view(self.nest, symbol(_REGISTER), place))

    def undone(self) -> int:
        return self.column(self.paired.extent + 1)

    def ask(self, place: Extent) -> None:  # noqa: ARG002 (of every turn, which the loops count)
        """For a line, a turn, of the registers of columns that come next, all of one element after the other."""
        nest, read = self.nest, self.node.reads[1]
        if self.schedule.prefetched() is not None:
            buffer = nest.buffer(Operand(read), nest.task.function.types[read].shape)
            ask_for(nest, buffer, len(self.node.accesses[1].indices), self._ahead())

    def _ahead(self) -> t.Ahead:
        nest, paired, vector, (row,) = self.nest, self.paired, self.nest.axes[-1], self.paired.scaled
        size, count = nest.tiles.get(row, 1), registers_of(self.schedule, vector, nest.lanes)
        turns, tiles = paired.third // TURN, int_extent(nest.domain[row]) // size
        rows = max(1, -(-paired.extent // (turns * tiles)))
        turn = (symbol(_REGISTER) * tiles + nest.offsets[row] // size) * turns + symbol(paired.depth) // TURN
        number = minimum(turn * rows, (paired.extent - rows) * count)
        next_ones = nest.offsets[vector] - symbol(_REGISTER) * nest.lanes + count * nest.lanes
        places = nest.offsets | {paired.depth: number // count, vector: next_ones + mod(number, count) * nest.lanes}
        indices = [nest.expressed(i) for i in self.node.accesses[1].indices]
        strides = strides_of(nest, self.node.reads[1])
        apart = int_extent(strides[indices.index(symbol(paired.depth))])
        lines = -(-nest.lanes * F32.bytes // LINE_BYTES)
        return t.Ahead(element_at(indices, strides, places), lines, 1, rows, apart)
