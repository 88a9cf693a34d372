"""The passes over one row of a row task: one for each reduction, and one for the full-size outputs.

Takes a nest whose kept axes are placed; appends the tiles of a pass, or all of it. Invariant: a pass finds the results
of earlier ones in `done`, and what they spilled where `spills` says, so that passes over different rows may take turns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tessera_build.ir.core.dims import minimum, substitute, symbol
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.types import tile
from tessera_build.ir.schedule.nodes import Access, Compute
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.graph_to_schedule.definitions import IDENTITY, combined
from tessera_build.lower.schedule_to_tile.nest import LoopRange, Nest
from tessera_build.lower.schedule_to_tile.pointwise import Part, Step, tiles_of, vector_axis
from tessera_build.space.passes import COSTLY

Done = Mapping[int, int]
# Equal numbers round to the same side for long, and what is computed of a difference of two sums shows it: with 256
# turns in a sequence gradients through normalisations of 512 equal rows were off by 2.5e-4 of the largest.
_LONGEST_SEQUENCE, _TURNS_IN_BLOCK, _MOST_IN_BLOCK = 64, 32, 256
_FEW_TURNS = 8  # of an inner loop: an addition for each such loop would be felt


@dataclass(frozen=True, slots=True)
class Passes:
    """`reductions` in order; `spills`: (value, output that holds it) for those whose pass stores what it computes.

    `held`: a value of `spills` that stays in registers, where a row is one tile; `tiles` has its last tile.
    """

    nest: Nest
    schedule: Schedule
    reduced: tuple[str, ...]
    reductions: tuple[Compute, ...]
    spills: tuple[tuple[int, int] | None, ...]
    held: int | None = None
    tiles: dict[int, int] = field(default_factory=dict[int, int])

    @staticmethod
    def of(nest: Nest, schedule: Schedule) -> Passes:
        """The passes of a row task."""
        reductions = tuple(n for n in nest.task.function.nodes if isinstance(n, Compute) and n.combine != "none")
        spills: list[tuple[int, int] | None] = []
        for node in reductions:
            target = _spill_of(nest, node, dict(s for s in spills if s is not None))
            spills.append(None if target is None else (node.reads[0], target))
        return Passes(nest, schedule, tuple(f"_d{i}" for i in sorted(nest.task.reduced)), reductions, tuple(spills))

    def holding(self) -> Passes:
        """The same passes, but what the last reduction spills is held, if a row is one tile."""
        spill = self.spills[-1]
        return replace(self, held=spill[0]) if spill is not None and self.single else self

    def sweep(self, numbers: Sequence[int], carried: tuple[int, ...], step: Step) -> tuple[int, ...]:
        """The loops over a row, around one step for each of its tiles; `carried` are totals of these reductions.

        A long sum is made in parts: a mean of 65536 elements one after the other was off by 1.5e-4 of the largest one.
        """
        sums = any(self.reductions[number].combine == "sum" for number in numbers)
        if sums and self._turns(self.reduced) > _LONGEST_SEQUENCE:
            return self._in_parts(numbers, self.reduced, carried, step)
        return _inner(self.nest, self.schedule, self.reduced, carried, step)

    def _turns(self, axes: tuple[str, ...]) -> float:
        """How many tiles there are along some axes; any number where that depends on a dim."""
        extents = [(self.nest.domain[axis], self.nest.tiles.get(axis, 1)) for axis in axes]
        return math.prod(-(-e // size) if isinstance(e, int) else math.inf for e, size in extents)

    def _in_parts(
        self, numbers: Sequence[int], axes: tuple[str, ...], carried: tuple[int, ...], step: Step
    ) -> tuple[int, ...]:
        """The loops over a row, of which each long one, and each block of its turns, has totals of its own."""
        nest, axis, rest = self.nest, axes[0], axes[1:]
        turns = _turns_in_block(self._turns((axis,)))
        extent, size = nest.domain[axis], nest.tiles.get(axis, 1) * turns

        def turn(totals: tuple[int, ...]) -> tuple[int, ...]:
            if not rest:
                return step(totals)
            if self._turns(rest) < _FEW_TURNS:
                return self._in_parts(numbers, rest, totals, step)
            return self._joined(numbers, totals, self._in_parts(numbers, rest, self.starts(numbers), step))

        if self._turns((axis,)) <= turns:
            return vector_axis(nest, self.schedule, axis, carried, turn)
        loop = f"{axis}_block"
        room = size if extent // size * size == extent else minimum(size, extent - symbol(loop))

        def block(totals: tuple[int, ...]) -> tuple[int, ...]:
            part = tiles_of(nest, Part(axis, symbol(loop), room), self.starts(numbers), turn)
            return self._joined(numbers, totals, part)

        return nest.loop(LoopRange(loop, extent, size), carried, block)

    def _joined(self, numbers: Sequence[int], totals: tuple[int, ...], parts: tuple[int, ...]) -> tuple[int, ...]:
        found: list[int] = []
        for number, total, part in zip(numbers, totals, parts, strict=True):
            shape, combine = self.nest.builder.types[part].static_shape, self.reductions[number].combine
            found.append(self.nest.map(shape, (total, part), lambda s, combine=combine: combined(s, combine, 0, 1)))
        return tuple(found)

    def starts(self, numbers: Sequence[int]) -> tuple[int, ...]:
        """The tiles that reductions begin with."""
        return tuple(self.start(number) for number in numbers)

    def start(self, number: int) -> int:
        """The tile that a reduction begins with."""
        node, nest = self.reductions[number], self.nest
        return nest.constant(IDENTITY[node.combine], nest.dtype(node.result), [nest.tiles.get(a, 1) for a in nest.axes])

    @property
    def single(self) -> bool:
        """Whether a row is one tile, which needs no accumulator beside it."""
        return all(self.nest.tiles.get(axis, 1) == self.nest.domain[axis] for axis in self.reduced)

    def value(self, number: int, done: Done) -> int:
        """One tile of what a reduction combines."""
        node = self.reductions[number]
        self._know(number, done)
        return self.nest.read(node.reads[0], _own_access(self.nest, node))

    def keep(self, number: int, value: int) -> None:
        """Store a tile where later passes read it back, if they do; note one that is held."""
        spill = self.spills[number]
        if spill is not None and spill[0] == self.held:
            self.tiles[spill[0]] = value
        elif spill is not None:
            self.nest.store(spill[0], value, into=spill[1])

    def add(self, number: int, value: int, total: int) -> int:
        """One tile of a row added to a reduction."""
        node, nest = self.reductions[number], self.nest
        for axis in self.reduced:
            if axis in nest.ragged:
                value = nest.valid(axis, value, IDENTITY[node.combine])
        shape, operands = nest.builder.types[total].static_shape, (total, value)
        if self.single and nest.builder.types[value].static_shape == shape:
            return nest.map(shape, (value,), lambda s: s.inline(node.program, [0])[0]) if node.program.ops else value
        return nest.map(shape, operands, lambda s: combined(s, node.combine, 0, *s.inline(node.program, [1])))

    def reduce(self, number: int, done: Done) -> int:
        """A whole pass; gives the reduced tile (extent 1 along the reduced axes)."""

        def step(carried: tuple[int, ...]) -> tuple[int, ...]:
            value = self.value(number, done)
            self.keep(number, value)
            return (self.add(number, value, carried[0]),)

        (total,) = self.sweep((number,), (self.start(number),), step)
        return self.across(number, total)

    def across(self, number: int, total: int) -> int:
        """Combine the partial results that lie side by side in an accumulator tile."""
        node, nest = self.reductions[number], self.nest
        shape = nest.builder.types[total].static_shape
        wide = tuple(i for i, a in enumerate(nest.axes) if a in self.reduced and shape[i] > 1)
        if not wide:
            return total
        dtype = nest.dtype(node.result)
        builder = ScalarBuilder((dtype, dtype))
        program = builder.finish(combined(builder, node.combine, 0, 1))
        kind = tile(dtype, *(1 if i in wide else e for i, e in enumerate(shape)))
        identity, order = (IDENTITY[node.combine],), f"tree({nest.lanes})"
        result = nest.builder.value(kind)
        nest.builder.add(t.Reduce((result,), (total,), wide, program, identity, order))
        return result

    def store_small(self, done: Done) -> None:
        """Outputs of one element a row."""
        for value in self.nest.task.outputs:
            if not _is_full(self.nest, value):
                for axis in self.reduced:
                    self.nest.offsets[axis] = 0
                self._know(len(self.reductions), done)
                self.nest.store(value, self.nest.evaluate(value))

    def full(self, done: Done) -> tuple[tuple[int, int], ...]:
        """(output, one tile of it) for the full-size ones, all before any is stored: one may hold a spill."""
        self._know(len(self.reductions), done)
        return tuple((value, self.nest.evaluate(value)) for value in _full_outputs(self.nest))

    def store(self, tiles: tuple[tuple[int, int], ...]) -> None:
        """Write what `full` computed."""
        for value, computed in tiles:
            self.nest.store(value, computed)

    def finish(self, done: Done) -> None:
        """Everything after the reductions."""
        self.store_small(done)
        if _full_outputs(self.nest):

            def last(_: tuple[int, ...]) -> tuple[int, ...]:
                self.store(self.full(done))
                return ()

            self.sweep((), (), last)

    def _know(self, number: int, done: Done) -> None:
        """What a pass can rely on: the tiles of reductions before it, and what those spilled."""
        self.nest.memo = dict(done)
        self.nest.spilled = dict(s for s in self.spills[:number] if s is not None and s[0] != self.held)


def _turns_in_block(turns: float) -> int:
    """How many turns have a total of their own: about as many as there are such totals then."""
    if turns == math.inf:
        return _LONGEST_SEQUENCE
    return min(max(_TURNS_IN_BLOCK, 1 << (math.ceil(math.log2(turns)) + 1) // 2), _MOST_IN_BLOCK)


def _full_outputs(nest: Nest) -> list[int]:
    """Outputs over the whole domain, as opposed to one element a row."""
    return [v for v in nest.task.outputs if _is_full(nest, v)]


def _is_full(nest: Nest, value: int) -> bool:
    return nest.task.function.types[value].shape == nest.task.domain


def _inner(
    nest: Nest, schedule: Schedule, axes: tuple[str, ...], carried: tuple[int, ...], step: Step
) -> tuple[int, ...]:
    axis, rest = axes[0], axes[1:]
    if nest.tiles.get(axis, 1) > 1:
        if rest:
            return vector_axis(nest, schedule, axis, carried, lambda c: _inner(nest, schedule, rest, c, step))
        return vector_axis(nest, schedule, axis, carried, step)
    if nest.domain[axis] == 1:
        nest.offsets[axis] = 0
        return _inner(nest, schedule, rest, carried, step) if rest else step(carried)

    def body(inner: tuple[int, ...]) -> tuple[int, ...]:
        nest.offsets[axis] = symbol(axis)
        return _inner(nest, schedule, rest, inner, step) if rest else step(inner)

    return nest.loop(LoopRange(axis, nest.domain[axis]), carried, body)


def _own_access(nest: Nest, node: Compute) -> Access:
    """The reduction's read over the domain: its axis k<i> is the domain's axis d<i>."""
    names = {f"_k{i}": symbol(f"_d{i}") for i in range(len(nest.task.domain))}
    return Access(tuple(substitute(i, names) for i in node.accesses[0].indices), node.accesses[0].pad)


def _spill_of(nest: Nest, node: Compute, spilled: Mapping[int, int]) -> int | None:
    """Where to keep what this pass computes for later ones: an output of the same shape and type, if it pays."""
    source = nest.definition(node.reads[0])
    if source is None or source.combine != "none" or not _is_full(nest, source.result):
        return None
    readers = [n for n in nest.task.function.nodes if isinstance(n, Compute) and source.result in n.reads]
    costly = any(op.name in COSTLY for op in source.program.ops)
    if len(readers) < 2 or not costly or source.result in spilled:
        return None
    taken = set(spilled.values())
    same = [v for v in _full_outputs(nest) if nest.dtype(v) == nest.dtype(source.result) and v not in taken]
    return same[0] if same else None
