"""Derivatives through branches and loops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.types import BOOL, F32, I64, Type, tensor
from tessera_build.ir.graph.autodiff.entries import with_grad
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Attribute, Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.reference import run
from tests.autodiff.checking import check, drawn, f64, module_of
from tests.autodiff.models import only, widened
from tests.lower.compiled import check_module

pytestmark = pytest.mark.unit

N = symbol("N")


def branches(
    b: GraphBuilder, condition: int, then: Callable[[], list[int]], other: Callable[[], list[int]]
) -> list[int]:
    """An `if` over what two functions build."""
    regions = []
    for make in (then, other):
        with b.region() as block:
            block.yields(*make())
        regions.append(block.region)
    return list(b.node("if", (condition,), {}, regions))


def loop(
    b: GraphBuilder,
    carried: list[int],
    body: Callable[[str, tuple[int, ...]], list[int]],
    trips: Extent,
    scans: int = 0,
    **flags: Attribute,
) -> tuple[int, ...]:
    """A loop over what a function of its index and its carried values builds."""
    index = b.fresh_index()
    first = 1 if flags.get("conditional") else 0
    bound = None if not isinstance(trips, int) else trips - 1
    with b.region([b.type(v) for v in carried[first:]], {index: (0, bound)}) as block:
        block.yields(*body(index, block.args))
    return b.node("loop", tuple(carried), {"index": index, "trips": trips, "scans": scans, **flags}, (block.region,))


def at(b: GraphBuilder, whole: int, index: str) -> int:
    """whole[index]."""
    shape, place = b.type(whole).shape, symbol(index)
    rest = (0,) * (len(shape) - 1)
    part = b.op("slice", whole, starts=(place, *rest), stops=(place + 1, *shape[1:]), steps=(1,) * len(shape))
    return b.op("reshape", part, shape=shape[1:])


@pytest.mark.parametrize("taken", [False, True])
def test_if_when_differentiated_then_cotangents_come_back_through_the_branch_taken(taken: bool) -> None:
    def make(b: GraphBuilder, x: list[int]) -> list[int]:
        def then() -> list[int]:
            return [b.op("exp", b.op("mul", x[1], x[2])), b.op("sin", x[1]), x[2]]

        def other() -> list[int]:
            return [b.op("sin", x[1]), b.scalar(2.0, x[1]), b.op("tanh", x[2])]

        first, second, third = branches(b, x[0], then, other)
        return [b.op("mul", first, x[1]), second, third]

    module = module_of(make, [tensor(BOOL), f64(), f64()])
    check(module, {**drawn(module, "main", 50), "x0": np.asarray(taken)}, order=2)


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("inner", [False, True])
def test_if_when_nested_then_agrees_with_differences(outer: bool, inner: bool) -> None:
    def make(b: GraphBuilder, x: list[int]) -> int:
        def both() -> list[int]:
            y = b.op("sigmoid", x[2])
            return branches(b, x[1], lambda: [b.op("mul", y, y)], lambda: [b.op("exp", b.op("sin", y))])

        return branches(b, x[0], both, lambda: [b.op("cos", x[2])])[0]

    module = module_of(make, [tensor(BOOL), tensor(BOOL), f64(3)])
    check(module, {"x0": np.asarray(outer), "x1": np.asarray(inner), **_only(module, "x2")}, order=2)


def _only(module: Module, name: str) -> dict[str, np.ndarray]:
    return {name: drawn(module, "main", 51)[name]}


def test_if_when_it_has_no_tangents_then_is_written_as_it_was() -> None:
    def make(b: GraphBuilder, x: list[int]) -> int:
        (chosen,) = branches(b, x[0], lambda: [b.scalar(2.0, x[1])], lambda: [b.scalar(3.0, x[1])])
        return b.op("mul", chosen, x[1])

    module = module_of(make, [tensor(BOOL), f64(2)])
    check(module, {**drawn(module, "main", 52), "x0": np.asarray(True)}, order=2)


@pytest.mark.parametrize("downward", [False, True])
@pytest.mark.parametrize("trips", [1, 4, N])
def test_loop_when_it_carries_then_agrees_with_differences(downward: bool, trips: Extent) -> None:
    def make(b: GraphBuilder, x: list[int]) -> list[int]:
        def body(_: str, args: tuple[int, ...]) -> list[int]:
            state = b.op("tanh", b.op("matmul", args[0], x[1]))
            return [state, b.op("add", args[1], b.op("mul", state, x[0]))]

        return list(loop(b, [x[0], x[0]], body, trips, downward=downward))

    module = module_of(make, [f64(2, 3), f64(3, 3), f64(N)])
    check(module, drawn(module, "main", 53), order=2)


@pytest.mark.parametrize("downward", [False, True])
def test_loop_when_it_reads_and_stacks_slices_then_agrees_with_differences(downward: bool) -> None:
    def make(b: GraphBuilder, x: list[int]) -> list[int]:
        def body(index: str, args: tuple[int, ...]) -> list[int]:
            state = b.op("tanh", b.op("add", b.op("matmul", args[0], x[1]), at(b, x[2], index)))
            return [state, b.op("mul", state, at(b, x[2], index)), b.op("sin", args[0])]

        return list(loop(b, [x[0]], body, N, 2, downward=downward))

    module = module_of(make, [f64(2, 3), f64(3, 3), f64(N, 2, 3)])
    check(module, drawn(module, "main", 54), order=2)
    gradient = with_grad(module, "main", ["x2"]).entries["main_grad"]
    backward = [n for n in gradient.nodes if getattr(n, "op", "") == "loop"][-1]
    assert not any(gradient.types[v].shape[:1] == (N,) for v in getattr(backward, "inputs"))  # noqa: B009


def test_loop_when_it_reads_fewer_slices_than_there_are_then_the_rest_is_zero() -> None:
    def make(b: GraphBuilder, x: list[int]) -> int:
        return loop(b, [x[0]], lambda i, a: [b.op("mul", a[0], b.op("exp", at(b, x[1], i)))], 2)[0]

    module = module_of(make, [f64(3), f64(4, 3)])
    check(module, drawn(module, "main", 55), order=2)


@pytest.mark.parametrize("downward", [False, True])
@pytest.mark.parametrize("limit", [-1.0, 2.0, 1e9])
def test_loop_when_a_condition_ends_it_then_agrees_with_differences(limit: float, downward: bool) -> None:
    def make(b: GraphBuilder, x: list[int]) -> list[int]:
        def body(index: str, args: tuple[int, ...]) -> list[int]:
            state = b.op("add", b.op("mul", args[0], x[1]), at(b, x[2], index))
            total = b.op("reduce", b.op("abs", state), kind="sum", axes=(0,), keepdims=False)
            return [b.op("lt", total, b.scalar(limit, total)), state]

        going = b.op("lt", b.scalar(0.0, x[0]), b.scalar(limit, x[0]))
        return [loop(b, [going, x[0]], body, 5, conditional=True, downward=downward)[0]]

    module = module_of(make, [f64(2), f64(2), f64(5, 2)])
    check(module, drawn(module, "main", 56, lambda rng, shape: rng.uniform(0.5, 1.5, shape)), order=2)


def test_loop_when_nested_then_agrees_with_differences() -> None:
    def make(b: GraphBuilder, x: list[int]) -> int:
        def outer(index: str, args: tuple[int, ...]) -> list[int]:
            row = at(b, x[1], index)

            def inner(column: str, own: tuple[int, ...]) -> list[int]:
                return [b.op("sin", b.op("mul", own[0], at(b, row, column)))]

            (state,) = loop(b, [args[0]], inner, 3)
            return branches(b, b.op("lt", state, b.scalar(0.3, state)), lambda: [b.op("exp", state)], lambda: [state])

        return loop(b, [x[0]], outer, 4)[0]

    module = module_of(make, [f64(), f64(4, 3)])
    check(module, drawn(module, "main", 57), order=2)


def test_loop_when_integers_and_floats_are_carried_then_integers_have_no_tangents() -> None:
    def make(b: GraphBuilder, x: list[int]) -> list[int]:
        def body(_: str, args: tuple[int, ...]) -> list[int]:
            number = b.op("cast", args[1], dtype=b.type(args[0]).dtype)
            return [b.op("mul", args[0], b.op("sin", number)), b.op("add", args[1], b.scalar(1, I64)), args[2]]

        return list(loop(b, [x[0], b.scalar(1, I64), x[0]], body, 3))

    module = module_of(make, [f64(2)])
    check(module, drawn(module, "main", 58), order=2)


def test_loop_when_a_value_gets_its_tangent_from_another_then_agrees_with_differences() -> None:
    def make(b: GraphBuilder, x: list[int]) -> list[int]:
        zero = b.constant(np.zeros(2))
        return list(loop(b, [x[0], zero, zero], lambda _, a: [a[0], b.op("sin", a[0]), b.op("exp", a[1])], 3))

    module = module_of(make, [f64(2)])
    check(module, drawn(module, "main", 59), order=2)


def test_loop_when_what_it_carries_grows_then_refused() -> None:
    b = GraphBuilder()
    x = b.input("x", f64(2))
    index = b.fresh_index()
    grown: Type = f64(2 + 2 * symbol(index))
    with b.region([grown], {index: (0, 2)}) as block:
        block.yields(b.op("concat", block.args[0], b.op("exp", x), axis=0))
    (y,) = b.node("loop", (x,), {"index": index, "trips": 3}, (block.region,))
    b.output("y", y)
    with pytest.raises(TesseraError, match="changes its shape") as caught:
        with_grad(b.finish(), "main", ["x"])
    assert caught.value.code == "NOT_DIFFERENTIABLE"


def _counted() -> Module:
    """As many sines of sines as a number says, all of them stacked."""
    b = GraphBuilder()
    x, number = b.input("x0", tensor(F32, 3)), b.input("x1", tensor(I64))
    b.node("sizes", (b.op("reshape", number, shape=(1,)),), {"names": ("turns",), "uppers": (-1,)})

    def body(_: str, args: tuple[int, ...]) -> list[int]:
        state = b.op("sin", args[0])
        return [state, b.op("mul", state, state)]

    last, stacked = loop(b, [x], body, symbol("turns"), 1)
    b.output("last", last)
    b.output("stacked", stacked)
    return b.finish()


@pytest.mark.numerics
def test_loop_when_data_count_its_turns_and_it_stacks_then_agrees_with_differences_and_compiles() -> None:
    module, inputs = _counted(), {"x0": np.array([0.3, 0.5, 0.9]), "x1": np.array(4)}
    check(widened(module), inputs)
    given = {"x0": inputs["x0"].astype(np.float32), "x1": inputs["x1"]}
    derived = with_grad(module, "main", ["x0"])
    rng = np.random.default_rng(1)
    cotangents = {
        f"{n}_cotangent": rng.standard_normal(s).astype(np.float32) for n, s in (("last", 3), ("stacked", (4, 3)))
    }
    check_module(run_passes(only(derived, "main_grad")), {**given, **cotangents}, {"turns_cotangent": 4})
    assert run(derived, "main", given)["stacked"].shape == (4, 3)
    with pytest.raises(TesseraError, match="a cotangent has the extents of its output"):
        run(derived, "main_grad", {**given, **cotangents, "x1": np.array(3)})
