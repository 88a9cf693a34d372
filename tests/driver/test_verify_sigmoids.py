"""A proof does not take the last places of onnxruntime's Sigmoid for errors, and excuses nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import tessera_build
from tessera_build.frontends.onnx import read_onnx
from tessera_build.verify.sigmoids import sigmoid_outputs
from tests.frontends_onnx.oracle import make_model

pytestmark = pytest.mark.numerics


def faint_model() -> onnx.ModelProto:
    """Answers near 2e-6, once as they are, once in another shape, once doubled."""
    nodes = [
        helper.make_node("Sub", ["x", "thirteen"], ["low"]),
        helper.make_node("Sigmoid", ["low"], ["plain"]),
        helper.make_node("Reshape", ["plain", "shape"], ["shaped"]),
        helper.make_node("Add", ["plain", "plain"], ["doubled"]),
    ]
    weights = {"thirteen": np.asarray(13, np.float32), "shape": np.asarray([2, 2], np.int64)}
    return make_model(nodes, {"x": (np.float32, (4,))}, ["plain", "shaped", "doubled"], weights)


def test_sigmoid_outputs_when_only_places_change_then_are_named() -> None:
    assert sigmoid_outputs(read_onnx(faint_model()), "main") == {"plain", "shaped"}


def test_build_when_a_sigmoid_answers_near_zero_then_is_proved(tmp_path: Path) -> None:
    model = faint_model()
    del model.graph.output[2]
    tessera_build.build(model, targets=["native"], out=tmp_path / "faint.tessera", workers=1)
    assert (tmp_path / "faint.tessera").exists()
