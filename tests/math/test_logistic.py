"""The rational Sigmoid: near the exact one, the reference's bits in compiled code, and those of onnxruntime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tessera_build.ir.core.logistic import logistic
from tessera_build.ir.core.math.expand import expand
from tessera_build.ir.core.math.numpy_emitter import NumpyEmitter
from tessera_build.onnx_backend import TesseraBackend

pytestmark = pytest.mark.numerics
_SPECIAL = [np.inf, -np.inf, np.nan, 0.0, -0.0, 18.0, -18.0, 1e-45, 3e38, -3e38]
POINTS = np.concatenate([np.linspace(-20, 20, 100_001), _SPECIAL]).astype(np.float32)


def test_logistic_when_swept_then_its_error_is_that_of_the_last_places_of_one_half() -> None:
    with np.errstate(over="ignore"):
        exact = 1 / (1 + np.exp(-POINTS.astype(np.float64)))
    assert np.nanmax(np.abs(logistic(POINTS).astype(np.float64) - exact)) <= 1.7e-7
    assert np.isnan(logistic(POINTS)).tolist() == np.isnan(POINTS).tolist()


def test_expansion_when_swept_then_has_the_references_bits() -> None:
    emitter = NumpyEmitter()
    found = emitter.values[expand("logistic", emitter, emitter.add(POINTS[~np.isnan(POINTS)]))]
    np.testing.assert_array_equal(found, logistic(POINTS[~np.isnan(POINTS)]))


def test_sigmoid_when_compiled_then_gives_onnxruntimes_small_probabilities() -> None:
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Sigmoid", ["x"], ["y"])], "g", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (wanted,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": POINTS})
    (found,) = TesseraBackend.run_model(model, [POINTS])
    # A machine without fused multiply-add rounds twice in onnxruntime's kernel; ours does not.
    assert np.nanmax(np.abs(found - wanted)) <= 1.2e-7
    np.testing.assert_array_equal(found, logistic(POINTS))
