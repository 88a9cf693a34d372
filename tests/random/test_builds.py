"""Whole builds of models that draw: what is proved, what is said, and what `verify` and `doctor` make of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tessera_build
import tessera_runtime
from tessera_build.driver.doctor import diagnose
from tessera_build.driver.verify_bundle import verify_bundle
from tessera_build.ir.core.types import F32, U64, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.draws import drawn_outputs, repeated_draws

pytestmark = pytest.mark.numerics


def _noisy(batch: str | int = "batch") -> onnx.ModelProto:
    """One output with noise, one without, and one that only counts what was drawn."""
    nodes = [
        helper.make_node("Relu", ["x"], ["plain"]),
        helper.make_node("RandomNormalLike", ["x"], ["noise"], name="disturb", scale=0.1),
        helper.make_node("Add", ["plain", "noise"], ["noisy"]),
        helper.make_node("Bernoulli", ["x"], ["coins"], name="toss", seed=5.0),
        helper.make_node("NonZero", ["coins"], ["places"]),
        helper.make_node("Shape", ["places"], ["found"]),
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in ("plain", "noisy", "found")]
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 20])
    graph = helper.make_graph(nodes, "noisy", [info], outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _only(op: str) -> onnx.ModelProto:
    nodes = [helper.make_node(op, ["x"], ["y"], name="draw")]
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 20])
    graph = helper.make_graph(nodes, "only", [info], [onnx.ValueInfoProto(name="y")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


def test_build_when_a_model_draws_then_it_is_proved_and_the_repetition_is_said(tmp_path: Path) -> None:
    path, model = tmp_path / "m.tessera", _noisy()
    result = tessera_build.build(model, targets=["native"], out=path, workers=1)
    (proof,) = result.verification
    assert "onnxruntime" in proof.references
    compared = {output.name: set(output.errors) for output in proof.cases[0].outputs}
    assert compared == {"plain": {"graph", "onnxruntime"}, "noisy": {"graph"}, "found": {"graph"}}
    (warning,) = result.warnings
    assert "disturb, toss draw the same random numbers in every run" in warning
    checked = verify_bundle(path, model).variants[0]
    assert checked.method == "compared"
    assert "noisy" in checked.note
    assert verify_bundle(path).variants[0].method == "replayed"


def test_build_when_every_output_is_drawn_then_only_the_graph_judges(tmp_path: Path) -> None:
    path, model = tmp_path / "m.tessera", _only("RandomUniformLike")  # onnxruntime has none of opset 22
    result = tessera_build.build(model, targets=["native"], out=path, workers=1)
    assert set(result.verification[0].cases[0].outputs[0].errors) == {"graph"}
    assert "draw draws the same" in result.warnings[0]


def test_build_when_repeated_then_bytes_and_draws_are_the_same(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((6, 20), np.float32)
    found: list[dict[str, np.ndarray]] = []
    digests: set[str] = set()
    for number in (1, 2):
        path = tmp_path / f"{number}.tessera"
        result = tessera_build.build(_noisy(), targets=["native"], out=path, workers=1, verify=False)
        assert [warning for warning in result.warnings if "not verified" in warning]
        digests.add(str(result.digest))
        with tessera_runtime.load(path, threads=number) as loaded:
            found += [{name: np.array(array) for name, array in loaded.run({"x": x}).items()} for _ in range(2)]
    assert len(digests) == 1
    assert len({tuple(array.tobytes() for array in run.values()) for run in found}) == 1


def test_doctor_when_a_model_draws_then_it_warns_and_nothing_stands_in_the_way() -> None:
    diagnosis = diagnose(_noisy())
    assert diagnosis.builds
    assert "disturb" in diagnosis.warnings[0]
    assert diagnose(_only("Relu")).warnings == ()


def test_repeated_when_the_key_is_an_input_then_nothing_repeats() -> None:
    builder = GraphBuilder()
    key, one = builder.input("key", tensor(U64)), builder.constant(np.ones((), np.uint64))
    given = builder.op("random", builder.op("add", key, one), kind="uniform", shape=(3,), dtype=F32)
    builder.output("given", given)
    builder.output("plain", builder.op("cast", key, dtype=F32))
    module = builder.finish()
    assert repeated_draws(module) == ()
    assert drawn_outputs(module, "main") == {"given"}
    builder.output("fixed", builder.op("random", one, kind="uniform", shape=(3,), dtype=F32))
    assert repeated_draws(builder.finish()) == ("random",)
