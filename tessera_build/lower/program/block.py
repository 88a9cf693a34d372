"""A block of graph nodes as host nodes: every task lowered through all levels, every value placed, launches in order.

Takes the nodes of an entry or of a region as a function, with its `Frame`: where the values live that it shares with
its surroundings. Gives the bytes of arena it needs, host nodes, and a record of every launch. Invariant: a value of the
block is written before it is read, and nothing but the frame tells a block where it stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent, Range, symbol
from tessera_build.ir.core.node import Function, Node
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.target.host import Buffer, Launch, Space
from tessera_build.lower.graph_to_schedule.tasks import Task, graph_to_schedule
from tessera_build.lower.program.arena import Lifetime, plan_arena
from tessera_build.lower.program.kernels import LoweredTask, lower_border, lower_task
from tessera_build.lower.program.places import Border, Placer, Places
from tessera_build.lower.program.prepare import prepare
from tessera_build.lower.program.records import LaunchRecord, ValuePlace
from tessera_build.lower.program.rewrite_tasks import copy_task
from tessera_build.lower.program.shared import Shared
from tessera_build.lower.schedule_to_tile.layouts import Packing
from tessera_build.lower.schedule_to_tile.nest import Operand


@dataclass(frozen=True, slots=True)
class Home:
    """Dense memory outside a block that holds one of its values; `offset` in bytes."""

    space: Space
    index: int = 0
    offset: Extent = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """What a block's surroundings fix: digests of the constants it reads, homes of its arguments and its results.

    `ranges` bounds every symbol that the block's extents may mention.
    """

    digests: Mapping[int, str]
    arguments: Mapping[int, Home]
    results: tuple[Home, ...]
    ranges: Mapping[str, Range]


class Block:
    """One block under lowering: made, it knows `arena_bytes`; `emit` then writes its host nodes and `records`."""

    def __init__(self, shared: Shared, function: Function, frame: Frame) -> None:
        self._shared = shared
        self._frame = frame
        self._constants: dict[int, Array] = {v: shared.module.constants[d] for v, d in frame.digests.items()}
        external = {*frame.arguments, *frame.digests}
        prepared = prepare(function, graph_to_schedule(function, self._constants), external)
        self._function = prepared.function
        placer = Placer(prepared.function, prepared.tasks, external)
        self._places: Places = placer.run()
        self._homes = dict(zip(self._function.results, frame.results, strict=True)) | dict(frame.arguments)
        self._tasks = self._ordered(prepared.tasks, placer.copies)
        arena = plan_arena(self._lifetimes())
        self._offsets = arena.offsets
        self._base: Extent = 0
        self.arena_bytes = arena.size
        self.lower_bound = arena.lower_bound
        self.records: list[LaunchRecord] = []

    # -- what runs, in which order ------------------------------------------------------------------------------------

    def _ordered(self, tasks: Sequence[Task], copies: set[tuple[int, int]]) -> list[Task]:
        """Tasks that launch something: reshapes vanish, concatenations become the copies that are left."""
        kept: list[Task] = []
        for task in tasks:
            if task.kind == "concat":
                kept += self._concat_copies(task, copies)
            elif task.kind != "view":
                kept.append(task)
        return kept

    def _concat_copies(self, task: Task, copies: set[tuple[int, int]]) -> list[Task]:
        node = task.nodes[0]
        axis = node.attributes["axis"]
        position = axis if isinstance(axis, int) else 0
        outer = self._places.of[node.output]
        start: Extent = 0
        made: list[Task] = []
        types = dict(self._function.types)
        for value in node.inputs:
            if (node.output, value) in copies:
                part = max(*types, *self._places.of) + 1
                types[part] = types[value]
                offset = outer.offset + start * outer.strides[position]
                self._places.of[part] = type(outer)(outer.root, offset, outer.strides)
                made.append(copy_task(task.name, value, part, types[value]))
            start = start + types[value].shape[position]
        return made

    # -- the host program ---------------------------------------------------------------------------------------------

    def emit(self, base: Extent) -> list[Node]:
        """Lower all tasks; the block's part of the arena starts at byte `base`."""
        self._base = base
        nodes: list[Node] = []
        started: set[int] = set()
        for task in self._tasks:
            nodes += self._border_launches(task, started)
            layouts = {v: self._places.of[v].layout(self._shape(task, v)) for v in _values(task)}
            for lowered in lower_task(task, layouts, self._constants, self._shared.machine, self._frame.ranges):
                nodes.append(self._launch(task, lowered))
        return nodes

    def _shape(self, task: Task, value: int) -> tuple[Extent, ...]:
        known = self._function.types.get(value)
        return known.shape if known is not None else task.function.types[value].shape

    def _border_launches(self, task: Task, started: set[int]) -> list[Node]:
        """Fill the border of a value's memory before the first task that writes into it."""
        made: list[Node] = []
        for value in task.outputs:
            root = self._places.of[value].root
            border = self._places.of[root].border
            if border is None or root in started:
                continue
            started.add(root)
            made.append(self._border(task, root, border))
        return made

    def _border(self, task: Task, root: int, border: Border) -> Launch:
        kind = self._function.types[root]
        place = self._places.of[root]
        lowered = lower_border(kind, border, place.strides, self._shared.machine, self._frame.ranges)
        corner = Buffer("arena", 0, self._base + self._offsets[root])
        return self._emit(task, lowered, (corner,), (), ())

    def _launch(self, task: Task, lowered: LoweredTask) -> Launch:
        buffers = tuple(self._buffer(task, operand) for operand in lowered.program.operands)
        # Constants are read through buffers alone: a place for one would keep its unpacked form in the bundle.
        reads = tuple(self._value(task, v) for v in task.inputs if self._places.of[v].root not in self._frame.digests)
        writes = tuple(self._value(task, v) for v in task.outputs)
        return self._emit(task, lowered, buffers, reads, writes)

    def _emit(
        self,
        task: Task,
        lowered: LoweredTask,
        buffers: tuple[Buffer, ...],
        reads: tuple[ValuePlace, ...],
        writes: tuple[ValuePlace, ...],
    ) -> Launch:
        row = self._shared.name_row(task.name)
        kernel = self._shared.add_kernel(lowered.kernel)
        function, schedule, program = task.function, lowered.schedule, lowered.program.function
        self.records.append(LaunchRecord(task.name, task.kind, function, schedule, program, kernel, reads, writes))
        dims = tuple(symbol(d) for d in lowered.program.dims)
        return Launch(kernel.name, lowered.count, buffers, dims, row)

    # -- memory -------------------------------------------------------------------------------------------------------

    def _lifetimes(self) -> list[Lifetime]:
        """The roots that lie in the arena, with the first and the last task that touches each."""
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for step, task in enumerate(self._tasks):
            for value in _values(task):
                root = self._places.of[value].root
                first.setdefault(root, step)
                last[root] = step
        outside = {*self._homes, *self._frame.digests}
        return [
            Lifetime(r, self._places.sizes[r] * self._function.types[r].dtype.bytes, first[r], last[r])
            for r in first
            if r not in outside
        ]

    def _buffer(self, task: Task, operand: Operand) -> Buffer:
        place = self._value(task, operand.value, operand.packing)
        return Buffer(place.space, place.index, place.offset_bytes)

    def _value(self, task: Task, value: int, packing: Packing | None = None) -> ValuePlace:
        place = self._places.of[value]
        root, kind = place.root, task.function.types[value]
        offset = place.offset * kind.dtype.bytes
        shape = self._shape(task, value)
        if root in self._frame.digests:
            row = self._shared.weights.index(self._frame.digests[root], packing)
            home = Home("weight", row)
        elif root in self._homes:
            home = self._homes[root]
        else:
            home = Home("arena", 0, self._base + self._offsets[root])
        return ValuePlace(value, home.space, home.index, home.offset + offset, shape, place.strides, kind.dtype)


def _values(task: Task) -> tuple[int, ...]:
    return (*task.inputs, *task.outputs)
