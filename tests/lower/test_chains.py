"""Contractions joined into one task give the bits that they give alone, whatever image, window and epilogue.

Takes small chains around a depthwise window; lowers each with and without joining. Invariant: joined is told from not
joined by the launches, so that no comparison is of a thing with itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest

from tessera_build.ir.core.dims import Extent, evaluate, symbol
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.trace import (
    Bind,
    Clip,
    Group,
    Interleave,
    Pack,
    Prefetch,
    Reorder,
    Rewrite,
    Schedule,
    ScheduleRejectedError,
    Split,
    Stage,
    Step,
    Tensorise,
)
from tessera_build.ir.tile.erase import strip_bindings
from tessera_build.ir.tile.text import parse_function, print_function
from tessera_build.lower.program import block
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.program.kernels import Setting, derived
from tessera_build.lower.program.records import LoweredVariant
from tessera_build.space.chain import Shape, Walk, blocks_of, saved_cycles
from tests.lower.compiled import check_module, compile_module
from tests.lower.execution import AVX2, AVX512, run_tiles

Epilogue = Callable[[GraphBuilder, int], int]


def _clip(b: GraphBuilder, x: int) -> int:
    return b.op("min", b.op("max", x, b.scalar(0.0, F32)), b.scalar(6.0, F32))


def _relu(b: GraphBuilder, x: int) -> int:
    return b.op("max", x, b.scalar(0.0, F32))


def _swish(b: GraphBuilder, x: int) -> int:
    return b.op("mul", x, b.op("sigmoid", x))


def _hard_swish(b: GraphBuilder, x: int) -> int:
    gate = b.op("min", b.op("max", b.op("add", x, b.scalar(3.0, F32)), b.scalar(0.0, F32)), b.scalar(6.0, F32))
    return b.op("mul", x, b.op("div", gate, b.scalar(6.0, F32)))


@dataclass(frozen=True, slots=True)
class Case:
    """A chain: image, channels in, between and out (0: no product there), the window, residual, epilogue, batch."""

    image: tuple[Extent, Extent]
    channels: tuple[int, int, int]
    kernel: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    low: tuple[int, int] = (1, 1)
    high: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    residual: bool = False
    epilogue: Epilogue = _clip
    batch: Extent = 1
    launches: int = 1

    def module(self) -> Module:
        """The chain as a graph, channels last."""
        rng = np.random.default_rng(7)
        b = GraphBuilder(dims={"N": (1, None), "H": (4, None), "W": (4, None)})
        first, between, last = self.channels
        x = b.input("x", tensor(F32, self.batch, *self.image, first or between))
        y = x
        if first:
            y = self.epilogue(b, self._product(b, rng, y, (first, between)))
        w = b.constant(_weights(rng, between, 1, *self.kernel))
        sides = {"strides": self.strides, "low": self.low, "high": self.high, "dilations": self.dilations}
        y = b.op("conv", y, w, groups=between, layout="NHWC", **sides)
        y = self.epilogue(b, b.op("add", y, b.constant(_weights(rng, between))))
        if last:
            y = self._product(b, rng, y, (between, last))
        b.output("y", b.op("add", y, x) if self.residual else y)
        return b.finish()

    @staticmethod
    def _product(b: GraphBuilder, rng: np.random.Generator, x: int, channels: tuple[int, int]) -> int:
        sides = {"strides": (1, 1), "low": (0, 0), "high": (0, 0), "dilations": (1, 1)}
        w = b.constant(_weights(rng, channels[1], channels[0], 1, 1))
        y = b.op("conv", x, w, groups=1, layout="NHWC", **sides)
        return b.op("add", y, b.constant(_weights(rng, channels[1])))

    def inputs(self, sizes: Mapping[str, int]) -> dict[str, Array]:
        """Numbers for the image, more than one batch of them where its size is open."""
        shape = [evaluate(e, sizes) for e in (self.batch, *self.image)]
        rng = np.random.default_rng(3)
        return {"x": rng.standard_normal((*shape, self.channels[0] or self.channels[1])).astype(np.float32)}


def _weights(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


CASES = {
    "sums in blocks": Case((4, 5), (4, 2080, 5)),
    "three with a residual": Case((9, 9), (8, 24, 8), residual=True),
    "three, stride two": Case((10, 10), (8, 24, 20), strides=(2, 2)),
    "three, stride two, odd image": Case((11, 9), (8, 18, 20), strides=(2, 2), epilogue=_relu),
    "padded after only": Case((8, 12), (5, 16, 7), strides=(2, 2), low=(0, 0), high=(1, 1)),
    "padded unevenly": Case((7, 8), (6, 17, 33), low=(2, 0), high=(0, 1), epilogue=_hard_swish),
    "without padding": Case((8, 7), (4, 16, 16), low=(0, 0), high=(0, 0), epilogue=_swish),
    "window of five": Case((12, 10), (4, 20, 6), kernel=(5, 5), low=(2, 2), high=(2, 2)),
    "window of five by stride two": Case((12, 10), (4, 20, 6), kernel=(5, 5), strides=(2, 2), low=(2, 2), high=(2, 2)),
    "window of three by stride three": Case((12, 12), (4, 20, 6), strides=(3, 3)),
    "tall window": Case((9, 6), (4, 16, 4), kernel=(3, 1), low=(1, 0), high=(1, 0)),
    "wide window": Case((6, 9), (4, 16, 4), kernel=(1, 3), low=(0, 1), high=(0, 1)),
    "dilated": Case((9, 9), (4, 16, 4), low=(2, 2), high=(2, 2), dilations=(2, 2)),
    "no product after": Case((9, 8), (8, 24, 0), epilogue=_swish),
    "no product before": Case((9, 8), (0, 24, 12)),
    "no product before, stride two": Case((10, 10), (0, 33, 12), strides=(2, 2)),
    "any batch": Case((8, 8), (8, 24, 8), batch=symbol("N"), residual=True),
}
SIZES = {"N": 2, "H": 7, "W": 9}
MACHINES = {"x86-64-v4": AVX512, "x86-64-v3": AVX2}


@pytest.fixture
def joining(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Join every chain that can be, the longer ones first, or none."""

    def choose(always: bool) -> None:
        monkeypatch.setattr(block, "saved_cycles", lambda shape, _: float(1 + sum(shape.around)) if always else 0.0)

    return choose


def _kinds(lowered: LoweredVariant) -> list[str]:
    return [record.kind for record in lowered.launches[0] if record.writes]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", CASES)
def test_chain_when_interpreted_then_bits_are_those_of_its_stages(
    name: str, machine: str, joining: Callable[[bool], None]
) -> None:
    case, facts = CASES[name], MACHINES[machine]
    module, inputs = case.module(), case.inputs(SIZES)
    joining(False)
    (alone,), separate = run_tiles(module, inputs, SIZES, facts)
    joining(True)
    (together,), joined = run_tiles(module, inputs, SIZES, facts)
    assert "chain" not in _kinds(separate)
    assert _kinds(joined).count("chain") == case.launches
    assert together.tobytes() == alone.tobytes()


COMPILED = [(name, "x86-64-v4") for name in CASES] + [
    (name, "x86-64-v3")
    for name in ("three with a residual", "three, stride two, odd image", "padded unevenly", "no product before")
]


@pytest.mark.parametrize(("name", "machine"), COMPILED)
def test_chain_when_compiled_then_bits_are_those_of_its_stages_at_any_number_of_threads(
    name: str, machine: str, joining: Callable[[bool], None]
) -> None:
    case, facts = CASES[name], MACHINES[machine]
    module, inputs = case.module(), case.inputs(SIZES)
    joining(False)
    alone = compile_module(module, facts).run(inputs, SIZES)
    joining(True)
    together = check_module(module, inputs, SIZES, facts)
    assert together["y"].tobytes() == alone["y"].tobytes()


@pytest.mark.parametrize("name", ["three with a residual", "three, stride two, odd image", "no product before"])
def test_chain_when_bindings_are_erased_or_it_is_printed_then_nothing_changes(
    name: str, joining: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    joining(True)
    module, inputs = case.module(), case.inputs(SIZES)
    (bound,), lowered = run_tiles(module, inputs, SIZES, AVX512)
    (record,) = [r for r in lowered.launches[0] if r.kind == "chain"]
    erased = strip_bindings(record.tile_function)
    assert print_function(parse_function(print_function(erased))) == print_function(erased)
    monkeypatch.setattr(
        "tests.lower.execution.lower_module", lambda *given, **named: _erased(lower_module(*given, **named))
    )
    (free,), _ = run_tiles(module, inputs, SIZES, AVX512)
    assert free.tobytes() == bound.tobytes()


def _erased(lowered: LoweredVariant) -> LoweredVariant:
    launches = tuple(
        tuple(replace(r, tile_function=strip_bindings(r.tile_function)) for r in entry) for entry in lowered.launches
    )
    return replace(lowered, launches=launches)


@pytest.mark.parametrize("image", [(symbol("H"), 8), (8, symbol("W")), (symbol("H"), symbol("W"))])
def test_chain_when_the_image_is_dynamic_then_tasks_stay_apart(
    image: tuple[Extent, Extent], joining: Callable[[bool], None]
) -> None:
    case = Case(image, (4, 16, 4), batch=symbol("N"))
    joining(True)
    module = case.module()
    assert "chain" not in _kinds(lower_module(module, AVX512))
    check_module(module, case.inputs(SIZES), SIZES)


def test_chain_when_somebody_else_reads_between_then_that_value_is_written(joining: Callable[[bool], None]) -> None:
    rng = np.random.default_rng(1)
    b = GraphBuilder(dims={"N": (1, None)})
    x = b.input("x", tensor(F32, symbol("N"), 8, 8, 4))
    same = {"strides": (1, 1), "dilations": (1, 1), "layout": "NHWC"}
    e = b.op("conv", x, b.constant(_weights(rng, 16, 4, 1, 1)), groups=1, low=(0, 0), high=(0, 0), **same)
    d = b.op("conv", e, b.constant(_weights(rng, 16, 1, 3, 3)), groups=16, low=(1, 1), high=(1, 1), **same)
    gate = b.op("sigmoid", b.op("reduce", d, kind="sum", axes=(1, 2), keepdims=True))
    p = b.op(
        "conv", b.op("mul", d, gate), b.constant(_weights(rng, 6, 16, 1, 1)), groups=1, low=(0, 0), high=(0, 0), **same
    )
    b.output("y", p)
    module = b.finish()
    joining(True)
    assert _kinds(lower_module(module, AVX512)).count("chain") == 1
    check_module(module, {"x": rng.standard_normal((2, 8, 8, 4)).astype(np.float32)}, SIZES)


def test_chain_when_a_product_lies_between_two_windows_then_one_of_them_gets_it(
    joining: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    b = GraphBuilder(dims={"N": (1, None)})
    x, other = b.input("x", tensor(F32, symbol("N"), 9, 9, 8)), b.input("other", tensor(F32, symbol("N"), 9, 9, 24))
    same = {"strides": (1, 1), "dilations": (1, 1), "layout": "NHWC"}
    y = x
    for channels in (8, 24):
        y = b.op(
            "conv", y, b.constant(_weights(rng, channels, 1, 3, 3)), groups=channels, low=(1, 1), high=(1, 1), **same
        )
        y = _swish(b, y)
        w = b.constant(_weights(rng, 24, channels, 1, 1))
        y = b.op("add", b.op("conv", y, w, groups=1, low=(0, 0), high=(0, 0), **same), other)
    b.output("y", y)
    module = b.finish()
    inputs = {v: rng.standard_normal((2, 9, 9, c)).astype(np.float32) for v, c in (("x", 8), ("other", 24))}
    joining(False)
    (alone,), _ = run_tiles(module, inputs, SIZES, AVX512)
    monkeypatch.setattr(block, "saved_cycles", lambda _shape, _machine: 1.0)
    (together,), lowered = run_tiles(module, inputs, SIZES, AVX512)
    kinds = _kinds(lowered)
    assert (kinds.count("chain"), kinds.count("contraction")) == (2, 0)
    assert together.tobytes() == alone.tobytes()
    check_module(module, inputs, SIZES, AVX512)


def _shape(size: int, channels: tuple[int, int, int], stride: int = 1) -> Shape:
    walk = Walk(stride, 1, 1, 3)
    first, between, last = channels
    target = size // stride
    weights = 4 * between * (first + last)
    return Shape((size, size), (target, target), between, (walk, walk), (first > 0, last > 0), weights)


def test_saving_when_values_between_leave_the_cache_then_it_is_above_zero_and_not_before() -> None:
    assert saved_cycles(_shape(112, (16, 96, 24), 2), AVX512) > 0
    assert saved_cycles(_shape(56, (24, 144, 24)), AVX512) > 0
    assert saved_cycles(_shape(14, (64, 384, 64)), AVX512) == pytest.approx(0, abs=1e6)
    assert saved_cycles(_shape(14, (64, 384, 64)), AVX512) <= 0
    assert saved_cycles(_shape(7, (160, 960, 320)), AVX512) <= 0
    assert saved_cycles(_shape(112, (0, 32, 16)), AVX512) > 0


def test_saving_when_scratch_memory_is_more_than_a_thread_has_then_it_is_zero() -> None:
    assert saved_cycles(_shape(512, (16, 256, 16)), AVX512) == 0


def test_blocks_when_rows_overlap_then_few_and_a_power_of_two() -> None:
    assert [blocks_of(_shape(size, (8, 16, 8))) for size in (112, 56, 28, 14, 7)] == [4, 4, 2, 1, 1]
    assert [blocks_of(_shape(size, (8, 16, 8), 2)) for size in (112, 56, 28, 14)] == [4, 4, 2, 1]
    assert [blocks_of(_shape(size, (0, 32, 16))) for size in (112, 14, 7)] == [4, 2, 1]


REJECTED: dict[str, Step] = {
    "a stage that does not exist": Stage(3),
    "rows of a stage in tiles": Split("_d1", 2),
    "parallel loops of a stage": Bind("_d2", "parallel"),
    "a stage in groups": Group("_d3", 4),
    "turns of a stage's taps left out": Clip("_k0"),
}


@pytest.mark.errors
@pytest.mark.parametrize("what", REJECTED)
def test_replay_when_steps_do_not_fit_a_chain_then_they_are_rejected(
    what: str, joining: Callable[[bool], None]
) -> None:
    joining(True)

    def choose(setting: Setting, machine: CpuMachine) -> Schedule:
        return derived(setting, machine).with_steps(REJECTED[what])

    with pytest.raises(ScheduleRejectedError):
        lower_module(CASES["three with a residual"].module(), AVX512, choose=choose)


@pytest.mark.errors
def test_replay_when_scratch_memory_is_more_than_a_stack_holds_then_it_is_rejected(
    joining: Callable[[bool], None],
) -> None:
    joining(True)
    with pytest.raises(ScheduleRejectedError, match="does not fit"):
        lower_module(Case((4, 600), (4, 128, 4)).module(), AVX512)


@pytest.mark.errors
def test_replay_when_a_task_is_no_chain_then_it_has_no_stages() -> None:
    def choose(setting: Setting, machine: CpuMachine) -> Schedule:
        return derived(setting, machine).with_steps(Stage(0))

    with pytest.raises(ScheduleRejectedError):
        lower_module(CASES["three with a residual"].module(), AVX512, choose=choose)


VARIED: tuple[Step, ...] = (
    Split("_d2", 1),
    Split("_d2", 4),
    Split("_d2", 64),
    Split("_d3", 8),
    Split("_d3", 24),
    Split("_d9", 2),
    Split("_c", 3),
    Split("_k1", 2),
    Bind("_k0", "unroll"),
    Reorder(("_d0", "_d1", "_d2", "_d3")),
    Reorder(("_d2", "_d3")),
    Pack(1, 0),
    Pack(1, 48),
    Tensorise("_k0"),
    Interleave("_d3", 16),
    Prefetch(1),
    Rewrite(4, 1),
)


@pytest.mark.parametrize("stage", range(3))
@pytest.mark.parametrize("step", VARIED, ids=str)
def test_replay_when_one_stage_varies_then_bits_stay_or_it_is_rejected(
    step: Step, stage: int, joining: Callable[[bool], None]
) -> None:
    case = CASES["three, stride two"]
    module, inputs = case.module(), case.inputs(SIZES)
    joining(True)
    (expected,), _ = run_tiles(module, inputs, SIZES, AVX512)

    def choose(setting: Setting, machine: CpuMachine) -> Schedule:
        schedule = derived(setting, machine)
        return schedule.with_steps(Stage(stage), step) if setting.task.stages else schedule

    found, reason = expected, ""
    try:
        (found,), _ = run_tiles(module, inputs, SIZES, AVX512, choose)
    except ScheduleRejectedError as error:
        reason = error.diagnostics()
    assert reason or found is not expected
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("rows", [1, 2, 4, 5, 9])
def test_chain_when_cut_into_other_blocks_then_bits_stay(rows: int, joining: Callable[[bool], None]) -> None:
    case = CASES["three with a residual"]
    module, inputs = case.module(), case.inputs(SIZES)
    joining(True)
    whole = compile_module(module, AVX512).run(inputs, SIZES)

    def choose(setting: Setting, machine: CpuMachine) -> Schedule:
        schedule = derived(setting, machine)
        return Schedule((Split("_d1", rows), *schedule.steps[1:])) if setting.task.stages else schedule

    lowered = lower_module(module, AVX512, choose=choose)
    assert [r.schedule.steps[0] for r in lowered.launches[0] if r.kind == "chain"] == [Split("_d1", rows)]
    cut = compile_module(module, AVX512, choose).run(inputs, SIZES, threads=2)
    assert cut["y"].tobytes() == whole["y"].tobytes()
