"""Windows that leave out turns at which a whole tile reads padding: fewer products, the same answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.trace import Clip, Schedule, ScheduleRejectedError
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.program.estimate import operations_of
from tessera_build.lower.program.kernels import Chooser, Setting, derived, derived_within
from tessera_build.lower.schedule_to_tile.replay import Bindings, schedule_to_tile
from tessera_build.space.workload import EXACT, Reach
from tests.lower.compiled import check_module, compile_module
from tests.lower.execution import AVX2, AVX512
from tests.lower.tasks import constants_of, task_of
from tests.lower.volumes import DYNAMIC, Volume

direct = derived_within(EXACT)


def _whole(setting: Setting, machine: CpuMachine) -> Schedule:
    """The derived schedule with all turns."""
    return Schedule(tuple(step for step in direct(setting, machine).steps if not isinstance(step, Clip)))


_VOLUMES = {
    "one pixel": Volume((6, 9), (3, 3)),
    "far apart": Volume((14, 15), (3, 3), (), (9, 6)),
    "farther than there is": Volume((5, 6), (3, 5), (), (7, 3)),
    "in steps": Volume((9, 8), (5, 3), (2, 2)),
    "dynamic": Volume((None, None), (3, 3), (), (4, 4)),
    "three axes": Volume((2, 7, 8), (3, 3, 3)),
    "three axes in steps": Volume((5, None, 8), (3, 3, 3), (1, 2, 1), (2, 1, 4)),
}


@pytest.mark.numerics
@pytest.mark.parametrize("name", _VOLUMES)
@pytest.mark.parametrize("machine", [None, AVX2], ids=["here", "avx2"])
def test_window_when_turns_are_left_out_then_agrees_with_the_reference(name: str, machine: CpuMachine | None) -> None:
    module, (inputs, dims) = _VOLUMES[name].module(), _VOLUMES[name].inputs()
    check_module(module, inputs, dims, machine, direct)


@pytest.mark.numerics
@pytest.mark.parametrize("name", _VOLUMES)
def test_bits_when_turns_are_left_out_then_are_the_same(name: str) -> None:
    module, (inputs, dims) = _VOLUMES[name].module(), _VOLUMES[name].inputs()
    found = [compile_module(module, choose=choose).run(inputs, dims)["y"] for choose in (direct, _whole)]
    assert found[0].tobytes() == found[1].tobytes()


def _operations(module: Module, choose: Chooser) -> float:
    records = lower_module(module, AVX512, choose=choose).launches[0]
    return sum(operations_of(record.tile_function, {"N": 1}) for record in records if record.kind == "contraction")


@pytest.mark.unit
@pytest.mark.parametrize("apart", [6, 12, 18])
def test_products_when_taps_lie_far_apart_then_are_at_most_those_of_rows_inside(apart: int) -> None:
    module = Volume((28, 28), (3, 3), (), (apart, apart), channels=64, outputs=32).module()
    inside = 1 - 2 * apart / (3 * 28)  # of the taps that a row has, those within the image
    assert inside**2 * 0.99 <= _operations(module, direct) / _operations(module, _whole) <= inside * 1.01


@st.composite
def _volumes(draw: st.DrawFn) -> Volume:
    """Windows with few pixels, far taps and wide borders of unequal size."""
    rank = draw(st.integers(1, 3))
    taps, apart, steps = (
        draw(st.tuples(*[st.integers(1, most)] * rank)) for most in ((7, 12, 3) if rank == 1 else (4, 7, 3))
    )
    reach = [(count - 1) * far + 1 for count, far in zip(taps, apart, strict=True)]
    pads = [(draw(st.integers(0, far)), draw(st.integers(0, far))) for far in reach]
    least = [max(1, far - sum(around)) for far, around in zip(reach, pads, strict=True)]
    sizes = [draw(st.integers(low, max(low, 20 if rank == 1 else 9))) for low in least]
    free = [draw(st.booleans()) and low <= DYNAMIC for low in least]
    known = tuple(None if unknown else size for unknown, size in zip(free, sizes, strict=True))
    channels, outputs = draw(st.sampled_from([3, 16, 19, 32])), draw(st.sampled_from([8, 20, 48]))
    return Volume(known, taps, steps, apart, channels, outputs, tuple(pads))


@pytest.mark.numerics
@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(_volumes(), st.sampled_from([None, AVX2]), st.sampled_from([direct, derived]))
def test_windows_when_drawn_then_agree_with_the_reference(
    volume: Volume, machine: CpuMachine | None, choose: Chooser
) -> None:
    module, (inputs, dims) = volume.module(), volume.inputs()
    check_module(module, inputs, dims, machine, choose)


@pytest.mark.unit
def test_reach_when_asked_then_counts_turns_that_some_output_of_a_tile_is_inside_of() -> None:
    far = Reach("_k0", "_d1", -18, 1, 18, (28, 3, 28))
    assert [round(far.share(tile) * 84) for tile in (1, 7, 14, 28)] == [48, 56, 56, 84]
    assert Reach("_k0", "_d1", 0, 1, 1, (26, 3, 28)).share(1) == 1.0
    long = Reach("_k0", "_d1", -200, 1, 1, (160_000, 400, 160_000))  # 64 million turns
    assert long.share(1) == pytest.approx(1 - 200 * 200 / 400 / 160_000, rel=1e-5)


@pytest.mark.unit
@pytest.mark.parametrize("tile", [1, 3, 4, 13, 20])
def test_reach_when_in_steps_then_is_what_counting_gives(tile: int) -> None:
    for start, step, apart, taps, size in ((-5, 2, 3, 4, 21), (-9, 1, 7, 3, 12), (-2, 3, 1, 5, 9)):
        firsts = [start + step * min(first, 13 - min(tile, 13)) for first in range(0, 13, min(tile, 13))]
        last = step * (min(tile, 13) - 1)
        turns = [first + apart * tap for first in firsts for tap in range(taps)]
        inside = sum(turn < size and turn + last >= 0 for turn in turns)
        assert Reach("_k0", "_d1", start, step, apart, (13, taps, size)).share(tile) == inside / len(turns)


def _steps(module: Module) -> list[str]:
    records = lower_module(module, AVX512, choose=direct).launches[0]
    return [step.axis for record in records for step in record.schedule.steps if isinstance(step, Clip)]


def _window(weights: Array, pads: tuple[int, int]) -> Module:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 1, 6, 40, 8))
    sides = {"strides": (1, 1), "dilations": (1, 1), "low": pads, "high": pads}
    b.output("y", b.op("conv", x, b.constant(weights), groups=1, layout="NHWC", **sides))
    return b.finish()


@pytest.mark.unit
def test_turns_when_nothing_is_padded_then_are_all_taken() -> None:
    weights = np.ones((16, 8, 3, 3), np.float32)
    assert _steps(_window(weights, (1, 1))) == ["_k0", "_k1"]
    assert _steps(_window(weights, (1, 0))) == ["_k0"]
    assert _steps(_window(weights, (0, 0))) == []


@pytest.mark.numerics
def test_turns_when_weights_are_no_numbers_then_are_all_taken() -> None:
    weights = np.ones((16, 8, 3, 3), np.float32)
    weights[3, 2, 0, 1] = np.inf
    module = _window(weights, (1, 1))
    assert _steps(module) == []
    x = np.ones((1, 6, 40, 8), np.float32)
    y = compile_module(module, choose=direct).run({"x": x}, {})["y"]
    assert np.isnan(y[0, 0, :, 3]).all()  # the rows above are zeros, and zero times infinity is no number
    assert (y[0, 1:, :, 3] == np.inf).all()


@pytest.mark.errors
@pytest.mark.parametrize(
    ("axis", "constant"), [("_d1", True), ("_c", True), ("_k7", True), ("_k0", False)], ids=lambda value: str(value)
)
def test_trace_when_turns_cannot_be_left_out_then_is_rejected(axis: str, constant: bool) -> None:
    module = _window(np.ones((16, 8, 3, 3), np.float32), (1, 1))
    task, constants = task_of(module), constants_of(module) if constant else {}
    base = lower_module(module, AVX512, choose=direct).launches[0][-1].schedule
    kept = [step for step in base.steps if constant or not hasattr(step, "read")]
    bindings = Bindings({}, {value: array.shape for value, array in constants.items()}, AVX512.lanes)
    with pytest.raises(ScheduleRejectedError) as caught:
        schedule_to_tile(task, Schedule((*kept, Clip(axis))), bindings)
    assert caught.value.code == "SCHEDULE_CLIP"
