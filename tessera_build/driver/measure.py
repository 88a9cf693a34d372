"""Times of single tasks: several builds of one task, on the same seeded inputs, in turns, in a process of their own.

Takes: built launches; the first is what the others are compared with. Gives: a `Timing` each: seconds of every round,
how far its results are from the first one's, or the error that ended it. Invariant: a launch that crashes, hangs or
answers otherwise ends nothing but its own measurement, and is never reported as fast.
"""

import ctypes
import math
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np

from bundle_format.canonical import Json
from tessera_build.driver.single import BuiltTask, LaunchCode
from tessera_build.ir.core.dims import evaluate
from tessera_build.ir.graph.nodes import Array
from tessera_build.lower.program.kernels import Setting
from tessera_build.lower.schedule_to_tile.layouts import DENSE, Packing
from tessera_build.lower.schedule_to_tile.nest import SCRATCH
from tessera_build.verify.aligned import aligned_copy
from tessera_build.verify.inputs import random_array
from tessera_build.verify.isolate import CrashError, Mark, in_child

_LEAST_SECONDS: Final = 50e-6  # of one round: shorter launches are repeated, because the clock costs half of one
_CALM: Final = 0.9  # of the time on the wall, at least so much on the processor: nobody else ran here
TOLERANCE: Final = 1e-3  # of the largest result: another order of additions, not another answer


@dataclass(frozen=True, slots=True)
class Timing:
    """One build: seconds of every round that counts, the largest difference to the first results relative to those."""

    seconds: tuple[float, ...]
    difference: float = 0.0
    error: str | None = None

    @property
    def best(self) -> float:
        """The shortest round; infinite where there is none."""
        return min(self.seconds, default=math.inf)

    def plain(self) -> dict[str, Json]:
        """As JSON."""
        return cast("dict[str, Json]", asdict(self) | {"seconds": list(self.seconds)})


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: rounds at most and at least, seconds a build, seconds until the process is ended."""

    most: int = 30
    least: int = 7
    budget: float = 0.05
    limit: float = 20.0


def time_tasks(builds: Sequence[BuiltTask], effort: Effort | None = None, seed: int = 0) -> tuple[Timing, ...]:
    """Measure builds of one task in turns."""
    chosen = effort or Effort()

    def work(mark: Mark) -> tuple[Timing, ...]:
        # The default action of the signal ends the process, wherever it is.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, chosen.limit)
        return _measured(builds, chosen, seed, mark)

    try:
        return in_child(work)
    except CrashError as error:
        reason = f"{error.reason} in build {error.mark}"
        return tuple(Timing((), error=reason) for _ in builds)


def _measured(builds: Sequence[BuiltTask], effort: Effort, seed: int, mark: Mark) -> tuple[Timing, ...]:
    # One memory for all: as many copies as builds would push each other out of the caches.
    values = _values(builds[0].setting, builds[0].code.sizes, seed)
    runs = [_Run(build, values) for build in builds]
    errors: list[str | None] = []
    answers: list[list[Array]] = []
    for index, run in enumerate(runs):
        mark.set(index)
        status = run.launch()
        errors.append(f"the kernel gave status {status}" if status else None)
        answers.append(run.results())
    quickest = min(_timed(run, 1).wall for run in runs for _ in range(3))
    repeats = max(1, math.ceil(_LEAST_SECONDS / max(1e-7, quickest)))
    rounds: list[list[Round]] = [[] for _ in runs]
    begin = time.perf_counter()
    for turn in range(effort.most):
        if turn >= effort.least and time.perf_counter() - begin > effort.budget * len(runs):
            break
        for index, run in enumerate(runs):
            mark.set(index)
            rounds[index].append(_timed(run, repeats))
    found: list[Timing] = []
    for turns, error, answer in zip(rounds, errors, answers, strict=True):
        difference = _difference(answer, answers[0])
        if error is None and not difference <= TOLERANCE:
            error = f"results differ by {difference:.1e} of the largest"
        times = () if error else believed(turns)
        found.append(Timing(times, difference, error if times or error else "the processor's clock stood still"))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds of one launch, by the clock of this thread's processor and by the clock on the wall."""

    processor: float
    wall: float


def believed(rounds: Sequence[Round]) -> tuple[float, ...]:
    """Processor seconds of the rounds that nobody disturbed; where there is none, of all whose clock moved.

    A neighbour's time does not count for the processor's clock. But a virtual machine learns late what its host took
    from it, and takes it off the next rounds: these seem shorter than they were, down to nothing.
    """
    calm = tuple(each.processor for each in rounds if each.processor >= _CALM * each.wall > 0)
    return calm or tuple(each.processor for each in rounds if each.processor > 0)


def _timed(run: "_Run", repeats: int) -> Round:
    processor, wall = time.thread_time(), time.perf_counter()
    for _ in range(repeats):
        run.launch()
    wall = time.perf_counter() - wall
    return Round((time.thread_time() - processor) / repeats, wall / repeats)


class _Run:
    """A build in memory with its arguments."""

    def __init__(self, build: BuiltTask, values: Mapping[int, tuple[Array, Array]]) -> None:
        self._build = build
        self._arrays = values
        self._scratch = aligned_copy(np.zeros(max(1, build.code.scratch_bytes), np.uint8))
        parts = [build.code] if build.code.before is None else [build.code.before, build.code]
        self._launches = [self._ready(part) for part in parts]

    def launch(self) -> int:
        """Run all iterations; gives the status."""
        return max(launch() for launch in self._launches)

    def _ready(self, code: LaunchCode) -> Callable[[], int]:
        kept = [self._place(op.value, op.packing) for op in code.operands]
        addresses = [*(address for address, _ in kept), *code.dims]
        slots, call = (ctypes.c_int64 * max(1, len(addresses)))(*addresses), _loaded(code.image)
        memory = kept, slots  # as long as the launch

        return lambda: call(ctypes.addressof(memory[1]), code.count)

    def results(self) -> list[Array]:
        """Copies of what the launch wrote, which is gone from its memory afterwards."""
        arrays = [self._arrays[v][0] for v in self._build.setting.task.outputs]
        found = [np.array(array) for array in arrays]
        for array in arrays:
            array[...] = np.zeros((), array.dtype)
        return found

    def _place(self, value: int, packing: Packing | None) -> tuple[int, Array]:
        array, memory = (self._scratch, self._scratch) if value == SCRATCH else self._arrays[value]
        if packing is not None:
            array = memory = aligned_copy(packing.apply(array))
        return array.ctypes.data, memory


def _loaded(image: bytes) -> Callable[[int, int], int]:
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        Path(file.name).write_bytes(image)
        found = ctypes.CDLL(file.name).launch
    found.argtypes, found.restype = [ctypes.c_void_p, ctypes.c_int64], ctypes.c_int32
    return found


def _values(setting: Setting, sizes: Mapping[str, int], seed: int) -> dict[int, tuple[Array, Array]]:
    """Per value of a task, the array as it lies in memory with its border of zeros, and the memory."""
    generator, task = np.random.default_rng(seed), setting.task
    found: dict[int, tuple[Array, Array]] = {}
    for value in (*task.inputs, *task.outputs):
        kind = task.function.types[value]
        if value in setting.constants:
            array = aligned_copy(setting.constants[value])
            found[value] = array, array
            continue
        shape = tuple(evaluate(extent, sizes) for extent in kind.shape)
        layout = setting.layouts.get(value, DENSE)
        halo = layout.halo or ((0, 0),) * len(shape)
        dense = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
        strides = dense if layout.strides is None else [evaluate(s, sizes) for s in layout.strides]
        sides = list(zip(shape, halo, strides, strict=True))
        start = sum(low * stride for _, (low, _), stride in sides)
        total = start + sum((extent + high - 1) * stride for extent, (_, high), stride in sides) + 1
        memory = aligned_copy(np.zeros(max(1, total), kind.dtype.numpy))
        steps = [stride * memory.itemsize for stride in strides]
        array = np.ndarray(shape, memory.dtype, memory.data, start * memory.itemsize, steps)
        if value in task.inputs:
            array[...] = random_array(generator, kind, shape, None)
        found[value] = array, memory
    return found


def _difference(found: Sequence[Array], wanted: Sequence[Array]) -> float:
    """The largest difference relative to the largest wanted value; equal non-numbers differ by nothing."""
    worst = 0.0
    for left, right in zip(found, wanted, strict=True):
        if left.tobytes() == right.tobytes():
            continue
        numbers, others = np.asarray(left, np.float64), np.asarray(right, np.float64)
        same = np.isnan(numbers) & np.isnan(others) | (numbers == others)
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.where(same, 0.0, np.abs(numbers - others))
            scale = np.nanmax(np.abs(others), initial=1e-30)
        worst = max(worst, float(np.max(apart, initial=0.0) / scale))
    return worst
