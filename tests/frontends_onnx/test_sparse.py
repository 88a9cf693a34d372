"""Sparse weights are read as what they mean, and refused where they mean nothing or too much."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tessera_build.frontends.onnx import ModelError, UnsupportedError, read_onnx
from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.built import assert_built_agrees
from tests.frontends_onnx.oracle import floats, integers, make_model

pytestmark = pytest.mark.numerics


def _sparse(values: Array, indices: Array, dims: Sequence[int], name: str = "w") -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(
        numpy_helper.from_array(values, name), numpy_helper.from_array(indices, f"{name}_at"), list(dims)
    )


def _product(weight: onnx.SparseTensorProto, opset: int = 17) -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = make_model([node], {"x": (np.float32, ("N", 4))}, ["y"], None, opset)
    model.graph.sparse_initializer.append(weight)
    return model


FLAT = integers(1, 7, 11)
PAIRS = np.stack([FLAT // 5, FLAT % 5], axis=1)


@pytest.mark.parametrize("indices", [FLAT, PAIRS], ids=["flat", "pairs"])
def test_weight_when_sparse_then_agrees(indices: Array) -> None:
    assert_built_agrees(_product(_sparse(floats(3), indices, (4, 5))), {"x": floats(3, 4)})


def test_constant_when_sparse_then_agrees() -> None:
    constant = helper.make_node("Constant", [], ["w"], sparse_value=_sparse(floats(3), FLAT, (4, 5)))
    nodes = [constant, helper.make_node("MatMul", ["x", "w"], ["y"])]
    assert_built_agrees(make_model(nodes, {"x": (np.float32, ("N", 4))}, ["y"]), {"x": floats(3, 4)})


def test_weight_when_nothing_is_stated_then_is_zero() -> None:
    assert_built_agrees(_product(_sparse(floats(0), integers(), (4, 5))), {"x": floats(3, 4)})


@pytest.mark.parametrize(
    ("indices", "dims"),
    [(integers(1, 2, 20), (4, 5)), (integers(-1, 2, 3), (4, 5)), (PAIRS + 3, (4, 5)), (integers(1, 2), (4, 5))],
    ids=["beyond", "negative", "pairs", "fewer"],
)
def test_weight_when_its_indices_do_not_fit_then_is_refused(indices: Array, dims: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="sparse tensor 'w'"):
        read_onnx(_product(_sparse(floats(3), indices, dims)))


def test_weight_when_a_few_bytes_ask_for_all_memory_then_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="more elements"):
        read_onnx(_product(_sparse(floats(3), FLAT, (4, 10**15))))
