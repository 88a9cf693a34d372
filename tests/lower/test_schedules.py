"""Any variation of a derived schedule computes the same, bit for bit where it only cuts and reorders, or is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tessera_build.ir.core.dims import evaluate, symbol
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.schedule.trace import (
    Bind,
    Group,
    Interleave,
    Pack,
    Prefetch,
    Reorder,
    Schedule,
    ScheduleRejectedError,
    Split,
    Stagger,
    Step,
    Tensorise,
)
from tessera_build.ir.tile import reference
from tessera_build.lower.graph_to_schedule.tasks import Task
from tessera_build.lower.schedule_to_tile.layouts import BufferLayout
from tessera_build.lower.schedule_to_tile.replay import (
    Bindings,
    axes_of_domain,
    grouped_domain,
    schedule_to_tile,
)
from tessera_build.space.derive import Subject, derive_schedule
from tests.lower.execution import AVX2
from tests.lower.tasks import constants_of, task_of

SIZES = {"N": 3}


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One task with its derived schedule, constants and inputs."""

    task: Task
    base: Schedule
    constants: Mapping[int, Array]

    def run(self, schedule: Schedule) -> list[Array]:
        """The outputs of the task by the Tile reference interpreter."""
        layouts = dict[int, BufferLayout]()
        shapes = {v: a.shape for v, a in self.constants.items()}
        program = schedule_to_tile(self.task, schedule, Bindings(layouts, shapes, AVX2.lanes))
        rng = np.random.default_rng(5)
        values = {v: self._array(v, rng) for v in (*self.task.inputs, *self.task.outputs)}
        buffers: list[Array] = []
        for operand, argument in zip(program.operands, program.function.args, strict=True):
            array = values[operand.value]
            array = operand.packing.apply(array) if operand.packing else array
            shape = [evaluate(e, SIZES) for e in program.function.types[argument].shape]
            buffers.append(array.reshape(shape))
            assert np.shares_memory(buffers[-1], array)
        reference.run(program.function, buffers, SIZES)
        return [values[v] for v in self.task.outputs]

    def _array(self, value: int, rng: np.random.Generator) -> Array:
        if value in self.constants:
            return self.constants[value]
        kind = self.task.function.types[value]
        return rng.standard_normal([evaluate(e, SIZES) for e in kind.shape]).astype(kind.dtype.numpy)


def _case(build: Callable[[GraphBuilder, np.random.Generator], int]) -> Case:
    builder = GraphBuilder(dims={"N": (1, None)})
    builder.output("y", build(builder, np.random.default_rng(0)))
    module = builder.finish()
    task, constants = task_of(module), constants_of(module)
    axes = axes_of_domain(grouped_domain(task, Schedule())[0])
    base = derive_schedule(Subject(task.kind, task.function.nodes, axes, task.reduced, constants), AVX2)
    return Case(task, base, constants)


def _weights(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def _product(b: GraphBuilder, rng: np.random.Generator) -> int:
    y = b.op("matmul", b.input("x", tensor(F32, 7, 11)), b.constant(_weights(rng, 11, 19)))
    return b.op("max", b.op("add", y, b.constant(_weights(rng, 19))), b.scalar(0.0, F32))


def _convolution(b: GraphBuilder, rng: np.random.Generator) -> int:
    x = b.input("x", tensor(F32, symbol("N"), 6, 6, 4))
    sides = {"strides": (1, 1), "dilations": (1, 1), "low": (0, 0), "high": (0, 0), "layout": "NHWC"}
    return b.op("conv", x, b.constant(_weights(rng, 10, 2, 3, 3)), groups=2, **sides)


def _depthwise(b: GraphBuilder, rng: np.random.Generator) -> int:
    x = b.input("x", tensor(F32, symbol("N"), 6, 7, 9))
    sides = {"strides": (1, 1), "dilations": (1, 1), "low": (1, 1), "high": (1, 1), "layout": "NHWC"}
    return b.op("conv", x, b.constant(_weights(rng, 9, 1, 3, 3)), groups=9, **sides)


def _pool(b: GraphBuilder, _: np.random.Generator) -> int:
    around = {"window": (1, 3, 3, 1), "strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 1)}
    x = b.input("x", tensor(F32, symbol("N"), 7, 7, 5))
    return b.op("reduce_window", x, kind="max", low=(0, 1, 1, 0), high=(0, 1, 1, 0), **around)


def _softmax(b: GraphBuilder, _: np.random.Generator) -> int:
    return b.op("softmax", b.input("x", tensor(F32, symbol("N"), 4, 21)), axis=2)


def _columns(b: GraphBuilder, _: np.random.Generator) -> int:
    return b.op("softmax", b.input("x", tensor(F32, symbol("N"), 6, 11)), axis=1)


def _rows(b: GraphBuilder, _: np.random.Generator) -> int:
    return b.op("softmax", b.input("x", tensor(F32, 22, 90)), axis=1)


def _moved(b: GraphBuilder, _: np.random.Generator) -> int:
    return b.op("exp", b.op("transpose", b.input("x", tensor(F32, 5, 11, 13)), perm=(2, 0, 1)))


BUILDERS = (_product, _convolution, _depthwise, _pool, _softmax, _columns, _rows, _moved)
CASES = {f.__name__.removeprefix("_"): _case(f) for f in BUILDERS}
_SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


def _axes(case: Case) -> list[str]:
    """Axes of the domain after the derived groups, then those of the reduction, then some that do not exist."""
    domain = list(grouped_domain(case.task, case.base)[0])
    return [*domain, "_k", "_k0", "_k1", "_c", "_d9", "nonsense", f"{domain[-1]}_chunk"]


@st.composite
def steps(draw: st.DrawFn, case: Case) -> Step:
    axes = _axes(case)
    domain = list(grouped_domain(case.task, case.base)[0])
    axis = draw(st.sampled_from([*domain, *domain, *axes]))
    makers: list[Callable[[], Step]] = [
        lambda: Split(axis, draw(st.integers(-1, 24))),
        lambda: Split(axis, draw(st.sampled_from([1, 2, 4, 8, 16]))),
        lambda: Reorder(tuple(draw(st.permutations(domain)))),
        lambda: Reorder(tuple(draw(st.lists(st.sampled_from(axes), max_size=4)))),
        lambda: Bind(axis, draw(st.sampled_from(["parallel", "unroll"]))),
        lambda: Pack(draw(st.integers(-1, 2)), draw(st.sampled_from([0, 8, 16, 24]))),
        lambda: Tensorise(axis),
        lambda: Group(axis, draw(st.integers(0, 5))),
        lambda: Interleave(axis, draw(st.sampled_from([4, 8]))),
        lambda: Prefetch(draw(st.integers(-1, 2))),
        lambda: Stagger(axis),
    ]
    return draw(st.sampled_from(makers))()


@st.composite
def traces(draw: st.DrawFn, case: Case) -> Schedule:
    """The derived schedule with a few more steps, or a trace from nothing."""
    more = draw(st.lists(steps(case), min_size=1, max_size=3))
    return (case.base if draw(st.booleans()) else Schedule()).with_steps(*more)


def _check(name: str, schedule: Schedule) -> None:
    """Total: the same numbers, or a rejection that says why."""
    case = CASES[name]
    domain, _ = grouped_domain(case.task, case.base)
    if any(f > SIZES["N"] and not isinstance(domain.get(a, 0), int) for a, f in schedule.factors().items()):
        return  # the host program runs another version of the kernel where a dynamic extent is that small
    found, reason = list[Array](), ""
    try:
        found = case.run(schedule)
    except ScheduleRejectedError as error:
        reason = error.diagnostics()
    assert bool(found) != bool(reason)
    for left, right in zip(found, case.run(case.base) if found else [], strict=True):
        np.testing.assert_allclose(np.asarray(left, np.float64), np.asarray(right, np.float64), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_replay_when_a_trace_is_random_then_it_computes_the_task_or_is_rejected(name: str) -> None:
    @settings(_SETTINGS, max_examples=25)
    @given(traces(CASES[name]))
    def total(schedule: Schedule) -> None:
        _check(name, schedule)

    total()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_replay_when_many_traces_are_random_then_each_computes_the_task_or_is_rejected(name: str) -> None:
    @settings(_SETTINGS, max_examples=600)
    @given(traces(CASES[name]))
    def total(schedule: Schedule) -> None:
        _check(name, schedule)

    total()


@pytest.mark.parametrize("name", CASES)
def test_replay_when_steps_only_cut_reorder_and_bind_then_bits_stay(name: str) -> None:
    case = CASES[name]
    domain = list(grouped_domain(case.task, case.base)[0])
    kept = [a for i, a in enumerate(domain) if case.task.kind != "row" or i not in case.task.reduced]
    expected = [a.tobytes() for a in case.run(case.base)]
    accepted = 0
    for axis in kept:
        for step in (Split(axis, 1), Split(axis, 2), Split(axis, 3), Bind(axis, "unroll"), Bind(axis, "parallel")):
            repacked = [Pack(s.read, 0) for s in case.base.steps if isinstance(s, Pack)]
            try:
                found = case.run(case.base.with_steps(step, *repacked))
            except ScheduleRejectedError:
                continue
            assert [a.tobytes() for a in found] == expected, step
            accepted += 1
    reversed_order = Reorder((*reversed(kept), *(a for a in domain if a not in kept)))
    if case.task.kind != "pointwise":
        assert [a.tobytes() for a in case.run(case.base.with_steps(reversed_order))] == expected
    assert accepted >= 3


REJECTED: dict[str, tuple[str, Step]] = {
    "split of an unknown axis": ("product", Split("_d9", 4)),
    "split into nothing": ("product", Split("_d0", 0)),
    "tile larger than the extent": ("product", Split("_d0", 8)),
    "tile larger than a small extent": ("convolution", Split("_d2", 5)),
    "tile of another width than the panel": ("product", Split("_d1", 5)),
    "tiles along two outer axes of a pointwise task": ("moved", Split("_d1", 4)),
    "tile larger than an exchanged axis": ("moved", Split("_d0", 16)),
    "order without an axis": ("product", Reorder(("_d0",))),
    "order with an axis twice": ("product", Reorder(("_d0", "_d0"))),
    "parallel reduction": ("product", Bind("_k", "parallel")),
    "parallel row": ("softmax", Bind("_d2", "parallel")),
    "bound axis that does not exist": ("moved", Bind("_k", "unroll")),
    "tensorised maximum": ("pool", Tensorise("_k1")),
    "tensorised without a stationary operand": ("depthwise", Tensorise("_k1")),
    "tensorised domain axis": ("product", Tensorise("_d0")),
    "tensorised row": ("softmax", Tensorise("_d2")),
    "group that does not divide": ("convolution", Group("_d3", 3)),
    "group of a row": ("softmax", Group("_d2", 7)),
    "group of an unknown extent": ("pool", Group("_d0", 1)),
    "panel of a read that does not exist": ("product", Pack(4, 16)),
    "panel of what is no constant": ("product", Pack(0, 16)),
    "panel that is wider than the operand": ("product", Pack(1, 1 << 20)),
    "tile of more code than can be compiled": ("pool", Split("_d0", 1 << 22)),
    "tile of more code along the vector axis": ("pool", Split("_d3", 1 << 26)),
    "panel in a row": ("softmax", Pack(0, 16)),
    "partial results of another number than the machine's lanes": ("softmax", Interleave("_d2", 4)),
    "partial results of a product": ("product", Interleave("_k", 8)),
    "next panel of an operand without panels": ("product", Prefetch(0)),
    "next panel of a read that does not exist": ("product", Prefetch(2)),
    "next panel where nothing is multiplied": ("moved", Prefetch(1)),
    "next panel of an operand that is computed with": ("depthwise", Prefetch(1)),
    "tile of rows that does not divide": ("softmax", Split("_d1", 3)),
    "tile of rows of unknown number": ("softmax", Split("_d0", 2)),
    "chunk of a reduced axis": ("softmax", Split("_d2_chunk", 64)),
    "chunk that cuts tiles": ("moved", Split("_d2_chunk", 7)),
}


@pytest.mark.errors
@pytest.mark.parametrize(
    ("unrolled", "lanes", "found"),
    [(("_d1", "_d2"), 512, "42 times: 2688 vectors"), (("_d1", "_d2", "_k0", "_k1"), 8, "378 times, one in another")],
)
def test_replay_when_loops_are_unrolled_in_each_other_then_their_code_counts_together(
    unrolled: tuple[str, ...], lanes: int, found: str
) -> None:
    case, binds = CASES["depthwise"], [Bind(axis, "unroll") for axis in unrolled]
    case.run(Schedule((Split("_d3", 8), *binds[:2])))
    with pytest.raises(ScheduleRejectedError) as caught:
        case.run(Schedule((Split("_d3", lanes), *binds)))
    assert found in (caught.value.found or "")


@pytest.mark.errors
@pytest.mark.parametrize("what", REJECTED)
def test_replay_when_a_trace_does_not_fit_then_it_is_rejected_with_a_reason(what: str) -> None:
    name, step = REJECTED[what]
    with pytest.raises(ScheduleRejectedError) as caught:
        CASES[name].run(CASES[name].base.with_steps(step))
    assert caught.value.found
