"""Derivatives where operands of an extremum are equal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from tessera import graph, op
from tessera.model.tensor import Value
from tessera_build.frontends.python import read_python
from tessera_build.ir.graph.reference import run
from tests.language.build import written

pytestmark = pytest.mark.numerics
Function = Callable[..., Value]


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_extremum_when_operands_are_equal_then_each_has_half_whatever_else_is_differentiated(name: str) -> None:
    function = getattr(op, name)
    x = np.asarray([1.0, 2.0], np.float32)

    def loss(a: Value, b: Value) -> Value:
        return op.reduce_sum(function(a, b))

    alone = graph.jit(lambda a, b: graph.grad(loss, wrt=0)(a, b))(x, x)
    both = graph.jit(lambda a, b: graph.grad(loss, wrt=(0, 1))(a, b))(x, x)
    for found in (alone, *cast("tuple[object, ...]", both)):
        np.testing.assert_array_equal(np.asarray(found), [0.5, 0.5])


def test_extremum_when_beside_a_number_or_a_parameter_then_only_the_number_takes_all() -> None:
    x, held = np.asarray([0.0], np.float32), op.tensor((1,), name="held", init=np.zeros(1, np.float32))

    def slope(function: Function) -> float:
        return float(
            np.asarray(graph.jit(lambda v: graph.grad(lambda q: op.reduce_sum(function(q)))(v))(x), np.float64)[0]
        )

    assert slope(lambda v: op.maximum(v, 0.0)) == slope(lambda v: op.maximum(v, op.zeros_like(v))) == 0.0
    assert slope(lambda v: op.maximum(v, held)) == slope(lambda v: op.minimum(v, held)) == 0.5
    table = np.asarray([0.0, 1.0], np.float32)
    both = graph.jit(lambda v: graph.grad(lambda q: op.reduce_sum(op.maximum(q, table)))(v))(table)
    np.testing.assert_array_equal(np.asarray(both), [0.5, 0.5])


def _total(function: Callable[..., object]) -> Function:
    return lambda v: op.reduce_sum(cast(Value, function(v)))


WAYS: dict[str, Callable[[Function, Value], object]] = {
    "alone": lambda f, v: graph.grad(_total(f))(v),
    "vmap": lambda f, v: graph.vmap(graph.grad(_total(f)))(v),
    "second order": lambda f, v: graph.grad(_total(lambda p: cast(Value, graph.grad(_total(f))(p)) * p))(v),
    "checkpoint": lambda f, v: graph.grad(_total(graph.checkpoint(f)))(v),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("shape", "reshaped"), [((), False), ((1,), False), ((1,), True)])
def test_extremum_when_a_number_is_made_outside_of_what_is_transformed_then_it_still_takes_nothing(
    way: str, shape: tuple[int, ...], reshaped: bool
) -> None:
    def entry(v: Value) -> object:
        held = op.reshape(op.constant(0.0), shape) if reshaped else op.zeros(shape)
        return WAYS[way](lambda q: op.maximum(q, held), v)

    found = graph.jit(lambda v: entry(v))(np.asarray([[0.0], [1.0], [-1.0]], np.float32))
    np.testing.assert_array_equal(np.asarray(found), [[0.0], [1.0], [0.0]])


def test_extremum_when_differentiated_by_a_number_made_outside_then_the_equal_operands_share() -> None:
    def entry(v: Value) -> object:
        held = op.constant(0.0)
        return graph.backward(_total(graph.vmap(lambda q: op.maximum(q, held)))(v), wrt=[held])

    (found,) = cast("list[object]", graph.jit(lambda v: entry(v))(np.asarray([0.0, 1.0, -1.0], np.float32)))
    assert float(np.asarray(found, np.float64)) == 1.5


def test_extremum_when_beside_a_parameter_of_one_element_in_a_build_then_half_is_each_ones(tmp_path: Path) -> None:
    body = """
    held = op.tensor((), init=op.init.constant(0.0))

    @graph.module("m")
    def m(x: Tensor[3]):
        return graph.grad(lambda v: op.reduce_sum(op.maximum(v, held)))(x)
    """
    module = read_python(written(tmp_path, body)).module
    found = run(module, "m", {"x": np.asarray([0.0, 1.0, -1.0], np.float32)})
    np.testing.assert_array_equal(next(iter(found.values())), [0.5, 1.0, 0.0])
