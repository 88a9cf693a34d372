"""A graph module as one CPU variant: every task lowered through all levels, every value placed, launches in order.

Takes a module after the graph passes and a machine; gives a `LoweredVariant`. Invariant: the result depends on the
module and the machine only, and launches run in an order in which every value is written before it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.node import Function, Node
from tessera_build.ir.graph.nodes import Array, GraphNode, Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.target.host import Buffer, Entry, Guard, Launch, Variant
from tessera_build.lower.graph_to_schedule.tasks import Task, graph_to_schedule
from tessera_build.lower.program.arena import Lifetime, plan_arena
from tessera_build.lower.program.kernels import LoweredTask, lower_border, lower_task
from tessera_build.lower.program.places import Border, Placer, Places
from tessera_build.lower.program.prepare import prepare
from tessera_build.lower.program.records import LaunchRecord, LoweredVariant, PackedWeight, ValuePlace
from tessera_build.lower.program.rewrite_tasks import copy_task
from tessera_build.lower.schedule_to_tile.layouts import Packing
from tessera_build.lower.schedule_to_tile.nest import Operand
from tessera_build.lower.schedule_to_tile.replay import is_reserved


@dataclass(slots=True)
class _Weights:
    """Weights in ABI order; the same array in the same layout is one weight."""

    module: Module
    rows: dict[tuple[str, Packing | None], int] = field(default_factory=dict[tuple[str, Packing | None], int])
    packed: list[PackedWeight] = field(default_factory=list[PackedWeight])

    def index(self, digest: str, packing: Packing | None) -> int:
        """Row of a constant in a layout."""
        key = (digest, packing)
        if key not in self.rows:
            array = self.module.constants[digest]
            laid = packing.apply(array) if packing else array
            layout = packing.layout if packing else "v1:row-major"
            self.rows[key] = len(self.packed)
            name = self.module.constant_names.get(digest, digest[:19])
            self.packed.append(PackedWeight(name, laid, layout, digest))
        return self.rows[key]


@dataclass(slots=True)
class _Shared:
    """What all entries of a module add to: weights, node names, kernels."""

    module: Module
    machine: CpuMachine
    weights: _Weights
    names: list[str] = field(default_factory=list[str])
    kernels: list[Function] = field(default_factory=list[Function])


def lower_module(module: Module, machine: CpuMachine) -> LoweredVariant:
    """Lower every entry of a module for one machine; a dim may not be called like a loop that lowering makes."""
    reserved = sorted(name for name in module.dims if is_reserved(name))
    if reserved:
        raise TesseraError(
            "DIM_NAME_RESERVED",
            f"the dims {', '.join(reserved)} are called like loops of the compiler",
            expected="other names",
            hint="fix them with `--dim`, or give them other names in the model",
        )
    shared = _Shared(module, machine, _Weights(module))
    entries: list[Entry] = []
    launches: list[tuple[LaunchRecord, ...]] = []
    bound = 0
    for name, function in module.entries.items():
        part = _EntryAssembly(shared, function)
        entries.append(part.run(name))
        launches.append(tuple(part.records))
        bound = max(bound, part.lower_bound)
    packed = tuple(shared.weights.packed)
    variant = Variant(tuple(entries), tuple(shared.kernels), len(packed))
    guards = tuple(message for *_, message in module.guards)
    return LoweredVariant(variant, packed, tuple(launches), tuple(shared.names), guards, bound)


class _EntryAssembly:
    def __init__(self, shared: _Shared, function: Function) -> None:
        module = shared.module
        self._module = module
        self._machine = shared.machine
        self._weights = shared.weights
        self._names = shared.names
        self._kernels = shared.kernels
        self._digests = {
            n.output: str(n.attributes["digest"])
            for n in function.nodes
            if isinstance(n, GraphNode) and n.op == "constant"
        }
        self._constants: dict[int, Array] = {v: module.constants[d] for v, d in self._digests.items()}
        external = set(function.args) | set(self._digests)
        prepared = prepare(function, graph_to_schedule(function, self._constants), external)
        self._function = prepared.function
        placer = Placer(prepared.function, prepared.tasks, external)
        self._places: Places = placer.run()
        self._tasks = self._ordered(prepared.tasks, placer.copies)
        self.records: list[LaunchRecord] = []
        self.lower_bound = 0
        self._arena: dict[int, Extent] = {}

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

    def run(self, name: str) -> Entry:
        """Lower all tasks and write the host program."""
        size = self._plan_memory()
        nodes: list[Node] = [_guard(guard, index) for index, guard in enumerate(self._module.guards)]
        started: set[int] = set()
        for task in self._tasks:
            nodes += self._border_launches(task, started)
            layouts = {v: self._places.of[v].layout(self._shape(task, v)) for v in _values(task)}
            for lowered in lower_task(task, layouts, self._constants, self._machine, self._module.dims):
                nodes.append(self._launch(task, lowered))
        outputs = tuple(self._function.types[v].shape for v in self._function.results)
        return Entry(name, tuple(self._module.dims), tuple(nodes), size, outputs)

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
        lowered = lower_border(kind, border, place.strides, self._machine, self._module.dims)
        corner = Buffer("arena", 0, self._arena[root])
        return self._emit(task, lowered, (corner,), (), ())

    def _launch(self, task: Task, lowered: LoweredTask) -> Launch:
        buffers = tuple(self._buffer(task, operand) for operand in lowered.program.operands)
        # Constants are read through buffers alone: a place for one would keep its unpacked form in the bundle.
        reads = tuple(self._value(task, v) for v in task.inputs if self._places.of[v].root not in self._digests)
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
        name = task.name
        if name not in self._names:
            self._names.append(name)
        kernel = replace(lowered.kernel, name=f"kernel_{len(self._kernels)}")
        self._kernels.append(kernel)
        function, schedule, program = task.function, lowered.schedule, lowered.program.function
        self.records.append(LaunchRecord(name, task.kind, function, schedule, program, kernel, reads, writes))
        dims = tuple(symbol(d) for d in lowered.program.dims)
        return Launch(kernel.name, lowered.count, buffers, dims, self._names.index(name))

    # -- memory -------------------------------------------------------------------------------------------------------

    def _plan_memory(self) -> Extent:
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for step, task in enumerate(self._tasks):
            for value in _values(task):
                root = self._places.of[value].root
                first.setdefault(root, step)
                last[root] = step
        own = set(self._function.args) | set(self._digests) | set(self._function.results)
        lifetimes = [
            Lifetime(r, self._places.sizes[r] * self._function.types[r].dtype.bytes, first[r], last[r])
            for r in first
            if r not in own
        ]
        arena = plan_arena(lifetimes)
        self._arena = arena.offsets
        self.lower_bound = arena.lower_bound
        return arena.size

    def _buffer(self, task: Task, operand: Operand) -> Buffer:
        place = self._value(task, operand.value, operand.packing)
        return Buffer(place.space, place.index, place.offset_bytes)

    def _value(self, task: Task, value: int, packing: Packing | None = None) -> ValuePlace:
        place = self._places.of[value]
        root, kind = place.root, task.function.types[value]
        offset = place.offset * kind.dtype.bytes
        shape = self._shape(task, value)
        if root in self._digests:
            row = self._weights.index(self._digests[root], packing)
            return ValuePlace(value, "weight", row, offset, shape, place.strides, kind.dtype)
        if root in self._function.args:
            row = self._function.args.index(root)
            return ValuePlace(value, "input", row, offset, shape, place.strides, kind.dtype)
        if root in self._function.results:
            row = self._function.results.index(root)
            return ValuePlace(value, "output", row, offset, shape, place.strides, kind.dtype)
        return ValuePlace(value, "arena", 0, self._arena[root] + offset, shape, place.strides, kind.dtype)


def _values(task: Task) -> tuple[int, ...]:
    return (*task.inputs, *task.outputs)


def _guard(guard: tuple[Extent, str, Extent, str], index: int) -> Guard:
    left, relation, right, _ = guard
    if relation == "==":
        return Guard(left, "eq", right, index)
    return Guard(right, "le", left, index)
