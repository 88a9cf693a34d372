"""Is the derived schedule nearly as fast as the best of many at random? Task by task, measured alone, in turns.

    python -m benchmarks.schedules MODEL.onnx ... [--samples 200] [--target x86-64-v4] [--out trials.jsonl]
        [--seconds 600]
    python -m benchmarks.schedules MODEL.onnx --list
    python -m benchmarks.schedules --report trials.jsonl ...
    python -m benchmarks.schedules --calibrate trials.jsonl ...

Every distinct task of the models is built under its own schedule and under `--samples` random ones from all its
sketches, rewritten and chained tasks too; each is timed in turns with the first, in a process of its own. Every trial
is appended to `--out` as a JSON line, and a run with the same file goes on where the last one ended, whether that was
killed or out of `--seconds`. Prints, per task, the best random schedule's time over the derived one's (1 or more: none
was faster), how often the cost model ranks a pair as measured, and at the end the share of tasks where the first is at
least 0.8. `--calibrate` fits the cost model's coefficients to records; `--list` prints every task's hash, its sketches
and its derived schedule. Invariant: what is measured depends on model, target, samples and seed alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

from benchmarks.trials import HEADER, OPTIONS_OF_COST, Job, Records, Trial, calibrate, judgement, line_of
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
from tessera_build.space.sample import Space, sample
from tessera_build.space.sketch import Vectors
from tessera_build.verify.isolate import CrashError

_MEASURED_AGAIN = 4
_LONGER = Effort(most=60, least=25, budget=0.3, limit=60.0)


class OutOfTimeError(Exception):
    """The seconds of this run are over; its file has what is known."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One vector of one sketch."""

    space: Space
    vector: Vectors

    @property
    def schedule(self) -> Schedule:
        """What it stands for."""
        return self.space.sketch.fill(self.vector)


@dataclass(frozen=True, slots=True)
class Bench:
    """What every measurement needs. `deadline`: of the monotonic clock, when no trial is begun any more."""

    machine: CpuMachine
    options: CodegenOptions
    effort: Effort
    deadline: float = float("inf")

    def build(self, task: ListedTask, schedule: Schedule) -> BuiltTask:
        """A build of one task."""
        return build_task(task.setting, schedule, self.machine, self.options)

    def trial(self, task: ListedTask, base: BuiltTask, drawn: Drawn, blank: Trial) -> Trial:
        """Build and measure one vector beside the derived schedule; `blank` says which one of how many it is."""
        if time.monotonic() > self.deadline:
            raise OutOfTimeError
        schedule = drawn.schedule
        columns = drawn.space.features(drawn.vector.reshape(1, -1))
        blank = replace(
            blank,
            rule=drawn.space.rule.name,
            schedule=print_schedule(schedule),
            features={name: float(column[0]) for name, column in columns.items()},
            estimate=float(cycles(columns, self.machine)[0]),
        )
        try:
            first, own = time_tasks((base, self.build(task, schedule)), self.effort)
        except (TesseraError, CrashError) as error:
            return replace(blank, error=str(error))
        if own.error or first.error:
            return replace(blank, error=own.error or first.error)
        return replace(blank, seconds=own.best, ratio=first.best / own.best)


def drawn_for(task: ListedTask, machine: CpuMachine, samples: int, seed: int) -> list[Drawn]:
    """Every sketch's best vector by the cost model, then as many random ones of each."""
    spaces = spaces_of_task(task.setting, machine)
    best = [Drawn(space, best_of(space)[0][0]) for space in spaces]
    share = -(-samples // max(1, len(spaces)))
    return best + [Drawn(space, vector) for space in spaces for vector in sample(space, share, seed)]


def judge(bench: Bench, task: ListedTask, job: Job, drawn: list[Drawn], records: Records) -> None:
    """Measure what the records do not have yet.

    Of many noisy ratios the largest is too large: the best few are measured again, longer, and that counts.
    """
    base: list[BuiltTask] = []
    known = _believed(records.of(job), drawn)

    def measure(by: Bench, index: int, longer: bool) -> Trial:
        if not base:
            base.append(bench.build(task, task.schedule))
        blank = Trial(index, len(drawn), longer, "", "", {}, 0.0, None, 0.0, None)
        trial = by.trial(task, base[0], drawn[index], blank)
        records.append(job, trial)
        return trial

    short = {t.index: t for t in known if not t.longer}
    for index in range(len(drawn)):
        if index not in short:
            short[index] = measure(bench, index, longer=False)
    done = {t.index for t in known if t.longer}
    for index in sorted(short, key=lambda i: -short[i].ratio)[:_MEASURED_AGAIN]:
        if index not in done and short[index].ratio > 0:
            measure(replace(bench, effort=_LONGER), index, longer=True)


def _believed(trials: list[Trial], drawn: list[Drawn]) -> list[Trial]:
    """Those of the same draw whose vector still means what was measured."""
    texts = [print_schedule(each.schedule) for each in drawn]
    return [t for t in trials if t.drawn == len(drawn) and t.index < len(texts) and t.schedule == texts[t.index]]


def show(task: ListedTask, machine: CpuMachine) -> None:
    """A task's space as text."""
    print(f"{task.key} {task.name}, {task.uses} times")
    for space in spaces_of_task(task.setting, machine):
        print(space.sketch.text(), end="")
    print(f"derived\n{print_schedule(task.schedule)}")


def run(arguments: argparse.Namespace) -> None:
    """Measure the tasks of all models."""
    config = load_target(arguments.target)
    deadline = time.monotonic() + arguments.seconds
    bench = Bench(machine_of(config), codegen_options(options_of(config, ())), Effort(), deadline)
    records = Records(arguments.out)
    print(HEADER)
    try:
        for path, task in _tasks(arguments, bench.machine):
            drawn = drawn_for(task, bench.machine, arguments.samples, arguments.seed)
            job = Job(path.name, config.name, task.key, task.name, task.uses, print_schedule(task.schedule))
            judge(bench, task, job, drawn, records)
            print(line_of(job, _believed(records.of(job), drawn)), flush=True)
    except OutOfTimeError:
        print("out of time; the same command goes on from here")
    print(judgement(records))


def _tasks(arguments: argparse.Namespace, machine: CpuMachine) -> Iterator[tuple[Path, ListedTask]]:
    for path in arguments.paths:
        for task in tasks_of(run_passes(read_onnx(path)), machine)[: arguments.tasks]:
            yield path, task


def main() -> None:
    """Measure models' tasks, or tell what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", default="x86-64-v4")
    parser.add_argument("--out", type=Path, help="where trials are appended, and what is known is read from")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no trial after so many")
    parser.add_argument("--tasks", type=int, default=1000, help="only so many of each model's tasks")
    arguments = parser.parse_args()
    assert {f.name for f in fields(Costs)} >= set(OPTIONS_OF_COST)
    if arguments.calibrate:
        print(calibrate(arguments.paths))
    elif arguments.report:
        for records in map(Records, arguments.paths):
            print("\n".join([HEADER, *(line_of(job, records.of(job)) for job in records.jobs()), judgement(records)]))
    elif arguments.list:
        machine = machine_of(load_target(arguments.target))
        for _, task in _tasks(arguments, machine):
            show(task, machine)
    else:
        run(arguments)


if __name__ == "__main__":
    main()
