"""Tessera behind onnx's own interface, and the onnx package's whole suite through it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bundle_format.errors import TesseraError
from tessera_build.onnx_backend import TesseraBackend
from tests.onnx_backend.suite import collect, run

# Tests that are refused, with a clear error; the file may only shrink.
REFUSED = Path(__file__).with_name("refused.txt")
# Tests whose expected values are rounding noise around zero: Tessera's are nearer to the exact ones.
NOISE = frozenset(("test_dft_inverse_cpu", "test_dft_inverse_opset19_cpu"))


def _model(nodes: Sequence[onnx.NodeProto], shape: Sequence[int | str]) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name in ("x", "w")]
    weight = onnx.numpy_helper.from_array(np.full((3,), 2, np.float32), "w")
    # Old models list weights as inputs too, and the data need not come first.
    graph = helper.make_graph(list(nodes), "g", infos[::-1], [onnx.ValueInfoProto(name="y")], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=3)


@pytest.mark.numerics
def test_run_when_weights_are_listed_as_inputs_then_binds_the_data_by_name() -> None:
    model = _model([helper.make_node("Mul", ["x", "w"], ["y"])], ["n", 3])
    prepared = TesseraBackend.prepare(model)
    for rows in (1, 4):
        x = np.random.default_rng(rows).random((rows, 3), np.float32)
        (y,) = prepared.run([x])
        np.testing.assert_array_equal(y, x * 2)


@pytest.mark.numerics
def test_run_when_an_operand_says_how_to_compute_then_its_value_is_part_of_the_build() -> None:
    node = helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)
    infos = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3]),
        helper.make_tensor_value_info("axes", TensorProto.INT64, [1]),
    ]
    graph = helper.make_graph([node], "g", infos, [onnx.ValueInfoProto(name="y")])
    prepared = TesseraBackend.prepare(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for axis in (0, 1, 0):
        (y,) = prepared.run([x, np.array([axis])])
        np.testing.assert_array_equal(y, x.sum(axis))  # type: ignore[arg-type]


@pytest.mark.numerics
def test_node_when_it_is_run_alone_then_gives_its_results() -> None:
    node = helper.make_node("Split", ["x"], ["a", "b"], axis=0, num_outputs=2)
    found = TesseraBackend.run_node(node, [np.arange(6, dtype=np.float32)])
    np.testing.assert_array_equal(np.stack(found), [[0, 1, 2], [3, 4, 5]])  # type: ignore[arg-type]


@pytest.mark.errors
def test_inputs_when_they_are_strings_then_are_refused() -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    with pytest.raises(TesseraError, match="strings"):
        TesseraBackend.run_node(node, [np.array(["a"], dtype=object)])


@pytest.mark.errors
def test_device_when_it_is_no_cpu_then_is_not_supported() -> None:
    model = _model([helper.make_node("Mul", ["x", "w"], ["y"])], [2, 3])
    assert not TesseraBackend.supports_device("CUDA")
    with pytest.raises(TesseraError, match="no device"):
        TesseraBackend.prepare(model, "CUDA:0")


@pytest.mark.errors
def test_call_when_it_has_too_many_inputs_then_names_what_it_takes() -> None:
    model = _model([helper.make_node("Mul", ["x", "w"], ["y"])], [2, 3])
    with pytest.raises(TesseraError, match="too many inputs") as caught:
        TesseraBackend.prepare(model).run([np.zeros((2, 3), np.float32)] * 3)
    assert "w, x" in (caught.value.expected or "")


@pytest.mark.slow
def test_suite_when_run_then_every_test_is_right_or_known_to_be_refused() -> None:
    verdicts = run(sorted(collect()))
    wrong = [v for v in verdicts if v.outcome in ("wrong", "crash") and v.name not in NOISE]
    assert not wrong, "\n".join(f"{v.outcome} {v.name}: {v.reason[:300]}" for v in wrong)
    known = set(REFUSED.read_text(encoding="utf-8").split())
    refused = {v.name for v in verdicts if v.outcome == "refused"}
    assert refused <= known, f"refused, and were not: {sorted(refused - known)}"
    assert known <= refused, f"no longer refused, so that the file must shrink: {sorted(known - refused)}"
