"""A block of graph nodes as host nodes: every task lowered through all levels, every value placed, launches in order.

Takes the nodes of an entry or of a region as a function, and what its surroundings are. Gives the bytes of arena it
needs, host nodes, and a record of every launch. Invariant: a value of the block is written before it is read, and
nothing but its frame and its surroundings tell a block where it stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce

from tessera_build.ir.core.dims import Extent, maximum, symbol, symbols_of
from tessera_build.ir.core.node import Function, Node, Region
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.sizes import names_of
from tessera_build.ir.graph.regions import index_range
from tessera_build.ir.schedule.trace import Schedule, ScheduleRejectedError
from tessera_build.ir.target.host import Allocate, Apart, Buffer, Launch
from tessera_build.lower.graph_to_schedule.chains import chained
from tessera_build.lower.graph_to_schedule.excess import with_excess_precision
from tessera_build.lower.graph_to_schedule.tasks import Task, graph_to_schedule
from tessera_build.lower.program.arena import Lifetime, aligned, plan_arena
from tessera_build.lower.program.audit import ZONE_BYTES, finite_kernel, zone_kernel
from tessera_build.lower.program.control import ControlPlan, Room, emit_control, plan_control
from tessera_build.lower.program.frame import Frame, Home, Surroundings
from tessera_build.lower.program.kernels import LoweredTask, Setting, lower_border, lower_task
from tessera_build.lower.program.places import Border, Placer, Places
from tessera_build.lower.program.prepare import prepare
from tessera_build.lower.program.reads import Dynamic, late_guards, read_nodes
from tessera_build.lower.program.records import LaunchRecord, ValuePlace
from tessera_build.lower.program.rewrite_tasks import copy_task
from tessera_build.lower.program.shared import Shared
from tessera_build.lower.program.update import lower_update
from tessera_build.lower.schedule_to_tile.layouts import Packing
from tessera_build.lower.schedule_to_tile.nest import SCRATCH, Operand
from tessera_build.space.chain import saved_cycles

# Element types whose registers can be compared; narrower ones are looked at where they are computed, in these.
_LOOKED_AT = frozenset({"f32", "f64"})


class Block:
    """One block under lowering: made, it knows `arena_bytes`; `emit` then writes its host nodes and `records`."""

    def __init__(self, shared: Shared, function: Function, frame: Frame) -> None:
        self._shared = shared
        self._frame = frame
        self._constants: dict[int, Array] = {v: shared.module.constants[d] for v, d in frame.digests.items()}
        external = {*frame.arguments, *frame.digests}
        tasks = graph_to_schedule(function, self._constants)
        if frame.derivative:
            tasks = tuple(with_excess_precision(task) for task in tasks)
        tasks = chained(tasks, function, self._constants, lambda shape: saved_cycles(shape, shared.machine))
        prepared = prepare(function, tasks, external, self._constants)
        self._function = prepared.function
        placer = Placer(prepared.function, prepared.tasks, external)
        self._places: Places = placer.run()
        self._tasks = self._ordered(prepared.tasks, placer.copies)
        shared.tasks += len(self._tasks)
        self._controls: dict[int, ControlPlan] = {}
        self._lowered: dict[int, tuple[LoweredTask, ...]] = {}
        for step, task in enumerate(self._tasks):
            self._lower(task, step)
        self._dynamic: dict[int, Dynamic] = {}
        self._zone_of: dict[int, Extent] = {}
        self._zoned: set[int] = set()
        arena = plan_arena(self._lifetimes())
        self._offsets = arena.offsets
        self._base: Extent = 0
        self._homes: dict[int, Home] = {}
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

    def _lower(self, task: Task, step: int) -> None:
        """A task through all levels: what scratch memory it needs is known before the arena is planned."""
        if task.kind == "control":
            self._controls[step] = self._plan(task)
        elif task.kind != "read":
            layouts = {v: self._places.of[v].layout(self._shape(task, v)) for v in _values(task)}
            frame = self._frame
            known = frame.ranges, frame.unbounded, frame.mixed, frame.derivative
            setting = Setting(task, layouts, self._constants, *known)
            if self._frame.updated.isdisjoint(task.outputs):
                self._lowered[step] = lower_task(setting, self._shared.machine, self._shared.choose)
            else:
                self._lowered[step] = lower_update(setting, self._shared.machine)
        self._shared.finish_task(task.name)

    def _plan(self, task: Task) -> ControlPlan:
        """The regions of a node as blocks of their own."""
        (node,) = task.nodes
        inside = frozenset(task.inputs) - self._frame.digests.keys()
        ranges = {**self._frame.ranges, **index_range(node, self._frame.ranges)}
        blocks: list[Block] = []
        for region in node.regions:
            body = replace(self._function, args=region.args, nodes=region.nodes, results=region.results)
            arguments = inside | set(region.args)
            depth = self._frame.depth + 1
            frame = replace(self._frame, arguments=arguments, ranges=ranges, depth=depth, updated=frozenset())
            blocks.append(Block(self._shared, body, frame))
        room = Room(self._frame.most, self._shared.dynamic, self._shared.name_row(task.name))
        return plan_control(node, blocks, self._function.types, room)

    # -- the host program ---------------------------------------------------------------------------------------------

    def emit(self, surroundings: Surroundings) -> list[Node]:
        """Lower all tasks."""
        self._base = surroundings.base
        results = zip(self._function.results, surroundings.results, strict=True)
        self._homes = {**surroundings.arguments, **dict(results)}
        nodes: list[Node] = []
        started: set[int] = set()
        for step, task in enumerate(self._tasks):
            nodes += (node for item in self._dynamic.values() for node in item.before(step))
            if step in self._controls:
                nodes += self._control(task, step)
            elif task.kind == "read":
                nodes += self._read(task)
            else:
                nodes += self._border_launches(task, started)
                nodes += self._zones(task, fill=True)
                nodes += self._launches(task, step)
                nodes += self._audits(task)
            nodes += (node for item in self._dynamic.values() for node in item.after(step))
        return nodes

    def _read(self, task: Task) -> list[Node]:
        """Sizes from data, and the guards that waited for them."""
        place = self._value(task, task.inputs[0])
        fresh = names_of(task.nodes[0].attributes)
        self._shared.known.update(fresh)
        reads = read_nodes(task, Buffer(place.space, place.index, place.offset_bytes), self._shared.name_row(task.name))
        return [*reads, *late_guards(self._shared.module, fresh, self._shared.known)]

    def _control(self, task: Task, step: int) -> list[Node]:
        """A node with regions: its blocks find in the homes what they capture."""
        plan = self._controls[step]
        homes: dict[int, Home] = {}
        for value in _values(task):
            place = self._value(task, value)
            homes[value] = Home(place.space, place.index, place.offset_bytes)
        nodes = emit_control(plan, homes, self._base + self._offsets[_scratch(step)], self._shared.slots)
        for block in plan.blocks:
            self.records += block.records
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
        return self._emit(task, lowered, (self._home(root).buffer,), (), ())

    def _launches(self, task: Task, step: int) -> list[Node]:
        launches: list[Node] = [self._launch(task, lowered, step) for lowered in self._lowered[step]]
        if self._frame.updated.isdisjoint(task.outputs):
            return launches
        old, new = (self._buffer(task, Operand(value)) for value in (task.inputs[0], task.outputs[0]))
        return [Apart(old, new, Region((), tuple(launches[:-1]))), launches[-1]]

    def _launch(self, task: Task, lowered: LoweredTask, step: int) -> Launch:
        scratch = Buffer("arena", 0, self._base + self._offsets[_scratch(step)]) if lowered.scratch_bytes else None
        buffers = tuple(
            scratch if scratch is not None and operand.value == SCRATCH else self._buffer(task, operand)
            for operand in lowered.program.operands
        )
        # Constants are read through buffers alone: a place for one would keep its unpacked form in the bundle.
        reads = tuple(self._value(task, v) for v in task.inputs if self._places.of[v].root not in self._frame.digests)
        writes = () if lowered.prepares else tuple(self._value(task, v) for v in task.outputs)
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
        depth, names = self._frame.depth, task.operators
        record = LaunchRecord(task.name, task.kind, function, schedule, program, kernel, reads, writes, depth, names)
        self.records.append(record)
        dims = tuple(symbol(d) for d in lowered.program.dims)
        return Launch(kernel.name, lowered.count, buffers, dims, row)

    # -- debug builds -------------------------------------------------------------------------------------------------

    def _zones(self, task: Task, *, fill: bool) -> list[Node]:
        """Write, or look at, the zones behind the values that a task writes."""
        if not self._shared.checks.bounds:
            return []
        made: list[Node] = []
        for root in dict.fromkeys(self._places.of[value].root for value in task.outputs):
            if root not in self._zone_of or (fill and root in self._zoned):
                continue
            self._zoned.add(root)
            zone = Buffer("arena", 0, self._base + self._offsets[root] + self._zone_of[root])
            made.append(self._audit(task, zone_kernel(fill), zone))
        return made

    def _audits(self, task: Task) -> list[Node]:
        """What a debug build looks at when a task is done."""
        made: list[Node] = []
        for value in task.outputs if self._shared.checks.values else ():
            place = self._value(task, value)
            if place.dtype.name in _LOOKED_AT:
                kernel = finite_kernel(place.shape, place.strides, place.dtype, self._shared.checks)
                made.append(self._audit(task, kernel, Buffer(place.space, place.index, place.offset_bytes)))
        return [*made, *self._zones(task, fill=False)]

    def _audit(self, task: Task, kernel: Function, buffer: Buffer) -> Launch:
        named = self._shared.add_kernel(kernel)
        empty = replace(named, name="audit", nodes=())
        depth = self._frame.depth
        self.records.append(LaunchRecord(task.name, "audit", empty, Schedule(), empty, named, (), (), depth))
        dims = tuple(symbol(name) for name in kernel.names("dims"))
        return Launch(named.name, 1, (buffer,), dims, self._shared.name_row(task.name))

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
        outside = {*self._frame.arguments, *self._function.results, *self._frame.digests}
        scratch = [Lifetime(_scratch(step), p.scratch_bytes, step, step) for step, p in self._controls.items()]
        for step, lowered in self._lowered.items():
            most = self._frame.most(reduce(maximum, (each.scratch_bytes for each in lowered), 0))
            if most is None:
                raise _without_bound(self._tasks[step])
            scratch += [Lifetime(_scratch(step), aligned(most), step, step)] if most != 0 else []
        inside = {r: self._places.sizes[r] * self._function.types[r].dtype.bytes for r in first if r not in outside}
        self._set_aside(first, last, inside)
        room = ZONE_BYTES if self._shared.checks.bounds else 0
        if room:
            self._zone_of = {r: aligned(s) for r, s in inside.items() if self._frame.most(s) is not None}
        return scratch + [
            Lifetime(root, aligned(largest) + room if room else largest, first[root], last[root])
            for root, size in inside.items()
            if (largest := self._frame.most(size)) is not None
        ]

    def _set_aside(self, first: Mapping[int, int], last: Mapping[int, int], inside: Mapping[int, Extent]) -> None:
        """Give roots that no plan can size a slot of their own, and outputs of unknown size their memory."""
        unknown = {root: size for root, size in inside.items() if self._frame.most(size) is None}
        for root, size in unknown.items():
            row = self._shared.name_row(self._tasks[first[root]].name)
            memory = Allocate("dynamic", self._shared.dynamic.take(1), size, row)
            self._dynamic[root] = Dynamic(memory, first[root], last[root])
        for index, root in enumerate(self._function.results if self._frame.depth == 0 else ()):
            type_ = self._function.types[root]
            if any(symbols_of(extent) & self._frame.sizes.keys() for extent in type_.shape):
                row = self._shared.name_row(self._tasks[first[root]].name)
                memory = Allocate("output", index, self._places.sizes[root] * type_.dtype.bytes, row)
                self._dynamic[root] = Dynamic(memory, first[root], last[root])

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
        else:
            home = self._home(root)
        return ValuePlace(value, home.space, home.index, home.offset + offset, shape, place.strides, kind.dtype)

    def _home(self, root: int) -> Home:
        """Where a root's memory begins; kept, since an offset into the arena may be a sum of hundreds of sizes."""
        if root not in self._homes:
            dynamic = self._dynamic.get(root)
            self._homes[root] = (
                Home("dynamic", dynamic.memory.index) if dynamic else Home("arena", 0, self._base + self._offsets[root])
            )
        return self._homes[root]


def _without_bound(task: Task) -> ScheduleRejectedError:
    return ScheduleRejectedError(
        "SCHEDULE_REWRITE",
        f"the schedule does not fit {task.name}",
        found="scratch memory for a number of rows that is read from data",
    )


def _scratch(step: int) -> int:
    """The arena's root for the memory of a node's regions; values have ids from 0."""
    return -1 - step


def _values(task: Task) -> tuple[int, ...]:
    return (*task.inputs, *task.outputs)
