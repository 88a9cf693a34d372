"""Asking for the next panel while the present one is used: what is asked for, and that nothing else depends on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from tessera_build.ir.core.dims import evaluate, symbol
from tessera_build.ir.core.node import Function, Node
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.schedule.trace import Pack, Prefetch, Reorder, Schedule, Split, Step, Tensorise
from tessera_build.ir.target import kernel as k
from tessera_build.ir.tile import nodes as t
from tessera_build.ir.tile import reference
from tessera_build.ir.tile.erase import strip_bindings
from tessera_build.ir.tile.spec import verify
from tessera_build.ir.tile.text import parse_function, print_function
from tessera_build.lower.program.kernels import Setting, derived
from tessera_build.lower.schedule_to_tile.prefetch import OF_LARGE, OF_STREAM
from tessera_build.lower.schedule_to_tile.replay import Bindings, TileProgram, schedule_to_tile
from tessera_build.lower.tile_to_target.cpu import lower_cpu
from tessera_build.space.panels import CYCLES_A_CONFLICT, LEAST_USES, cycles_lost_to_conflicts, prefetch_pays
from tests.lower.compiled import check_module
from tests.lower.execution import AVX512
from tests.lower.steps import steps_of
from tests.lower.tasks import constants_of, task_of

LINE = 16


def _module(rows: int | None, depth: int, columns: int) -> Module:
    """x w + b, then a maximum; `rows` None is a dynamic number."""
    rng, b = np.random.default_rng(0), GraphBuilder(dims={"N": (1, None)})
    x = b.input("x", tensor(F32, symbol("N") if rows is None else rows, depth))
    w = b.constant(rng.standard_normal((depth, columns)).astype(np.float32))
    y = b.op("add", b.op("matmul", x, w), b.constant(rng.standard_normal(columns).astype(np.float32)))
    b.output("y", b.op("max", y, b.scalar(0.0, F32)))
    return b.finish()


def _program(rows: int, depth: int, columns: int, *more: Step) -> TileProgram:
    module = _module(rows, depth, columns)
    task, constants = task_of(module), constants_of(module)
    tile = (Split("_d0", min(rows, 8)), Split("_d1", 48), Split("_k", 16), Pack(1, 48), Tensorise("_k"))
    schedule = Schedule((*tile, Reorder(("_d1", "_d0")), *more))
    return schedule_to_tile(task, schedule, Bindings({}, {v: a.shape for v, a in constants.items()}, AVX512.lanes))


def _asked(nodes: Sequence[Node], places: dict[str, int]) -> Iterator[tuple[dict[str, int], int]]:
    """Every line asked for, with the loop indices at that time, in the order of the program."""
    for node, here in steps_of(nodes, places):
        if isinstance(node, t.Contract) and node.binding is not None and node.binding.ahead is not None:
            first = evaluate(node.binding.ahead.first, here)
            for line in range(node.binding.ahead.lines):
                yield here, first // LINE + line


@pytest.mark.parametrize(("rows", "depth", "columns"), [(64, 64, 96), (61, 70, 100), (32, 48, 200), (33, 33, 130)])
def test_prefetch_when_a_panel_has_been_used_then_all_of_the_next_was_asked_for(
    rows: int, depth: int, columns: int
) -> None:
    program = _program(rows, depth, columns, Prefetch(1))
    (operand,) = [o for o in program.operands if o.packing is not None and o.packing.width]
    panel = program.function.types[program.function.args[program.operands.index(operand)]]
    whole = [e for e in panel.shape if isinstance(e, int)]
    panels, lines = whole[0], whole[1] * whole[2] // LINE
    asked: dict[int, set[int]] = {}
    for places, line in _asked(program.function.nodes, {}):
        asked.setdefault(places["_d1"] // whole[2], set()).add(line)
    assert len(asked) == panels > 1
    chunked = lines * (whole[1] // 16 * 16) // whole[1]  # what is left of the reduction asks for nothing
    for number, found in asked.items():
        missing = set(range((number + 1) * lines, (number + 1) * lines + lines)) - found
        assert len(missing) <= lines - chunked + 1
        assert len(found) <= 2 * lines + 16 * rows


@pytest.mark.parametrize(("rows", "depth", "columns"), [(1, 64, 96), (8, 33, 130), (24, 40, 100), (1, 2048, 576)])
def test_prefetch_when_a_panel_is_used_seldom_then_what_lies_a_little_further_on_is_asked_for(
    rows: int, depth: int, columns: int
) -> None:
    program = _program(rows, depth, columns, Prefetch(1))
    distance, level = OF_LARGE if rows == 1 and depth == 2048 else OF_STREAM
    lines = [line for _, line in _asked(program.function.nodes, {})]
    whole = depth // 16 * 16 * 48 // LINE  # what is left of the reduction asks for nothing
    turns = [lines[i : i + whole] for i in range(0, len(lines), whole)]
    uses = -(-rows // 8)
    assert len(turns) == -(-columns // 48) * uses
    begins = [distance // 64 + number // uses * depth * 48 // LINE for number in range(len(turns))]
    assert [turn[0] for turn in turns] == begins
    assert all(turn == list(range(turn[0], turn[0] + whole)) for turn in turns)
    nodes = lower_cpu(program.function, AVX512, {}).kernel.walk()
    assert {n.level for n in nodes if isinstance(n, k.Prefetch)} == {level}


def test_prefetch_when_a_run_knows_how_many_rows_then_each_tile_asks_for_what_it_reads_a_little_later() -> None:
    module = _module(None, 64, 96)
    task, constants = task_of(module), constants_of(module)
    tile = (Split("_d0", 8), Split("_d1", 48), Split("_k", 16), Pack(1, 48), Tensorise("_k"))
    schedule = Schedule((*tile, Reorder(("_d1", "_d0")), Prefetch(1)))
    shapes = {value: array.shape for value, array in constants.items()}
    program = schedule_to_tile(task, schedule, Bindings({}, shapes, AVX512.lanes))
    panel = 64 * 48 // LINE
    for rows in (8, 24, 96):
        lines = [line for places, line in _asked(program.function.nodes, {"N": rows}) if places["_d1"] == 48]
        assert lines == list(range(panel + OF_STREAM[0] // 64, 2 * panel + OF_STREAM[0] // 64)) * (rows // 8)


@pytest.mark.parametrize(("rows", "depth", "columns"), [(7, 37, 51), (16, 32, 96), (1, 20, 40)])
def test_prefetch_when_erased_then_program_and_bits_are_as_before(rows: int, depth: int, columns: int) -> None:
    plain, asking = _program(rows, depth, columns), _program(rows, depth, columns, Prefetch(1))
    verify(asking.function)
    assert print_function(parse_function(print_function(asking.function))) == print_function(asking.function)
    assert print_function(asking.function) != print_function(plain.function)
    assert print_function(strip_bindings(asking.function)) == print_function(strip_bindings(plain.function))
    assert _bits(asking) == _bits(plain)


def _bits(program: TileProgram) -> bytes:
    rng = np.random.default_rng(3)
    function: Function = program.function
    shapes = [[evaluate(e, {}) for e in function.types[a].shape] for a in function.args]
    buffers: list[Array] = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    reference.run(function, buffers, {})
    return b"".join(b.tobytes() for b in buffers)


def test_prefetch_when_lowered_then_each_contraction_asks_for_its_lines_among_its_steps() -> None:
    program = _program(16, 32, 96, Prefetch(1))
    contracts = [n for n in program.function.walk() if isinstance(n, t.Contract)]
    wanted = sum(n.binding.ahead.lines for n in contracts if n.binding is not None and n.binding.ahead is not None)
    nodes = list(lower_cpu(program.function, AVX512, {}).kernel.walk())
    places = [i for i, n in enumerate(nodes) if isinstance(n, k.Prefetch)]
    assert len(places) == wanted > 1
    assert any(isinstance(n, k.Op) and n.name == "fma" for n in nodes[places[0] : places[-1]])


def test_prefetch_when_weighed_then_pays_for_large_weights_that_are_used_seldom() -> None:
    assert prefetch_pays(16, 48, 1 << 20, AVX512)
    assert not prefetch_pays(49, 48, 1 << 20, AVX512)
    assert not prefetch_pays(16, 48, 1 << 17, AVX512)
    for uses in range(LEAST_USES):
        assert prefetch_pays(uses, 48, 2 << 20, AVX512)
        assert not prefetch_pays(uses, 48, AVX512.l2_bytes // 2, AVX512)


def test_prefetch_when_the_machine_fetches_ahead_itself_then_few_rows_ask_for_large_matrices_of_one_row() -> None:
    alone = replace(AVX512, asks_ahead=False)
    for uses in range(LEAST_USES):
        assert not prefetch_pays(uses, 48, (2 << 20) - 1, alone)
        assert prefetch_pays(uses, 48, 2 << 20, alone) is (uses == 0)
    assert prefetch_pays(16, 48, 1 << 20, alone)


def test_conflicts_when_rows_share_a_set_then_those_beyond_its_ways_cost() -> None:
    rows = np.array([1, 8, 9, 13, 14])

    def beyond(near: int, far: int = 0, outer: int = 1) -> list[float]:
        along = [(np.full_like(rows, outer), far)] if far else []
        lost = cycles_lost_to_conflicts([*along, (rows, near)], AVX512)
        return [round(float(each) / CYCLES_A_CONFLICT, 9) for each in lost]

    assert beyond(12288) == [0, 0, 1, 5, 6]
    assert beyond(4096 + 64) == beyond(64) == beyond(4) == [0, 0, 0, 0, 0]
    assert beyond(2048) == [0, 0, 0, 0, 0]  # two sets, of which each holds half of the rows
    assert beyond(4096, 28 * 4096, outer=2) == [0, 8, 10, 18, 20]
    assert beyond(2048, 28 * 2048, outer=3) == [0, 8, 11, 23, 26]


def test_products_when_derived_then_rows_that_share_a_set_are_few_and_large_weights_are_asked_for() -> None:
    for rows, depth, columns in ((128, 3072, 768), (1024, 1024, 1024)):
        schedule = _derived(rows, depth, columns)
        assert schedule.factors()["_d0"] <= AVX512.l1_bytes // 4096
    assert _derived(128, 768, 768).prefetched() == 1
    assert _derived(128, 64, 64).prefetched() is None


def test_product_when_weights_are_read_first_then_few_of_their_rows_share_a_set() -> None:
    """512 x 2048 by 49 columns in tiles of 27 rows and one register took 4.6 times as long as 8 rows and three."""
    b = GraphBuilder()
    weights = b.constant(np.ones((512, 2048), np.float32))
    b.output("y", b.op("matmul", weights, b.input("x", tensor(F32, 2048, 49))))
    assert _derived_of(b.finish()).factors()["_d0"] <= AVX512.l1_bytes // 4096
    assert _derived(4, 768, 768).prefetched() == 1
    assert _derived(4, 256, 256).prefetched() is None
    assert _derived(1, 768, 3072).prefetched() == 1
    assert _derived(1, 256, 256).prefetched() is None


def _derived(rows: int, depth: int, columns: int) -> Schedule:
    return _derived_of(_module(rows, depth, columns))


def _derived_of(module: Module) -> Schedule:
    task, constants = task_of(module), constants_of(module)
    return derived(Setting(task, {}, constants, {}), AVX512)


@pytest.mark.parametrize("rows", [2, 5, 37, None])
def test_product_when_its_weights_are_large_then_it_asks_ahead_and_is_right(rows: int | None) -> None:
    module = _module(rows, 301, 259)
    for number in (1, 9, 70) if rows is None else (rows,):
        x = np.random.default_rng(number).standard_normal((number, 301)).astype(np.float32)
        check_module(module, {"x": x}, {"N": number})
