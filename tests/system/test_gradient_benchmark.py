"""The comparison of gradients with PyTorch: a small graph, run operator by operator, and its gradient entry."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.frontends_onnx.oracle import make_model

ROOT = Path(__file__).parents[2]


def _model() -> onnx.ModelProto:
    """Uneven padding, strides, windows, shapes as data: what depends on no input is a constant to both."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((6, 2, 3, 3)).astype(np.float32) / 4,
        "b": rng.standard_normal(6).astype(np.float32),
        "rows": np.array([0], np.int64),
        "rest": np.array([-1], np.int64),
        "last": rng.standard_normal((54, 5)).astype(np.float32) / 7,
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], strides=[2, 2], pads=[0, 0, 1, 1]),
        helper.make_node("Sigmoid", ["c"], ["s"]),
        helper.make_node("Mul", ["c", "s"], ["a"]),
        helper.make_node("MaxPool", ["a"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Shape", ["p"], ["shape"]),
        helper.make_node("Gather", ["shape", "rows"], ["count"]),
        helper.make_node("Concat", ["count", "rest"], ["flat"], axis=0),
        helper.make_node("Reshape", ["p", "flat"], ["f"]),
        helper.make_node("Gemm", ["f", "last"], ["g"]),
        helper.make_node("Softmax", ["g"], ["y"], axis=-1),
    ]
    return make_model(nodes, {"x": (np.float32, (3, 2, 12, 12))}, ["y"], weights)


@pytest.mark.slow
def test_gradient_benchmark_when_run_on_a_graph_then_both_sides_have_the_same_gradients(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "small.onnx"
    onnx.save(_model(), str(path))
    np.savez(tmp_path / "small.npz", x=np.random.default_rng(1).standard_normal((3, 2, 12, 12)).astype(np.float32))
    words = ["--models", str(path), "--seconds", "0.1", "--verify", "--out", str(tmp_path / "out")]
    subprocess.run([sys.executable, "-m", "benchmarks.gradients", *words], cwd=ROOT, check=True, timeout=300)
    (record,) = json.loads((tmp_path / "out" / "gradients.json").read_text())
    assert record["gradients"] == 3  # by x, w and last: a bias is folded into what follows
    assert record["differences"][1] < 1e-5
    assert record["forward"] < 1e-6
    assert 0 < record["error"] < 1e-4
    assert record["wall"]["low"] <= record["wall"]["median"] <= record["wall"]["high"]
