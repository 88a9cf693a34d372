"""Long sums of products in blocks: small errors, the same bits for all numbers of threads, any length of the rest."""

from __future__ import annotations

import numpy as np
import pytest

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, GraphNode, Module
from tessera_build.ir.schedule.trace import Block, Schedule, ScheduleRejectedError, Split
from tessera_build.ir.schedule.trace_text import parse_schedule, print_schedule
from tessera_build.ir.tile import reference
from tessera_build.lower.graph_to_schedule.tasks import Task, graph_to_schedule
from tessera_build.lower.schedule_to_tile.replay import Bindings, axes_of_domain, grouped_domain, schedule_to_tile
from tessera_build.space.derive import Subject, derive_schedule
from tests.lower.compiled import check_module
from tests.lower.execution import AVX512

ROWS, COLUMNS = 5, 20


def product(depth: Extent) -> Module:
    """What a weight's gradient is: both operands with the long axis first."""
    b = GraphBuilder(dims={"K": (0, None)})
    x, g = (b.input(name, tensor(F32, depth, n)) for name, n in (("x", ROWS), ("g", COLUMNS)))
    b.output("y", b.op("matmul", x, g, transpose_a=True, transpose_b=False))
    return b.finish()


def draw(depth: int) -> dict[str, Array]:
    """Products with a mean, so that a sum grows with its length."""
    rng = np.random.default_rng(depth)
    return {name: rng.uniform(0, 1, (depth, n)).astype(np.float32) for name, n in (("x", ROWS), ("g", COLUMNS))}


def task_of(module: Module) -> tuple[Task, Schedule]:
    function = module.entries["main"]
    assert all(isinstance(n, GraphNode) for n in function.nodes)
    (task,) = graph_to_schedule(function, {})
    axes = axes_of_domain(grouped_domain(task, Schedule())[0])
    return task, derive_schedule(Subject(task.kind, task.function.nodes, axes, task.reduced, {}), AVX512)


def interpreted(task: Task, schedule: Schedule, values: dict[str, Array]) -> Array:
    program = schedule_to_tile(task, schedule, Bindings({}, {}, AVX512.lanes))
    result, given = np.zeros((ROWS, COLUMNS), np.float32), dict(zip(task.inputs, values.values(), strict=True))
    buffers = [result if operand.value in task.outputs else given[operand.value] for operand in program.operands]
    reference.run(program.function, buffers, {"K": values["x"].shape[0]})
    return result


def in_blocks(values: dict[str, Array], size: int) -> Array:
    """The sums by their definition: fused multiply-adds in sequence, as f64 rounded once an element gives them."""
    x, g = values["x"].astype(np.float64), values["g"].astype(np.float64)
    total = np.zeros((ROWS, COLUMNS), np.float32)
    for start in range(0, len(x), size):
        part = np.zeros((ROWS, COLUMNS), np.float32)
        for a, b in zip(x[start : start + size], g[start : start + size], strict=True):
            part = (part.astype(np.float64) + np.outer(a, b)).astype(np.float32)
        total = total + part
    return total


def error(found: Array, values: dict[str, Array]) -> float:
    exact = values["x"].astype(np.float64).T @ values["g"].astype(np.float64)
    return float(np.abs(np.subtract(found, exact)).max() / np.abs(exact).max())


@pytest.mark.parametrize("depth", [32, 64, 65, 90, 131])
def test_product_when_in_blocks_then_has_the_bits_of_blocks_in_sequence(depth: int) -> None:
    task, schedule = task_of(product(depth))
    schedule = schedule.with_steps(Split("_k", 8), Block("_k", 38))
    values = draw(depth)
    np.testing.assert_array_equal(interpreted(task, schedule, values), in_blocks(values, 32))


@pytest.mark.parametrize("depth", [1025, 1536, 2041, 12544])
def test_product_when_long_then_is_added_in_blocks_and_agrees_for_all_threads(depth: int) -> None:
    task, schedule = task_of(product(depth))
    assert schedule.blocked("_k") is not None
    values = draw(depth)
    found = np.asarray(check_module(product(depth), values, {})["y"])
    assert error(found, values) < 1e-6
    plain = Schedule(tuple(s for s in schedule.steps if not isinstance(s, Block)))
    assert depth < 4096 or error(found, values) < error(interpreted(task, plain, values), values) / 3


@pytest.mark.parametrize("depth", [0, 1, 17, 511, 512, 513, 1030, 5003])
def test_product_when_its_length_is_known_late_then_is_added_in_blocks(depth: int) -> None:
    assert task_of(product(symbol("K")))[1].blocked("_k") is not None
    values = draw(depth)
    found = np.asarray(check_module(product(symbol("K")), values, {"K": depth})["y"])
    assert not depth or error(found, values) < 1e-6


def test_product_when_short_then_is_added_in_one_sequence() -> None:
    assert task_of(product(1024))[1].blocked("_k") is None


@pytest.mark.parametrize("step", [Block("_k", 7), Block("_d0", 64), Block("_k1", 64)])
def test_schedule_when_blocks_do_not_fit_then_is_rejected(step: Block) -> None:
    task, schedule = task_of(product(64))
    with pytest.raises(ScheduleRejectedError) as caught:
        interpreted(task, schedule.with_steps(Split("_k", 8), step), draw(64))
    assert caught.value.code == "SCHEDULE_BLOCK"


def test_schedule_when_in_blocks_then_is_read_back_from_its_text() -> None:
    schedule = task_of(product(5000))[1]
    assert any(isinstance(step, Block) for step in schedule.steps)
    assert parse_schedule(print_schedule(schedule)) == schedule
