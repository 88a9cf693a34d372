"""Chains of arithmetic in entries that give derivatives: computed in float64, rounded once where they are stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tessera_build.ir.core.types import BOOL, F32, F64, Type, dtype_of, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.lower.graph_to_schedule.excess import with_excess_precision
from tessera_build.lower.graph_to_schedule.tasks import Task, graph_to_schedule
from tests.lower.compiled import compile_module

Floats = NDArray[np.float64]
ROWS, COLUMNS, DEPTH = 9, 37, 24
_RNG = np.random.default_rng(3)
GIVEN = {
    "x": _RNG.standard_normal((ROWS, COLUMNS)).astype(np.float32),
    "scale": _RNG.standard_normal((1, COLUMNS)).astype(np.float32),
    "shift": _RNG.standard_normal((1, COLUMNS)).astype(np.float32),
}
WIDE = {name: array.astype(np.float64) for name, array in GIVEN.items()}
Made = dict[str, Array]


def _inputs(b: GraphBuilder) -> tuple[int, int, int]:
    x, scale, shift = (b.input(name, tensor(F32, *array.shape)) for name, array in GIVEN.items())
    return x, scale, shift


def _number(b: GraphBuilder, value: float) -> int:
    return b.constant(np.full((1, 1), value, np.float32))


def _affine(b: GraphBuilder) -> None:
    """y = (x * scale + shift) / 6, one value of three stored."""
    x, scale, shift = _inputs(b)
    b.output("y", b.op("div", b.op("add", b.op("mul", x, scale), shift), _number(b, 6.0)))


def _affine_exact() -> dict[str, Floats]:
    return {"y": (WIDE["x"] * WIDE["scale"] + WIDE["shift"]) / 6}


def _hard_swish(b: GraphBuilder) -> None:
    """What is stored on the way is rounded for its readers outside only."""
    x, scale, shift = _inputs(b)
    inner = b.op("add", b.op("mul", x, scale), shift)
    three, six, zero = (_number(b, value) for value in (3.0, 6.0, 0.0))
    moved = b.op("add", inner, three)
    above = b.op("gt", moved, zero)
    bounded = b.op("min", b.op("select", above, moved, zero), six)
    b.output("y", b.op("div", b.op("mul", inner, bounded), six))
    b.output("inner", inner)
    b.output("above", above)


def _hard_swish_exact() -> dict[str, Floats]:
    inner = WIDE["x"] * WIDE["scale"] + WIDE["shift"]
    return {"y": inner * np.clip(inner + 3, 0, 6) / 6, "inner": inner, "above": (inner > -3).astype(np.float64)}


def _derivative(write: Callable[[GraphBuilder], None], derivative: bool = True) -> Module:
    b = GraphBuilder()
    write(b)
    return replace(b.finish(), derivatives=frozenset({"main"} if derivative else ()))


@pytest.mark.parametrize(("write", "exact"), [(_affine, _affine_exact), (_hard_swish, _hard_swish_exact)])
def test_chain_when_entry_gives_derivatives_then_is_rounded_once(
    write: Callable[[GraphBuilder], None], exact: Callable[[], dict[str, Floats]]
) -> None:
    found = compile_module(_derivative(write)).run(GIVEN, {})
    for name, wanted in exact().items():
        np.testing.assert_array_equal(found[name], wanted.astype(found[name].dtype), err_msg=name)
    plain = compile_module(_derivative(write, derivative=False)).run(GIVEN, {})
    assert np.any(np.not_equal(plain["y"], found["y"]))


def test_contraction_when_entry_gives_derivatives_then_what_follows_is_rounded_once() -> None:
    """The sum is of f32, as the product alone gives it."""
    weights = _RNG.standard_normal((COLUMNS, DEPTH)).astype(np.float32)
    tail = _RNG.standard_normal((3, 1, DEPTH)).astype(np.float32)

    def write(b: GraphBuilder, whole: bool) -> None:
        x, _, _ = _inputs(b)
        y = b.op("matmul", x, b.constant(weights))
        if whole:
            y = b.op("add", b.op("mul", b.op("add", y, b.constant(tail[0])), b.constant(tail[1])), b.constant(tail[2]))
        b.output("y", y)

    summed, found = (compile_module(_derivative(lambda b, w=w: write(b, w))).run(GIVEN, {})["y"] for w in (False, True))
    bias, scale, shift = tail.astype(np.float64)
    wanted = (summed.astype(np.float64) + bias) * scale + shift
    np.testing.assert_array_equal(found, wanted.astype(np.float32))


def _widened(write: Callable[[GraphBuilder], None]) -> tuple[Task, Task]:
    """The only task of a module, as it is and widened."""
    function = _derivative(write).entries["main"]
    (task,) = (task for task in graph_to_schedule(function, {}) if task.kind != "view")
    return task, with_excess_precision(task)


def _types_made(task: Task) -> set[Type]:
    return {kind for value, kind in task.function.types.items() if value not in task.function.args}


def test_task_when_nothing_would_be_saved_then_stays_as_it_is() -> None:
    def single(b: GraphBuilder) -> None:
        x, scale, _ = _inputs(b)
        b.output("y", b.op("mul", x, scale))

    def expansions(b: GraphBuilder) -> None:
        x, scale, _ = _inputs(b)
        b.output("y", b.op("exp", b.op("mul", b.op("erf", x), scale)))

    for write in (single, expansions):
        plain, wide = _widened(write)
        assert wide is plain


def test_task_when_expansion_stands_in_a_chain_then_it_stays_in_f32() -> None:
    def write(b: GraphBuilder) -> None:
        x, scale, shift = _inputs(b)
        inner = b.op("exp", b.op("add", b.op("mul", x, scale), shift))
        b.output("y", b.op("sub", b.op("mul", inner, scale), shift))

    task, wide = _widened(write)
    assert {kind.dtype for kind in _types_made(task)} == {F32}
    assert {kind.dtype for kind in _types_made(wide)} == {F32, F64}
    assert [wide.function.types[v].dtype for v in wide.outputs] == [F32]
    found = compile_module(_derivative(write)).run(GIVEN, {})["y"]
    inner = np.exp((WIDE["x"] * WIDE["scale"] + WIDE["shift"]).astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(
        np.asarray(found, np.float64), inner * WIDE["scale"] - WIDE["shift"], rtol=3e-7, atol=3e-7
    )


def test_task_when_its_numbers_are_f64_or_integers_then_stays_as_it_is() -> None:
    for dtype in (np.float64, np.int32):

        def write(b: GraphBuilder, dtype: type = dtype) -> None:
            x, y = (b.input(name, tensor(dtype_of(np.dtype(dtype)), 4, 8)) for name in "xy")
            b.output("z", b.op("add", b.op("mul", x, y), y))

        plain, wide = _widened(write)
        assert wide is plain


def test_task_when_a_truth_is_read_then_it_stays_a_truth() -> None:
    def write(b: GraphBuilder) -> None:
        x, scale, shift = _inputs(b)
        chosen = b.input("chosen", tensor(BOOL, ROWS, COLUMNS))
        b.output("y", b.op("select", chosen, b.op("add", b.op("mul", x, scale), shift), x))

    chosen = _RNG.random((ROWS, COLUMNS)) < 0.5
    found = compile_module(_derivative(write)).run({**GIVEN, "chosen": chosen}, {})["y"]
    wanted = np.where(chosen, WIDE["x"] * WIDE["scale"] + WIDE["shift"], WIDE["x"])
    np.testing.assert_array_equal(found, wanted.astype(np.float32))


def _logarithm(b: GraphBuilder, x: int) -> int:
    """log(1 + x), with what 1 + x rounds away put back: the two expressions of frontends."""
    total = b.op("add", x, _number(b, 1.0))
    lost = b.op("sub", x, b.op("add", total, _number(b, -1.0)))
    return b.op("add", b.op("log", total), b.op("div", lost, total))


def _rounded_to_integer(b: GraphBuilder, x: int) -> int:
    return b.op("sub", b.op("add", x, _number(b, 1.5 * 2**23)), _number(b, 1.5 * 2**23))


def _error_of_sum(b: GraphBuilder, x: int) -> int:
    """What x + y rounds away, by Knuth's two-sum; y = x / 3."""
    y = b.op("div", x, _number(b, 3.0))
    total = b.op("add", x, y)
    back = b.op("sub", total, x)
    return b.op("add", b.op("sub", x, b.op("sub", total, back)), b.op("sub", y, back))


@pytest.mark.parametrize("formula", [_logarithm, _rounded_to_integer, _error_of_sum])
def test_formula_when_it_counts_on_rounding_then_has_the_bits_of_an_entry_without_derivatives(
    formula: Callable[[GraphBuilder, int], int],
) -> None:
    x = np.geomspace(1e-9, 3, 96).astype(np.float32).reshape(2, 48)

    def write(b: GraphBuilder) -> None:
        b.output("y", formula(b, b.input("x", tensor(F32, 2, 48))))

    found, plain = (compile_module(_derivative(write, gives)).run({"x": x}, {})["y"] for gives in (True, False))
    np.testing.assert_array_equal(found, plain)
    if formula is _logarithm:
        np.testing.assert_allclose(np.asarray(found, np.float64), np.log1p(x.astype(np.float64)), rtol=3e-7)
    assert np.any(np.asarray(found))
