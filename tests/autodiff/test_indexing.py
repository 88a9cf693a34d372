"""Derivatives of reading and writing at computed positions, of resampling, attention and elimination."""

from __future__ import annotations

import numpy as np
import pytest

from tessera_build.ir.core.dims import Dim, symbol
from tessera_build.ir.core.types import I32, I64, Type, tensor
from tessera_build.ir.graph.autodiff.entries import with_grad
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.reference import run
from tests.autodiff.checking import check, drawn, f64, module_of

pytestmark = pytest.mark.unit

N, M = symbol("N"), symbol("M")


def _squared(b: GraphBuilder, value: int) -> int:
    return b.op("mul", value, value)


def _with(module_inputs: dict[str, Array], **given: Array) -> dict[str, Array]:
    return {**module_inputs, **given}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("indices", [(), (4,), (2, 3)])
def test_gather_when_rows_repeat_then_cotangents_add_up(axis: int, indices: tuple[int, ...]) -> None:
    types = [f64(3, N, 3), tensor(I64, *indices)]
    module = module_of(lambda b, x: _squared(b, b.op("gather", x[0], x[1], axis=axis)), types)
    places = np.random.default_rng(0).integers(-3, 3, indices)
    check(module, _with(drawn(module, "main", 40), x1=np.asarray(places)), order=2)


def test_gather_when_data_is_a_vector_and_indices_are_narrow_then_agrees_with_differences() -> None:
    module = module_of(lambda b, x: _squared(b, b.op("gather", x[0], x[1], axis=0)), [f64(3), tensor(I32, M)])
    check(module, drawn(module, "main", 41), order=2)


def test_gather_elements_when_shapes_differ_then_agrees_with_differences() -> None:
    types = [f64(3, 4), tensor(I64, 2, 5)]
    module = module_of(lambda b, x: _squared(b, b.op("gather_elements", x[0], x[1], axis=1)), types)
    places = np.random.default_rng(1).integers(-4, 4, (2, 5))
    check(module, _with(drawn(module, "main", 42), x1=places), order=2)


@pytest.mark.parametrize("reduction", ["none", "add"])
@pytest.mark.parametrize("axis", [0, 1])
def test_scatter_elements_when_places_repeat_then_agrees_with_differences(reduction: str, axis: int) -> None:
    types = [f64(3, 4), tensor(I64, 2, 3), f64(2, 3)]
    module = module_of(lambda b, x: _squared(b, b.op("scatter_elements", *x, axis=axis, reduction=reduction)), types)
    check(module, _with(drawn(module, "main", 43), x1=np.array([[0, 0, -1], [1, 0, 2]])), order=2)


@pytest.mark.parametrize("reduction", ["none", "add"])
def test_scatter_nd_when_places_repeat_then_agrees_with_differences(reduction: str) -> None:
    types = [f64(2, N, 2), tensor(I64, 5, 2), f64(5, 2)]
    module = module_of(lambda b, x: _squared(b, b.op("scatter_nd", *x, reduction=reduction)), types)
    places = np.array([[0, 0], [1, -1], [0, 0], [-1, 2], [1, 0]])
    check(module, _with(drawn(module, "main", 44), x1=places), order=2)


@pytest.mark.parametrize("reduction", ["mul", "max", "min"])
@pytest.mark.parametrize("axis", [0, 1])
def test_scatter_elements_when_updates_are_combined_then_agrees_with_differences(reduction: str, axis: int) -> None:
    types = [f64(3, N), tensor(I64, 2, 3), f64(2, 3)]
    module = module_of(lambda b, x: b.op("scatter_elements", *x, axis=axis, reduction=reduction), types)
    check(module, _with(drawn(module, "main", 50), x1=np.array([[0, 0, -1], [1, 0, 2]])), order=2)


@pytest.mark.parametrize("reduction", ["mul", "max", "min"])
def test_scatter_nd_when_updates_are_combined_then_agrees_with_differences(reduction: str) -> None:
    types = [f64(2, N, 2), tensor(I64, 5, 2), f64(5, 2)]
    module = module_of(lambda b, x: b.op("scatter_nd", *x, reduction=reduction), types)
    places = np.array([[0, 0], [1, -1], [0, 0], [-1, 2], [1, 0]])
    check(module, _with(drawn(module, "main", 51), x1=places), order=2)


def test_scattered_product_when_factors_are_zero_then_slopes_are_exact() -> None:
    types = [f64(3), tensor(I64, 5), f64(5)]
    module = module_of(lambda b, x: b.op("scatter_elements", *x, axis=0, reduction="mul"), types)
    places = np.array([0, 0, 1, 1, 2])
    check(module, {"x0": np.array([2.0, 0.0, 3.0]), "x1": places, "x2": np.array([0.0, 5.0, 7.0, 1.0, 11.0])}, order=2)
    check(module, {"x0": np.array([2.0, 0.0, 3.0]), "x1": places, "x2": np.array([0.0, 5.0, 7.0, 0.0, 11.0])}, order=2)
    check(module, {"x0": np.array([2.0, 4.0, 0.0]), "x1": places, "x2": np.array([0.0, 0.0, 7.0, 3.0, 0.0])}, order=2)


def test_scattered_product_of_rows_when_two_factors_are_zero_then_slopes_are_exact() -> None:
    types = [f64(2, 2), tensor(I64, 4, 1), f64(4, 2)]
    module = module_of(lambda b, x: b.op("scatter_nd", *x, reduction="mul"), types)
    updates = np.array([[0.0, 2.0], [0.0, 0.0], [3.0, 0.0], [5.0, 0.0]])
    given = {"x0": np.array([[2.0, 3.0], [0.0, 4.0]]), "x1": np.array([[0], [-2], [1], [1]]), "x2": updates}
    check(module, given, order=2)


def test_scattered_maximum_when_equal_then_data_and_updates_share_alike() -> None:
    types = [f64(2), tensor(I64, 3), f64(3)]
    module = module_of(lambda b, x: b.op("scatter_elements", *x, axis=0, reduction="max"), types)
    given = {"x0": np.array([4.0, 1.0]), "x1": np.array([0, 0, 1]), "x2": np.array([4.0, 2.0, 3.0])}
    found = run(with_grad(module, "main", ["x0", "x2"]), "main_grad", {**given, "y0_cotangent": np.ones(2)})
    np.testing.assert_array_equal(found["x0_gradient"], [0.5, 0.0])
    np.testing.assert_array_equal(found["x2_gradient"], [0.5, 0.0, 1.0])


@pytest.mark.parametrize("circular", [False, True])
def test_scatter_rows_when_it_appends_to_a_cache_then_agrees_with_differences(circular: bool) -> None:
    types = [f64(2, 3, 5, 2), f64(2, 3, 2, 2), tensor(I64, 2)]
    module = module_of(lambda b, x: _squared(b, b.op("scatter_rows", *x, circular=circular)), types)
    check(module, _with(drawn(module, "main", 45), x2=np.array([1, 4 if circular else 3])), order=2)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_resample_when_differentiated_then_image_and_weights_agree_with_differences(axis: int) -> None:
    types = [f64(3, 3, 3), tensor(I64, 2, 5), f64(2, 5)]
    module = module_of(lambda b, x: b.op("resample", *x, axis=axis), types)
    places = np.random.default_rng(2).integers(0, 3, (2, 5))
    check(module, _with(drawn(module, "main", 46), x1=places), order=2)


ATTENTIONS: dict[str, list[Type]] = {
    "plain": [f64(2, 2, 3, 4), f64(2, 2, 5, 4), f64(2, 2, 5, 3)],
    "symbolic": [f64(1, 2, N, 4), f64(1, 2, M, 4), f64(1, 2, M, 3)],
    "grouped": [f64(1, 4, 3, 2), f64(1, 2, 5, 2), f64(1, 2, 5, 3)],
    "masked": [f64(1, 2, 3, 2), f64(1, 2, 4, 2), f64(1, 2, 4, 2), f64(3, 4)],
    "grouped and masked": [f64(2, 2, 3, 2), f64(2, 1, 4, 2), f64(2, 1, 4, 2), f64(2, 1, 1, 4)],
}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_when_differentiated_then_agrees_with_differences(name: str) -> None:
    module = module_of(lambda b, x: b.op("attention", *x, scale=0.7), ATTENTIONS[name])
    check(module, drawn(module, "main", 47), order=2)


def test_attention_when_nothing_depends_on_its_scores_then_values_alone_pass_back() -> None:
    types = [f64(1, 1, 2, 3), f64(1, 1, 4, 3), f64(1, 1, 4, 2)]
    module = module_of(lambda b, x: b.op("attention", *x, scale=0.5), types)
    alone = with_grad(module, "main", ["x2"])
    assert alone.output_names["main_grad"] == ("y0", "x2_gradient")


@pytest.mark.parametrize("columns", [1, 3])
def test_solve_when_differentiated_then_agrees_with_differences(columns: int | Dim) -> None:
    module = module_of(lambda b, x: b.node("solve", tuple(x), {})[1], [f64(2, 4, 4), f64(2, 4, columns)])
    inputs = drawn(module, "main", 48)
    check(module, _with(inputs, x0=np.asarray(np.add(inputs["x0"], 4 * np.eye(4)))), order=2)


def test_determinant_when_differentiated_then_agrees_with_differences() -> None:
    module = module_of(lambda b, x: b.node("determinant", tuple(x), {})[1], [f64(2, 3, 3)])
    check(module, drawn(module, "main", 49), order=2)
