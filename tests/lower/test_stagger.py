"""Passes that take turns on different rows: the bits of rows one by one, at every number of rows, or a rejection."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.schedule.trace import Schedule, ScheduleRejectedError, Split, Stagger
from tessera_build.ir.schedule.trace_text import parse_schedule, print_schedule
from tessera_build.ir.tile import nodes as t
from tessera_build.ir.tile import reference
from tessera_build.lower.graph_to_schedule.tasks import Task
from tessera_build.lower.schedule_to_tile.replay import (
    Bindings,
    axes_of_domain,
    grouped_domain,
    schedule_to_tile,
)
from tessera_build.space.derive import Subject, derive_schedule
from tests.lower import tasks
from tests.lower.compiled import check_module, compile_module
from tests.lower.execution import AVX512

Build = Callable[[GraphBuilder, int], int]


def softmax(b: GraphBuilder, x: int) -> int:
    return b.op("softmax", b.op("mul", x, b.scalar(1.5, F32)), axis=1)


def normalised(b: GraphBuilder, x: int) -> int:
    """Layer normalisation: the second reduction needs the first."""
    mean = b.op("reduce", x, axes=(1,), kind="sum", keepdims=True)
    apart = b.op("sub", x, b.op("mul", mean, b.scalar(1 / 150, F32)))
    spread = b.op("reduce", b.op("mul", apart, apart), axes=(1,), kind="sum", keepdims=True)
    return b.op("mul", apart, b.op("rsqrt", b.op("add", spread, b.scalar(1e-5, F32))))


def scaled(b: GraphBuilder, x: int) -> int:
    """One reduction, of what later passes read back."""
    powers = b.op("exp", x)
    return b.op("div", powers, b.op("reduce", powers, axes=(1,), kind="sum", keepdims=True))


BUILDS: tuple[Build, ...] = (softmax, normalised, scaled)


def module_of(build: Build, rows: int | str, columns: int = 150) -> Module:
    b = GraphBuilder(dims={"N": (1, None)})
    x = b.input("x", tensor(F32, symbol(rows) if isinstance(rows, str) else rows, columns))
    b.output("y", build(b, x))
    return b.finish()


def task_of(module: Module) -> tuple[Task, Schedule]:
    task = tasks.task_of(module)
    axes = axes_of_domain(grouped_domain(task, Schedule())[0])
    return task, derive_schedule(Subject(task.kind, task.function.nodes, axes, task.reduced, {}), AVX512)


def one_by_one(schedule: Schedule) -> Schedule:
    kept = [s for s in schedule.steps if not (isinstance(s, Stagger) or (isinstance(s, Split) and "chunk" in s.axis))]
    return Schedule(tuple(kept))


def interpreted(task: Task, schedule: Schedule, x: Array) -> Array:
    program = schedule_to_tile(task, schedule, Bindings({}, {}, AVX512.lanes))
    result = np.zeros_like(x)
    buffers = [result if operand.value in task.outputs else x for operand in program.operands]
    reference.run(program.function, buffers, {"N": x.shape[0]})
    return result


def draw(rows: int, columns: int = 150) -> Array:
    return np.random.default_rng(rows).standard_normal((rows, columns)).astype(np.float32)


@pytest.mark.parametrize("columns", [150, 64])
@pytest.mark.parametrize("rows", [8, 13, 40])
@pytest.mark.parametrize("build", BUILDS)
def test_rows_when_passes_take_turns_then_have_the_bits_of_rows_one_by_one(
    build: Build, rows: int, columns: int
) -> None:
    task, schedule = task_of(module_of(build, rows, columns))
    kept = [step for step in schedule.steps if not (isinstance(step, Split) and step.axis.startswith("_d0"))]
    schedule = Schedule((*kept, Stagger("_d0"), Split("_d0_chunk", 5)))
    x = draw(rows, columns)
    assert interpreted(task, schedule, x).tobytes() == interpreted(task, one_by_one(schedule), x).tobytes()


@pytest.mark.parametrize("rows", [1, 2, 3, 9, 130])
@pytest.mark.parametrize("build", BUILDS)
def test_rows_when_their_number_is_known_late_then_are_the_reference(build: Build, rows: int) -> None:
    check_module(module_of(build, "N"), {"x": draw(rows)}, {"N": rows})


def test_rows_when_threads_share_them_then_have_the_same_bits() -> None:
    compiled, x = compile_module(module_of(softmax, 600)), draw(600)
    one, two = (compiled.run({"x": x}, {"N": 1}, threads)["y"] for threads in (1, 2))
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("columns", [20, 128, 150, 1000])
def test_softmax_when_a_row_has_a_nan_or_infinity_then_that_row_alone_is_nan(columns: int) -> None:
    x = draw(24, columns)
    x[3, 7], x[5, 0], x[11, -1], x[20] = np.nan, np.inf, np.nan, -np.inf
    x[8, 4] = -np.inf
    found = np.asarray(compile_module(module_of(softmax, 24, columns)).run({"x": x}, {"N": 1})["y"])
    broken = np.isnan(found).all(axis=1)
    assert np.flatnonzero(broken).tolist() == [3, 5, 11, 20]
    assert not np.isnan(found[~broken]).any()
    assert found[8, 4] == 0


@pytest.mark.parametrize("build", BUILDS)
def test_rows_when_each_is_one_tile_then_are_the_reference(build: Build) -> None:
    check_module(module_of(build, 130, 128), {"x": draw(130, 128)}, {})


def test_softmax_when_a_row_is_one_tile_then_its_powers_stay_in_registers() -> None:
    task, schedule = task_of(module_of(softmax, 40, 64))
    program = schedule_to_tile(task, schedule, Bindings({}, {}, AVX512.lanes)).function
    turns = [n for n in program.walk() if isinstance(n, t.For) and len(n.carried) == 4]
    assert [sum(isinstance(n, t.Store) for n in turn.body.nodes) for turn in turns] == [1]


def test_schedule_when_rows_are_few_or_long_or_read_once_then_is_not_staggered() -> None:
    assert task_of(module_of(softmax, 40))[1].staggered() == "_d0"
    assert task_of(module_of(softmax, 40, 64))[1].staggered() == "_d0"
    assert task_of(module_of(scaled, 40, 64))[1].staggered() is None
    assert task_of(module_of(softmax, 4))[1].staggered() is None
    assert task_of(module_of(softmax, 40, 5000))[1].staggered() is None


def test_schedule_when_staggered_then_is_read_back_from_its_text() -> None:
    schedule = task_of(module_of(softmax, 40))[1]
    assert parse_schedule(print_schedule(schedule)) == schedule


def spread_of_powers(b: GraphBuilder, x: int) -> int:
    """The first of two reductions stores what it computes."""
    powers = b.op("exp", x)
    mean = b.op("reduce", powers, axes=(1,), kind="sum", keepdims=True)
    apart = b.op("sub", powers, mean)
    return b.op("mul", powers, b.op("reduce", apart, axes=(1,), kind="max", keepdims=True))


@pytest.mark.parametrize(
    ("build", "steps"),
    [
        (softmax, (Stagger("_d0"),)),
        (softmax, (Stagger("_d1"), Split("_d1_chunk", 4))),
        (softmax, (Stagger("_d0"), Split("_d0_chunk", 4), Split("_d0", 2))),
        (spread_of_powers, (Stagger("_d0"), Split("_d0_chunk", 4))),
        (lambda b, x: b.op("exp", x), (Stagger("_d0"), Split("_d0_chunk", 4))),
    ],
)
def test_stagger_when_it_does_not_fit_then_is_rejected(build: Build, steps: tuple[Stagger | Split, ...]) -> None:
    task, _ = task_of(module_of(build, 40))
    with pytest.raises(ScheduleRejectedError):
        schedule_to_tile(task, Schedule(steps), Bindings({}, {}, AVX512.lanes))
