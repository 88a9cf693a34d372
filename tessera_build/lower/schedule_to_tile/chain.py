"""Loop nests of chains: contractions over one image, row by row, with what lies between them in scratch memory.

Before: a product at a pixel, a window over its rows, a product at a pixel (or two of these), each over whole images.
After: loops over images and blocks of output rows; in a block each step makes the rows of the first product that the
window reaches newly, in a ring with the zeros around the image, then one row of the window, then one of the last
product. Invariant: every element is computed by the statements of its own stage, in their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent, maximum, minimum, mod, symbol
from tessera_build.ir.core.rewrite import FunctionBuilder
from tessera_build.ir.core.types import F32, int_extent, memref
from tessera_build.ir.schedule.trace import (
    Bind,
    Block,
    Group,
    Pack,
    Pair,
    Reorder,
    Schedule,
    ScheduleRejectedError,
    Split,
    Stage,
    Tensorise,
)
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.graph_to_schedule.tasks import Task
from tessera_build.lower.schedule_to_tile.contraction import emit_tiles
from tessera_build.lower.schedule_to_tile.nest import SCRATCH, LoopRange, Nest, Scratch
from tessera_build.lower.schedule_to_tile.pair_rows import emit_line
from tessera_build.lower.schedule_to_tile.pairs import paired_product
from tessera_build.space.chain import BATCH, ROWS, Shape, reduction_of, shape_of, walks_of
from tessera_build.space.pairs import BEHIND
from tessera_build.space.winograd_plan import STACK_BYTES, pitch

_BLOCK, _STEP, _NEW = "_block", "_step", "_new"
# What a stage's schedule may consist of.
_OF_A_STAGE = (Split, Reorder, Bind, Group, Pack, Tensorise, Block, Pair)
# Rows that lie a multiple of this apart fall into one set of the first-level cache.
_ALIASING_BYTES = 4096


@dataclass(frozen=True, slots=True)
class StageNest:
    """One contraction of a chain: its nest, which shares builder and buffers with the others', and its schedule."""

    nest: Nest
    schedule: Schedule


def chain_shape(task: Task) -> tuple[Shape, int]:
    """The extents of a chain and which stage is its window."""
    nodes = [n for stage in task.stages if (n := reduction_of(stage.function.nodes)) is not None]
    window = next((i for i, node in enumerate(nodes) if walks_of(node) is not None), -1)
    shape = shape_of(nodes, window) if window >= 0 and len(nodes) == len(task.stages) else None
    if shape is None:
        raise ScheduleRejectedError("SCHEDULE_CHAIN", f"{task.name} is no chain of products around a window")
    return shape, window


def check_chain(task: Task, schedule: Schedule) -> int:
    """Rows of a block; raises `ScheduleRejectedError` for steps that the chain's own loops do not have."""
    rows = int_extent(task.domain[1])
    if any(isinstance(step, Stage) and not 0 <= step.index < len(task.stages) for step in schedule.steps):
        raise _rejected(task, f"a stage beyond the {len(task.stages)} that it has")
    for step in schedule.stage(None).steps:
        split = isinstance(step, Split) and step.axis == ROWS and 1 <= step.factor <= rows
        if not split and not (isinstance(step, Bind) and step.axis in (BATCH, ROWS) and step.scope == "parallel"):
            raise _rejected(task, f"{step} before the first stage")
    for index in range(len(task.stages)):
        own = schedule.stage(index)
        if any(own.factors().get(axis, 1) != 1 for axis in (BATCH, ROWS)) or own.groups():
            raise _rejected(task, f"stage {index} in tiles of several rows")
        for step in own.steps:
            if not isinstance(step, _OF_A_STAGE) or (isinstance(step, Bind) and step.scope == "parallel"):
                raise _rejected(task, f"{step} in stage {index}")
    return schedule.stage(None).factors().get(ROWS, 1)


def _rejected(task: Task, found: str) -> ScheduleRejectedError:
    return ScheduleRejectedError("SCHEDULE_CHAIN", f"the schedule does not fit {task.name}", found=found)


def emit_chain(task: Task, stages: Sequence[StageNest], schedule: Schedule) -> None:
    """Append the whole nest of a chain."""
    rows = check_chain(task, schedule)
    nest, whole = stages[-1].nest, schedule.stage(None)
    images, height = task.domain[0], task.domain[1]
    start = minimum(symbol(_BLOCK), height - rows)

    def blocks(batch: Extent) -> None:
        def body(_: tuple[int, ...]) -> tuple[int, ...]:
            _Block(task, stages, (batch, start if rows != height else 0, rows)).emit()
            return ()

        if rows == height:
            body(())
        else:
            nest.loop(LoopRange(_BLOCK, height, rows, whole.scope(ROWS)), (), body)

    def image(_: tuple[int, ...]) -> tuple[int, ...]:
        blocks(symbol(BATCH))
        return ()

    if images == 1:
        blocks(0)
    else:
        nest.loop(LoopRange(BATCH, images, 1, whole.scope(BATCH)), (), image)


class _Block:
    """The rows from `start` on of one image: `where` is the image, the start, how many."""

    def __init__(self, task: Task, stages: Sequence[StageNest], where: tuple[Extent, Extent, int]) -> None:
        self._shape, self._window = chain_shape(task)
        self._task, self._stages = task, stages
        self._batch, self._start, self._rows = where
        self._builder: FunctionBuilder = stages[0].nest.builder
        self._nest = stages[0].nest
        self._lanes = self._nest.lanes
        walk = self._shape.walks[0]
        # The row in slot 0 of the first step: rows before the block's first are made where a step makes several.
        self._first = (self._start - self._shape.before) * walk.stride - walk.low + walk.reach - walk.stride
        self._channels = self._padded()

    def _padded(self) -> int:
        """Channels with room for whole tiles of every stage, so that no store into scratch memory has a mask."""
        widths = [s.nest.tiles.get(s.nest.axes[-1], 1) for s in self._stages[: self._window + 1]]
        widest = max(self._lanes, *widths)
        channels = max(-(-self._shape.channels // w) * w for w in (self._lanes, *widths))
        return channels + self._lanes if channels * 4 % _ALIASING_BYTES == 0 and channels >= widest else channels

    def emit(self) -> None:
        """Allocate, then run the steps."""
        lines = sum(math.prod(line) for line in self._lines().values())
        if 4 * (self._shape.scratch(self._channels) + lines) > STACK_BYTES:
            raise _rejected(self._task, f"scratch for {self._channels} channels: more than a thread's stack has for it")
        ring = self._ring() if self._window else None
        for index, line in self._lines().items():
            nest = self._stages[index].nest
            nest.scratch = {**nest.scratch, SCRATCH: Scratch(self._alloc(line), line, tuple)}
        if self._window + 1 < len(self._stages):
            self._row()

        def step(_: tuple[int, ...]) -> tuple[int, ...]:
            if ring is not None:
                self._fill(ring)
            if self._shape.before:
                self._if(self._shape.before, "le", symbol(_STEP), self._results)
            else:
                self._results()
            return ()

        self._nest.loop(LoopRange(_STEP, self._rows + self._shape.before), (), step)

    # -- scratch memory -----------------------------------------------------------------------------------------------

    def _ring(self) -> int:
        """The ring of the first product's rows, its columns outside the image zero."""
        slots, columns = self._shape.ring
        low, width = self._shape.walks[1].low, self._shape.source[1]
        shape = (slots, columns, self._channels)
        buffer = self._alloc(shape)
        first = self._first

        def place(indices: Sequence[Extent]) -> tuple[Extent, ...]:
            return mod(indices[1] - first + slots, slots), indices[2] + low, indices[3]

        self._share(self._window - 1, Scratch(buffer, shape, place))
        for start, count in ((0, low), (low + width, columns - low - width)):
            if count:
                self._clear(buffer, (slots, count), (0, start))
        return buffer

    def _row(self) -> None:
        """One row of the window's results."""
        shape = (self._shape.target[1], self._channels)
        buffer = self._alloc(shape)
        self._share(self._window, Scratch(buffer, shape, lambda indices: (indices[2], indices[3])))

    def _lines(self) -> dict[int, tuple[int, int]]:
        """The line of scaled pixels of every stage whose terms are taken in pairs: pixels, and elements of each."""
        found: dict[int, tuple[int, int]] = {}
        for index, stage in enumerate(self._stages):
            nest = stage.nest
            if stage.schedule.paired() is not None:
                _, paired, _ = paired_product(nest, stage.schedule)
                found[index] = int_extent(nest.domain[nest.axes[-2]]), pitch(paired.extent + BEHIND, nest.lanes)
        return found

    def _alloc(self, shape: tuple[int, ...]) -> int:
        return self._builder.emit(t.Alloc, memref(F32, *shape))

    def _share(self, producer: int, scratch: Scratch) -> None:
        """Both the stage that writes a value and the one that reads it find it in scratch memory."""
        (value,) = self._task.stages[producer].outputs
        for stage in self._stages[producer : producer + 2]:
            stage.nest.scratch = {**stage.nest.scratch, value: scratch}

    def _clear(self, buffer: int, counts: tuple[int, int], starts: tuple[Extent, Extent]) -> None:
        """Zeros in slots and columns of the ring."""

        def store(_: tuple[int, ...]) -> tuple[int, ...]:
            zero = self._nest.constant(0.0, F32, (1, 1, self._lanes))
            offsets = (starts[0] + symbol("_z0"), starts[1] + symbol("_z1"), symbol("_z2"))
            walks = tuple(t.ViewAxis(axis) for axis in range(3))
            kind = memref(F32, 1, 1, self._lanes)
            view = self._builder.emit(lambda r: t.View(r, buffer, offsets, walks), kind)
            self._builder.add(t.Store(view, zero))
            return ()

        def loop(extents: Sequence[tuple[str, int, int]]) -> tuple[int, ...]:
            if not extents:
                return store(())
            name, extent, step = extents[0]
            return self._nest.loop(LoopRange(name, extent, step), (), lambda _: loop(extents[1:]))

        loop((("_z0", counts[0], 1), ("_z1", counts[1], 1), ("_z2", self._channels, self._lanes)))

    # -- steps --------------------------------------------------------------------------------------------------------

    def _fill(self, ring: int) -> None:
        """The rows that the window reaches newly: computed inside the image, zero outside, none before the block."""
        walk, (slots, columns) = self._shape.walks[0], self._shape.ring
        turn = symbol(_STEP) * walk.stride + (symbol(_NEW) if walk.stride > 1 else 0)
        row, height = self._first + turn, self._shape.source[0]
        early = self._shape.before * walk.stride - (walk.reach - walk.stride)

        def inside() -> None:
            self._stage(self._window - 1, row)

        def outside() -> None:
            self._clear(ring, (1, columns), (mod(turn + slots, slots), 0))

        def needed() -> None:
            last = (self._shape.target[0] - 1) * walk.stride - walk.low + walk.reach - 1
            if walk.low or last >= height:
                self._if(maximum(0 - row, row - (height - 1)), "le", 0, inside, outside)
            else:
                inside()

        def new(_: tuple[int, ...]) -> tuple[int, ...]:
            if early:
                self._if(early, "le", turn, needed)
            else:
                needed()
            return ()

        if walk.stride > 1:
            self._nest.loop(LoopRange(_NEW, walk.stride), (), new)
        else:
            new(())

    def _results(self) -> None:
        """One row of the window and of what follows."""
        for stage in range(self._window, len(self._stages)):
            self._stage(stage, self._start - self._shape.before + symbol(_STEP))

    def _stage(self, index: int, row: Extent) -> None:
        """All of one row of a stage."""
        nest, schedule = self._stages[index].nest, self._stages[index].schedule
        nest.memo.clear()
        nest.offsets.update({BATCH: self._batch, ROWS: row})
        if schedule.paired() is not None:
            emit_line(nest, *paired_product(nest, schedule))
        emit_tiles(nest, schedule, [a for a in schedule.order() or nest.axes if a not in (BATCH, ROWS)])

    def _if(
        self,
        left: Extent,
        relation: t.Relation,
        right: Extent,
        then: Callable[[], None],
        otherwise: Callable[[], None] | None = None,
    ) -> None:
        b = self._builder
        with b.region() as chosen:
            then()
        with b.region() as other:
            if otherwise is not None:
                otherwise()
        b.add(t.If((), left, relation, right, chosen.region, other.region))
