"""Rows of a product whose terms are taken in pairs, scaled, with the sums of their own pairs (`space.pairs`).

Before: x[i, k]. After, in the task's scratch memory: x[i, k] * 2**e; then minus the sum over k of +- of the products
of the first third's elements by the second's; then 2**-e, or 0 for a row of zeros (`pair_scale`); a row with a number
that is none has none behind it. Some rows are made together, so that lanes are combined for all of them at once.
Invariant: a row's bits depend on that row alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.types import F32, I32, int_extent, tile
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.schedule.trace import Pair
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.schedule_to_tile.nest import LoopRange, Nest
from tessera_build.lower.schedule_to_tile.pair_scale import add_size, factor_of, undone_of, with_sign
from tessera_build.lower.schedule_to_tile.pairs import PairedRows, paired_rows, row_view, rows_buffer
from tessera_build.space.pairs import PARTS, Paired

# Rows that are made together: as many as a register has lanes, or the largest share of a line that is not far less.
_MOST_TOGETHER, _LEAST_TOGETHER = 8, 6


def emit_pair_rows(nest: Nest, node: Compute, paired: Paired, pair: Pair) -> None:
    """Append the nest over all rows: all axes but the innermost in parallel, and that one if it is alone."""
    rows = paired_rows(nest, paired)
    rows_buffer(nest, rows)
    nest.tiles = {}
    axes = list(nest.axes[:-1])
    long = [axis for axis in axes if nest.domain[axis] != 1] or axes[-1:]
    nest.offsets.update({axis: symbol(axis) if axis in long else 0 for axis in axes})

    def inside(outer: list[str]) -> tuple[int, ...]:
        if outer:
            nest.loop(LoopRange(outer[0], nest.domain[outer[0]], 1, "parallel"), (), lambda _: inside(outer[1:]))
        else:
            _emit_line(_Rows(nest, node, rows, pair, long[-1]), "parallel" if len(long) == 1 else None)
        return ()

    inside(long[:-1])


def emit_line(nest: Nest, node: Compute, paired: Paired, pair: Pair) -> None:
    """Append those of one line of pixels, at the nest's offsets along the other axes: what a stage of a chain reads."""
    tiles, ragged, before, line = nest.tiles, nest.ragged, dict(nest.offsets), nest.axes[-2]
    nest.ragged = set()
    _emit_line(_Rows(nest, node, paired_rows(nest, paired), pair, line), None)
    nest.tiles, nest.ragged, nest.offsets = tiles, ragged, before


def _emit_line(rows: _Rows, scope: str | None) -> None:
    """The rows along one axis, some together."""
    nest, axis = rows.nest, rows.axis

    def turn(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.tiles = {axis: rows.together}
        nest.place(axis, symbol(axis))
        rows.emit()
        return ()

    nest.loop(LoopRange(axis, nest.domain[axis], rows.together, scope), (), turn)


def _together(extent: int) -> int:
    """How many rows of a line are made together; the last ones may be made twice."""
    if extent <= _MOST_TOGETHER:
        return extent
    shares = (n for n in range(_MOST_TOGETHER, _LEAST_TOGETHER - 1, -1) if extent % n == 0)
    return next(shares, _MOST_TOGETHER)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Some rows along `axis` under construction, at the nest's offsets."""

    nest: Nest
    node: Compute
    rows: PairedRows
    pair: Pair
    axis: str

    @property
    def together(self) -> int:
        """Rows of the tile."""
        return _together(int_extent(self.nest.domain[self.axis]))

    def emit(self) -> None:
        """Their scales, their elements, and what stands behind them."""
        nest, rows = self.nest, self.rows
        sizes = self._across(self._sizes())
        factors = nest.map(nest.builder.types[sizes].static_shape, (sizes,), lambda s: factor_of(s, 0, self.pair.scale))
        each = self._turned(factors)
        totals = self._across(self._signed(self._pairs(each)))
        self._others(each)
        shape = nest.builder.types[totals].static_shape
        self._store(rows.begin, nest.map(shape, (totals,), lambda s: s.op("neg", 0)))
        self._store(rows.begin + 1, nest.map(shape, (sizes, factors), undone_of))

    # -- passes over the rows, a register of each at a time -----------------------------------------------------------

    def _sizes(self) -> int:
        """Sums of the sizes of elements, lane by lane."""
        extent, lanes, depth = self.rows.paired.extent, self.nest.lanes, self.rows.paired.depth
        whole = extent // lanes * lanes

        def step(at: Extent, carried: tuple[int, ...]) -> tuple[int, ...]:
            terms = (carried[0], self._element(at))
            return (self.nest.map(self._shape, terms, add_size),)

        carried = self._steps((0, whole), step, (self.nest.constant(0.0, F32, self._shape),), depth)
        return (carried if whole == extent else step(whole, carried))[0]

    def _pairs(self, factors: int) -> int:
        """The first two thirds scaled; sums of the products of their elements, lane by lane."""
        nest, third, depth = self.nest, self.rows.paired.third, self.rows.paired.depth
        whole = third // nest.lanes * nest.lanes

        def step(at: Extent, carried: tuple[int, ...]) -> tuple[int, ...]:
            x, y = (self._scaled(place, factors) for place in (at, at + third))
            if at == whole:
                x = nest.map(self._shape, (x, self._number(whole - third)), _below_zero)
            return (nest.map(self._shape, (carried[0], x, y), lambda s: s.op("fma", 1, 2, 0)),)

        carried = self._steps((0, whole), step, (nest.constant(0.0, F32, self._shape),), depth)
        return (carried if whole == third else step(whole, carried))[0]

    def _others(self, factors: int) -> None:
        """All else scaled; the first of it may be scaled twice, so that the last ends with the row."""
        extent, lanes = self.rows.paired.extent, self.nest.lanes
        steps = -(-(extent - (PARTS - 1) * self.rows.paired.third) // lanes)
        first = max(0, extent - steps * lanes)

        def step(at: Extent, _: tuple[int, ...]) -> tuple[int, ...]:
            self._scaled(at, factors)
            return ()

        self._steps((first, first + steps * lanes), step, (), self.rows.paired.depth)

    def _steps(
        self,
        ends: tuple[int, int],
        step: Callable[[Extent, tuple[int, ...]], tuple[int, ...]],
        carried: tuple[int, ...],
        index: str,
    ) -> tuple[int, ...]:
        """A register of every row at a time."""
        start, stop = ends
        lanes = self.nest.lanes
        if stop - start > lanes:
            span = LoopRange(index, stop - start, lanes)
            return self.nest.loop(span, carried, lambda values: step(start + symbol(index), values))
        return step(start, carried) if stop > start else carried

    # -- tiles --------------------------------------------------------------------------------------------------------

    @property
    def _shape(self) -> tuple[int, ...]:
        """A register of every row."""
        return (*(self.together if axis == self.axis else 1 for axis in self.nest.axes[:-1]), self.nest.lanes)

    def _scaled(self, at: Extent, factors: int) -> int:
        """Elements from `at` on times their rows' factors, which are stored, too."""
        value = self.nest.map(self._shape, (self._element(at), factors), lambda s: s.op("mul", 0, 1))
        self.nest.builder.add(
            t.Store(row_view(self.nest, self.rows, at, self.nest.lanes, checked=self._ends(at)), value)
        )
        return value

    def _element(self, at: Extent) -> int:
        """Elements from `at` on; zeros beyond the row."""
        nest, node, depth = self.nest, self.node, self.rows.paired.depth
        nest.offsets[depth], nest.tiles[depth] = at, nest.lanes
        nest.ragged = {depth} if self._ends(at) else set()
        view = nest.view(node.reads[0], node.accesses[0], [*nest.axes[:-1], depth])
        nest.ragged = set()
        del nest.tiles[depth]
        found = nest.builder.emit(lambda r: t.Load(r, view), tile(F32, *nest.builder.types[view].static_shape))
        if node.reads[0] in nest.scratch and isinstance(at, int) and self._ends(at):
            # Of a line in a chain's own memory something stands behind the row.
            found = nest.map(self._shape, (found, self._number(at - self.rows.paired.extent)), _below_zero)
        return found

    def _ends(self, at: Extent) -> bool:
        """Whether a register from `at` on ends beyond the row; those in loops do not."""
        return isinstance(at, int) and at + self.nest.lanes > self.rows.paired.extent

    def _number(self, first: int) -> int:
        """The numbers from `first` on, a lane each."""
        shape = tuple(1 for _ in self.nest.axes[:-1])
        return self.nest.builder.emit(lambda r: t.Iota(r, len(shape), first), tile(I32, *shape, self.nest.lanes))

    def _signed(self, totals: int) -> int:
        """Every other lane negated."""
        return self.nest.map(self._shape, (totals, self._number(0)), with_sign)

    def _across(self, totals: int) -> int:
        """Sums over lanes, a row a lane."""
        builder = self.nest.builder
        turned = self._turned(totals)
        adder = ScalarBuilder((F32, F32))
        program, kind = adder.finish(adder.op("add", 0, 1)), list(builder.types[turned].static_shape)
        axis = self.nest.axes.index(self.axis)
        kind[axis] = 1
        result = builder.value(tile(F32, *kind))
        order = f"tree({self.nest.lanes})"
        builder.add(t.Reduce((result,), (turned,), (axis,), program, (0.0,), order))
        return result

    def _turned(self, value: int) -> int:
        """Rows and lanes exchanged."""
        builder, axis, last = self.nest.builder, self.nest.axes.index(self.axis), len(self.nest.axes) - 1
        order = list(range(last + 1))
        order[axis], order[last] = order[last], order[axis]
        shape = builder.types[value].static_shape
        kind = tile(builder.types[value].dtype, *(shape[place] for place in order))
        return builder.emit(lambda r: t.Permute(r, value, tuple(order)), kind)

    def _store(self, place: int, values: int) -> None:
        """A number of every row, at its place."""
        self.nest.builder.add(t.Store(row_view(self.nest, self.rows, place), self._turned(values)))


def _below_zero(s: ScalarBuilder) -> int:
    """The first where the second is a number below zero, else 0."""
    return s.op("select", s.op("lt", 1, s.const(0, I32)), 0, s.const(0.0, F32))
