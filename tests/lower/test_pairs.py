"""Sums whose terms are taken in pairs: the answers of the product, row by row, for every tile, machine and thread."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle_format.digest import Digest
from bundle_format.errors import TesseraError
from tessera_build.config import load_precision
from tessera_build.driver.schedules import Given, Overriding
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.schedule.trace import (
    Bind,
    Pack,
    Pair,
    Prefetch,
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
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.program.kernels import Chooser, Setting, derived, derived_within
from tessera_build.lower.schedule_to_tile.replay import Bindings, preparing_program, schedule_to_tile
from tessera_build.space.pairs import PAIRS, paired_of, scale_of
from tessera_build.space.pairs_error import pairing_error
from tessera_build.space.workload import Bounds
from tessera_build.verify.groups import Case, Groups
from tessera_build.verify.tile_samples import sample_tiles
from tests.lower.compiled import check_module, compile_module
from tests.lower.execution import AVX2, AVX512
from tests.lower.strassen_cases import Sizes, image_of, inputs_of, module_of
from tests.lower.tasks import constants_of, summed, task_of

ALLOWED = load_precision("fp32").products_max_error
APART = replace(AVX512, adds_apart=True)


def _trace(rows: int, lanes: int, scale: int, *, image: bool = False, more: tuple[Step, ...] = ()) -> Schedule:
    row, vector, depth = ("_d2", "_d3", "_c") if image else ("_d1", "_d2", "_k")
    steps = (Split(row, rows), Split(vector, lanes), Pack(1, lanes), Pair(depth, scale), Split(depth, 2), *more)
    return Schedule((*steps, Bind("_d0", "parallel")))


def _chooser(rows: int, *more: Step) -> Chooser:
    """Takes the trace for every product of constant weights."""

    def choose(setting: Setting, machine: CpuMachine) -> Schedule:
        nodes = [n for n in setting.task.function.nodes if isinstance(n, Compute) and n.combine != "none"]
        paired = paired_of(nodes[0]) if setting.task.kind == "contraction" else None
        if paired is None:
            return derived(setting, machine)
        scale = scale_of(setting.constants[nodes[0].reads[1]], paired.extent)
        return _trace(rows, machine.lanes, scale, image=len(setting.task.domain) > 3, more=more)

    return choose


# -- what is computed -------------------------------------------------------------------------------------------------

_SIZES = st.builds(
    Sizes,
    images=st.integers(1, 3),
    rows=st.sampled_from([7, 12, 14, 23]),
    depth=st.sampled_from([6, 7, 11, 24, 47, 48, 64, 96, 100, 145, 400]),
    columns=st.sampled_from([16, 24, 40, 64]),
    transposed=st.booleans(),
)
_SETTINGS = settings(max_examples=16, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.numerics
@_SETTINGS
@given(
    _SIZES,
    st.integers(1, 7),
    st.sampled_from(["", "bias", "bias erf", "bias residual"]),
    st.sampled_from([APART, AVX2]),
)
def test_product_when_taken_in_pairs_then_agrees_with_the_reference_for_one_and_two_threads(
    sizes: Sizes, rows: int, epilogue: str, machine: CpuMachine
) -> None:
    module = module_of(sizes, epilogue)
    check_module(module, inputs_of(module), {}, machine, _chooser(rows))


@pytest.mark.numerics
@pytest.mark.parametrize("padded", [False, True])
def test_convolution_when_its_channels_are_taken_in_pairs_then_agrees_with_the_reference(padded: bool) -> None:
    module = image_of(2, padded)
    check_module(module, inputs_of(module), {}, APART, _chooser(5, Prefetch(1)))


@pytest.mark.numerics
def test_programs_when_bindings_are_erased_then_bits_are_as_before() -> None:
    module = module_of(Sizes(2, 9, 50, 24), "bias")
    constants, task = constants_of(module), task_of(module)
    bindings = Bindings({}, {v: a.shape for v, a in constants.items()}, AVX2.lanes)
    schedule = _trace(4, AVX2.lanes, 4, more=(Prefetch(1),))
    before = preparing_program(task, schedule, bindings)
    assert before is not None
    outputs: list[Array] = []
    for change in (lambda f: f, strip_bindings):
        kept: dict[int, Array] = {}
        for program in (before, schedule_to_tile(task, schedule, bindings)):
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


@pytest.mark.numerics
def test_bits_when_tiles_or_other_rows_differ_then_are_the_same() -> None:
    module, size = module_of(Sizes(1, 23, 100, 40), "bias"), 23
    x = inputs_of(module)["x"]
    others = np.multiply(x, np.float32(1e6))
    others[:, 11] = x[:, 11]
    found = [compile_module(module, APART, _chooser(rows)).run({"x": x}, {}, threads=2)["y"] for rows in (1, 4, 13)]
    assert len({y.tobytes() for y in found}) == 1
    alone = compile_module(module, APART, _chooser(4)).run({"x": others}, {})["y"]
    assert alone[:, 11].tobytes() == found[0][:, 11].tobytes()
    turned = compile_module(module, APART, _chooser(5)).run({"x": x[:, ::-1].copy()}, {})["y"]
    assert turned[:, ::-1].tobytes() == found[0].reshape(1, size, 40).tobytes()


# -- numbers of any size ----------------------------------------------------------------------------------------------


def _of_rows(x: Array, module: Module) -> tuple[Array, Array]:
    """What is found and what is exact."""
    (weights,) = module.constants.values()
    found = compile_module(module, APART, _chooser(4)).run({"x": x}, {})["y"]
    return found, x.astype(np.float64) @ weights.astype(np.float64)


@pytest.mark.numerics
def test_rows_when_of_any_size_then_each_errs_as_little_for_its_own() -> None:
    module = module_of(Sizes(1, 12, 96, 32))
    sizes = np.power(10.0, np.linspace(-28, 28, 12)).astype(np.float32)
    x = np.multiply(inputs_of(module)["x"], sizes[None, :, None])
    found, exact = _of_rows(x, module)
    errors = np.abs(np.subtract(found, exact)).max(axis=2) / exact.std(axis=2)
    assert errors.max() < 2e-6


@pytest.mark.errors
def test_rows_when_of_zeros_or_not_finite_then_are_that_alone() -> None:
    module = module_of(Sizes(1, 9, 100, 32))
    x = inputs_of(module)["x"]
    x[0, 2] = 0
    x[0, 4, 70], x[0, 6, 3], x[0, 7, 99] = np.nan, np.inf, -np.inf
    found, exact = _of_rows(x, module)
    assert (found[0, 2] == 0).all()
    assert not np.isfinite(found[0, [4, 6, 7]]).any()
    kept = [0, 1, 3, 5, 8]
    assert np.abs(np.subtract(found[0, kept], exact[0, kept])).max() < 1e-5 * np.abs(exact[0, kept]).max()


@pytest.mark.numerics
@pytest.mark.parametrize("depth", [48, 400, 3072])
def test_error_when_compiled_then_is_near_what_was_estimated(depth: int) -> None:
    module = module_of(Sizes(1, 64, depth, 64))
    x = np.maximum(np.random.default_rng(5).uniform(-1, 1, (1, 64, depth)), 0).astype(np.float32)
    (weights,) = module.constants.values()
    found, exact = _of_rows(x, module)
    error = float(np.abs(np.subtract(found, exact)).max() / exact.std())
    estimate = pairing_error(weights, (0, 1), scale_of(weights, depth))
    assert estimate / 4 < error < 4 * estimate < 4 * ALLOWED


# -- when it is chosen ------------------------------------------------------------------------------------------------


def _paired(sizes: Sizes, machine: CpuMachine = APART, allowed: float = ALLOWED) -> bool:
    module = module_of(sizes, "bias")
    setting = Setting(task_of(module), {}, constants_of(module), {})
    return derived_within(Bounds(products=allowed))(setting, machine).paired() is not None


@pytest.mark.unit
def test_rule_when_adders_idle_and_rows_suffice_then_takes_pairs() -> None:
    assert _paired(Sizes(1, 128, 768, 768))
    assert _paired(Sizes(4, 32, 96, 64))
    assert not _paired(Sizes(1, 128, 768, 768), AVX512)
    assert not _paired(Sizes(1, 24, 768, 768))  # weights are used too seldom
    assert not _paired(Sizes(None, 128, 768, 768))  # rows of an unknown number keep the direct sum
    assert not _paired(Sizes(1, 128, 5, 768))  # no pair and as many others


@pytest.mark.unit
@pytest.mark.parametrize(("depth", "columns", "stride"), [(1024, 256, 1), (512, 1024, 2)])
def test_rule_when_scaled_rows_stay_in_the_cache_but_weights_do_not_then_weights_are_read_once(
    depth: int, columns: int, stride: int
) -> None:
    """As it lies, the image of the second is four times its rows."""
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 1, 14 * stride, 14 * stride, depth))
    weights = np.random.default_rng(0).standard_normal((columns, depth, 1, 1)).astype(np.float32)
    how = {"strides": (stride,) * 2, "low": (0, 0), "high": (0, 0), "dilations": (1, 1), "groups": 1, "layout": "NHWC"}
    b.output("y", b.op("conv", x, b.constant(weights), **how))
    module = b.finish()
    setting = Setting(task_of(module), {}, constants_of(module), {})
    schedule = derived_within(Bounds(products=ALLOWED))(setting, APART)
    assert schedule.paired() is not None
    assert schedule.order()[0] == "_d3"


@pytest.mark.unit
def test_rule_when_less_error_is_allowed_than_pairs_have_then_takes_the_direct_sum() -> None:
    sizes = Sizes(1, 128, 768, 64)
    (weights,) = [a for a in module_of(sizes, "bias").constants.values() if a.ndim == 2]
    error = pairing_error(weights, (0, 1), scale_of(weights, 768))
    assert 1e-7 < error < ALLOWED
    assert _paired(sizes, allowed=error)
    assert not _paired(sizes, allowed=error * 0.99)
    assert not _paired(sizes, allowed=0.0)


@pytest.mark.errors
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_rule_when_weights_are_no_numbers_then_takes_the_direct_sum(value: float) -> None:
    module = module_of(Sizes(1, 128, 96, 64))
    (weights,) = module.constants.values()
    task, broken = task_of(module), weights.copy()
    broken[3, 5] = value
    for given_, taken in ((weights, True), (broken, False), (np.full_like(weights, value), False)):
        constants = dict.fromkeys(constants_of(module), given_)
        setting = Setting(task, {}, constants, {})
        assert (derived_within(Bounds(products=ALLOWED))(setting, APART).paired() is not None) is taken


@pytest.mark.unit
def test_scale_when_weights_are_zeros_then_is_none_to_speak_of() -> None:
    assert scale_of(np.zeros((8, 8), np.float32), 8) == 0
    assert scale_of(np.ones((96, 8), np.float32), 96) == 6


@pytest.mark.unit
def test_bundle_when_a_product_is_paired_then_has_a_launch_for_rows_and_one_row_of_weights_more() -> None:
    module = module_of(Sizes(1, 128, 96, 64), "bias")
    lowered = lower_module(module, APART, choose=derived_within(Bounds(products=ALLOWED)))
    before, main = lowered.launches[0]
    assert (len(before.writes), len(main.writes)) == (0, 1)
    (found,) = [w for w in lowered.weights if w.layout == "v1:pairs,order(0,1),panels(0,16)"]
    assert found.array.shape == (4, 97, 16)
    assert summed(module)[1].reduction[0].extent == 96


@pytest.mark.numerics
def test_proof_when_the_machine_is_another_then_interprets_what_prepares_too() -> None:
    module = module_of(Sizes(1, 48, 64, 64), "bias")
    lowered = lower_module(module, APART, choose=_chooser(8))
    groups = Groups.of(module, lowered, {k.name: k.name for k in lowered.variant.kernels}, "main")
    case = Case("main", {}, 0, inputs_of(module))
    (result,) = sample_tiles(lowered, groups, case, load_precision("fp32").tolerance)
    assert (result.launch, result.accepted) == (1, True)


# -- traces -----------------------------------------------------------------------------------------------------------


@pytest.mark.unit
def test_trace_when_printed_then_is_read_back_and_names_the_step() -> None:
    schedule = _trace(8, 16, -3)
    assert '{step = "pair", axis = "_k", scale = -3, effect = "algorithm-changing"}' in print_schedule(schedule)
    assert parse_schedule(print_schedule(schedule)) == schedule
    assert PAIRS == "pairs"


@pytest.mark.errors
def test_schedule_by_hand_when_it_has_another_scale_than_the_weights_then_is_refused() -> None:
    module = module_of(Sizes(1, 16, 96, 64))
    setting = Setting(task_of(module), {}, constants_of(module), {})
    scale = scale_of(next(iter(module.constants.values())), 96)

    def chosen(scale: int, allowed: float) -> Schedule:
        given_ = Given("by hand", {setting.task.name: (_trace(4, 16, scale),)}, Digest.of(b""))
        return Overriding(given_, Bounds(products=allowed), derived)(setting, AVX512)

    assert chosen(scale, ALLOWED).paired() == Pair("_k", scale)
    for other, allowed in ((scale + 1, ALLOWED), (scale, 0.0)):
        with pytest.raises(TesseraError, match="errs more than the precision policy allows"):
            chosen(other, allowed)


@pytest.mark.errors
@pytest.mark.parametrize(
    "schedule",
    [
        Schedule((Pair("_k", 3),)),  # no panels
        Schedule((Split("_d2", 8), Pack(1, 8), Pair("_k", 3))),  # half registers
        Schedule((Split("_d2", 16), Pack(1, 16), Pair("_k", 99))),
        Schedule((Split("_d2", 16), Pack(1, 16), Pair("_c", 3))),
        Schedule((Split("_d2", 16), Pack(1, 16), Split("_k", 3), Pair("_k", 3))),
        Schedule((Split("_d2", 16), Pack(1, 16), Pair("_k", 3), Tensorise("_k"))),
        Schedule((Split("_d2", 16), Pack(1, 16), Pair("_k", 3), Rewrite(2, 16, algorithm="strassen"))),
    ],
)
def test_trace_when_pairs_do_not_fit_then_is_refused(schedule: Schedule) -> None:
    module = module_of(Sizes(1, 16, 64, 64))
    bindings = Bindings({}, {v: a.shape for v, a in constants_of(module).items()}, 16)
    with pytest.raises(ScheduleRejectedError):
        schedule_to_tile(task_of(module), schedule, bindings)
