"""Models of ONNX that are differentiated by what their files call their weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from tessera_build.frontends.onnx import read_named, read_onnx
from tessera_build.ir.graph.autodiff.entries import with_grad
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.reference import run
from tests.autodiff.models import widened
from tests.frontends_onnx.oracle import make_model

pytestmark = pytest.mark.unit
NORMALISATION = ("scale", "shift", "mean", "variance")


def _saved(folder: Path) -> tuple[Path, dict[str, NDArray[np.float32]]]:
    """Two convolutions whose biases are equal, a normalisation, and a product."""
    rng = np.random.default_rng(1)
    weights = {
        "w1": rng.normal(size=(4, 2, 3, 3)).astype(np.float32),
        "b1": np.zeros(4, np.float32),
        "w2": rng.normal(size=(4, 4, 1, 1)).astype(np.float32),
        "b2": np.zeros(4, np.float32),
        **{name: rng.uniform(0.5, 2, 4).astype(np.float32) for name in NORMALISATION},
        "w3": rng.normal(size=(4, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"]),
        helper.make_node("BatchNormalization", ["c1", *NORMALISATION], ["n1"]),
        helper.make_node("Tanh", ["n1"], ["t1"]),
        helper.make_node("Conv", ["t1", "w2", "b2"], ["c2"]),
        helper.make_node("GlobalAveragePool", ["c2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w3"], ["m"]),
        helper.make_node("Tanh", ["m"], ["y"]),
    ]
    path = folder / "model.onnx"
    onnx.save(make_model(nodes, {"x": (np.float32, ("batch", 2, 6, 6))}, ["y"], weights), path)
    return path, weights


@pytest.mark.numerics
def test_weights_when_read_by_name_then_each_has_a_gradient_of_its_own(tmp_path: Path) -> None:
    path, weights = _saved(tmp_path)
    module = widened(read_named(path))
    derived = with_grad(module, "main", list(weights))
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 2, 6, 6))
    cotangent = rng.normal(size=(2, 3))
    found = run(derived, "main_grad", {"x": x, "y_cotangent": cotangent})
    digests = {name: digest for digest, name in module.constant_names.items()}
    for name, array in weights.items():
        direction = rng.normal(size=array.shape)
        ends: list[float] = []
        for sign in (1, -1):
            moved = dict(module.constants)
            moved[digests[name]] = np.asarray(np.add(moved[digests[name]], sign * 1e-6 * direction))
            there = run(replace(module, constants=moved), "main", {"x": x})["y"]
            ends.append(float(np.sum(np.multiply(there, cotangent))))
        slope = float(np.sum(np.multiply(found[f"{name}_gradient"], direction)))
        assert abs((ends[0] - ends[1]) / 2e-6 - slope) <= 1e-6 * max(1.0, abs(slope)), name


def test_model_when_read_by_name_then_is_the_same_after_the_passes(tmp_path: Path) -> None:
    path, _ = _saved(tmp_path)
    named, plain = (run_passes(read(path)) for read in (read_named, read_onnx))
    assert len(named.entries["main"].nodes) == len(plain.entries["main"].nodes)
    x = np.random.default_rng(3).normal(size=(2, 2, 6, 6)).astype(np.float32)
    found, wanted = (run(module, "main", {"x": x})["y"] for module in (named, plain))
    assert np.array_equal(found, wanted)
