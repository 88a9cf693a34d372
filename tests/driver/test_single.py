"""One task alone: listed by canonical hash, built under any schedule, timed in a process of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tessera_build.backends.llvm.objects import native_options
from tessera_build.config import load_target
from tessera_build.driver import measure
from tessera_build.driver.machine import machine_of
from tessera_build.driver.measure import Effort, Round, believed, time_tasks
from tessera_build.driver.single import BuiltTask, build_task, overriding, spaces_of_task, task_key, tasks_of
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.schedule.trace import ScheduleRejectedError, Split
from tessera_build.lower.program.assemble import lower_module
from tessera_build.space.sample import sample

QUICK = Effort(most=2, least=1, budget=0.01)


def _module(seed: int, name: str = "w", rows: int = 6, least: str = "max") -> Module:
    """Two equal layers and a softmax."""
    rng, b = np.random.default_rng(seed), GraphBuilder()
    x = b.input("x", tensor(F32, rows, 32))
    for layer in range(2):
        x = b.op("matmul", x, b.constant(rng.standard_normal((32, 32)).astype(np.float32), f"{name}{layer}"))
        x = b.op(least, x, b.scalar(0.0, F32))
    b.output("y", b.op("softmax", x, axis=1))
    return b.finish()


def test_tasks_when_listed_then_equal_ones_are_one_and_hashes_ignore_names_and_numbers() -> None:
    machine = machine_of(load_target("native"))
    tasks = tasks_of(_module(0), machine)
    again = tasks_of(_module(1, "other"), machine)
    assert [task.uses for task in tasks] == [2, 1]
    assert [task.key for task in tasks] == [task.key for task in again]
    assert {t.key for t in tasks}.isdisjoint(t.key for t in tasks_of(_module(0, rows=7), machine))
    assert all(task_key(task.setting) == task.key for task in tasks)


def test_time_when_schedules_of_one_task_are_built_then_all_answer_alike_and_have_times() -> None:
    machine, options = machine_of(load_target("native")), native_options()
    for task in tasks_of(_module(0), machine):
        builds = [build_task(task.setting, task.schedule, machine, options)]
        for space in spaces_of_task(task.setting, machine):
            builds += [
                build_task(task.setting, space.sketch.fill(v), machine, options) for v in sample(space, 3, seed=4)
            ]
        for timing in time_tasks(builds, QUICK):
            assert timing.error is None
            assert timing.seconds
            assert 0 < timing.best < 1
            assert timing.difference < 1e-5


def test_time_when_a_build_answers_otherwise_or_crashes_then_only_that_is_reported() -> None:
    machine, options = machine_of(load_target("native")), native_options()
    task, other = tasks_of(_module(0), machine)[0], tasks_of(_module(0, least="min"), machine)[0]
    good = build_task(task.setting, task.schedule, machine, options)
    wrong = BuiltTask(task.setting, build_task(other.setting, other.schedule, machine, options).code)
    first, bad = time_tasks((good, wrong), QUICK)
    assert first.error is None
    assert first.seconds
    assert bad.error is not None
    assert "differ" in bad.error
    assert not bad.seconds
    beyond = BuiltTask(task.setting, replace(good.code, count=1 << 40))
    crashed = time_tasks((good, beyond), QUICK)
    assert all(timing.error is not None and "in build 1" in timing.error for timing in crashed)


def test_time_when_a_launch_takes_longer_than_its_limit_then_it_is_ended() -> None:
    machine, options = machine_of(load_target("native")), native_options()
    task = tasks_of(_module(0), machine)[0]
    good = build_task(task.setting, task.schedule, machine, options)
    (ended,) = time_tasks((good,), Effort(most=1 << 40, least=1 << 40, budget=60.0, limit=0.3))
    assert ended.error is not None
    assert "SIGALRM" in ended.error


@pytest.mark.errors
def test_rounds_when_the_host_took_time_then_those_that_seem_shorter_do_not_count() -> None:
    calm, late, neighbour, still = Round(1.0, 1.02), Round(0.4, 1.0), Round(1.1, 3.0), Round(0.0, 1.0)
    assert believed([late, calm, neighbour, still]) == (1.0,)
    assert believed([late, neighbour, still]) == (0.4, 1.1)
    assert believed([still]) == ()


def test_time_when_the_clock_stands_still_then_it_says_so_and_gives_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, options = machine_of(load_target("native")), native_options()
    task, *_ = tasks_of(_module(0), machine)
    monkeypatch.setattr(measure.time, "thread_time", lambda: 7.0)
    (timing,) = time_tasks([build_task(task.setting, task.schedule, machine, options)], QUICK)
    assert timing.seconds == ()
    assert timing.best == float("inf")
    assert timing.error == "the processor's clock stood still"


def test_build_when_a_schedule_does_not_fit_then_the_reason_comes_back_from_the_child() -> None:
    machine = machine_of(load_target("native"))
    task = tasks_of(_module(0), machine)[0]
    with pytest.raises(ScheduleRejectedError) as caught:
        build_task(task.setting, task.schedule.with_steps(Split("_d9", 4)), machine, native_options())
    assert "_d9" in caught.value.diagnostics()


def test_overriding_when_a_schedule_is_given_by_hash_or_name_then_that_task_alone_has_it() -> None:
    machine, module = machine_of(load_target("native")), _module(0)
    product, rows = tasks_of(module, machine)
    by_hand = product.schedule.with_block(_d0=2)
    for name in (product.key, product.name):
        found = {
            r.kind: r.schedule for r in lower_module(module, machine, choose=overriding({name: by_hand})).launches[0]
        }
        assert found == {"contraction": by_hand, "row": rows.schedule}
