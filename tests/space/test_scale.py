"""Errors of rewritten sums where one weight is of another order than the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import tessera_build
from tessera_build.space.scale import with_peak, without_peaks
from tessera_build.space.strassen_error import halving_error
from tessera_build.space.toom_cook import Transform
from tessera_build.space.winograd_error import transform_error


def _weights(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return (np.random.default_rng(2).standard_normal(shape) * 0.05).astype(np.float32)


@pytest.mark.unit
def test_weights_when_of_one_order_then_are_looked_at_as_they_are() -> None:
    weights = _weights(3, 3, 16, 32)
    assert without_peaks(weights) is weights
    np.testing.assert_array_equal(with_peak(weights, 8), weights[..., ::4])


@pytest.mark.unit
def test_error_when_one_weight_is_of_another_order_then_is_of_that_order() -> None:
    taps, matrix, transform = _weights(3, 3, 16, 32), _weights(256, 256), Transform.of(4, (3, 3))
    before = transform_error(taps, transform), halving_error(matrix, (0, 1), 256)
    taps[1, 1, 3, 5], matrix[7, 9] = -4e5, -4e5
    after = transform_error(taps, transform), halving_error(matrix, (0, 1), 256)
    assert all(error < 2e-5 for error in before)
    assert all(error > 1e-3 for error in after)


@pytest.mark.numerics
def test_build_when_one_weight_is_of_another_order_then_its_proof_holds(tmp_path: Path) -> None:
    weights = _weights(32, 32, 3, 3)
    weights[5, 3, 1, 1] = -4e5
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 32, 16, 16])] for name in ("x", "y"))
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result = tessera_build.build(model, ["x86-64-v3"], tmp_path / "m", workers=1, cache=None)
    assert len(result.verification) == 1
