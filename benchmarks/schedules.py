"""Is the derived schedule nearly as fast as the best of many at random? Task by task, measured alone, in turns.

    python -m benchmarks.schedules MODEL.onnx [--samples 200] [--target x86-64-v4] [--out records.json]
    python -m benchmarks.schedules MODEL.onnx --list
    python -m benchmarks.schedules --calibrate records.json ...

Every distinct task of the model is built under its own schedule and under `--samples` random ones from all its
sketches; each is timed in turns with the first, in a process of its own. Prints, per task, the best random schedule's
time over the derived one's (1 or more: none was faster), and the share of tasks where that is at least 0.8. Records
hold features and times; `--calibrate` fits the cost model's coefficients to them; `--list` prints every task's hash,
its sketches and its derived schedule. Invariant: records are written after
every task, so that an interrupted run is a shorter one.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from bundle_format.errors import TesseraError
from tessera_build.backends.llvm.objects import CodegenOptions
from tessera_build.backends.llvm.variant import codegen_options
from tessera_build.config import load_target
from tessera_build.driver.machine import machine_of, options_of
from tessera_build.driver.measure import Effort, time_tasks
from tessera_build.driver.single import BuiltTask, ListedTask, build_task, spaces_of_task, tasks_of
from tessera_build.frontends.onnx import read_onnx
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.machine.costs import Costs
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.ir.schedule.trace_text import print_schedule
from tessera_build.space.cost import cycles
from tessera_build.space.derive import best_of
from tessera_build.space.features import FEATURES
from tessera_build.space.sample import Space, sample
from tessera_build.verify.isolate import CrashError

GOOD = 0.8
_MEASURED_AGAIN = 4
_OPTIONS_OF_COST = ("other", "spill", "gather", "tile", "turn", "call", "l1_byte", "l2_byte", "scattered_byte")
_FEATURES_OF_COST = (
    "others",
    "spills",
    "gathers",
    "tiles",
    "turns",
    "calls",
    "l1_bytes",
    "l2_bytes",
    "scattered_bytes",
)


@dataclass(frozen=True, slots=True)
class Trial:
    """One schedule of one task: `ratio` is the derived schedule's time over its own, 0 where it failed."""

    rule: str
    schedule: str
    features: dict[str, float]
    estimate: float
    seconds: float
    ratio: float
    error: str | None


@dataclass(frozen=True, slots=True)
class Bench:
    """What every measurement needs."""

    machine: CpuMachine
    options: CodegenOptions
    effort: Effort

    def build(self, task: ListedTask, schedule: Schedule) -> BuiltTask:
        """A build of one task."""
        return build_task(task.setting, schedule, self.machine, self.options)

    def trial(self, task: ListedTask, base: BuiltTask, space: Space, vector: np.ndarray) -> Trial:
        """Build and measure one vector beside the derived schedule."""
        schedule = space.sketch.fill(vector)
        columns = space.features(vector.reshape(1, -1))
        features = {name: float(column[0]) for name, column in columns.items()}
        estimate = float(cycles(columns, self.machine)[0])
        text = print_schedule(schedule)
        try:
            first, own = time_tasks((base, self.build(task, schedule)), self.effort)
        except (TesseraError, CrashError) as error:
            return Trial(space.rule.name, text, features, estimate, math.inf, 0.0, str(error))
        ratio = first.best / own.best if not own.error and not first.error else 0.0
        return Trial(space.rule.name, text, features, estimate, own.best, ratio, own.error or first.error)


def judge(bench: Bench, task: ListedTask, samples: int, seed: int) -> list[Trial]:
    """The derived schedule's own trial, then random ones.

    Of many noisy ratios the largest is too large: the best few are measured again, longer, and that counts.
    """
    spaces = spaces_of_task(task.setting, bench.machine)
    if not spaces:
        return []
    base = bench.build(task, task.schedule)
    drawn = [(space, best_of(space)[0][0]) for space in spaces]
    drawn += [(space, vector) for space in spaces for vector in sample(space, samples // len(spaces), seed)]
    found = [bench.trial(task, base, space, vector) for space, vector in drawn]
    longer = replace(bench, effort=Effort(most=60, least=25, budget=0.3, limit=60.0))
    for index in sorted(range(len(found)), key=lambda i: -found[i].ratio)[:_MEASURED_AGAIN]:
        found[index] = longer.trial(task, base, *drawn[index])
    return found


def report(tasks: Sequence[tuple[ListedTask, Sequence[Trial]]]) -> None:
    """One line a task, and the judgement."""
    print(f"{'task':<44}{'uses':>5}{'µs':>10}{'rules':>8}{'best/derived':>14}{'rank':>6}{'failed':>8}")
    shares: list[float] = []
    for task, trials in tasks:
        good = [t for t in trials if not t.error]
        if not good:
            why = trials[0].error if trials else "it has no sketch: its schedule is put together from those of others"
            print(f"{task.name[:43]:<44}{task.uses:>5}  nothing to compare: {why}", flush=True)
            continue
        best = max(t.ratio for t in good)
        base = statistics.median(t.seconds * t.ratio for t in good)
        share, rank = 1 / best, _concordance(good)
        shares.append(share)
        failed = len(trials) - len(good)
        row = f"{base * 1e6:>10.1f}{good[0].rule[:7]:>8}{share:>14.2f}{rank:>6.2f}{failed:>8}"
        print(f"{task.name[:43]:<44}{task.uses:>5}{row}", flush=True)
    enough = sum(share >= GOOD for share in shares)
    print(f"{enough} of {len(shares)} tasks at {GOOD:.0%} or more of the best random schedule")


def _concordance(trials: Sequence[Trial]) -> float:
    """The share of pairs that the cost model puts in the measured order."""
    pairs = [
        (a.estimate - b.estimate) * (1 / a.ratio - 1 / b.ratio) > 0
        for i, a in enumerate(trials)
        for b in trials[i + 1 :]
        if abs(a.ratio / b.ratio - 1) > 0.05
    ]
    return sum(pairs) / max(1, len(pairs))


def show(task: ListedTask, machine: CpuMachine) -> None:
    """A task's space as text."""
    print(f"{task.key} {task.name}, {task.uses} times")
    for space in spaces_of_task(task.setting, machine):
        print(space.sketch.text(), end="")
    print(f"derived\n{print_schedule(task.schedule)}")


def calibrate(paths: Sequence[Path]) -> None:
    """Fit the coefficients: relative errors, no negative coefficient, one clock for all records."""
    rows: list[list[float]] = []
    for path in paths:
        for task in json.loads(path.read_text())["tasks"]:
            for trial in task["trials"]:
                if trial["error"] is None and trial["seconds"] > 2e-6:
                    features = trial["features"]
                    line = [features["busy"], *(features.get(name, 0.0) for name in _FEATURES_OF_COST)]
                    rows.append([value / trial["seconds"] / 1e9 for value in line])
    matrix, wanted = np.asarray(rows), np.ones(len(rows))
    found = _non_negative(matrix, wanted)
    errors = np.abs(matrix @ found - 1)
    print(f"{len(rows)} records, median relative error {np.median(errors):.2f}; ns a busy cycle {found[0]:.3f}")
    for name, value in zip(_OPTIONS_OF_COST, found[1:], strict=True):
        print(f"{name:<8} {value / max(found[0], 1e-9):.5f}")


def _non_negative(matrix: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Least squares under signs, coordinate by coordinate; features differ by orders of magnitude, so scaled first."""
    scale = np.sqrt((matrix**2).sum(axis=0)) + 1e-30
    scaled = matrix / scale
    found = np.zeros(matrix.shape[1])
    gram, right = scaled.T @ scaled, scaled.T @ wanted
    for _ in range(5000):
        for i in range(len(found)):
            found[i] = max(0.0, found[i] + (right[i] - gram[i] @ found) / gram[i, i]) if gram[i, i] else 0.0
    return found / scale


def main() -> None:
    """Measure a model's tasks, or fit coefficients to what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", default="x86-64-v4")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tasks", type=int, default=1000, help="only so many of the tasks")
    arguments = parser.parse_args()
    if arguments.calibrate:
        calibrate(arguments.paths)
        return
    assert {f.name for f in fields(Costs)} >= set(_OPTIONS_OF_COST)
    assert set(_FEATURES_OF_COST) <= set(FEATURES)
    config = load_target(arguments.target)
    bench = Bench(machine_of(config), codegen_options(options_of(config, ())), Effort())
    done: list[tuple[ListedTask, list[Trial]]] = []
    for path in arguments.paths:
        for task in tasks_of(run_passes(read_onnx(path)), bench.machine)[: arguments.tasks]:
            if arguments.list:
                show(task, bench.machine)
                continue
            done.append((task, judge(bench, task, arguments.samples, arguments.seed)))
            report(done[-1:])
            if arguments.out:
                _write(arguments.out, arguments.target, done)
    if done:
        report(done)


def _write(path: Path, target: str, done: Sequence[tuple[ListedTask, Sequence[Trial]]]) -> None:
    tasks = [
        {"key": t.key, "name": t.name, "uses": t.uses, "trials": [asdict(trial) for trial in trials]}
        for t, trials in done
    ]
    path.write_text(json.dumps({"target": target, "tasks": tasks}, indent=1))


if __name__ == "__main__":
    main()
