"""Strassen's algorithm: the answers of the product, for every cut, machine and thread count; and when it is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tessera_build.backends.llvm.objects import CodegenOptions
from tessera_build.config import load_precision
from tessera_build.driver.machine import bounds_of
from tessera_build.driver.measure import Effort, time_tasks
from tessera_build.driver.single import build_task, tasks_of
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
    Tensorise,
)
from tessera_build.ir.schedule.trace_text import parse_schedule, print_schedule
from tessera_build.ir.tile import reference
from tessera_build.ir.tile.erase import strip_bindings
from tessera_build.ir.tile.spec import verify
from tessera_build.lower.graph_to_schedule.tasks import graph_to_schedule
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.program.kernels import STANDARD_BOUNDS, Setting, derived_within
from tessera_build.lower.schedule_to_tile.layouts import Packing
from tessera_build.lower.schedule_to_tile.replay import Bindings, TileProgram, preparing_program, schedule_to_tile
from tessera_build.space.strassen import STRASSEN, blocks_of, product_of
from tessera_build.space.strassen_error import halving_error
from tessera_build.space.workload import Bounds
from tessera_build.verify.groups import Case, Groups
from tessera_build.verify.tile_samples import sample_tiles
from tests.lower.compiled import check_module, compile_module
from tests.lower.execution import AVX2, AVX512
from tests.lower.strassen_cases import Cut, Sizes, image_of, inputs_of, module_of
from tests.lower.tasks import constants_of, rewritten, summed, task_of

ALLOWED = load_precision("fp32").products_max_error


# -- what is computed -------------------------------------------------------------------------------------------------


def _programs(sizes: Sizes, schedule: Schedule) -> tuple[TileProgram, TileProgram]:
    module = module_of(sizes, "bias")
    bindings = Bindings({}, {v: a.shape for v, a in constants_of(module).items()}, AVX2.lanes)
    before = preparing_program(task_of(module), schedule, bindings)
    assert before is not None
    return before, schedule_to_tile(task_of(module), schedule, bindings)


@pytest.mark.numerics
def test_programs_when_bindings_are_erased_then_bits_are_as_before() -> None:
    sizes = Sizes(2, 14, 32, 32)
    module, programs = module_of(sizes, "bias"), _programs(sizes, Cut(4, 1, 2, 8).schedule(AVX2.lanes))
    constants, task = constants_of(module), task_of(module)
    outputs: list[Array] = []
    for change in (lambda f: f, strip_bindings):
        kept: dict[int, Array] = {}
        for program in programs:
            verify(program.function)
            buffers: list[Array] = []
            for operand, argument in zip(program.operands, program.function.args, strict=True):
                shape = program.function.types[argument].static_shape
                blank = kept.setdefault(operand.value, np.full(shape, np.nan, np.float32))
                given_ = constants.get(operand.value, inputs_of(module)["x"] if operand.value in task.inputs else blank)
                buffers.append(operand.packing.apply(given_) if operand.packing else given_)
            reference.run(change(program.function), buffers, {})
        outputs.append(kept[task.outputs[0]])
    assert np.isfinite(outputs[0]).all()
    assert outputs[0].tobytes() == outputs[1].tobytes()


_CUTS = st.builds(
    Cut, rows=st.integers(1, 7), vectors=st.integers(1, 2), steps=st.just(2), piece=st.sampled_from([16, 48])
)
_SIZES = st.builds(
    Sizes,
    images=st.integers(1, 3),
    rows=st.sampled_from([13, 14, 22, 27, 32]),
    depth=st.just(96),
    columns=st.sampled_from([64, 128]),
    transposed=st.booleans(),
)
_SETTINGS = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.numerics
@_SETTINGS
@given(_SIZES, _CUTS, st.sampled_from(["", "bias", "bias erf", "bias residual"]), st.sampled_from([AVX512, AVX2]))
def test_product_when_cut_into_halves_then_agrees_with_the_reference_for_one_and_two_threads(
    sizes: Sizes, cut: Cut, epilogue: str, machine: CpuMachine
) -> None:
    module = module_of(sizes, epilogue)
    check_module(module, inputs_of(module), {}, machine, cut.chooser())


@pytest.mark.numerics
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("rows", [5, 7])
def test_convolution_when_pixels_are_paired_across_lines_then_agrees_with_the_reference(
    rows: int, padded: bool
) -> None:
    module = image_of(2, padded)
    check_module(module, inputs_of(module), {}, AVX512, Cut(rows, 2, 2, 48).chooser())


@pytest.mark.unit
def test_product_when_lines_of_an_image_lie_apart_then_pairs_pixels_along_the_width_alone() -> None:
    (task,) = [t for t in graph_to_schedule(image_of(1, False).entries["main"], {}) if t.kind == "contraction"]
    node = next(n for n in task.function.nodes if isinstance(n, Compute) and n.combine != "none")
    even, apart = product_of(node, (4032, 672, 96, 1)), product_of(node, (4600, 768, 96, 1))
    assert even is not None
    assert (even.paired, even.number) == (("_d1", "_d2"), 42)
    assert apart is not None
    assert (apart.paired, apart.number) == (("_d2",), 7)


@pytest.mark.numerics
def test_bits_when_tiles_groups_or_neighbours_in_a_batch_differ_then_are_the_same() -> None:
    module = module_of(Sizes(3, 22, 96, 64), "bias")
    inputs = inputs_of(module)
    found = [
        compile_module(module, AVX512, Cut(rows, vectors, steps, 16, group).chooser()).run(inputs, {}, threads=2)["y"]
        for rows, vectors, steps, group in ((4, 1, 2, 0), (11, 2, 4, 0), (3, 1, 1, 3), (4, 2, 2, 2))
    ]
    alone = compile_module(module_of(Sizes(1, 22, 96, 64), "bias"), AVX512, Cut(4, 1, 2, 16).chooser())
    one = alone.run({"x": inputs["x"][1:2]}, {})["y"]
    assert len({y.tobytes() for y in found}) == 1
    assert found[0][1:2].tobytes() == one.tobytes()


@pytest.mark.numerics
@pytest.mark.parametrize("threads", [1, 2])
def test_bits_when_both_halves_have_a_row_then_are_the_same_for_all_tiles(threads: int) -> None:
    module = module_of(Sizes(2, 23, 96, 64), "bias")
    found = [
        compile_module(module, AVX512, Cut(rows, vectors, 2, 16).chooser()).run(inputs_of(module), {}, threads)["y"]
        for rows, vectors in ((1, 1), (4, 1), (5, 2), (11, 2), (12, 2))
    ]
    assert len({y.tobytes() for y in found}) == 1


@pytest.mark.unit
def test_groups_of_rows_when_both_halves_have_a_row_then_are_refused() -> None:
    module = module_of(Sizes(1, 23, 96, 64))
    with pytest.raises(ScheduleRejectedError):
        compile_module(module, AVX512, Cut(4, 1, 2, 16, group=2).chooser())


@pytest.mark.unit
@pytest.mark.parametrize(
    ("rows", "depth", "blocks"),
    [(197, 768, 1), (1000, 3072, 8), (1500, 1536, 5), (1009, 4096, 1), (3136, 64, 1), (200, 65536, 2)],
)
def test_rows_when_they_leave_the_caches_then_are_halved_in_blocks(rows: int, depth: int, blocks: int) -> None:
    assert blocks_of(rows, depth) == blocks


@pytest.mark.numerics
@pytest.mark.parametrize("rows", [400, 390])  # two blocks of 200, of 195
@pytest.mark.parametrize("images", [1, 2])
def test_product_when_halved_in_blocks_then_agrees_with_the_reference(rows: int, images: int) -> None:
    module = module_of(Sizes(images, rows, 1536, 64), "bias residual")
    check_module(module, inputs_of(module), {}, AVX512, Cut(8, 2, 2, 384).chooser())


@pytest.mark.numerics
def test_error_when_compiled_then_is_near_what_was_estimated() -> None:
    module = module_of(Sizes(1, 64, 768, 128))
    rng = np.random.default_rng(5)
    x = np.maximum(rng.uniform(-1, 1, (1, 64, 768)), 0).astype(np.float32)
    (weights,) = module.constants.values()
    exact = x.astype(np.float64) @ weights.astype(np.float64)
    for piece in (384, 96):
        found = compile_module(module, AVX512, Cut(8, 2, 2, piece).chooser()).run({"x": x}, {})["y"]
        error = float(np.abs(np.subtract(found, exact)).max() / exact.std())
        estimate = halving_error(weights, (0, 1), piece)
        assert estimate / 3 < error < 3 * estimate < ALLOWED


@pytest.mark.unit
def test_packing_when_of_halves_then_names_them_and_holds_pieces_of_four_matrices() -> None:
    weights = np.random.default_rng(0).standard_normal((8, 12)).astype(np.float32)  # 8 outputs of depth 12
    packed = Packing((1, 0), 0, 2, strassen=3)
    found = packed.apply(weights)
    assert packed.layout == "v1:strassen(3),order(1,0),panels(0,2)"
    assert found.shape == (2, 2, 4, 3, 2)
    np.testing.assert_array_equal(found[1, 0, 1], weights.T[6:9, 2:4])  # b21
    np.testing.assert_array_equal(found[0, 1, 3], weights.T[3:6, 4:6] - weights.T[3:6, 0:2])  # b12 - b11


# -- when it is chosen ------------------------------------------------------------------------------------------------


def _chosen(sizes: Sizes, allowed: float, machine: CpuMachine = AVX512) -> int:
    """The piece that the rules take, 0 for the direct sum."""
    step = rewritten(module_of(sizes, "bias"), machine, Bounds(products=allowed))
    return step.block if step else 0


@pytest.mark.unit
def test_rule_when_products_are_large_then_takes_it_and_else_the_direct_sum() -> None:
    assert _chosen(Sizes(1, 128, 768, 768), ALLOWED) == 128  # of 384, the weights asked for would leave the cache again
    assert _chosen(Sizes(1, 128, 3072, 768), ALLOWED) == 128
    assert _chosen(Sizes(1, 56, 768, 768), ALLOWED) > 128
    assert _chosen(Sizes(1, 32, 768, 768), ALLOWED) == 0  # weights are used too seldom
    assert _chosen(Sizes(1, 128, 64, 768), ALLOWED) == 0  # results weigh more than products
    assert _chosen(Sizes(1, 128, 768, 64), ALLOWED) == 0  # sums of rows weigh more, and threads would wait


@pytest.mark.unit
def test_rule_when_less_error_is_allowed_then_takes_smaller_pieces_or_none() -> None:
    sizes = Sizes(1, 128, 768, 768)
    (weights,) = [a for a in module_of(sizes, "bias").constants.values() if a.ndim == 2]
    usual = _chosen(sizes, ALLOWED)
    large, small = (halving_error(weights, (0, 1), piece) for piece in (usual, 96))
    assert 5e-7 < small < large < ALLOWED
    assert _chosen(sizes, large) == usual
    assert 96 <= _chosen(sizes, large * 0.99) < usual
    assert [_chosen(sizes, small * 0.99), _chosen(sizes, 0.0)] == [0, 0]


@pytest.mark.unit
def test_default_schedules_when_derived_then_allow_what_the_standard_precision_does() -> None:
    assert bounds_of(load_precision("fp32")) == STANDARD_BOUNDS


@pytest.mark.unit
@pytest.mark.parametrize("value", [np.inf, np.nan, 3e38])
def test_error_when_weights_do_not_stay_finite_then_no_piece_is_allowed(value: float) -> None:
    weights = np.ones((64, 64), np.float32)
    weights[:32, :32] = value
    weights[:32, 32:] = -value
    with np.errstate(all="ignore"):
        assert not halving_error(weights, (0, 1), 32) <= 1.0


@pytest.mark.unit
def test_product_when_its_axes_cannot_be_halved_then_is_none() -> None:
    def found(sizes: Sizes) -> bool:
        return product_of(summed(module_of(sizes))[1]) is not None

    assert found(Sizes(1, 14, 32, 32))
    assert found(Sizes(4, 14, 32, 32))
    assert found(Sizes(1, 15, 32, 32))  # both halves have the middle row
    assert not found(Sizes(1, 1, 32, 32))
    assert not found(Sizes(1, 14, 31, 32))
    assert not found(Sizes(1, 14, 32, 33))
    assert found(Sizes(None, 14, 32, 32))  # how many images there are makes no difference


@pytest.mark.numerics
@pytest.mark.parametrize(("images", "rows"), [(1, 22), (3, 23)])
def test_product_when_the_number_of_images_is_not_known_then_agrees_with_the_reference(images: int, rows: int) -> None:
    module = module_of(Sizes(None, rows, 96, 64), "bias")
    inputs = inputs_of(module_of(Sizes(images, rows, 96, 64), "bias"))
    check_module(module, inputs, {"N": images}, AVX512, Cut(4, 2, 2, 16).chooser())


@pytest.mark.unit
def test_rule_when_the_number_of_images_is_read_from_data_then_takes_the_direct_sum() -> None:
    task = task_of(module_of(Sizes(None, 128, 768, 768)))
    constants = constants_of(module_of(Sizes(None, 128, 768, 768)))

    def algorithm(setting: Setting) -> str | None:
        step = derived_within(Bounds(products=ALLOWED))(setting, AVX512).rewritten()
        return None if step is None else step.algorithm

    setting = Setting(task, {}, constants, {"N": (1, None)})
    assert algorithm(setting) == STRASSEN
    assert algorithm(replace(setting, unbounded=frozenset({"N"}))) is None


@pytest.mark.unit
def test_bundle_when_a_product_is_cut_then_has_a_launch_for_sums_and_weights_of_the_same_size() -> None:
    module = module_of(Sizes(1, 128, 768, 768), "bias")
    halved = lower_module(module, AVX512, choose=derived_within(Bounds(products=ALLOWED)))
    direct = lower_module(module, AVX512, choose=derived_within(Bounds()))
    before, main = halved.launches[0]
    assert (len(before.writes), len(main.writes), len(direct.launches[0])) == (0, 1, 1)
    assert sum(w.array.nbytes for w in halved.weights) == sum(w.array.nbytes for w in direct.weights)
    assert any(w.layout.startswith("v1:strassen(128),") for w in halved.weights)


@pytest.mark.unit
def test_time_when_a_task_has_two_launches_then_both_run_and_answers_agree() -> None:
    (listed,) = tasks_of(module_of(Sizes(1, 64, 192, 128), "bias"), AVX2)
    plain = Schedule((Split("_d1", 4), Split("_d2", 16), Pack(1, 16), Split("_k", 16), Tensorise("_k")))
    from_cut = Cut(4, 1, 2, 96).schedule(AVX2.lanes)
    options = CodegenOptions("x86_64-unknown-linux-gnu", "haswell", ("+fma", "+avx2"))
    builds = [build_task(listed.setting, schedule, AVX2, options) for schedule in (plain, from_cut)]
    direct, halved = time_tasks(builds, Effort(most=2, least=1))
    assert direct.error is None
    assert halved.error is None
    assert 0 < halved.difference < 1e-4


@pytest.mark.numerics
def test_proof_when_the_machine_is_another_then_interprets_what_prepares_too() -> None:
    module = module_of(Sizes(1, 48, 64, 64), "bias")
    lowered = lower_module(module, AVX512, choose=Cut(8, 2, 2, 32).chooser())
    groups = Groups.of(module, lowered, {k.name: k.name for k in lowered.variant.kernels}, "main")
    case = Case("main", {}, 0, inputs_of(module))
    (result,) = sample_tiles(lowered, groups, case, load_precision("fp32").tolerance)
    assert (result.launch, result.accepted) == (1, True)


# -- traces -----------------------------------------------------------------------------------------------------------


@pytest.mark.unit
def test_trace_when_printed_then_is_read_back_and_names_the_algorithm() -> None:
    schedule = Cut(8, 3, 2, 384).schedule(16)
    first = 'step = "rewrite", tile = 2, block = 384, panels = 0, algorithm = "strassen", effect = "algorithm-changing"'
    assert first in print_schedule(schedule).splitlines()[0]
    assert parse_schedule(print_schedule(schedule)) == schedule


_WRONG: dict[str, Callable[[Schedule], Schedule]] = {
    "thirds": lambda s: s.with_steps(Rewrite(3, 16, algorithm=STRASSEN)),
    "large groups": lambda s: s.with_steps(Rewrite(2, 16, 4, algorithm=STRASSEN)),
    "negative groups": lambda s: s.with_steps(Rewrite(2, 16, -1, algorithm=STRASSEN)),
    "no piece": lambda s: s.with_steps(Rewrite(2, 0, algorithm=STRASSEN)),
    "uneven pieces": lambda s: s.with_steps(Rewrite(2, 32, algorithm=STRASSEN)),
    "uneven steps": lambda s: s.with_block(_k=5),
    "too many rows": lambda s: s.with_block(_d1=12),
    "images": lambda s: s.with_block(_d0=2),
    "half registers": lambda s: s.with_steps(Split("_d2", 4), Pack(1, 4)),
    "uneven panels": lambda s: s.with_steps(Split("_d2", 24), Pack(1, 24)),
    "other panels": lambda s: s.with_steps(Pack(1, 16)),
    "two packs": lambda s: s.with_steps(Pack(0, 8)),
    "by bytes": lambda s: s.with_steps(Tensorise("_k", "dot4")),
    "parallel rows": lambda s: s.with_steps(Bind("_d1", "parallel")),
    "unrolled": lambda s: s.with_steps(Bind("_d2", "unroll")),
    "rows outside": lambda s: s.with_steps(Reorder(("_d1", "_d0", "_d2"))),
    "no product": lambda s: Schedule(tuple(step for step in s.steps if not isinstance(step, Tensorise))),
}


def _replayed(sizes: Sizes, schedule: Schedule, constants: dict[int, Array] | None = None) -> None:
    module = module_of(sizes, "bias")
    found = constants_of(module) if constants is None else constants
    bindings = Bindings({}, {v: a.shape for v, a in found.items()}, AVX2.lanes)
    schedule_to_tile(task_of(module), schedule, bindings)


@pytest.mark.errors
@pytest.mark.parametrize("name", _WRONG)
def test_trace_when_it_does_not_fit_then_is_rejected(name: str) -> None:
    sizes, good = Sizes(2, 22, 96, 32), Cut(4, 1, 2, 16).schedule(AVX2.lanes)
    _replayed(sizes, good)
    with pytest.raises(ScheduleRejectedError):
        _replayed(sizes, _WRONG[name](good))


@pytest.mark.errors
def test_trace_when_the_task_is_no_such_product_then_is_rejected() -> None:
    good = Cut(4, 1, 2, 16).schedule(AVX2.lanes)
    for sizes in (Sizes(2, 22, 97, 32), Sizes(None, 22, 96, 33)):
        with pytest.raises(ScheduleRejectedError, match="does not fit"):
            _replayed(sizes, good)
    with pytest.raises(ScheduleRejectedError, match="does not fit"):
        _replayed(Sizes(2, 22, 96, 32), good, {})


@pytest.mark.errors
def test_trace_when_a_panel_needs_more_than_a_stack_has_then_is_rejected() -> None:
    with pytest.raises(ScheduleRejectedError) as refusal:
        _replayed(Sizes(1, 4096, 96, 96), Cut(6, 6, 2, 16).schedule(AVX2.lanes))
    assert "scratch" in str(refusal.value.found)
