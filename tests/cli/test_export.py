"""`tessera export` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import helper, numpy_helper

import tessera_build
from tessera_build.cli.main import main

pytestmark = pytest.mark.cli


def test_export_when_an_entry_is_named_then_writes_it_and_tells_the_error(tmp_path: Path) -> None:
    out = tmp_path / "classify.onnx"
    result = CliRunner().invoke(
        main, ["export", "examples/mlp/model.py", "--entry", "classify", "-o", str(out), "--json"]
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert told["entry"] == "classify"
    assert 0 < told["error"] < 1e-5
    assert [node.op_type for node in onnx.load(out).graph.node][-1] == "Softmax"


def test_export_when_several_entries_are_offered_then_asks_for_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["export", "examples/mlp/model.py", "-o", str(tmp_path / "m.onnx")])
    assert result.exit_code != 0
    assert "--entry classify | train" in result.output
    assert not (tmp_path / "m.onnx").exists()


def test_export_when_the_output_is_the_model_then_refuses(tmp_path: Path) -> None:
    model = tmp_path / "digits.onnx"
    model.write_bytes(Path("examples/digits/digits.onnx").read_bytes())
    before = model.read_bytes()
    result = CliRunner().invoke(main, ["export", str(model), "-o", str(model)])
    assert result.exit_code == 2
    assert "overwrite" in result.output
    assert model.read_bytes() == before


def test_export_when_given_a_bundle_then_tells_its_weights_back(tmp_path: Path) -> None:
    bundle, out, direct = (tmp_path / name for name in ("m.tessera", "m.onnx", "direct.onnx"))
    tessera_build.build("examples/mlp/model.py", out=bundle, entries=["classify"], verify=False, workers=1)
    result = CliRunner().invoke(main, ["export", str(bundle), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "run by onnxruntime with error" in result.output
    tessera_build.export("examples/mlp/model.py", direct, entry="classify")
    stored = [{i.name: numpy_helper.to_array(i) for i in onnx.load(f).graph.initializer} for f in (out, direct)]
    for name in ("W1", "b1"):
        told, wanted = (np.sort(arrays[name], None) for arrays in stored)
        assert np.array_equal(told, wanted)


def test_export_when_a_bundle_holds_transformed_weights_then_turns_them_back_and_names_them(tmp_path: Path) -> None:
    bundle, out = tmp_path / "m.tessera", tmp_path / "m.onnx"
    model = "examples/digits/digits.onnx"
    tessera_build.build(model, targets=["x86-64-v4"], out=bundle, verify=False, workers=1)
    result = CliRunner().invoke(main, ["export", str(bundle), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "rounded   told back from transforms" in result.output
    assert "conv3.weight" in result.output
    x = np.random.default_rng(1).normal(size=(5, 1, 8, 8)).astype(np.float32)
    sessions = [onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]) for file in (model, out)]
    found = [np.asarray(s.run(None, {s.get_inputs()[0].name: x})[0]) for s in sessions]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-6)


def test_export_when_weights_are_at_the_points_of_a_strided_window_then_turns_them_back(tmp_path: Path) -> None:
    weights = (np.random.default_rng(0).standard_normal((64, 32, 4, 4)) / 22).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1])
    shapes = (("x", [1, 32, 64, 64]), ("y", [1, 64, 32, 32]))
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes)
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(weights, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    bundle, out = tmp_path / "m.tessera", tmp_path / "out.onnx"
    tessera_build.build(tmp_path / "m.onnx", targets=["x86-64-v4"], out=bundle, verify=False, workers=1)
    result = CliRunner().invoke(main, ["export", str(bundle), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "rounded   told back from transforms" in result.output
    (found,) = [numpy_helper.to_array(i) for i in onnx.load(out).graph.initializer if len(i.dims) == 4]
    np.testing.assert_allclose(np.sort(found, None), np.sort(weights, None), rtol=0, atol=1e-6)
