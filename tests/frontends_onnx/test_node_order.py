"""Nodes in an order that ONNX does not allow and onnxruntime takes: its converter to half floats writes such files."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from tessera_build.frontends.onnx import ModelError, read_onnx
from tessera_build.ir.graph.builder import graph_nodes
from tests.frontends_onnx.oracle import assert_agrees, floats, make_model

SHAPE = {"x": (np.float32, (2, "N"))}


@pytest.mark.numerics
def test_nodes_when_they_stand_before_what_they_read_then_are_put_behind_it() -> None:
    nodes = [
        helper.make_node("Add", ["c", "a"], ["y"]),
        helper.make_node("Neg", ["b"], ["c"]),
        helper.make_node("Abs", ["a"], ["b"]),
        helper.make_node("Exp", ["x"], ["a"]),
    ]
    module = assert_agrees(make_model(nodes, SHAPE, ["y"]), {"x": floats(2, 3)})
    assert [node.op for node in graph_nodes(module.entries["main"])] == ["exp", "abs", "neg", "add"]


@pytest.mark.numerics
def test_nodes_when_only_a_subgraph_reads_what_comes_later_then_its_node_is_put_behind_it() -> None:
    branches = {
        name: helper.make_graph(
            [helper.make_node(op, ["a"], ["r"])],
            name,
            [],
            [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
        )
        for name, op in (("then_branch", "Neg"), ("else_branch", "Abs"))
    }
    choice = helper.make_node("If", ["positive"], ["y"])
    choice.attribute.extend(helper.make_attribute(name, graph) for name, graph in branches.items())
    nodes = [
        choice,
        helper.make_node("Greater", ["total", "zero"], ["positive"]),
        helper.make_node("ReduceSum", ["a"], ["total"], keepdims=0),
        helper.make_node("Sinh", ["x"], ["a"]),
    ]
    model = make_model(nodes, SHAPE, ["y"], {"zero": np.float32(0)})
    assert_agrees(model, {"x": np.ones((2, 3), np.float32)}, {"x": np.full((2, 1), -2, np.float32)})


@pytest.mark.errors
def test_nodes_when_they_read_each_other_then_are_refused() -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Neg", ["a"], ["b"])]
    with pytest.raises(ModelError) as caught:
        read_onnx(make_model(nodes, SHAPE, ["a"]))
    assert "no node before" in caught.value.problems[0].message
