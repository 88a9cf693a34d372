"""Passes over different rows in one loop: while the last one ends a row, the others work on the rows after it.

Before: rows one by one, each with all its passes in order. After: chunks of rows; one loop over the columns makes the
last pass over row r, the one before over row r + 1 and, where there are three, the first over row r + 2. Combining
lanes and dividing no longer stand between two loops, and reading overlaps with arithmetic. Invariant: a row's own
operations and their order are those of `row`, so are its bits; a pass that may run beyond the last row stores nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent, minimum, symbol
from tessera_build.lower.schedule_to_tile.nest import LoopRange
from tessera_build.lower.schedule_to_tile.passes import Passes


def emit_staggered(passes: Passes, axis: str) -> None:
    """Append the loops over an axis of rows, the innermost one that is kept."""
    nest, schedule = passes.nest, passes.schedule
    extent, chunk = nest.domain[axis], schedule.factors()[f"{axis}_chunk"]

    def body(_: tuple[int, ...]) -> tuple[int, ...]:
        first = symbol(f"{axis}_chunk")
        whole = isinstance(extent, int) and extent % chunk == 0
        count = chunk if whole else minimum(chunk, extent - first)
        _Chunk(passes.holding(), axis, first, first + count - 1).emit(count)
        return ()

    nest.loop(LoopRange(f"{axis}_chunk", extent, chunk, schedule.scope(axis)), (), body)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Rows from `first` to `last`. Loops carry what is reduced already: of the current row all, then the tile that it
    holds, if it does, of each further row one result less, nearest rows first."""

    passes: Passes
    axis: str
    first: Extent
    last: Extent

    @property
    def depth(self) -> int:
        """How many rows are ahead of the one that ends: one a reduction."""
        return len(self.passes.reductions)

    def emit(self, count: Extent) -> None:
        """Begin, `count` - 1 turns, end."""
        carried = self._begin()
        carried = self.passes.nest.loop(LoopRange(self.axis, count - 1), carried, self._turn)
        self._place(self.last)
        self.passes.finish(self._known(carried, 0))

    def _begin(self) -> tuple[int, ...]:
        carried: list[int] = []
        for ahead in range(self.depth):
            self._place(minimum(self.first + ahead, self.last) if ahead else self.first)
            done: dict[int, int] = {}
            for number in range(self.depth - ahead):
                done[self.passes.reductions[number].result] = self.passes.reduce(number, done)
            carried += [*done.values(), *(self._held() if ahead == 0 else ())]
        return tuple(carried)

    def _turn(self, carried: tuple[int, ...]) -> tuple[int, ...]:
        current, depth, passes = self.first + symbol(self.axis), self.depth, self.passes
        self._place(current)
        passes.store_small(self._known(carried, 0))

        def step(totals: tuple[int, ...]) -> tuple[int, ...]:
            return self._step(carried, totals, current)

        new = passes.sweep(range(depth), passes.starts(range(depth)), step)
        if not passes.single:
            new = tuple(passes.across(number, total) for number, total in enumerate(new))
        following: list[int] = []
        for ahead in range(depth):
            following += [*self._known(carried, ahead + 1).values(), new[depth - ahead - 1]]
            following += self._held() if ahead == 0 else ()
        return tuple(following)

    def _step(self, carried: tuple[int, ...], totals: tuple[int, ...], current: Extent) -> tuple[int, ...]:
        """One tile of every pass.

        All of them read before any stores: where rows are about 4 KiB apart, a load may have to wait for a store to
        another row that it seems to follow.
        """
        passes, depth = self.passes, self.depth
        # One row on there is always one in a turn, more rows on there may be none.
        rows = [minimum(current + ahead, self.last) if ahead > 1 else current + ahead for ahead in range(depth, 0, -1)]
        values: list[int] = []
        new: list[int] = []
        for number, row in enumerate(rows):
            self._place(row)
            values.append(passes.value(number, self._known(carried, depth - number)))
            new += self._combined(number, values, totals) if number == 0 and passes.single else ()
        self._place(current)
        ended = passes.full(self._known(carried, 0))
        for number, row in enumerate(rows):
            self._place(row)
            passes.keep(number, values[number])
        self._place(current)
        passes.store(ended)
        for number in range(len(new), depth):
            new += self._combined(number, values, totals)
        return tuple(new)

    def _combined(self, number: int, values: list[int], totals: tuple[int, ...]) -> tuple[int]:
        """A tile added to a reduction.

        A tile that is a row also ends the reduction: the lanes of the first one are combined before the other passes
        begin, so that what follows in the next turn does not wait for them.
        """
        total = self.passes.add(number, values[number], totals[number])
        return (self.passes.across(number, total) if self.passes.single else total,)

    def _place(self, row: Extent) -> None:
        self.passes.nest.offsets[self.axis] = row

    def _known(self, carried: tuple[int, ...], ahead: int) -> dict[int, int]:
        """Reductions of the row `ahead` of the current one, and what that one holds, by result."""
        lists = [[node.result for node in self.passes.reductions[: self.depth - a]] for a in range(ahead + 1)]
        if self.passes.held is not None:
            lists[0].append(self.passes.held)
        begin = sum(map(len, lists[:ahead]))
        return dict(zip(lists[ahead], carried[begin : begin + len(lists[ahead])], strict=True))

    def _held(self) -> tuple[int, ...]:
        """The tile that the row after the current one holds."""
        held = self.passes.held
        return () if held is None else (self.passes.tiles[held],)
