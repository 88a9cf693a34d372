"""One task alone: the tasks of a model by canonical hash, and the machine code of one of them under any schedule.

Takes: a module after the graph passes, or where a task stands; a schedule. Gives: `ListedTask`s; a `BuiltTask`, the
shared object of one launch with what its arguments are. Invariant: a task's hash is that of its definitions, of how its
values lie in memory and of which of them are weights: not of names, of weights' numbers or of the machine.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from tessera_build.backends.llvm.emit_kernel import kernel_ir
from tessera_build.backends.llvm.linker import link
from tessera_build.backends.llvm.memory import MEMORY_IR
from tessera_build.backends.llvm.objects import CodegenOptions, compile_ir
from tessera_build.ir.core.dims import Range, evaluate, symbols_of
from tessera_build.ir.core.hashing import hash_function
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.program.kernels import Chooser, LoweredTask, Setting, derived, lower_task, subject_of
from tessera_build.lower.schedule_to_tile.layouts import BufferLayout
from tessera_build.lower.schedule_to_tile.nest import Operand
from tessera_build.space.contraction import ASSUMED_EXTENT
from tessera_build.space.derive import spaces_of
from tessera_build.space.sample import Space
from tessera_build.verify.isolate import in_child

# Part of every hash: raise it when the same text means another task.
KEY_VERSION: Final = "tessera-task-1"

# Runs a kernel's parallel iterations one after the other, as a launch on one thread does.
LAUNCH_IR: Final = """
declare i32 @kernel(ptr, i64)
define i32 @launch(ptr %arguments, i64 %count) {
entry:
  br label %head
head:
  %index = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp slt i64 %index, %count
  br i1 %more, label %body, label %done
body:
  %status = call i32 @kernel(ptr %arguments, i64 %index)
  %good = icmp eq i32 %status, 0
  %next = add i64 %index, 1
  br i1 %good, label %head, label %failed
failed:
  ret i32 %status
done:
  ret i32 0
}
"""


@dataclass(frozen=True, slots=True, eq=False)
class ListedTask:
    """A distinct task of a model: its hash, its first name, how often it occurs, where it stands, its own schedule."""

    key: str
    name: str
    uses: int
    setting: Setting
    schedule: Schedule


@dataclass(frozen=True, slots=True)
class LaunchCode:
    """One launch as a shared object that exports `i32 launch(ptr arguments, i64 count)`.

    Arguments are the addresses of `operands`, then the sizes of `dims`; `sizes` are those of all dims by name. What has
    to run `before` it shares `scratch_bytes` of memory with it, the operand that is no value.
    """

    image: bytes
    operands: tuple[Operand, ...]
    dims: tuple[int, ...]
    sizes: dict[str, int]
    count: int
    scratch_bytes: int = 0
    before: "LaunchCode | None" = None


@dataclass(frozen=True, slots=True, eq=False)
class BuiltTask:
    """A launch and where its task stands."""

    setting: Setting
    code: LaunchCode


def tasks_of(module: Module, machine: CpuMachine) -> tuple[ListedTask, ...]:
    """The distinct tasks that have schedules, in the order of the program."""
    met: list[tuple[Setting, Schedule]] = []

    def choose(setting: Setting, machine: CpuMachine) -> Schedule:
        met.append((setting, derived(setting, machine)))
        return met[-1][1]

    lower_module(module, machine, choose=choose)
    found: dict[str, ListedTask] = {}
    for setting, schedule in met:
        key = task_key(setting)
        uses = found[key].uses + 1 if key in found else 1
        first = found.get(key)
        setting = setting if first is None else first.setting
        found[key] = ListedTask(key, setting.task.name, uses, setting, schedule)
    return tuple(found.values())


def task_key(setting: Setting) -> str:
    """The canonical hash of a task where it stands."""
    task = setting.task
    text = json.dumps(
        [
            KEY_VERSION,
            hash_function(task.function).hex,
            task.kind,
            [str(extent) for extent in task.domain],
            sorted(task.reduced),
            [_layout_text(setting.layouts.get(v)) for v in (*task.inputs, *task.outputs)],
            [i for i, value in enumerate(task.inputs) if value in setting.constants],
            [[name, *setting.ranges[name]] for name in sorted(_dims_of(setting)) if name in setting.ranges],
        ]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _layout_text(layout: BufferLayout | None) -> str:
    if layout is None or layout.strides is None:
        return "dense" if layout is None or not layout.halo else f"dense {layout.halo}"
    return f"{', '.join(map(str, layout.strides))} {layout.halo}"


def _dims_of(setting: Setting) -> set[str]:
    types = setting.task.function.types.values()
    return {name for type_ in types for extent in type_.shape for name in symbols_of(extent)}


def overriding(schedules: Mapping[str, Schedule], otherwise: Chooser = derived) -> Chooser:
    """Takes a task's schedule from `schedules`, by its hash or else its name; asks `otherwise` for those not in there.

    A schedule by hand must fit: one that does not ends the lowering with `ScheduleRejectedError`.
    """

    def choose(setting: Setting, machine: CpuMachine) -> Schedule:
        found = schedules.get(task_key(setting), schedules.get(setting.task.name))
        return otherwise(setting, machine) if found is None else found

    return choose


def spaces_of_task(setting: Setting, machine: CpuMachine) -> tuple[Space, ...]:
    """The search space of a task: one a sketch."""
    return spaces_of(subject_of(setting), machine)


def build_task(setting: Setting, schedule: Schedule, machine: CpuMachine, options: CodegenOptions) -> BuiltTask:
    """One task under a schedule, compiled in a child, because LLVM ends the process on some faults.

    Raises `ScheduleRejectedError`, `CompileError`, or `CrashError` where the child died.
    """
    return BuiltTask(setting, in_child(lambda _mark: compile_task(setting, schedule, machine, options)))


def compile_task(setting: Setting, schedule: Schedule, machine: CpuMachine, options: CodegenOptions) -> LaunchCode:
    """The code, made in this process.

    Of several versions of a kernel, that for the sizes that costs assume of dynamic extents.
    """
    sizes = {name: _assumed(setting.ranges.get(name, (1, None))) for name in sorted(_dims_of(setting))}
    lowered = lower_task(setting, machine, lambda _setting, _machine: schedule)
    versions = [each for each in lowered if not each.prepares]
    chosen = next((v for v in versions if evaluate(v.count, sizes) > 0), versions[0])
    before = [_compiled(each, sizes, options) for each in lowered if each.prepares]
    return replace(_compiled(chosen, sizes, options), before=before[0] if before else None)


def _compiled(lowered: LoweredTask, sizes: dict[str, int], options: CodegenOptions) -> LaunchCode:
    texts = (kernel_ir(lowered.kernel, options, "kernel"), LAUNCH_IR, MEMORY_IR)
    image = link([compile_ir(text, options) for text in texts], ["launch"], "task.so")
    dims = tuple(sizes.get(name, ASSUMED_EXTENT) for name in lowered.program.dims)
    count = evaluate(lowered.count, sizes)
    return LaunchCode(image, lowered.program.operands, dims, sizes, count, evaluate(lowered.scratch_bytes, sizes))


def _assumed(bounds: Range) -> int:
    low, high = bounds
    size = max(ASSUMED_EXTENT, low or 0)
    return size if high is None else min(size, high)
