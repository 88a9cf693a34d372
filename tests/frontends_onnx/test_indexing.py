"""Choosing by index: random shapes, axes and attributes against onnxruntime, and indices that are out of range."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from bundle_format.errors import TesseraError
from tessera_build.frontends.onnx import read_onnx
from tessera_build.ir.core.dims import symbol
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.reference import run
from tests.frontends_onnx.oracle import assert_agrees, make_model

pytestmark = pytest.mark.numerics
SEEDS = range(12)


def shape_of(rng: np.random.Generator, low: int = 1) -> tuple[int, ...]:
    return tuple(int(e) for e in rng.integers(1, 7, int(rng.integers(low, 5))))


def check(op: str, inputs: dict[str, Array], constants: dict[str, Array] | None = None, **attributes: object) -> None:
    """Once with the shapes stated, once with every extent above 1 a dim."""
    weights = constants or {}
    node = helper.make_node(op, [*inputs, *weights], ["y"])
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    for named in (False, True):
        shapes = {n: [f"{n}{i}" if named and e > 1 else e for i, e in enumerate(a.shape)] for n, a in inputs.items()}
        kinds = {n: (a.dtype.type, shapes[n]) for n, a in inputs.items()}
        assert_agrees(make_model([node], kinds, ["y"], weights, 18), inputs)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_extremum_when_elements_repeat_then_place_is_the_first_or_last(op: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = shape_of(rng)
    kind = (np.float32, np.int32, np.float64, np.uint8)[seed % 4]
    x = rng.integers(0, 4, shape).astype(kind)
    axis = int(rng.integers(-len(shape), len(shape)))
    check(op, {"x": x}, axis=axis, keepdims=seed % 2, select_last_index=seed // 2 % 2)


def test_extremum_when_a_row_has_nan_then_place_is_the_nan_as_in_numpy() -> None:
    x = np.array([[1, np.nan, 3], [np.nan] * 3, [-np.inf] * 3, [1, 2, 0]], np.float32)
    model = make_model([helper.make_node("ArgMax", ["x"], ["y"], axis=1)], {"x": (np.float32, [4, 3])}, ["y"])
    assert np.array_equal(run(read_onnx(model), "main", {"x": x})["y"], np.argmax(x, 1, keepdims=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_gather_elements_when_indices_are_shorter_or_negative_then_agrees(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = shape_of(rng)
    axis = int(rng.integers(0, len(shape)))
    chosen = [9 if i == axis else e for i, e in enumerate(shape)]
    indices = rng.integers(-shape[axis], shape[axis], chosen)
    check("GatherElements", {"x": rng.standard_normal(shape).astype(np.float32), "i": indices}, axis=axis)


@pytest.mark.parametrize("seed", SEEDS)
def test_gather_nd_when_depth_and_batch_vary_then_agrees(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = shape_of(rng)
    batch = int(rng.integers(0, len(shape)))
    depth = int(rng.integers(1, len(shape) - batch + 1))
    outer = (*shape[:batch], 3)
    columns = [rng.integers(-shape[batch + j], shape[batch + j], outer) for j in range(depth)]
    x = rng.standard_normal(shape).astype(np.float32)
    check("GatherND", {"x": x}, {"i": np.stack(columns, -1)}, batch_dims=batch)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_hot_when_indices_leave_the_depth_then_row_is_off(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = shape_of(rng)
    indices = rng.integers(-9, 9, shape)
    axis = int(rng.integers(-len(shape) - 1, len(shape) + 1))
    node = helper.make_node("OneHot", ["i", "depth", "values"], ["y"], axis=axis)
    weights = {"depth": np.array(6), "values": np.array([3, 8], np.float32)}
    model = make_model([node], {"i": (indices.dtype.type, shape)}, ["y"], weights)
    assert_agrees(model, {"i": indices})


@pytest.mark.parametrize("seed", SEEDS)
def test_trilu_when_the_diagonal_is_computed_then_agrees(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape_of(rng, 2)).astype(np.float32)
    check("Trilu", {"x": x, "k": np.array(rng.integers(-7, 8))}, upper=seed % 2)


@pytest.mark.parametrize("index", [2, -3, [0, 1, 2]])
def test_gather_when_its_places_are_known_then_a_guard_asks_for_the_axis_to_reach_them(index: int | list[int]) -> None:
    """A traced loop over tokens reads them one by one: the proof found no sizes to run such a model with."""
    node = helper.make_node("Gather", ["x", "i"], ["y"], axis=1)
    model = make_model([node], {"x": (np.float32, (2, "S"))}, ["y"], {"i": np.array(index)})
    x = np.arange(10, dtype=np.float32).reshape(2, 5)
    module = assert_agrees(model, {"x": x}, {"x": np.ascontiguousarray(x[:, :3])})
    assert [guard[:3] for guard in module.guards] == [(symbol("S"), ">=", 3)]
    with pytest.raises(TesseraError, match="Gather reads beyond its data"):
        run(module, "main", {"x": np.ascontiguousarray(x[:, :2])})


@pytest.mark.errors
@pytest.mark.parametrize(("op", "index"), [("GatherElements", [[0, 3]]), ("GatherND", [[0, -4]])])
def test_index_when_out_of_range_then_run_ends_with_that_error(op: str, index: list[list[int]]) -> None:
    inputs = {"x": np.zeros((2, 3), np.float32), "i": np.array(index)}
    node = helper.make_node(op, ["x", "i"], ["y"])
    if op == "GatherElements":
        node.attribute.append(helper.make_attribute("axis", 1))
    model = make_model([node], {n: (a.dtype.type, a.shape) for n, a in inputs.items()}, ["y"])
    with pytest.raises(TesseraError, match="INDEX_OUT_OF_RANGE"):
        run(read_onnx(model), "main", inputs)
