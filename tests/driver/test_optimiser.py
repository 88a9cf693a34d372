"""Quantised models whose steps onnxruntime's optimiser turns: proved against what the file says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import tessera_build
from tessera_build.driver.verify_bundle import verify_bundle
from tessera_build.frontends.onnx import read_onnx
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.nodes import Array
from tessera_build.verify.compare import error_of
from tessera_build.verify.errors import VerificationError
from tessera_build.verify.inputs import make_inputs
from tessera_build.verify.onnx_reference import OnnxReference
from tests.driver.models import model_of

pytestmark = pytest.mark.numerics


def stepped() -> onnx.ModelProto:
    """A product whose sums are exact and lie half way between two steps: divided by a step they round in other places
    than multiplied by its inverse, which the optimiser does.
    """
    rng = np.random.default_rng(7)
    weights = {
        "w": rng.integers(-3, 4, (16, 16)).astype(np.int8),
        "half": np.asarray(np.float32(0.5)),
        "quarter": np.asarray(np.float32(0.25)),
        "step": np.asarray(np.float32(0.06)),
        "thirty": np.asarray(np.float32(30)),
        "u": np.asarray(np.uint8(128)),
        "s": np.asarray(np.int8(0)),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "half", "u"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "half", "u"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "quarter", "s"], ["wd"]),
        helper.make_node("MatMul", ["xd", "wd"], ["p"]),
        helper.make_node("QuantizeLinear", ["p", "step", "u"], ["pq"]),
        helper.make_node("DequantizeLinear", ["pq", "step", "u"], ["pd"]),
        helper.make_node("Mul", ["pd", "thirty"], ["far"]),
        helper.make_node("Sin", ["far"], ["y"]),
    ]
    return model_of(nodes, weights, ["n", 16], ["n", 16])


def answers(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """What the Graph reference gives."""
    return reference.run(read_onnx(stepped()), "main", inputs)


def test_onnxruntime_when_its_optimiser_turns_steps_then_the_nearer_run_counts() -> None:
    inputs = make_inputs(read_onnx(stepped()), "main", {"n": 33}, 1)
    session = OnnxReference(stepped().SerializeToString())
    graph = answers(inputs)
    assert error_of(graph["y"], session.run(inputs)["y"]) > 0.1
    found, apart = session.near(inputs, graph)
    assert error_of(graph["y"], found["y"]) < 1e-6
    assert apart["y"] > 0.1


def test_build_when_onnxruntime_s_optimiser_turns_steps_then_is_proved(tmp_path: Path, kernel_cache: Path) -> None:
    onnx.save(stepped(), tmp_path / "m.onnx")
    result = tessera_build.build(tmp_path / "m.onnx", ["native"], tmp_path / "m", cache=kernel_cache)
    (proof,) = result.verification
    assert proof.max_error < 1e-4
    (check,) = verify_bundle(tmp_path / "m", tmp_path / "m.onnx").variants
    assert check.method == "compared"


def test_build_when_neither_run_of_onnxruntime_agrees_then_says_that_they_do_not(
    tmp_path: Path, kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = OnnxReference.run
    monkeypatch.setattr(OnnxReference, "run", lambda self, inputs: {"y": np.negative(sound(self, inputs)["y"])})
    with pytest.raises(VerificationError) as caught:
        tessera_build.build(stepped(), ["native"], tmp_path / "m", cache=kernel_cache)
    assert caught.value.code == "REFERENCES_DISAGREE"
    assert "differs from itself" in caught.value.message
    assert "between its own two runs" in (caught.value.found or "")
