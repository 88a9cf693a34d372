"""Products of chains whose terms are taken in pairs: the answers of the chain, whatever its channels, tile and threads.

Takes inverted bottlenecks, joined always; their products' schedules are replaced. Invariant: pairs are told from direct
sums by the layout of weights, so that no comparison is of a thing with itself.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bundle_format.digest import Digest
from bundle_format.errors import TesseraError
from tessera_build.config import load_precision
from tessera_build.driver.schedules import Given, Overriding
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.schedule.trace import Pack, Pair, Schedule, ScheduleRejectedError, Split, Stage, Step
from tessera_build.lower.program import block
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.program.kernels import Chooser, Setting, derived, derived_within
from tessera_build.space.pairs import paired_of, scale_of
from tessera_build.space.workload import Bounds
from tests.lower.compiled import check_module, compile_module
from tests.lower.execution import AVX2, AVX512

ALLOWED = load_precision("fp32").products_max_error
APART = replace(AVX512, adds_apart=True)


def _weights(rng: np.random.Generator, *shape: int) -> Array:
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def _block(size: int, channels: tuple[int, int, int], stride: int = 1) -> Module:
    """A product, a window of three and a product, channels last, clipped between."""
    rng, b = np.random.default_rng(7), GraphBuilder()
    first, between, last = channels
    x = b.input("x", tensor(F32, 1, size, size, first))
    point = {"strides": (1, 1), "low": (0, 0), "high": (0, 0), "dilations": (1, 1), "layout": "NHWC"}
    y = b.op("conv", x, b.constant(_weights(rng, between, first, 1, 1)), groups=1, **point)
    y = b.op("max", b.op("add", y, b.constant(_weights(rng, between))), b.scalar(0.0, F32))
    window = point | {"strides": (stride, stride), "low": (1, 1), "high": (1, 1)}
    y = b.op("conv", y, b.constant(_weights(rng, between, 1, 3, 3)), groups=between, **window)
    y = b.op("min", b.op("max", y, b.scalar(0.0, F32)), b.scalar(6.0, F32))
    y = b.op("conv", y, b.constant(_weights(rng, last, between, 1, 1)), groups=1, **point)
    y = b.op("add", y, b.constant(_weights(rng, last)))
    b.output("y", b.op("add", y, x) if first == last and stride == 1 else y)
    return b.finish()


def _feed(module: Module) -> dict[str, Array]:
    main = module.entries["main"]
    shape = main.types[main.args[0]].static_shape
    return {"x": np.random.default_rng(3).standard_normal(shape).astype(np.float32)}


def _in_pairs(rows: int) -> Chooser:
    """Every product of a chain in tiles of so many pixels, its terms in pairs."""

    def stage(setting: Setting, schedule: Schedule, index: int, lanes: int) -> tuple[Step, ...]:
        task = setting.task.stages[index]
        (node, *_) = [n for n in task.function.nodes if isinstance(n, Compute) and n.combine != "none"]
        paired = paired_of(node)
        if paired is None:
            return schedule.stage(index).steps
        scale = scale_of(setting.constants[node.reads[1]], paired.extent)
        tiles = Split("_d1", 1), Split("_d2", rows), Split("_d3", lanes), Pack(1, lanes)
        return (*tiles, Pair(paired.depth, scale), Split(paired.depth, 2))

    def choose(setting: Setting, machine: CpuMachine) -> Schedule:
        schedule = derived(setting, machine)
        steps = list(schedule.stage(None).steps)
        for index in range(len(setting.task.stages)):
            steps += [Stage(index), *stage(setting, schedule, index, machine.lanes)]
        return Schedule(tuple(steps)) if setting.task.stages else schedule

    return choose


@pytest.fixture(autouse=True)
def joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every chain that can be joined is, the longer ones first."""
    monkeypatch.setattr(block, "saved_cycles", lambda shape, _: float(1 + sum(shape.around)))


@pytest.mark.numerics
@pytest.mark.parametrize("machine", [APART, AVX2])
@pytest.mark.parametrize(
    ("size", "channels", "stride", "rows"),
    [
        (16, (24, 96, 24), 1, 7),
        (15, (16, 40, 24), 1, 4),  # something stands behind the rows of a chain's own memory
        (14, (32, 72, 64), 2, 7),
        (9, (6, 11, 16), 1, 3),  # fewer than a register
        (23, (20, 50, 40), 1, 5),  # the last rows are made twice
    ],
)
def test_chain_when_its_products_are_paired_then_agrees_with_the_reference_for_one_and_two_threads(
    size: int, channels: tuple[int, int, int], stride: int, rows: int, machine: CpuMachine
) -> None:
    module = _block(size, channels, stride)
    lowered = lower_module(module, machine, choose=_in_pairs(rows))
    paired = [w for w in lowered.weights if w.layout.startswith("v1:pairs")]
    assert len(paired) == 2
    check_module(module, _feed(module), {}, machine, _in_pairs(rows))


@pytest.mark.numerics
def test_bits_when_tiles_and_blocks_of_a_paired_chain_differ_then_are_the_same() -> None:
    module = _block(16, (24, 96, 24))
    found = [compile_module(module, APART, _in_pairs(rows)).run(_feed(module), {}, threads=2) for rows in (1, 5, 8)]
    assert len({outputs["y"].tobytes() for outputs in found}) == 1


def _stages(
    channels: tuple[int, int, int], machine: CpuMachine = APART, allowed: float = ALLOWED, size: int = 28
) -> list[bool]:
    found: list[Schedule] = []

    def choose(setting: Setting, facts: CpuMachine) -> Schedule:
        found.append(derived_within(Bounds(products=allowed))(setting, facts))
        return found[-1]

    lower_module(_block(size, channels), machine, choose=choose)
    (chain,) = [schedule for schedule in found if schedule.stage(0).steps]
    return [chain.stage(index).paired() is not None for index in range(3)]


@pytest.mark.unit
def test_rule_when_a_line_saves_more_than_its_rows_cost_then_its_product_is_paired() -> None:
    assert _stages((32, 192, 32)) == [True, False, True]
    assert _stages((24, 144, 24)) == [True, False, False]  # half of its columns' registers are halves
    assert _stages((8, 48, 24)) == [False, False, False]
    assert _stages((32, 192, 32), AVX512) == [False, False, False]
    assert _stages((32, 192, 32), allowed=0.0) == [False, False, False]


@pytest.mark.unit
def test_rule_when_a_line_would_fill_the_stack_then_its_product_is_direct() -> None:
    assert _stages((192, 96, 64), size=64)[0]
    assert _stages((384, 96, 64), size=64) == [False, False, True]


@pytest.mark.errors
def test_schedule_by_hand_when_lines_leave_no_room_on_the_stack_then_is_refused() -> None:
    with pytest.raises(ScheduleRejectedError, match="the schedule does not fit") as refused:
        lower_module(_block(128, (1024, 16, 16)), APART, choose=_in_pairs(4))
    assert refused.value.code == "SCHEDULE_CHAIN"


@pytest.mark.errors
def test_schedule_by_hand_when_a_stage_has_another_scale_than_the_weights_then_is_refused() -> None:
    module, chosen = _block(16, (24, 96, 24)), _in_pairs(4)

    def lowered(change: int, allowed: float) -> None:
        def by_hand(setting: Setting, machine: CpuMachine) -> Schedule:
            if not setting.task.stages:
                return derived(setting, machine)
            steps = [
                replace(s, scale=s.scale + change) if isinstance(s, Pair) else s for s in chosen(setting, machine).steps
            ]
            given = Given("by hand", {setting.task.name: (Schedule(tuple(steps)),)}, Digest.of(b""))
            return Overriding(given, Bounds(products=allowed), derived)(setting, machine)

        lower_module(module, APART, choose=by_hand)

    lowered(0, ALLOWED)
    for change, allowed in ((1, ALLOWED), (0, 0.0)):
        with pytest.raises(TesseraError, match="errs more than the precision policy allows"):
            lowered(change, allowed)
