"""Models with loops, choices and recurrent layers as bundles: built with their proof, inspected, loaded, run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tessera_build
from tessera_build.driver.inspect import show_level
from tessera_runtime import load
from tests.frontends_onnx.control_models import CASES
from tests.frontends_onnx.oracle import expected
from tests.frontends_onnx.recurrent_models import RecurrentCase, draw

pytestmark = pytest.mark.numerics


@pytest.mark.parametrize("name", CASES)
def test_control_flow_when_built_and_run_then_agrees_with_onnxruntime(name: str, tmp_path: Path) -> None:
    case, path = CASES[name], tmp_path / "model.tessera"
    model = case.model()
    result = tessera_build.build(model, ["native"], path, cache=False)
    assert result.verification[0].max_error < 1e-4
    with load(path, threads=2) as loaded:
        for inputs in case.inputs:
            found = loaded.run(dict(inputs))
            for output, reference in zip(model.graph.output, expected(model, inputs), strict=True):
                array = np.asarray(found[output.name])
                assert array.shape == reference.shape
                np.testing.assert_allclose(array.astype(np.float64), reference.astype(np.float64), 1e-4, 1e-5)


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_recurrent_layer_when_built_and_run_then_agrees_with_onnxruntime(op: str, seed: int, tmp_path: Path) -> None:
    case: RecurrentCase = draw(op, "bidirectional", seed)
    path = tmp_path / "layer.tessera"
    tessera_build.build(case.model, ["native"], path, verify=False, cache=False)
    with load(path, threads=1) as loaded:
        found = loaded.run(case.inputs)
    for output, reference in zip(case.model.graph.output, expected(case.model, case.inputs), strict=True):
        array = np.asarray(found[output.name])
        np.testing.assert_allclose(array.astype(np.float64), reference.astype(np.float64), 1e-4, 1e-5)


def test_proof_when_a_model_has_loops_then_says_how_many_launches_only_whole_runs_prove(tmp_path: Path) -> None:
    path = tmp_path / "model.tessera"
    proof = tessera_build.build(CASES["loops_nested"].model(), ["native"], path, cache=False).verification[0]
    assert 0 < proof.in_regions <= proof.launches
    assert all(case.outputs for case in proof.cases)


def test_inspect_when_a_model_has_loops_then_prints_every_level(tmp_path: Path) -> None:
    path = tmp_path / "model.tessera"
    tessera_build.build(CASES["loop_while"].model(), ["native"], path, verify=False, cache=False)
    assert '"tgraph.loop"' in show_level(path, "graph")
    for level in ("schedule", "tile", "target", "asm"):
        assert show_level(path, level)
