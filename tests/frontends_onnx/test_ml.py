"""The operators of ai.onnx.ml agree with onnxruntime, imported and compiled; what holds strings is refused."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import cast

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tessera_build.frontends.onnx import UnsupportedError, read_onnx
from tessera_build.ir.graph.text import parse_module, print_module
from tests.frontends_onnx.built import assert_built_agrees, run_built
from tests.frontends_onnx.ml_cases import FLOAT, INT64, ML, Drawn, model_of
from tests.frontends_onnx.oracle import assert_agrees

pytestmark = pytest.mark.numerics


@pytest.mark.parametrize("op", ML)
@pytest.mark.parametrize("seed", range(12))
def test_operator_when_redrawn_then_agrees(op: str, seed: int) -> None:
    model, case = ML[op](random.Random(seed))
    assert_agrees(model, case, tolerance=2e-5)


@pytest.mark.parametrize("op", ML)
@pytest.mark.parametrize("seed", range(100, 104))
def test_operator_when_built_then_agrees(op: str, seed: int) -> None:
    model, case = ML[op](random.Random(seed))
    assert_built_agrees(model, case, tolerance=2e-5)


def stump(**more: object) -> Drawn:
    """One tree of three classes: x0 <= 0 decides."""
    nodes: Mapping[str, object] = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_values": [0.0, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "class_treeids": [0] * 6,
        "class_nodeids": [1, 1, 1, 2, 2, 2],
        "class_ids": [0, 1, 2] * 2,
        "class_weights": [0.1, 0.2, 0.7, 0.5, 0.3, 0.2],
    }
    x = np.array([[-1.0], [0.0], [2.0]], np.float32)
    return model_of("TreeEnsembleClassifier", {"x": x}, [INT64, FLOAT], **nodes, **more)


def test_scores_when_zipped_then_come_as_rows_in_ascending_order_of_the_labels() -> None:
    labels = [4, 7, 5]
    model, case = stump(classlabels_int64s=labels)
    node = helper.make_node("ZipMap", ["y1"], ["z"], domain="ai.onnx.ml", classlabels_int64s=labels)
    model.graph.node.append(node)
    of_labels = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(FLOAT, []))
    model.graph.output[1].CopyFrom(helper.make_value_info("z", helper.make_sequence_type_proto(of_labels)))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (rows,) = cast(list[list[dict[int, float]]], session.run(["z"], dict(case)))
    found = run_built(model, [case])[0][1].astype(np.float64)
    module = read_onnx(model)
    assert [(r.kind, r.labels) for r in module.results["main"]] == [("tensor", ()), ("integer_maps", ("4", "5", "7"))]
    text = print_module(module)
    assert print_module(parse_module(text, module.constants)) == text
    np.testing.assert_allclose(found, [[row[label] for label in sorted(labels)] for row in rows], rtol=1e-6)


def members_model() -> onnx.ModelProto:
    """A v5 ensemble: is x0 one of {1, 5, 9}? then 10, else x0 < 3 ? 20 : 30."""
    node = helper.make_node(
        "TreeEnsemble",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function=1,
        post_transform=0,
        tree_roots=[0],
        nodes_modes=helper.make_tensor("modes", TensorProto.UINT8, [2], [6, 1]),
        nodes_featureids=[0, 0],
        nodes_splits=helper.make_tensor("splits", FLOAT, [2], [0.0, 3.0]),
        nodes_truenodeids=[0, 1],
        nodes_trueleafs=[1, 1],
        nodes_falsenodeids=[1, 2],
        nodes_falseleafs=[0, 1],
        leaf_targetids=[0, 0, 0],
        leaf_weights=helper.make_tensor("weights", FLOAT, [3], [10.0, 20.0, 30.0]),
        membership_values=helper.make_tensor("members", FLOAT, [3], [1.0, 5.0, 9.0]),
    )
    x, y = helper.make_tensor_value_info("x", FLOAT, ["N", 1]), helper.make_tensor_value_info("y", FLOAT, ["N", 1])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 5)]
    return helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=imports)


def test_tree_when_it_asks_for_members_of_a_set_then_finds_each() -> None:
    x = np.array([[1], [5], [9], [2], [3], [7], [np.nan]], np.float32)
    ((found,),) = run_built(members_model(), [{"x": x}])
    assert found[:, 0].tolist() == [10, 10, 10, 20, 30, 30, 30]


@pytest.mark.errors
def test_labels_when_they_are_strings_and_something_reads_them_then_are_refused() -> None:
    model, _ = stump(classlabels_strings=["a", "b", "c"])
    model.graph.node.append(helper.make_node("Reshape", ["y0", "y0"], ["z"]))
    model.graph.output[0].name = "z"
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(model)
    assert "strings, of which there are 3" in caught.value.diagnostics()


@pytest.mark.errors
def test_classifier_when_some_leaves_are_silent_about_a_class_then_is_refused() -> None:
    weights = {"class_treeids": [0, 0], "class_nodeids": [1, 2], "class_ids": [0, 1], "class_weights": [0.1, 0.2]}
    model, _ = stump(classlabels_int64s=[0, 1])
    node = model.graph.node[0]
    kept = [a for a in node.attribute if a.name not in weights]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in weights.items())])
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(model)
    assert "some leaves" in caught.value.diagnostics()


@pytest.mark.errors
def test_tree_when_its_nodes_form_a_circle_then_is_refused() -> None:
    model, _ = stump(classlabels_int64s=[0, 1, 2])
    for attribute in model.graph.node[0].attribute:
        if attribute.name == "nodes_truenodeids":
            attribute.ints[0] = 0
    with pytest.raises(Exception, match="problem"):
        read_onnx(model)
