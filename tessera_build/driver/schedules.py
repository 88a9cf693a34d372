"""Schedules by hand: a file that says how some tasks are computed, in place of what rules and costs choose.

Takes: a file of named tasks with their traces, as `tessera inspect --level schedule` prints them or as a person wrote
them, and what would choose otherwise. Gives: a `Chooser`, and after the lowering a check that every entry was used.
Invariant: an entry is followed or is an error that names the task: never passed over, never an algorithm that errs more
than the precision policy allows.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bundle_format.digest import Digest
from bundle_format.errors import TesseraError
from tessera_build.config import ConfigError
from tessera_build.config.near import did_you_mean
from tessera_build.ir.core.text.lexer import TextError
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.program_text import parse_named
from tessera_build.ir.schedule.trace import Schedule, ScheduleRejectedError
from tessera_build.ir.schedule.trace_text import print_step
from tessera_build.lower.program.kernels import Chooser, Setting, subject_of
from tessera_build.lower.program.records import LoweredVariant
from tessera_build.space.describe import workload_of
from tessera_build.space.rewrites import allows
from tessera_build.space.workload import Bounds

_HINT: Final = "`tessera inspect BUNDLE --level schedule` prints every task by name, in the form of this file"
_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class Given:
    """What a file says: per name, its schedules in their order; `where` it stood and the digest of what it said.

    A trace without steps says nothing: kernels that are not derived have such.
    """

    where: str
    entries: Mapping[str, tuple[Schedule, ...]]
    digest: Digest


def read_schedules(path: str | Path) -> Given:
    """Read a file; a `ConfigError` says where it does not parse."""
    where = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("SCHEDULES_UNREADABLE", "the file of schedules cannot be read", where=where) from error
    try:
        named = parse_named(text)
    except TextError as error:
        raise ConfigError(error.code, error.message, where=f"{where}:{error.where}", hint=_HINT) from error
    entries: dict[str, tuple[Schedule, ...]] = {}
    for entry in named:
        said = (entry.schedule,) if entry.schedule.steps else ()
        entries[entry.node] = (*entries.get(entry.node, ()), *said)
    if not entries:
        raise ConfigError("SCHEDULES_EMPTY", "the file has no schedules", where=where, hint=_HINT)
    return Given(where, entries, Digest.of(text.encode()))


class Overriding:
    """A chooser that follows a file; one entry of a name means all tasks of that name, several mean them in order."""

    def __init__(self, given: Given, bounds: Bounds, otherwise: Chooser) -> None:
        self._given, self._bounds, self._otherwise = given, bounds, otherwise
        self._met = Counter[str]()
        self._followed: str | None = None

    def __call__(self, setting: Setting, machine: CpuMachine) -> Schedule:
        """The file's schedule of a task, or the other chooser's."""
        name = setting.task.name
        number = self._met[name]
        self._met[name] += 1
        entries = self._given.entries.get(name, ())
        self._followed = name if entries else None
        if not entries:
            return self._otherwise(setting, machine)
        if len(entries) > 1 and number >= len(entries):
            raise self._count(name)
        schedule = entries[0] if len(entries) == 1 else entries[number]
        self._check_exact(setting, machine, schedule)
        return schedule

    def rejected(self, error: ScheduleRejectedError, target: str) -> TesseraError:
        """What to tell of a schedule that does not fit, if it was the file's."""
        if self._followed is None:
            return error
        return ConfigError(
            "SCHEDULE_REJECTED",
            f"{self._followed}: {error.message}",
            where=self._given.where,
            expected=error.expected or f"a schedule that fits this task for {target}",
            found=error.found,
            hint="change the step, or take the task out of the file; " + _HINT,
        )

    def check(self, lowered: LoweredVariant) -> None:
        """Raise a `ConfigError` for entries that no task has used."""
        known = {record.task_name for records in lowered.launches for record in records}
        for name, entries in self._given.entries.items():
            if name in self._met:
                if 1 < len(entries) != self._met[name]:
                    raise self._count(name)
            elif name not in known or entries:
                raise self._unknown(name)

    def _unknown(self, name: str) -> ConfigError:
        tasks = sorted(self._met)
        return ConfigError(
            "TASK_UNKNOWN",
            "the model has no task of this name that has a schedule",
            where=self._given.where,
            found=name,
            expected=", ".join(tasks[:_SHOWN]) + (", …" if len(tasks) > _SHOWN else ""),
            hint=did_you_mean(name, tasks) or _HINT,
        )

    def _count(self, name: str) -> ConfigError:
        return ConfigError(
            "SCHEDULES_TOO_MANY",
            f"{name}: the file has other tasks of this name than the model",
            where=self._given.where,
            expected="one schedule for all tasks of a name, or one for each of them, in order",
            found=f"{len(self._given.entries[name])} schedules",
        )

    def _check_exact(self, setting: Setting, machine: CpuMachine, schedule: Schedule) -> None:
        """A rewriting must be among those that the policy allows for these weights: replay only sees its structure."""
        pair, step = schedule.paired(), schedule.rewritten()
        if pair is None and step is None:
            return
        work = workload_of(subject_of(setting, self._bounds), machine)
        if not allows(work, schedule):
            rewrites = [r for part in (work, *work.stages) for r in part.rewrites]
            sizes = "; ".join(f"{r.algorithm}: {', '.join(map(str, r.sizes))}" for r in rewrites) or "none"
            raise ScheduleRejectedError(
                "SCHEDULE_INEXACT",
                "another algorithm does not apply, or errs more than the precision policy allows",
                expected=f"sizes that the policy allows here: {sizes}",
                found="; ".join(print_step(given) for given in (pair, step) if given is not None),
            )
