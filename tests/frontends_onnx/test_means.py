"""Means are sums divided by their counts: of equal numbers they are that number, in every type."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.frontends_onnx.built import assert_built_agrees, run_built

LOG_2 = float(np.log(2.0))


@pytest.mark.numerics
@pytest.mark.parametrize("number", [3, 17, 40, 257])
def test_normalisation_when_its_row_is_of_equal_numbers_then_is_its_bias(number: int) -> None:
    """A mean that is one rounding off would be magnified by 1 / sqrt(epsilon), which is 316."""
    bias = np.linspace(-1, 1, number).astype(np.float32)
    scale = np.full(number, 3, np.float32)
    node = helper.make_node("LayerNormalization", ["x", "s", "b"], ["y"])
    x = helper.make_tensor_value_info("x", 1, [2, number])
    y = helper.make_tensor_value_info("y", 1, [2, number])
    weights = [numpy_helper.from_array(scale, "s"), numpy_helper.from_array(bias, "b")]
    model = helper.make_model(
        helper.make_graph([node], "g", [x], [y], weights), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    rows = np.stack([np.full(number, value, np.float32) for value in (LOG_2, 1e3 * LOG_2)])
    ((found,),) = run_built(model, [{"x": rows}])
    np.testing.assert_array_equal(found[0], bias)


@pytest.mark.numerics
@pytest.mark.parametrize("batch", [3, "batch"])
def test_mean_when_half_floats_hold_neither_sum_nor_count_then_is_right(batch: int | str) -> None:
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)
    x = helper.make_tensor_value_info("x", 10, [batch, 70000])
    y = helper.make_tensor_value_info("y", 10, [batch])
    model = helper.make_model(
        helper.make_graph([node], "g", [x], [y]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    rows = np.stack([np.full(70000, value, np.float16) for value in (0.5, 3, -1000)])
    ((found,),) = run_built(model, [{"x": rows}])
    np.testing.assert_array_equal(found, rows[:, 0])


@pytest.mark.numerics
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_mean_when_data_leave_nothing_then_is_0_as_in_onnxruntime(dtype: type[np.generic]) -> None:
    """A bag without members, as torch exports embedding bags: their mean was 0 / 0."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("Slice", ["x", "start", "stop"], ["bag"]),
        helper.make_node("ReduceMean", ["bag"], ["y"], axes=[0], keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info("x", kind, ["n", 3])]
    inputs += [helper.make_tensor_value_info(name, 7, [1]) for name in ("start", "stop")]
    y = helper.make_tensor_value_info("y", kind, [3])
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, [y]), opset_imports=opset, ir_version=8)
    x = np.arange(12).reshape(4, 3).astype(dtype)
    assert_built_agrees(
        model, *({"x": x, "start": np.array([a]), "stop": np.array([b])} for a, b in ((1, 3), (2, 2), (3, 1)))
    )
