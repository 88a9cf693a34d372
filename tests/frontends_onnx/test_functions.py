"""Operators without a translator: built by the bodies that ONNX defines them with."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from tessera_build.frontends.onnx import UnsupportedError, read_onnx
from tessera_build.frontends.onnx.functions import body_of
from tessera_build.frontends.onnx.table import OPERATORS
from tessera_build.ir.core.types import F32, I64, tensor
from tessera_build.ir.graph.reference import run
from tests.frontends_onnx.oracle import assert_agrees, floats, make_model

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_when_expanded_then_agrees_with_onnxruntime(reduction: str, weighted: bool) -> None:
    assert ("", "SoftmaxCrossEntropyLoss") not in OPERATORS
    operands = ["x", "label", "w"] if weighted else ["x", "label"]
    node = helper.make_node(
        "SoftmaxCrossEntropyLoss", operands, ["y", "log"], reduction=reduction, ignore_index=1, name="loss"
    )
    kinds = {"x": (np.float32, ["n", 4, "w"]), "label": (np.int64, ["n", "w"])}
    weights = {"w": np.array([0.5, 2, 1, 3], np.float32)} if weighted else {}
    case = {"x": floats(3, 4, 5), "label": np.random.default_rng(0).integers(0, 4, (3, 5))}
    module = assert_agrees(make_model([node], kinds, ["y", "log"], weights, 13), case)
    spans = {str(span) for span in module.entries["main"].locations.values()}
    assert spans
    assert all(span.startswith("loss/") for span in spans)


def test_body_when_operands_are_left_out_then_inner_nodes_leave_them_out() -> None:
    node = helper.make_node("NegativeLogLikelihoodLoss", ["x", "label"], ["y"])
    body = body_of(node, "loss", {"": 22}, [tensor(F32, 3, 4), tensor(I64, 3)])
    assert body is not None
    made = {o for inner, _ in body.nodes for o in inner.output}
    assert "y" in made
    assert all(not i or i in made | {"x", "label"} for inner, _ in body.nodes for i in inner.input)
    assert all(o == "y" or o.startswith("y::") for o in made)


def test_body_when_two_nodes_share_a_name_then_their_values_do_not_meet() -> None:
    nodes = [helper.make_node("NegativeLogLikelihoodLoss", ["x", "label"], [o], name="same") for o in ("a", "b")]
    nodes.append(helper.make_node("Add", ["a", "b"], ["y"]))
    kinds = {"x": (np.float32, [2, 3]), "label": (np.int64, [2])}
    case = {"x": floats(2, 3), "label": np.array([2, 0])}
    wanted = -(case["x"][0, 2] + case["x"][1, 0])
    found = run(read_onnx(make_model(nodes, kinds, ["y"])), "main", case)["y"]
    assert float(found) == pytest.approx(float(wanted), abs=1e-5)


@pytest.mark.errors
def test_domain_when_unknown_then_is_named_with_a_way_out() -> None:
    node = helper.make_node("Fancy", ["x"], ["y"], domain="com.example", name="odd")
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(make_model([node], {"x": (np.float32, [2])}, ["y"]))
    text = caught.value.diagnostics()
    assert "com.example::Fancy" in text
    assert "function body" in text


@pytest.mark.errors
def test_domain_when_onnxruntime_wrote_its_layouts_then_hint_names_the_level() -> None:
    node = helper.make_node("ReorderInput", ["x"], ["y"], domain="com.microsoft.nchwc")
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(make_model([node], {"x": (np.float32, [2])}, ["y"]))
    assert "extended" in caught.value.diagnostics()
