"""`tessera doctor`: all gaps at once, and what a build would cost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.cli.conftest import Tessera

pytestmark = pytest.mark.cli


def _model(path: Path, *nodes: onnx.NodeProto) -> Path:
    """x [batch, 8] through the nodes to y, with a weight w [8, 4]."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((8, 4), np.float32), "w")],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("shop", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    return path


def _with_gaps(path: Path) -> Path:
    return _model(
        path,
        helper.make_node("Relu", ["x"], ["a"], name="odd", strange=1),
        helper.make_node("Cast", ["a"], ["b"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Own", ["b"], ["c"], name="own", domain="shop"),
        helper.make_node("StringSplit", ["x"], ["d", "e"], name="split"),
        helper.make_node("Add", ["b", "b"], ["y0"], name="add"),
        helper.make_node("Concat", ["y0", "c", "d"], ["y"], name="concat", axis=0),
    )


def test_doctor_when_nothing_stands_in_the_way_then_says_so_with_costs(tessera: Tessera, tmp_path: Path) -> None:
    path = _model(tmp_path / "m.onnx", helper.make_node("MatMul", ["x", "w"], ["y"], name="product"))
    done = tessera("doctor", path, "--dims", "batch=32:32", "--target", "x86-64-v3", "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["gaps"]) == (0, [])
    assert found["operators"] == {"MatMul": 1}
    estimate = found["estimate"]
    assert estimate["weight_bytes"] >= 8 * 4 * 4  # in panels, so a little more
    assert estimate["target"] == "x86-64-v3"
    assert estimate["operations"] >= 2 * 32 * 8 * 4
    assert [cost["name"] for cost in estimate["costs"]] == ["product"]


def test_doctor_when_several_nodes_cannot_be_built_then_names_all_at_once(tessera: Tessera, tmp_path: Path) -> None:
    done = tessera("doctor", _with_gaps(tmp_path / "m.onnx"), "--json")
    gaps = json.loads(done.stdout)["gaps"]
    assert done.exit_code == 4
    assert {"odd", "own", "split"} <= {gap["node"] for gap in gaps}
    assert len(gaps) == len({(gap["node"], gap["message"]) for gap in gaps})


def test_doctor_when_there_are_gaps_then_the_text_ends_with_them(tessera: Tessera, tmp_path: Path) -> None:
    done = tessera("doctor", _with_gaps(tmp_path / "m.onnx"))
    assert done.exit_code == 4
    assert "  own: operator shop::Own is not built" in done.stdout
    assert "    help: " in done.stdout
    assert "Traceback" not in done.stderr


def test_doctor_when_the_model_is_broken_then_leaves_with_the_code_of_broken_models(
    tessera: Tessera, tmp_path: Path
) -> None:
    path = _model(tmp_path / "m.onnx", helper.make_node("MatMul", ["x", "nothing"], ["y"], name="product"))
    done = tessera("doctor", path)
    assert (done.exit_code, "nothing" in done.stdout) == (3, True)


def test_doctor_when_a_dim_is_unknown_then_lists_the_dims(tessera: Tessera, tmp_path: Path) -> None:
    path = _model(tmp_path / "m.onnx", helper.make_node("MatMul", ["x", "w"], ["y"], name="product"))
    done = tessera("doctor", path, "--dims", "bacth=4")
    assert (done.exit_code, "did you mean batch" in done.stderr) == (2, True)
