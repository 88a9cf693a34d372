"""Sums of products whose terms are taken in pairs (`space.pairs`): the register tile, inside any nest of a product.

Before: result[i, j] = sum over k of x[i, k] * w[k, j]. After: a launch of its own leaves every row in the task's
scratch memory, scaled, with what its pairs begin with and the number that undoes the scale behind it (`pair_rows`);
panels of the weights have what their columns begin with as one row more. A tile begins with both, adds turns of two
pairs and two terms that are not paired, and undoes the scale.

Invariant: an output depends on its row and its column alone; the order of its sum is that of every other output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.types import F32, memref, tile
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.schedule.trace import Pair, Schedule, ScheduleRejectedError
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.schedule_to_tile.nest import SCRATCH, LoopRange, Nest, Operand
from tessera_build.lower.schedule_to_tile.prefetch import lines_ahead
from tessera_build.space.pairs import BEHIND, PARTS, TURN, Paired, paired_of
from tessera_build.space.winograd_plan import pitch


def paired_product(nest: Nest, schedule: Schedule) -> tuple[Compute, Paired, Pair]:
    """The product that a schedule takes in pairs; raises `ScheduleRejectedError` where there is none."""
    sums = [n for n in nest.task.function.nodes if isinstance(n, Compute) and n.combine != "none"]
    read = 0 if 0 in schedule.packs() else 1
    paired = paired_of(sums[0], read) if nest.task.kind == "contraction" and not schedule.groups() else None
    pair = schedule.paired()
    if pair is None or paired is None or pair.axis != paired.depth:
        raise ScheduleRejectedError(
            "SCHEDULE_PAIRS",
            f"the schedule does not fit {nest.task.name}",
            found=f"pairs along {'' if pair is None else pair.axis} of no product of f32 with known extents",
        )
    return sums[0], paired, pair


@dataclass(frozen=True, slots=True)
class PairedRows:
    """Scaled rows, with two numbers behind each: [`axes` of the domain, elements and what follows them]."""

    paired: Paired
    axes: tuple[str, ...]
    shape: tuple[Extent, ...]

    @property
    def begin(self) -> int:
        """The place in a row of what its pairs begin with; behind it the number that undoes the scale."""
        return self.paired.extent


def paired_rows(nest: Nest, paired: Paired) -> PairedRows:
    """Those of a nest's product: of a stage of a chain, which has memory for one line of pixels, one line."""
    axes = nest.axes[2:-1] if SCRATCH in nest.scratch else nest.axes[:-1]
    row = pitch(paired.extent + BEHIND, nest.lanes)
    return PairedRows(paired, axes, (*(nest.domain[axis] for axis in axes), row))


def rows_buffer(nest: Nest, rows: PairedRows) -> int:
    """The chain's memory for them, or the task's, an argument."""
    operand = Operand(SCRATCH)
    if SCRATCH in nest.scratch:
        return nest.scratch[SCRATCH].buffer
    if operand not in nest.buffers:
        nest.buffers[operand] = nest.builder.arg(memref(F32, *rows.shape))
        nest.operands.append(operand)
    return nest.buffers[operand]


def row_view(nest: Nest, rows: PairedRows, place: Extent, size: int = 1, *, checked: bool = False) -> int:
    """A view of `size` elements of the rows in `nest.tiles` from `place` on; `checked`: they may be beyond the row."""
    outer, last = nest.axes[:-1], len(rows.axes)
    offsets = (*(nest.offsets[axis] for axis in rows.axes), place)
    walks = (t.ViewAxis(rows.axes.index(axis) if axis in rows.axes else -1) for axis in outer)
    axes = (*walks, t.ViewAxis(last, checked=checked))
    kind = memref(F32, *(nest.tiles.get(axis, 1) for axis in outer), size)
    buffer = rows_buffer(nest, rows)
    return nest.builder.emit(lambda r: t.View(r, buffer, offsets, axes), kind)


class Terms(Protocol):
    """Where a tile's terms come from. `begin`: the place of what rows and columns begin with, behind their elements."""

    @property
    def paired(self) -> Paired:
        """The product."""
        ...

    def row(self, place: Extent) -> int:
        """One element of every row of the tile."""
        ...

    def column(self, place: Extent) -> int:
        """One element of every column of the tile."""
        ...

    def undone(self) -> int:
        """What undoes the scale."""
        ...

    def ask(self, place: Extent) -> None:
        """Where the schedule says so, a view that asks for a turn's share of what is read next."""
        ...


def sum_in_pairs(nest: Nest, terms: Terms, steps: int) -> int:
    """The sums of the register tile at the nest's offsets: what rows and columns begin with, all turns of `steps`
    pairs, what is left, and the scale undone."""
    paired = terms.paired
    shape = tuple(nest.tiles.get(axis, 1) for axis in nest.axes)
    begin = terms.row(paired.extent), terms.column(paired.extent)
    acc = nest.map(shape, begin, lambda s: s.op("add", 0, 1))
    acc = _pairs(nest, terms, acc, steps if paired.third % steps == 0 else TURN)
    for place in range(PARTS * paired.third, paired.extent):
        plain = acc, terms.row(place), terms.column(place)
        acc = nest.map(shape, plain, lambda s: s.op("fma", 1, 2, 0))
    return nest.map(shape, (acc, terms.undone()), lambda s: s.op("mul", 0, 1))


def _pairs(nest: Nest, terms: Terms, acc: int, steps: int) -> int:
    """All pairs, `steps` emitted at a time."""
    index = terms.paired.depth

    def turn(carried: tuple[int, ...]) -> tuple[int, ...]:
        (acc,) = carried
        for step in range(steps):
            acc = _pair(nest, terms, acc, (symbol(index) + step, step))
        return (acc,)

    return nest.loop(LoopRange(index, terms.paired.third, steps), (acc,), turn)[0]


def _pair(nest: Nest, terms: Terms, acc: int, turn: tuple[Extent, int]) -> int:
    """A pair, and a term that is not paired, added to acc."""
    place, step = turn
    places = [place + part * terms.paired.third for part in range(PARTS)]
    rows = [terms.row(place) for place in places]
    if step % TURN == 0:
        terms.ask(place * PARTS)
    columns = [terms.column(place) for place in places]

    def program(s: ScalarBuilder) -> int:
        acc, x, y, z, bx, by, bz = range(7)
        plain = s.op("fma", z, bz, acc)
        if step % TURN:
            return s.op("fma", s.op("neg", s.op("sub", by, x)), s.op("sub", bx, y), plain)
        return s.op("fma", s.op("add", x, by), s.op("add", y, bx), plain)

    return nest.map(nest.builder.types[acc].static_shape, (acc, *rows, *columns), program)


def sum_of_rows(nest: Nest, schedule: Schedule) -> int:
    """The sums of a tile of scaled rows and panels of weights."""
    node, paired, _ = paired_product(nest, schedule)
    nest.tiles[paired.depth] = 1
    steps = schedule.factors().get(paired.depth, TURN)
    return sum_in_pairs(nest, _OfRows(nest, schedule, node, paired_rows(nest, paired)), steps)


@dataclass(frozen=True, slots=True)
class _OfRows:
    """Scaled rows, and panels of weights."""

    nest: Nest
    schedule: Schedule
    node: Compute
    rows: PairedRows

    @property
    def paired(self) -> Paired:
        return self.rows.paired

    def row(self, place: Extent) -> int:
        nest, view = self.nest, row_view(self.nest, self.rows, place)
        return nest.builder.emit(lambda r: t.Load(r, view), tile(F32, *nest.builder.types[view].static_shape))

    def column(self, place: Extent) -> int:
        nest, node = self.nest, self.node
        nest.offsets[self.paired.depth] = place
        return nest.load(node.reads[1], node.accesses[1])

    def undone(self) -> int:
        return self.row(self.rows.begin + 1)

    def ask(self, place: Extent) -> None:
        nest, read = self.nest, self.node.reads[1]
        nest.offsets[self.paired.depth] = place
        ahead = lines_ahead(nest, self.schedule, self.node, PARTS * TURN, once=True)
        if ahead is not None:
            operand, shape, indices = nest.resolve(read, self.node.accesses[1])
            ask_for(nest, nest.buffer(operand, shape), len(indices), ahead)


def ask_for(nest: Nest, buffer: int, rank: int, ahead: t.Ahead) -> None:
    """A view that asks for lines of a buffer with so many axes."""
    walks = tuple(t.ViewAxis(-1) for _ in nest.axes)
    kind, binding = memref(F32, *(1 for _ in nest.axes)), t.Binding(ahead=ahead)
    nest.builder.emit(lambda r: t.View(r, buffer, (0,) * rank, walks, binding=binding), kind)
