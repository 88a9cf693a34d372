"""Winograd convolution: the same answers as the sum of products, from every shape, strip, machine and thread count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tessera_build.config import load_precision
from tessera_build.ir.core.dims import evaluate
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.schedule.trace import (
    Bind,
    Pack,
    Reorder,
    Rewrite,
    Schedule,
    ScheduleRejectedError,
    Split,
    Step,
    Tensorise,
)
from tessera_build.ir.schedule.trace_text import parse_schedule, print_schedule
from tessera_build.ir.tile import reference
from tessera_build.ir.tile.erase import strip_bindings
from tessera_build.ir.tile.spec import verify
from tessera_build.lower.graph_to_schedule.tasks import Task
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.program.kernels import STANDARD_BOUNDS, Setting, derived_within, lower_task
from tessera_build.lower.schedule_to_tile.replay import Bindings, schedule_to_tile
from tessera_build.space.toom_cook import Transform, taps_first, tiles_for
from tessera_build.space.winograd import Window, window_of
from tessera_build.space.winograd_error import transform_error
from tessera_build.space.workload import Bounds
from tessera_build.verify.tile_samples import LAUNCH_VISITS, first_instances, visits
from tests.lower.compiled import check_module, compile_module
from tests.lower.execution import AVX2, AVX512
from tests.lower.tasks import constants_of, rewritten, summed, task_of
from tests.lower.winograd_cases import SIDES, Shape, Strips, inputs_of, module_of

ALLOWED = load_precision("fp32").winograd_max_error
TILES = tiles_for((3, 3))


# -- what is computed -------------------------------------------------------------------------------------------------


@pytest.mark.numerics
@pytest.mark.parametrize("tile", TILES)
def test_program_when_bindings_are_erased_then_bits_are_as_before(tile: int) -> None:
    task, node = summed(module_of(Shape(1, 5, 6, 3, 9), "bias relu"))
    constants = constants_of(module_of(Shape(1, 5, 6, 3, 9), "bias relu"))
    schedule = Strips(tile, 1, 2, 2, vectors=1).schedule(node, AVX2)
    program = schedule_to_tile(task, schedule, Bindings({}, {v: a.shape for v, a in constants.items()}, AVX2.lanes))
    verify(program.function)
    x = np.random.default_rng(1).standard_normal((1, 5, 6, 3)).astype(np.float32)
    outputs: list[Array] = []
    for function in (program.function, strip_bindings(program.function)):
        buffers: list[Array] = []
        for operand in program.operands:
            array = constants.get(operand.value, x)
            array = np.full((1, 5, 6, 9), np.nan, np.float32) if operand.value in task.outputs else array
            buffers.append(operand.packing.apply(array) if operand.packing else array)
        reference.run(function, buffers, {})
        outputs += [b for b, o in zip(buffers, program.operands, strict=True) if o.value in task.outputs]
    assert np.isfinite(outputs[0]).all()
    assert outputs[0].tobytes() == outputs[1].tobytes()


@pytest.mark.numerics
def test_proof_when_interpreted_then_looks_at_the_first_tile_of_a_strip() -> None:
    module = module_of(Shape(1, 56, 56, 64, 64), "bias relu")
    record = lower_module(module, AVX512, choose=derived_within(Bounds(ALLOWED))).launches[0][-1]
    cut = first_instances(record.tile_function)
    assert visits(record.tile_function.nodes, {}) > LAUNCH_VISITS > 4 * visits(cut.nodes, {})


_SIDE = st.integers(0, 2)
SHAPES = st.builds(
    Shape,
    images=st.sampled_from([1, 1, 2, None]),
    height=st.integers(3, 11) | st.none(),
    width=st.integers(3, 19) | st.none(),
    channels=st.integers(1, 37),
    outputs=st.integers(1, 37),
    low=st.tuples(_SIDE, _SIDE),
    high=st.tuples(_SIDE, _SIDE),
)
STRIPS = st.builds(
    Strips,
    tile=st.sampled_from(TILES),
    rows=st.integers(1, 3),
    columns=st.integers(1, 4),
    block=st.just(1),
    vectors=st.integers(1, 3),
    panels=st.integers(0, 1),
)
EPILOGUES = st.sampled_from(["", "bias", "bias relu", "residual", "bias residual relu"])
_SETTINGS = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.numerics
@_SETTINGS
@given(SHAPES, STRIPS, EPILOGUES, st.integers(0, 11), st.sampled_from([None, AVX2]))
def test_convolution_when_rewritten_then_agrees_with_the_reference_for_one_and_two_threads(
    shape: Shape, strips: Strips, epilogue: str, block: int, machine: CpuMachine | None
) -> None:
    strips = replace(strips, block=1 + block % (strips.rows * strips.columns))
    module, sizes = module_of(shape, epilogue), {"N": 2, "H": 7, "W": 10}
    check_module(module, inputs_of(module, sizes), sizes, machine, strips.chooser())


_TAPS = [(1, 2), (1, 3), (4, 1), (5, 1), (1, 5), (1, 6), (7, 1), (1, 7), (5, 5), (3, 5), (2, 2)]


@pytest.mark.numerics
@pytest.mark.parametrize("taps", _TAPS, ids=lambda taps: f"{taps[0]}x{taps[1]}")
@pytest.mark.parametrize("machine", [None, AVX2], ids=["here", "avx2"])
def test_window_when_of_other_taps_then_agrees_with_the_reference_for_one_and_two_threads(
    taps: tuple[int, int], machine: CpuMachine | None
) -> None:
    before = taps[0] // 2, taps[1] // 2
    after = taps[0] - 1 - before[0], taps[1] - 1 - before[1]
    for tile in tiles_for(taps):
        shape = Shape(None, None, 11, 19, 20, before, after, taps)
        module, sizes = module_of(shape, "bias residual relu"), {"N": 2, "H": 9}
        assert window_of(summed(module)[1]) is not None
        check_module(module, inputs_of(module, sizes), sizes, machine, Strips(tile, 2, 3, 5, vectors=1).chooser())


@pytest.mark.numerics
@pytest.mark.parametrize(("taps", "apart", "width"), [(3, 2, 21), (3, 4, 16), (5, 3, None), (2, 7, 9), (3, 40, None)])
@pytest.mark.parametrize("machine", [None, AVX2], ids=["here", "avx2"])
def test_window_when_taps_are_apart_then_agrees_with_the_reference_for_one_and_two_threads(
    taps: int, apart: int, width: int | None, machine: CpuMachine | None
) -> None:
    reach = (taps - 1) * apart
    for tile in tiles_for((1, taps)):
        shape = Shape(None, 1, width, 19, 20, (0, reach // 2), (0, reach - reach // 2), (1, taps), apart)
        module, sizes = module_of(shape, "bias residual relu"), {"N": 2, "W": 37}
        assert window_of(summed(module)[1]) is not None
        check_module(module, inputs_of(module, sizes), sizes, machine, Strips(tile, 3, 2, 5, vectors=1).chooser())


_STEPS = [((3, 3), (2, 2)), ((4, 4), (2, 2)), ((4, 4), (3, 3)), ((6, 6), (2, 2)), ((1, 3), (1, 2)), ((5, 1), (4, 1))]


@pytest.mark.numerics
@pytest.mark.parametrize(("taps", "strides"), _STEPS, ids=lambda pair: f"{pair[0]}x{pair[1]}")
@pytest.mark.parametrize("machine", [None, AVX2], ids=["here", "avx2"])
def test_window_when_outputs_are_steps_apart_then_agrees_with_the_reference_for_one_and_two_threads(
    taps: tuple[int, int], strides: tuple[int, int], machine: CpuMachine | None
) -> None:
    before = taps[0] // 2, taps[1] // 2
    after = taps[0] - 1 - before[0], taps[1] - 1 - before[1]
    for tile in tiles_for(taps, strides):
        shape = Shape(None, None, 26, 19, 20, before, after, taps, strides=strides)
        module, sizes = module_of(shape, "bias residual relu"), {"N": 2, "H": 17}
        window = window_of(summed(module)[1])
        assert window is not None
        assert window.strides == strides
        check_module(module, inputs_of(module, sizes), sizes, machine, Strips(tile, 2, 3, 5, vectors=1).chooser())


@pytest.mark.unit
def test_window_when_steps_leave_filters_of_one_tap_or_cost_more_then_is_none_of_those() -> None:
    def found(taps: tuple[int, int], strides: tuple[int, int]) -> Window | None:
        return window_of(summed(module_of(Shape(1, 16, 16, 8, 16, taps=taps, strides=strides)))[1])

    assert found((2, 2), (2, 2)) is None
    assert found((3, 3), (3, 3)) is None
    assert found((5, 5), (2, 2)) is None  # its filters have no tile in common
    rows = found((3, 3), (1, 2))
    assert rows is not None
    assert (rows.taps, rows.strides) == ((3, 1), (1, 1))


@pytest.mark.numerics
def test_dims_when_smaller_and_larger_than_a_strip_then_one_program_serves_all() -> None:
    module = module_of(Shape(None, None, None, 6, 20), "bias")
    compiled = compile_module(module, choose=Strips(4, 2, 3, 5).chooser())
    for sizes in ({"N": 1, "H": 1, "W": 1}, {"N": 3, "H": 4, "W": 13}, {"N": 1, "H": 23, "W": 24}):
        inputs = inputs_of(module, sizes)
        single, double = compiled.run(inputs, sizes), compiled.run(inputs, sizes, threads=2)
        assert single["y"].tobytes() == double["y"].tobytes()
        patches = np.lib.stride_tricks.sliding_window_view(
            np.pad(inputs["x"], ((0, 0), (1, 1), (1, 1), (0, 0))).astype(np.float64), (3, 3), axis=(1, 2)
        )
        weights, bias = sorted(module.constants.values(), key=lambda a: -a.ndim)
        expected = np.einsum("nhwcij,ocij->nhwo", patches, weights.astype(np.float64)) + bias
        np.testing.assert_allclose(single["y"].astype(np.float64), expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.numerics
@pytest.mark.parametrize(("tile", "stride"), [*((tile, 1) for tile in TILES), (3, 2)])
def test_bits_when_strips_or_neighbours_differ_then_are_the_same(tile: int, stride: int) -> None:
    module, sizes = module_of(Shape(None, 13, 14, 19, 40, strides=(stride, stride)), "bias relu"), {"N": 3}
    inputs = inputs_of(module, sizes)
    cuts = Strips(tile, 1, 1, 1), Strips(tile, 2, 3, 5, vectors=1), Strips(tile, 4, 7, 9, vectors=1, panels=1)
    found = [compile_module(module, choose=strips.chooser()).run(inputs, sizes)["y"] for strips in cuts]
    alone = compile_module(module, choose=Strips(tile, 1, 2, 2).chooser()).run({"x": inputs["x"][1:2]}, {"N": 1})["y"]
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    assert found[0][1:2].tobytes() == alone.tobytes()


@pytest.mark.unit
def test_versions_when_a_dynamic_row_fills_less_than_half_a_register_tile_then_sums_are_direct() -> None:
    module = module_of(Shape(None, 1, None, 64, 64, (0, 1), (0, 1), (1, 3)), "bias")
    setting = Setting(task_of(module), {}, constants_of(module), {"N": (1, None), "W": (1, None)})
    versions = lower_task(setting, AVX512, derived_within(Bounds(ALLOWED)))
    assert sum(v.schedule.rewritten() is not None for v in versions) == 1
    for width, due in ((1, False), (8, False), (200, True)):
        used = [v for v in versions if evaluate(v.count, {"N": 3, "W": width}) > 0]
        assert [v.schedule.rewritten() is not None for v in used] == [due]


# -- when it is chosen ------------------------------------------------------------------------------------------------


def _chosen(shape: Shape, machine: CpuMachine, allowed: float) -> int:
    """The extent of the output tiles that the rule takes, 0 for none."""
    step = rewritten(module_of(shape, "bias relu"), machine, Bounds(winograd=allowed))
    return step.tile if step else 0


@pytest.mark.unit
@pytest.mark.parametrize(("machine", "expected"), [(AVX2, [4, 4, 4, 0]), (AVX512, [4, 4, 4, 0])])
def test_rule_when_sizes_are_those_of_a_network_then_takes_the_tile_that_pays(
    machine: CpuMachine, expected: list[int]
) -> None:
    taken = [_chosen(Shape(1, n, n, c, c), machine, ALLOWED) for n, c in ((56, 64), (28, 128), (14, 256), (4, 2))]
    assert taken == expected


@pytest.mark.unit
def test_rule_when_outputs_are_steps_apart_then_takes_the_tile_that_pays() -> None:
    halved = Shape(1, 56, 56, 128, 128, (1, 1), (0, 0), strides=(2, 2))
    assert _chosen(halved, AVX512, ALLOWED) == 3
    assert _chosen(replace(halved, channels=64, taps=(4, 4), high=(1, 1)), AVX512, ALLOWED) == 5
    assert _chosen(replace(halved, height=8, width=8, channels=512, outputs=512), AVX512, ALLOWED) == 0


@pytest.mark.unit
def test_default_schedules_when_derived_then_allow_what_the_standard_precision_does() -> None:
    assert STANDARD_BOUNDS.winograd == ALLOWED


@pytest.mark.unit
def test_rule_when_less_error_is_allowed_then_takes_smaller_tiles_or_none() -> None:
    shape = Shape(1, 56, 56, 64, 64)
    weights = max(constants_of(module_of(shape)).values(), key=lambda a: a.ndim)
    placed = taps_first(weights, (2, 3, 1, 0))
    small, large = (transform_error(placed, Transform.of(tile, (3, 3))) for tile in TILES)
    assert 1e-7 < small < large < 1e-5
    assert [_chosen(shape, AVX512, bound) for bound in (large, large * 0.99, small * 0.99, 0.0)] == [4, 2, 0, 0]


@pytest.mark.unit
@pytest.mark.parametrize(
    "change",
    [{"strides": (3, 3)}, {"groups": 2}, {"taps": (1, 1)}, {"taps": (9, 1)}, {"taps": (9, 8)}],
    ids=str,
)
def test_window_when_there_are_no_points_for_it_then_is_none(change: dict[str, object]) -> None:
    assert window_of(_other_window(change)) is None
    assert window_of(_other_window({})) is not None


def _other_window(change: dict[str, object]) -> Compute:
    b, groups = GraphBuilder(), int(str(change.get("groups", 1)))
    taps = change.get("taps", (3, 3))
    assert isinstance(taps, tuple)
    x = b.input("x", tensor(F32, 1, 9, 9, 8))
    w = b.constant(np.ones((8, 8 // groups, *taps), np.float32))
    sides = SIDES | {k: v for k, v in change.items() if k in SIDES}
    b.output("y", b.op("conv", x, w, groups=groups, layout="NHWC", **sides))  # type: ignore[arg-type]
    return summed(b.finish())[1]


@pytest.mark.unit
def test_bundle_when_a_convolution_is_rewritten_then_weights_name_the_transform() -> None:
    module = module_of(Shape(1, 56, 56, 64, 64), "bias relu")
    lowered = lower_module(module, AVX512, choose=derived_within(Bounds(ALLOWED)))
    layouts = [w.layout for w in lowered.weights]
    assert "v1:winograd(4,3),order(2,3,1,0),panels(0,32)" in layouts
    (step,) = [r.schedule.rewritten() for r in lowered.launches[0] if r.schedule.rewritten()]
    assert step is not None
    assert (step.algorithm, step.effect) == ("winograd", "algorithm-changing")
    strided = module_of(Shape(1, 56, 56, 128, 128, high=(0, 0), strides=(2, 2)))
    lowered = lower_module(strided, AVX512, choose=derived_within(Bounds(ALLOWED)))
    assert [w.layout for w in lowered.weights] == ["v1:winograd(3,3/2x2),order(2,3,1,0),panels(0,32)"]


@pytest.mark.unit
def test_trace_when_printed_then_is_read_back_and_names_the_algorithm() -> None:
    _, node = summed(module_of(Shape(1, 8, 8, 4, 16)))
    schedule = Strips(4, 1, 2, 2, vectors=1, panels=1).schedule(node, AVX2)
    text = print_schedule(schedule)
    first = 'step = "rewrite", tile = 4, block = 2, panels = 1, algorithm = "winograd", effect = "algorithm-changing"'
    assert first in text.splitlines()[0]
    assert parse_schedule(text) == schedule


# -- what is refused --------------------------------------------------------------------------------------------------

_GOOD = Strips(4, 1, 2, 2, vectors=1)
_WRONG: dict[str, Callable[[Schedule], Schedule]] = {
    "algorithm": lambda s: s.with_steps(Rewrite(4, 2, algorithm="fourier")),
    "tile": lambda s: s.with_steps(Rewrite(3, 2)),
    "block": lambda s: s.with_steps(Rewrite(4, 3)),
    "no block": lambda s: s.with_steps(Rewrite(4, 0)),
    "strip": lambda s: s.with_block(_d1=6),
    "stack": lambda s: s.with_block(_d1=4 * 64, _d2=4 * 64),
    "images": lambda s: s.with_block(_d0=2),
    "taps": lambda s: s.with_block(_k0=3),
    "half registers": lambda s: s.with_steps(Split("_d3", 4), Pack(1, 4)),
    "other panels": lambda s: s.with_steps(Pack(1, 16)),
    "two packs": lambda s: s.with_steps(Pack(0, 8)),
    "over taps": lambda s: s.with_steps(Tensorise("_k0")),
    "by bytes": lambda s: s.with_steps(Tensorise("_c", "dot4")),
    "parallel panels": lambda s: s.with_steps(Bind("_d3", "parallel")),
    "unrolled": lambda s: s.with_steps(Bind("_d2", "unroll")),
    "uneven groups": lambda s: s.with_steps(Rewrite(4, 2, 3)),
    "negative groups": lambda s: s.with_steps(Rewrite(4, 2, -1)),
    "panels outside": lambda s: s.with_steps(Reorder(("_d3", "_d0", "_d1", "_d2"))),
    "no product": lambda s: Schedule(tuple(step for step in s.steps if not isinstance(step, Tensorise))),
}


def _replayed(task: Task, schedule: Schedule, constants: dict[int, Array]) -> None:
    schedule_to_tile(task, schedule, Bindings({}, {v: a.shape for v, a in constants.items()}, AVX2.lanes))


@pytest.mark.errors
@pytest.mark.parametrize("name", _WRONG)
def test_trace_when_it_does_not_fit_then_is_rejected(name: str) -> None:
    module = module_of(Shape(2, 8, 8, 4, 16), "bias")
    task, node = summed(module)
    base = _GOOD.schedule(node, AVX2)
    _replayed(task, base, constants_of(module))
    with pytest.raises(ScheduleRejectedError) as caught:
        _replayed(task, _WRONG[name](base), constants_of(module))
    assert caught.value.found


@pytest.mark.errors
def test_trace_when_weights_are_computed_then_is_rejected() -> None:
    module = module_of(Shape(2, 8, 8, 4, 16))
    task, node = summed(module)
    with pytest.raises(ScheduleRejectedError, match="does not fit") as caught:
        _replayed(task, _GOOD.schedule(node, AVX2), {})
    assert caught.value.found == "weights that are not constant"


@pytest.mark.errors
def test_trace_when_the_task_is_no_window_then_is_rejected() -> None:
    module = module_of(Shape(2, 8, 8, 4, 16))
    task, node = summed(module)
    steps: tuple[Step, ...] = _GOOD.schedule(node, AVX2).steps
    strided = replace(node, accesses=(replace(node.accesses[0], pad=1.0), node.accesses[1]))
    other = replace(task, function=replace(task.function, nodes=(strided,)))
    with pytest.raises(ScheduleRejectedError) as caught:
        _replayed(other, Schedule(steps), constants_of(module))
    assert "several meet the same inputs, and channels" in str(caught.value.found)
