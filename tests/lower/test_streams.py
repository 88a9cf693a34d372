"""Products at points, over taps and of few rows ask for weights some way ahead of their use, if these are not near."""

from __future__ import annotations

import math

import pytest

from tessera_build.ir.core.dims import evaluate
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.trace import Prefetch, Schedule
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.program.kernels import Setting, derived, derived_within
from tessera_build.lower.schedule_to_tile.prefetch import LINE_BYTES, OF_STREAM
from tessera_build.lower.schedule_to_tile.replay import Bindings, TileProgram, few_rows_program, schedule_to_tile
from tessera_build.space.workload import Bounds
from tests.lower.compiled import check_module
from tests.lower.execution import AVX512
from tests.lower.steps import steps_of
from tests.lower.strassen_cases import Cut, Sizes
from tests.lower.strassen_cases import module_of as halved_module
from tests.lower.tasks import constants_of, task_of
from tests.lower.winograd_cases import Shape, Strips, inputs_of, module_of

SHAPE = Shape(1, 9, 9, 48, 64)
FLOATS = LINE_BYTES // 4


def _setting(shape: Shape) -> Setting:
    module = module_of(shape)
    return Setting(task_of(module), {}, constants_of(module), {})


def _asking(rewritten: bool) -> Schedule:
    setting = _setting(SHAPE)
    chosen = (Strips(4, 1, 3, 3).chooser() if rewritten else derived_within(Bounds()))(setting, AVX512)
    assert (chosen.rewritten() is not None, chosen.prefetched()) == (rewritten, None)
    return Schedule((*chosen.steps, Prefetch(1)))


def _program(schedule: Schedule) -> TileProgram:
    setting = _setting(SHAPE)
    shapes = {value: array.shape for value, array in setting.constants.items()}
    return schedule_to_tile(setting.task, schedule, Bindings({}, shapes, AVX512.lanes))


@pytest.mark.unit
@pytest.mark.parametrize("rewritten", [True, False])
def test_product_of_a_window_when_it_asks_then_for_what_it_reads_a_little_later(rewritten: bool) -> None:
    assert _lines_asked_for(_program(_asking(rewritten)), {}) > 0


def _lines_asked_for(program: TileProgram, dims: dict[str, int]) -> int:
    """How many, all of them so far behind what the asking product reads."""
    views: dict[int, int] = {}
    asked = 0
    for node, places in steps_of(program.function.nodes, dims):
        if isinstance(node, t.View):
            shape = [evaluate(extent, places) for extent in program.function.types[node.buffer].shape]
            strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
            views[node.result] = sum(evaluate(o, places) * s for o, s in zip(node.offsets, strides, strict=True))
        if isinstance(node, t.Contract) and node.binding is not None and node.binding.ahead is not None:
            assert evaluate(node.binding.ahead.first, places) == views[node.b] + OF_STREAM[0] // 4
            depth, width = program.function.types[node.b].static_shape
            assert (node.binding.ahead.lines, node.binding.ahead.level) == (-(-depth * width // FLOATS), 1)
            asked += node.binding.ahead.lines
    return asked


@pytest.mark.unit
def test_product_of_few_rows_when_it_asks_then_for_what_it_reads_a_little_later() -> None:
    module = halved_module(Sizes(1, None, 96, 64))
    shapes = {value: array.shape for value, array in constants_of(module).items()}
    schedule = Cut(4, 2, 2, 16).schedule(AVX512.lanes)
    program = few_rows_program(task_of(module), schedule, Bindings({}, shapes, AVX512.lanes))
    # Each row, a tile of its own, reads all of the stored matrices: as many numbers as the weights have.
    assert schedule.prefetched() == 1
    assert _lines_asked_for(program, {"S": 3}) == 3 * 96 * 64 // FLOATS
    plain = Schedule(tuple(step for step in schedule.steps if not isinstance(step, Prefetch)))
    assert _lines_asked_for(few_rows_program(task_of(module), plain, Bindings({}, shapes, AVX512.lanes)), {"S": 3}) == 0


@pytest.mark.numerics
@pytest.mark.parametrize("rewritten", [True, False])
def test_product_of_a_window_when_it_asks_then_gives_the_same_answers(rewritten: bool) -> None:
    module = module_of(SHAPE, "bias relu")
    schedule = _asking(rewritten)

    def choose(setting: Setting, machine: CpuMachine) -> Schedule:
        return schedule if setting.task.kind == "contraction" else derived(setting, machine)

    check_module(module, inputs_of(module, {}), {}, AVX512, choose)


@pytest.mark.unit
@pytest.mark.parametrize(("channels", "asks"), [(64, False), (256, True), (512, True)])
def test_schedule_when_weights_fill_the_second_cache_then_asks_for_them(channels: int, asks: bool) -> None:
    chosen = derived(_setting(Shape(1, 14, 14, channels, channels)), AVX512)
    assert (chosen.prefetched() is not None) == asks
