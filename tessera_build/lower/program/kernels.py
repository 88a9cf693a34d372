"""One task through schedule, tiles and registers: the kernels that a launch of it needs.

Takes a task with its layouts; gives one kernel, or more where a dynamic extent may be smaller than a register tile (the
host program then runs one of them, and what prepares it). Invariant: all versions compute every element in the same
order, but for those of a rewritten sum, between which a window's own extents choose, or the number of rows that a
request has, never a batch beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tessera_build.ir.core.dims import Extent, Range, bounds, minimum, symbols_of
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import Type, int_extent
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.attention import heads_per_key
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.nodes import Axis, Compute, KernelCall
from tessera_build.ir.schedule.trace import Schedule, Split
from tessera_build.kernels.attention import attention
from tessera_build.kernels.attention_shape import AttentionShape
from tessera_build.kernels.reach import reach_of
from tessera_build.kernels.subject import KernelSubject
from tessera_build.kernels.table import KERNELS
from tessera_build.lower.graph_to_schedule.tasks import Task
from tessera_build.lower.program.bind import bind_outer_loops
from tessera_build.lower.program.border import border_kernel
from tessera_build.lower.program.merge_axes import with_merged_axes
from tessera_build.lower.program.places import Border
from tessera_build.lower.program.rewrite_tasks import flattened
from tessera_build.lower.schedule_to_tile.crossed import crossed_tiles
from tessera_build.lower.schedule_to_tile.layouts import BufferLayout
from tessera_build.lower.schedule_to_tile.nest import SCRATCH, Operand
from tessera_build.lower.schedule_to_tile.replay import (
    Bindings,
    TileProgram,
    axes_of_domain,
    few_rows_program,
    grouped_domain,
    preparing_program,
    rows_for_halves,
    schedule_to_tile,
)
from tessera_build.lower.schedule_to_tile.row_tiles import SMALLER
from tessera_build.lower.tile_to_target.cpu import lower_cpu
from tessera_build.lower.tile_to_target.values import row_major
from tessera_build.space.attention import attention_schedule
from tessera_build.space.derive import Subject, derive_schedule
from tessera_build.space.strassen import may_be_halved
from tessera_build.space.winograd import WINOGRAD, window_of
from tessera_build.space.workload import EXACT, Bounds


@dataclass(frozen=True, slots=True, eq=False)
class LoweredTask:
    """One kernel: the schedule and tile program it came from, and how many parallel iterations a launch has.

    `prepares`: it writes no value, only the scratch memory that it shares with the task's next kernel.
    """

    schedule: Schedule
    program: TileProgram
    kernel: Function
    count: Extent
    prepares: bool = False

    @property
    def scratch_bytes(self) -> Extent:
        """Scratch memory of the task that it reads or writes."""
        function = self.program.function
        pairs = zip(self.program.operands, function.args, strict=False)
        kinds = [function.types[argument] for operand, argument in pairs if operand.value == SCRATCH]
        total: Extent = 0
        for kind in kinds:
            size: Extent = kind.dtype.bytes
            for extent in kind.shape:
                size = extent * size
            total = total + size
        return total


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """A task where it stands in a program: how its values lie in memory, which are constants, ranges of its dims.

    Nothing is known of `unbounded` symbols before the program runs, so that no memory beside values may depend on them.
    Rows along `mixed` dims belong to one request, as its tokens do. `short_sums`: as a `Subject` has them.
    """

    task: Task
    layouts: Mapping[int, BufferLayout]
    constants: Mapping[int, Array]
    ranges: Mapping[str, Range]
    unbounded: frozenset[str] = frozenset()
    mixed: frozenset[str] = frozenset()
    short_sums: bool = False


# Gives the schedule of a task that stands somewhere: the derived one, one from a file, one under measurement.
Chooser = Callable[[Setting, CpuMachine], Schedule]


# What the standard precision allows.
STANDARD_BOUNDS: Final = Bounds(winograd=2e-5, products=2e-5)


def subject_of(setting: Setting, bounds: Bounds = STANDARD_BOUNDS) -> Subject:
    """What the rules of the search space look at; other algorithms may err within `bounds`."""
    task = setting.task
    axes = axes_of_domain(grouped_domain(task, Schedule())[0])
    exact = replace(EXACT, products=bounds.products)
    stages = tuple(subject_of(replace(setting, task=stage), exact) for stage in task.stages)
    strides = {value: _strides_of(setting, value) for value in task.function.args}
    if any(symbols_of(axis.extent) & setting.unbounded for axis in axes) or not _pairable(setting, axes[1:-1]):
        bounds = replace(bounds, products=0.0)  # sums of rows would need memory
    constants, short = setting.constants, setting.short_sums
    shapes = {value: task.function.types[value].shape for value in task.function.args}
    return Subject(
        task.kind, task.function.nodes, axes, task.reduced, constants, bounds, stages, shapes, strides, short
    )


def _pairable(setting: Setting, axes: Sequence[Axis]) -> bool:
    """Whether rows of unknown numbers may be paired: they are of one request, and may be as many as pay."""
    return all(
        isinstance(axis.extent, int)
        or (symbols_of(axis.extent) <= setting.mixed and may_be_halved(axis.extent, setting.ranges))
        for axis in axes
    )


def _strides_of(setting: Setting, value: int) -> tuple[Extent, ...]:
    """As the value lies in memory; row by row where nothing else is said."""
    strides = setting.layouts[value].strides if value in setting.layouts else None
    return row_major(setting.task.function.types[value].shape) if strides is None else strides


def derived_within(bounds: Bounds) -> Chooser:
    """The schedules that rules and the cost model give; other algorithms may err within `bounds`."""

    def choose(setting: Setting, machine: CpuMachine) -> Schedule:
        return derive_schedule(subject_of(setting, bounds), machine)

    return choose


derived: Chooser = derived_within(STANDARD_BOUNDS)


def lower_task(setting: Setting, machine: CpuMachine, choose: Chooser = derived) -> tuple[LoweredTask, ...]:
    """All versions of a task's kernel."""
    task, layouts, ranges = setting.task, setting.layouts, setting.ranges
    if task.kind == "kernel":
        return (_lower_kernel_call(setting, machine),)
    if task.kind == "pointwise":
        task = with_merged_axes(flattened(task, layouts), layouts)
        setting = replace(setting, task=task)
    schedule = choose(setting, machine)
    bindings = Bindings(layouts, {v: a.shape for v, a in setting.constants.items()}, machine.lanes)
    versions = _versions(task, schedule, ranges)
    if task.kind == "pointwise" and len(versions) > 1:
        versions[1:] = [(versions[1][0], derive_schedule(subject_of(setting), machine, crossing=False))]

    def made(program: TileProgram, chosen: Schedule, enabled: Extent) -> LoweredTask:
        lowered = lower_cpu(program.function, machine, ranges)
        return LoweredTask(chosen, program, lowered.kernel, lowered.parallel_count * enabled)

    def version(chosen: Schedule, enabled: Extent) -> LoweredTask:
        return made(schedule_to_tile(task, chosen, bindings), chosen, enabled)

    filled = _filled(task, schedule, ranges)
    if not isinstance(filled, int):
        others = lower_task(setting, machine, derived_within(EXACT))
        small_too = (replace(other, count=other.count * (1 - filled)) for other in others)
        return version(schedule, filled), *small_too
    before = preparing_program(task, schedule, bindings)
    if before is None:
        return tuple(version(chosen, enabled) for enabled, chosen in versions)
    enough = 1 if schedule.paired() is not None else rows_for_halves(task, schedule, bindings, ranges)
    halved = (replace(made(before, schedule, enough), prepares=True), version(schedule, enough))
    if isinstance(enough, int):
        return halved
    return *halved, made(few_rows_program(task, schedule, bindings), schedule, 1 - enough)


def _versions(task: Task, schedule: Schedule, ranges: Mapping[str, Range]) -> list[tuple[Extent, Schedule]]:
    """Schedules, and 1 where each is the one that runs: dynamic axes hold its whole tiles, which move back inside.

    Accumulations check the vector axis; pointwise tasks with tiles on one axis check that.
    """
    if schedule.rewritten() is not None:  # strips reach over the end, and check
        return [(1, schedule)]
    domain, _ = grouped_domain(task, schedule)
    crossed = crossed_tiles(schedule, tuple(domain)) if task.kind == "pointwise" else ()
    if task.kind != "contraction" and not crossed:
        return [(1, schedule)]
    factors, fits, tiled = schedule.factors(), 1, list[tuple[str, Extent, int]]()
    for name in list(domain) if crossed else list(domain)[:-1]:
        extent, size = domain[name], factors.get(name, 1)
        low = bounds(extent, ranges)[0]
        if size > 1 and not isinstance(extent, int) and (low is None or low < size):
            fits = fits * minimum(1, extent // size)
            tiled.append((name, extent, size))
    if not tiled:
        return [(1, schedule)]
    if not _adds_along_one_axis(task) or len(tiled) > 1 or tiled[0][2] <= SMALLER:
        return [(fits, schedule), (1 - fits, schedule.with_steps(*(Split(name, 1) for name, _, _ in tiled)))]
    (name, extent, _), *_ = tiled
    return [(fits, schedule), *_of_fewer_rows(schedule, name, extent, (fits, ranges))]


def _of_fewer_rows(
    schedule: Schedule, axis: str, extent: Extent, known: tuple[Extent, Mapping[str, Range]]
) -> list[tuple[Extent, Schedule]]:
    """Versions for fewer rows than a tile has (`known`: 1 if there are not, and ranges): some at a time, or one.

    One at a time reads the weights once a row: 20 products of 9.4 MB with 4 to 7 rows ran at 0.88 to 0.98 of
    onnxruntime's speed, and with tiles of 4 at 1.27 to 1.68.
    """
    fits, ranges = known
    low = bounds(extent, ranges)[0]
    few, one = (schedule.with_steps(Split(axis, rows)) for rows in (SMALLER, 1))
    if low is not None and low >= SMALLER:
        return [(1 - fits, few)]
    some = minimum(1, extent // SMALLER)
    return [(some - fits, few), (1 - some, one)]


def _adds_along_one_axis(task: Task) -> bool:
    """Whether it is a product of matrices, and no window."""
    sums = [n for n in task.function.nodes if isinstance(n, Compute) and n.combine != "none"]
    return task.kind == "contraction" and len(sums[0].reduction) == 1


def _filled(task: Task, schedule: Schedule, ranges: Mapping[str, Range]) -> Extent:
    """1 where the tiles of a rewritten window fill half a register tile of its products; below that, sums in order win.

    A block of products costs the same for one tile as for all that fit into it.
    """
    step = schedule.rewritten()
    sums = [n for n in task.function.nodes if isinstance(n, Compute) and n.combine != "none"]
    window = window_of(sums[0]) if step is not None and step.algorithm == WINOGRAD else None
    if step is None or window is None:
        return 1
    domain, _ = grouped_domain(task, schedule)
    tiles: Extent = 1
    for side, extent in zip(window.sides, window.extents(domain), strict=True):
        size, strip = step.tile if side.taps > 1 else 1, schedule.factors().get(side.axis, 1)
        tiles = tiles * minimum((extent + (size - 1)) // size, strip // size)
    half = (step.block + 1) // 2
    low = bounds(tiles, ranges)[0]
    return 1 if low is not None and low >= half else minimum(1, tiles // half)


def lower_border(
    kind: Type, border: Border, strides: tuple[Extent, ...], machine: CpuMachine, ranges: Mapping[str, Range]
) -> LoweredTask:
    """The kernel that fills a stored border."""
    function = border_kernel(kind.shape, border, kind.dtype, machine.lanes, strides)
    lowered = lower_cpu(function, machine, ranges)
    return LoweredTask(
        Schedule(), TileProgram(function, (), function.names("dims")), lowered.kernel, lowered.parallel_count
    )


def _lower_kernel_call(setting: Setting, machine: CpuMachine) -> LoweredTask:
    """A kernel that is written in the tile language is only bound here."""
    task, ranges = setting.task, setting.ranges
    (call,) = [n for n in task.function.nodes if isinstance(n, KernelCall)]
    types = [task.function.types[v] for v in call.operands]
    if call.kernel == "attention":
        mask = setting.constants.get(call.operands[3]) if len(types) > 3 else None
        kernel = _attention(call, types, machine, None if mask is None else reach_of(mask))
    else:
        results = tuple(task.function.types[v] for v in call.results)
        kernel = KERNELS[call.kernel](KernelSubject(tuple(types), results, dict(call.parameters), machine.lanes))
    return bound_kernel(kernel, (*call.operands, *call.results), machine, ranges)


def bound_kernel(
    kernel: Function, values: Sequence[int], machine: CpuMachine, ranges: Mapping[str, Range]
) -> LoweredTask:
    """A kernel written in the tile language, over the buffers of graph values."""
    function = bind_outer_loops(kernel)
    lowered = lower_cpu(function, machine, ranges)
    program = TileProgram(function, tuple(Operand(v) for v in values), function.names("dims"))
    return LoweredTask(Schedule(), program, lowered.kernel, lowered.parallel_count)


def _attention(call: KernelCall, types: Sequence[Type], machine: CpuMachine, reach: int | None) -> Function:
    q, k, v = types[:3]
    depth, value_depth = int_extent(q.shape[3]), int_extent(v.shape[3])
    mask = types[3].shape if len(types) > 3 else None
    shape = AttentionShape(
        groups=q.shape[0] * q.shape[1],
        queries=q.shape[2],
        keys=k.shape[2],
        depth=depth,
        value_depth=value_depth,
        heads=q.shape[1],
        mask=None if mask is None else (mask[0], mask[1], mask[2], mask[3]),
        sharing=heads_per_key(q.shape[1], k.shape[1]),
        reach=reach,
    )
    scale = dict(call.parameters).get("scale", 1.0)
    number = float(scale) if isinstance(scale, (int, float)) else 1.0
    return attention(q.dtype, shape, attention_schedule(shape, machine), number)
