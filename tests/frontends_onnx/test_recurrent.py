"""LSTM, GRU and RNN: drawn with every option, run by the reference interpreter, compared with onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from tessera_build.frontends.onnx import UnsupportedError, read_onnx
from tessera_build.ir.graph.nodes import Array, GraphNode
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.reference import run
from tessera_build.ir.graph.spec import verify_module
from tests.frontends_onnx.oracle import expected, floats, make_model
from tests.frontends_onnx.recurrent_models import draw

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_recurrent_layer_when_drawn_then_agrees_with_onnxruntime(op: str, direction: str, seed: int) -> None:
    case = draw(op, direction, seed)
    module = read_onnx(case.model)
    verify_module(module)
    found = run(module, "main", case.inputs)
    for (name, array), reference in zip(found.items(), expected(case.model, case.inputs), strict=True):
        assert array.shape == reference.shape, name
        np.testing.assert_allclose(array.astype(np.float64), reference.astype(np.float64), 1e-4, 1e-5, err_msg=name)


def lstm(steps: int | str) -> onnx.ModelProto:
    weights = {"w": floats(1, 12, 4), "r": floats(1, 12, 3), "b": floats(1, 24)}
    node = helper.make_node("LSTM", ["x", *weights], ["y", "h", "c"], hidden_size=3)
    return make_model([node], {"x": (np.float32, (steps, 2, 4))}, ["y", "h", "c"], weights)


def test_batch_first_when_imported_then_is_the_other_order_transposed() -> None:
    """onnxruntime does not build it, so the two orders are compared with each other."""
    weights = {"w": floats(2, 9, 4), "r": floats(2, 9, 3)}
    x = floats(5, 2, 4)
    results: list[dict[str, Array]] = []
    for layout in (0, 1):
        given = x.transpose(1, 0, 2) if layout else x
        node = helper.make_node("GRU", ["x", "w", "r"], ["y", "h"], hidden_size=3, direction="bidirectional")
        node.attribute.append(helper.make_attribute("layout", layout))
        model = make_model([node], {"x": (np.float32, given.shape)}, ["y", "h"], weights)
        results.append(run(read_onnx(model), "main", {"x": given}))
    plain, first = results
    np.testing.assert_array_equal(first["y"], plain["y"].transpose(2, 0, 1, 3))
    np.testing.assert_array_equal(first["h"], plain["h"].transpose(1, 0, 2))


def test_lstm_when_lowered_then_its_loop_holds_only_the_recurrent_product() -> None:
    module = run_passes(read_onnx(lstm("S")))
    nodes = [node for node in module.entries["main"].nodes if isinstance(node, GraphNode)]
    (loop,) = (node for node in nodes if node.op == "loop")
    inside = [node.op for node in loop.regions[0].nodes if isinstance(node, GraphNode)]
    assert [node.op for node in nodes].count("matmul") == 1
    assert inside.count("matmul") == 1


def test_lstm_when_it_has_one_step_then_needs_no_loop() -> None:
    module = read_onnx(lstm(1))
    assert "loop" not in {node.op for node in module.entries["main"].walk() if isinstance(node, GraphNode)}


def test_activation_when_its_parameters_are_left_open_then_is_refused() -> None:
    weights = {"w": floats(1, 3, 4), "r": floats(1, 3, 3)}
    node = helper.make_node("RNN", ["x", "w", "r"], ["y"], hidden_size=3, activations=["ScaledTanh"])
    model = make_model([node], {"x": (np.float32, (5, 2, 4))}, ["y"], weights)
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(model)
    assert "ScaledTanh" in caught.value.diagnostics()
