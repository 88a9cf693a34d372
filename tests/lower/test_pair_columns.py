"""Weights times columns whose terms are taken in pairs: the answers of the product, for all tiles and machines."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tessera_build.config import load_precision
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
    Reorder,
    Schedule,
    ScheduleRejectedError,
    Split,
    Step,
)
from tessera_build.ir.tile.erase import strip_bindings
from tessera_build.ir.tile.spec import verify
from tessera_build.ir.tile.text import parse_function, print_function
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.program.kernels import Chooser, Setting, derived, derived_within
from tessera_build.lower.schedule_to_tile.replay import Bindings, preparing_program, schedule_to_tile
from tessera_build.space.pairs import paired_of, scale_of
from tessera_build.space.pairs_error import pairing_error
from tessera_build.space.workload import Bounds
from tests.lower.compiled import check_module, compile_module
from tests.lower.execution import AVX2, AVX512
from tests.lower.tasks import constants_of, task_of

ALLOWED = load_precision("fp32").products_max_error
APART = replace(AVX512, adds_apart=True)


@dataclass(frozen=True, slots=True)
class Sizes:
    """A constant [rows, depth] times [images, depth, columns], with a bias a row where `biased`."""

    rows: int
    depth: int
    columns: int
    images: int = 1
    biased: bool = False

    def module(self) -> Module:
        """The product as a graph."""
        rng, b = np.random.default_rng(5), GraphBuilder()
        x = b.input("x", tensor(F32, self.images, self.depth, self.columns))
        weights = rng.standard_normal((self.rows, self.depth)) / np.sqrt(self.depth)
        y = b.op("matmul", b.constant(weights.astype(np.float32)), x)
        if self.biased:
            y = b.op("add", y, b.constant(rng.standard_normal((self.rows, 1)).astype(np.float32)))
        b.output("y", y)
        return b.finish()

    def feed(self) -> Array:
        """Numbers of either sign."""
        shape = self.images, self.depth, self.columns
        return np.random.default_rng(6).standard_normal(shape).astype(np.float32)


def _scale(setting: Setting) -> tuple[str, int]:
    (node, *_) = [n for n in setting.task.function.nodes if isinstance(n, Compute) and n.combine != "none"]
    paired = paired_of(node, 0)
    assert paired is not None
    return paired.depth, scale_of(setting.constants[node.reads[0]], paired.extent)


def _trace(depth: tuple[str, int], tile: tuple[int, int], lanes: int, *more: Step) -> Schedule:
    """Tiles of so many rows by a register, so many registers scaled together."""
    axis, scale = depth
    rows, registers = tile
    tiles = Split("_d1", rows), Split("_d2", lanes), Split("_d2_chunk", registers * lanes), Pack(0, rows)
    return Schedule((*tiles, Pair(axis, scale), *more, Reorder(("_d0", "_d2", "_d1")), Bind("_d0", "parallel")))


def _chooser(rows: int, registers: int, *more: Step) -> Chooser:
    def choose(setting: Setting, machine: CpuMachine) -> Schedule:
        if setting.task.kind != "contraction":
            return derived(setting, machine)
        return _trace(_scale(setting), (rows, registers), machine.lanes, *more)

    return choose


# -- what is computed -------------------------------------------------------------------------------------------------

_SIZES = st.builds(
    Sizes,
    rows=st.sampled_from([6, 12, 24]),
    depth=st.sampled_from([6, 7, 11, 24, 47, 64, 96, 145]),
    columns=st.sampled_from([32, 40, 51, 100]),
    images=st.integers(1, 3),
    biased=st.booleans(),
)


@pytest.mark.numerics
@settings(max_examples=16, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(_SIZES, st.sampled_from([1, 3, 6]), st.integers(1, 2), st.sampled_from([APART, AVX2]))
def test_product_when_its_columns_are_paired_then_agrees_with_the_reference_for_one_and_two_threads(
    sizes: Sizes, rows: int, registers: int, machine: CpuMachine
) -> None:
    check_module(sizes.module(), {"x": sizes.feed()}, {}, machine, _chooser(rows, registers, Prefetch(1)))


@pytest.mark.numerics
def test_product_when_derived_then_has_panels_of_rows_and_agrees_with_the_reference() -> None:
    sizes = Sizes(64, 96, 208, images=2, biased=True)
    within = derived_within(Bounds(products=ALLOWED))
    lowered = lower_module(sizes.module(), APART, choose=within)
    (found,) = [w for w in lowered.weights if "pairs" in w.layout]
    rows = found.array.shape[2]
    assert (found.layout, found.array.shape) == (f"v1:pairs,order(1,0),panels(0,{rows})", (64 // rows, 97, rows))
    check_module(sizes.module(), {"x": sizes.feed()}, {}, APART, within)


@pytest.mark.numerics
def test_bits_when_tiles_threads_or_other_columns_differ_then_are_the_same() -> None:
    sizes = Sizes(12, 100, 75, biased=True)
    x, module = sizes.feed(), sizes.module()
    tiles = (1, 1), (3, 2), (6, 4), (12, 1)
    found = [compile_module(module, APART, _chooser(*tile)).run({"x": x}, {}, threads=2)["y"] for tile in tiles]
    assert len({y.tobytes() for y in found}) == 1
    others = np.multiply(x, np.float32(1e6))
    others[:, :, 41] = x[:, :, 41]
    alone = compile_module(module, APART, _chooser(4, 2)).run({"x": others}, {})["y"]
    assert alone[:, :, 41].tobytes() == found[0][:, :, 41].tobytes()


@pytest.mark.numerics
def test_columns_when_of_any_size_then_each_errs_as_little_for_its_own() -> None:
    sizes = Sizes(64, 96, 48)
    x = np.multiply(sizes.feed(), np.power(10.0, np.linspace(-28, 28, 48)).astype(np.float32))
    found, exact = _of_columns(sizes, x)
    assert (np.abs(np.subtract(found, exact)).max(axis=1) / exact.std(axis=1)).max() < 2e-6


@pytest.mark.errors
def test_columns_when_of_zeros_or_not_finite_then_are_that_alone() -> None:
    sizes = Sizes(8, 100, 40)
    x = sizes.feed()
    x[0, :, 2] = 0
    x[0, 70, 4], x[0, 3, 20], x[0, 99, 39] = np.nan, np.inf, -np.inf
    found, exact = _of_columns(sizes, x)
    assert (found[0, :, 2] == 0).all()
    assert not np.isfinite(found[0][:, [4, 20, 39]]).any()
    kept = [n for n in range(40) if n not in (2, 4, 20, 39)]
    assert np.abs(np.subtract(found[0][:, kept], exact[0][:, kept])).max() < 1e-5 * np.abs(exact[0][:, kept]).max()


def _of_columns(sizes: Sizes, x: Array) -> tuple[Array, Array]:
    """What is found and what is exact."""
    module = sizes.module()
    (weights,) = module.constants.values()
    found = compile_module(module, APART, _chooser(4, 1)).run({"x": x}, {})["y"]
    with np.errstate(invalid="ignore"):
        return found, weights.astype(np.float64) @ x.astype(np.float64)


@pytest.mark.numerics
def test_error_when_compiled_then_is_near_what_was_estimated() -> None:
    sizes = Sizes(64, 400, 64)
    (weights,) = sizes.module().constants.values()
    x = np.maximum(np.random.default_rng(5).uniform(-1, 1, (1, 400, 64)), 0).astype(np.float32)
    found, exact = _of_columns(sizes, x)
    error = float(np.abs(np.subtract(found, exact)).max() / exact.std())
    estimate = pairing_error(weights, (1, 0), scale_of(weights, 400))
    assert estimate / 4 < error < 4 * estimate < 4 * ALLOWED


@pytest.mark.unit
def test_program_when_bindings_are_erased_or_it_is_printed_then_is_as_before() -> None:
    sizes = Sizes(12, 50, 40)
    module = sizes.module()
    constants, task = constants_of(module), task_of(module)
    setting = Setting(task, {}, constants, {})
    schedule = _trace(_scale(setting), (4, 2), 16, Prefetch(1))
    bindings = Bindings({}, {v: a.shape for v, a in constants.items()}, 16)
    assert preparing_program(task, schedule, bindings) is None
    program = schedule_to_tile(task, schedule, bindings)
    for function in (program.function, strip_bindings(program.function)):
        verify(function)
        assert print_function(parse_function(print_function(function))) == print_function(function)


# -- when it is chosen ------------------------------------------------------------------------------------------------


def _paired(sizes: Sizes, machine: CpuMachine = APART, allowed: float = ALLOWED) -> bool:
    module = sizes.module()
    setting = Setting(task_of(module), {}, constants_of(module), {})
    return derived_within(Bounds(products=allowed))(setting, machine).paired() is not None


@pytest.mark.unit
def test_rule_when_adders_idle_and_rows_suffice_then_takes_pairs_of_columns() -> None:
    assert _paired(Sizes(64, 256, 3136))
    assert _paired(Sizes(256, 64, 784))
    assert not _paired(Sizes(64, 256, 3136), AVX512)
    assert not _paired(Sizes(64, 256, 3136), allowed=0.0)
    assert not _paired(Sizes(16, 256, 3136))  # columns serve too few rows
    assert not _paired(Sizes(37, 256, 3136))  # no tile of rows fits
    assert not _paired(Sizes(64, 256, 12))  # less than a register
    assert not _paired(Sizes(64, 5, 3136))  # no pair and as many others


@pytest.mark.errors
@pytest.mark.parametrize(
    "changed",
    [
        (Split("_d1", 5), Pack(0, 5)),  # rows that are left
        (Pack(0, 6),),  # panels of another width
        (Split("_d2", 8),),  # half a register
        (Split("_d2_chunk", 24),),
        (Split("_d2_chunk", 128),),  # more than there are
        (Split("_d0", 2),),
        (Reorder(("_d0", "_d1", "_d2")),),  # rows outside of their columns
        (Pack(1, 16),),
    ],
)
def test_trace_when_pairs_of_columns_do_not_fit_then_is_refused(changed: tuple[Step, ...]) -> None:
    module = Sizes(12, 48, 100, images=2).module()
    setting = Setting(task_of(module), {}, constants_of(module), {})
    bindings = Bindings({}, {v: a.shape for v, a in constants_of(module).items()}, 16)
    schedule = _trace(_scale(setting), (4, 2), 16)
    schedule_to_tile(setting.task, schedule, bindings)
    with pytest.raises(ScheduleRejectedError):
        schedule_to_tile(setting.task, schedule.with_steps(*changed), bindings)
