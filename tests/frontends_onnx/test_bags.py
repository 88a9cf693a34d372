"""Loops that read at a counter of theirs before they ask whether to go on, as torch exports bags of embeddings."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tessera_build.ir.graph.builder import graph_nodes
from tests.frontends_onnx.oracle import assert_agrees


def _constant(name: str, *values: int) -> onnx.NodeProto:
    tensor = helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
    return helper.make_node("Constant", [], [name], value=tensor)


def _scalar(name: str, value: int) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=helper.make_tensor(name, TensorProto.INT64, [], [value]))


def _branch(node: onnx.NodeProto) -> onnx.GraphProto:
    node.output[0] = f"{node.op_type}_row"
    output = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
    return helper.make_graph([node], node.op_type, [], [output])


def _body() -> onnx.GraphProto:
    """An iteration: a bag's rows lie from its start to the next one's."""
    rows = helper.make_graph(
        [
            helper.make_node("Slice", ["x", "start", "end"], ["rows"]),
            helper.make_node("ReduceMax", ["rows", "nought"], ["most"], keepdims=0),
        ],
        "rows",
        [],
        [helper.make_tensor_value_info("most", TensorProto.FLOAT, None)],
    )
    nothing = _branch(helper.make_node("Expand", ["zero", "width"], [""]))
    return helper.make_graph(
        [
            helper.make_node("Reshape", ["bag", "minus"], ["at"]),
            helper.make_node("Add", ["at", "one"], ["next"]),
            helper.make_node("Slice", ["starts", "at", "next"], ["start"]),
            helper.make_node("Add", ["next", "one"], ["behind"]),
            helper.make_node("Slice", ["starts", "next", "behind"], ["end"]),
            helper.make_node("Equal", ["start", "end"], ["empty"]),
            helper.make_node("If", ["empty"], ["row"], then_branch=nothing, else_branch=rows),
            helper.make_node("SequenceInsert", ["so_far", "row"], ["further"]),
            helper.make_node("Add", ["bag", "single"], ["following"]),
            helper.make_node("Less", ["following", "count"], ["again"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("bag", TensorProto.INT64, []),
            helper.make_tensor_sequence_value_info("so_far", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("following", TensorProto.INT64, []),
            helper.make_tensor_sequence_value_info("further", TensorProto.FLOAT, None),
        ],
    )


def _bags() -> onnx.ModelProto:
    """The largest of the rows of x from each of `starts` to the next, or zeros where there are none."""
    nodes = [
        _constant("minus", -1),
        _constant("one", 1),
        _scalar("single", 1),
        _scalar("first", 0),
        _constant("nought", 0),
        _constant("width", 3),
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("Shape", ["x"], ["length"], start=0, end=1),
        helper.make_node("Size", ["offsets"], ["count"]),
        helper.make_node("Concat", ["offsets", "length"], ["starts"], axis=0),
        helper.make_node("SequenceEmpty", [], ["none"]),
        helper.make_node("Less", ["first", "count"], ["any"]),
        helper.make_node("Loop", ["", "any", "first", "none"], ["last", "bags"], body=_body()),
        helper.make_node("ConcatFromSequence", ["bags"], ["y"], axis=0, new_axis=1),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3]),
        helper.make_tensor_value_info("offsets", TensorProto.INT64, ["B"]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "bags", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.numerics
def test_loop_when_it_slices_at_its_counter_then_the_slices_have_known_sizes() -> None:
    x = np.random.default_rng(0).standard_normal((9, 3), np.float32)
    module = assert_agrees(
        _bags(),
        {"x": x, "offsets": np.array([0, 2, 2, 7])},
        {"x": x[:5], "offsets": np.array([1])},
    )
    (loop,) = [node for node in graph_nodes(module.entries["main"]) if node.op == "loop"]
    assert str(loop.attributes["trips"]) == "B"
