"""Elementary functions of constants are computed by the build, with the bits that a kernel would have given."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.frontends_onnx.built import run_built

FUNCTIONS = ("Sin", "Cos", "Tan", "Exp", "Log", "Tanh", "Erf", "Sigmoid", "Atan", "Sinh", "Asinh", "Pow")
SPECIAL = (0.0, -0.0, 1.0, 1e-30, 3e4, 7e7, np.inf, -np.inf, np.nan)


@pytest.mark.numerics
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_function_when_of_a_constant_then_has_the_bits_of_the_kernel(function: str, dtype: type[np.floating]) -> None:
    code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    with np.errstate(over="ignore"):
        x = np.concatenate([np.random.default_rng(1).normal(0, 9, 120), SPECIAL]).astype(dtype)
    others = [numpy_helper.from_array(np.array(1.75, dtype), "p")] if function == "Pow" else []
    names = [tensor.name for tensor in others]
    nodes = [
        helper.make_node(function, [given, *names], [made]) for given, made in (("x", "kernel"), ("c", "constant"))
    ]
    outputs = [helper.make_tensor_value_info(name, code, [x.size]) for name in ("kernel", "constant")]
    weights = [numpy_helper.from_array(x, "c"), *others]
    inputs = [helper.make_tensor_value_info("x", code, [x.size])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    ((kernel, constant),) = run_built(model, [{"x": x}])
    wide = f"u{x.itemsize}"
    numbers = ~np.isnan(kernel)
    np.testing.assert_array_equal(np.isnan(constant), ~numbers)
    np.testing.assert_array_equal(constant[numbers].view(wide), kernel[numbers].view(wide))
