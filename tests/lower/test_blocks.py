"""Long sums of products in blocks: small errors, the same bits for all numbers of threads, any length of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.types import F32, int_extent, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, GraphNode, Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.schedule.trace import Block, Schedule, ScheduleRejectedError, Split
from tessera_build.ir.schedule.trace_text import parse_schedule, print_schedule
from tessera_build.ir.tile import reference
from tessera_build.lower.graph_to_schedule.tasks import Task, graph_to_schedule
from tessera_build.lower.program.kernels import Setting, derived_within
from tessera_build.lower.schedule_to_tile.replay import Bindings, axes_of_domain, grouped_domain, schedule_to_tile
from tessera_build.space.derive import Subject, derive_schedule
from tessera_build.space.sums import SHORT, blocks_of
from tessera_build.space.workload import EXACT, Span, Workload
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


def _window(channels: int, taps: int, side: int) -> Module:
    b = GraphBuilder()
    x, w = b.input("x", tensor(F32, 1, channels, side, side)), b.input("w", tensor(F32, 24, channels, taps, taps))
    b.output("y", b.op("conv", x, w, strides=(1, 1), low=(1, 1), high=(1, 1), dilations=(1, 1)))
    return run_passes(replace(b.finish(), derivatives=frozenset({"main"})))


def _longest(schedules: Sequence[tuple[Task, Schedule]]) -> int:
    """The most products that any of the schedules adds up in sequence."""
    found = 0
    for task, schedule in schedules:
        (node,) = [n for n in task.function.nodes if isinstance(n, Compute) and n.combine == "sum"]
        terms = 1
        for axis in reversed(node.reduction):
            size = schedule.blocked(axis.name)
            if size is not None:
                terms *= size
                break
            terms *= int_extent(axis.extent)
        found = max(found, terms)
    return found


@pytest.mark.parametrize(
    ("channels", "taps", "side"),
    [(3, 7, 16), (24, 3, 14), (64, 3, 7), (128, 3, 7), (200, 1, 7), (43, 5, 9), (129, 3, 5)],
)
def test_sum_when_entry_gives_derivatives_then_no_sequence_is_long(channels: int, taps: int, side: int) -> None:
    chosen = list[tuple[Task, Schedule]]()

    def choose(setting: Setting, machine: CpuMachine) -> Schedule:
        schedule = derived_within(EXACT)(setting, machine)
        if setting.task.kind == "contraction":
            chosen.append((setting.task, schedule))
        return schedule

    module, rng = _window(channels, taps, side), np.random.default_rng(channels)
    shapes = {"x": (1, channels, side, side), "w": (24, channels, taps, taps)}
    given = {name: rng.uniform(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    check_module(module, given, {}, choose=choose)
    assert chosen
    assert _longest(chosen) <= SHORT
    before = len(chosen)
    check_module(replace(module, derivatives=frozenset()), given, {}, choose=choose)
    assert channels * taps * taps <= SHORT or _longest(chosen[before:]) > SHORT


def test_sum_of_a_window_when_entry_gives_derivatives_then_errs_less() -> None:
    """576 products with a mean: in one sequence, and in blocks of 64."""
    module, rng = _window(64, 3, 16), np.random.default_rng(2)
    given = {
        "x": rng.uniform(0, 1, (1, 64, 16, 16)).astype(np.float32),
        "w": rng.uniform(0, 1, (24, 64, 3, 3)).astype(np.float32),
    }
    wide = {name: array.astype(np.float64) for name, array in given.items()}
    padded = np.pad(wide["x"][0], ((0, 0), (1, 1), (1, 1)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    exact = np.einsum("chwij,ocij->ohw", patches, wide["w"])
    errors: list[float] = []
    for derivatives in (frozenset({"main"}), frozenset[str]()):
        made = replace(module, derivatives=derivatives)
        found = check_module(made, given, {}, choose=derived_within(EXACT))["y"][0]
        errors.append(float(np.sqrt(np.mean(np.square(found - exact)))))
    assert errors[0] < errors[1] / 2


@pytest.mark.parametrize("about", [64, 512])
def test_blocks_when_of_any_length_then_leave_no_loop_of_two_trips(about: int) -> None:
    for extent in [*range(2 * about + 1, 5000), *range(40000, 41000)]:
        work = Workload("contraction", (), (Span("_k", extent),), (), (), 0, short_sums=about == 64)
        blocks = blocks_of(work)
        assert blocks is not None
        assert blocks.size // 16 != 2
        assert extent % blocks.size // 16 != 2
        assert about * 0.75 <= blocks.size <= about * 3
        assert blocks.count == -(-extent // blocks.size)
