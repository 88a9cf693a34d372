"""The default schedule of any task: the candidate that the cost model likes best, among those that the rules allow.

Takes a task, the machine, and which of its values are constants; gives a `Schedule`. Invariant: no rule asks what an
operator is called, nothing is timed and nothing is drawn at random: equal tasks get equal schedules on any machine,
and of equal costs the first in the order of rules and vectors wins.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.space.describe import workload_of
from tessera_build.space.rules.table import sketches_of
from tessera_build.space.sample import Space, enumerate_block
from tessera_build.space.sketch import Vectors
from tessera_build.space.workload import Subject, Workload

__all__ = ["Subject", "best_of", "derive_schedule", "spaces_of"]

_ROUNDS = 4  # over all blocks; no task of the benchmark models needs more than three


def spaces_of(subject: Subject, machine: CpuMachine, crossing: bool = True) -> tuple[Space, ...]:
    """The search space of a task: one space a sketch."""
    return _spaces(workload_of(subject, machine, crossing), machine)


def derive_schedule(subject: Subject, machine: CpuMachine, crossing: bool = True) -> Schedule:
    """The schedule that rules and costs give a task; without `crossing` one for any extents, with tiles on one axis."""
    return _derived(workload_of(subject, machine, crossing), machine)


@lru_cache(maxsize=1024)
def _derived(work: Workload, machine: CpuMachine) -> Schedule:
    best: tuple[float, Schedule] | None = None
    for space in _spaces(work, machine):
        vector, cost = best_of(space)
        if best is None or cost * space.rule.margin < best[0]:
            best = cost * space.rule.margin, space.sketch.fill(vector[0])
    assert best is not None, "some rule applies to every task"
    return best[1]


def _spaces(work: Workload, machine: CpuMachine) -> tuple[Space, ...]:
    return tuple(Space(work, machine, rule, sketch) for rule, sketch in sketches_of(work, machine))


def best_of(space: Space) -> tuple[Vectors, float]:
    """The cheapest vector (one row) that no change within a block of decisions makes cheaper, and its cycles."""
    best = space.start()
    cost = float(space.score(best)[0])
    for _ in range(_ROUNDS):
        before = cost
        for block in space.rule.blocks(space.sketch):
            candidates = enumerate_block(space, best, block)
            costs = space.score(candidates)
            first = int(np.argmin(costs))
            if costs[first] < cost:
                best, cost = candidates[first : first + 1], float(costs[first])
        if cost == before:
            break
    return best, cost
