"""Loops that append to sequences: what an iteration may do to which sequence, and what ends them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from tessera_build.frontends.onnx import UnsupportedError, read_onnx
from tests.frontends_onnx.oracle import assert_agrees


def _constant(name: str, value: object) -> NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value)))


def _sequence(name: str) -> ValueInfoProto:
    return helper.make_tensor_sequence_value_info(name, TensorProto.FLOAT, None)


def _body(nodes: Sequence[NodeProto], carried: Sequence[tuple[ValueInfoProto, ValueInfoProto]], end: str) -> GraphProto:
    """A Loop's body whose own names begin with `end`, the name of its condition."""
    number = helper.make_tensor_value_info(f"{end}_i", TensorProto.INT64, [])
    flags = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in (f"{end}_before", end)]
    before, after = zip(*carried, strict=True)
    return helper.make_graph(list(nodes), "body", [number, flags[0], *before], [flags[1], *after])


def _model(nodes: Sequence[NodeProto], shape: Sequence[int | str]) -> ModelProto:
    graph = helper.make_graph(
        [
            helper.make_node("SequenceEmpty", [], ["none"], dtype=TensorProto.FLOAT),
            *nodes,
            helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [ValueInfoProto(name="y")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _over_rows(nodes: Sequence[NodeProto]) -> ModelProto:
    """A loop with the number `end_i` over the rows of x; `nodes` make `after` of the sequence `so_far`."""
    going = helper.make_node("Identity", ["end_before"], ["end"])
    body = _body([going, *nodes], [(_sequence("so_far"), _sequence("after"))], "end")
    before = [
        helper.make_node("Shape", ["x"], ["whole"], end=1),
        helper.make_node("Squeeze", ["whole"], ["n"]),
        helper.make_node("Loop", ["n", "", "none"], ["s"], body=body),
    ]
    return _model(before, ("N", 3))


@pytest.mark.errors
def test_loop_when_it_appends_to_the_sequence_of_the_loop_around_then_is_refused() -> None:
    """It was taken for its own sequence, which got longer in each iteration: other numbers than the model's."""
    inner = [
        helper.make_node("Identity", ["stop_before"], ["stop"]),
        helper.make_node("SequenceInsert", ["so_far", "row"], ["longer"]),
    ]
    nodes = [
        helper.make_node("Gather", ["x", "end_i"], ["row"], axis=0),
        helper.make_node(
            "Loop", ["n", "", "none"], ["own"], body=_body(inner, [(_sequence("unused"), _sequence("longer"))], "stop")
        ),
        helper.make_node("SequenceLength", ["own"], ["length"]),
        helper.make_node("Cast", ["length"], ["more"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["row", "more"], ["added"]),
        helper.make_node("SequenceInsert", ["so_far", "added"], ["after"]),
    ]
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(_over_rows(nodes))
    assert "more to a sequence than append one tensor" in caught.value.problems[0].message


@pytest.mark.errors
def test_loop_when_what_it_appends_gets_longer_then_is_refused_as_unsupported() -> None:
    """The model is right: it was called broken."""
    nodes = [
        _constant("zero", np.array([0])),
        _constant("one", np.array([1])),
        helper.make_node("Unsqueeze", ["end_i", "zero"], ["last"]),
        helper.make_node("Add", ["last", "one"], ["stop"]),
        helper.make_node("Slice", ["x", "zero", "stop"], ["part"]),
        helper.make_node("SequenceInsert", ["so_far", "part"], ["after"]),
    ]
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(_over_rows(nodes))
    assert "differs from one iteration to the next" in caught.value.problems[0].message


@pytest.mark.numerics
@pytest.mark.parametrize("trips", [1, 4, 2000])
def test_loop_when_data_end_it_then_appends_until_they_do(trips: int) -> None:
    """Of up to 1,024 iterations it was refused, beyond built."""
    total = helper.make_tensor_value_info("total", TensorProto.FLOAT, [3])
    further = helper.make_tensor_value_info("further", TensorProto.FLOAT, [3])
    nodes = [
        helper.make_node("ReduceSum", ["total"], ["all"], keepdims=0),
        helper.make_node("Less", ["all", "limit"], ["end"]),
        helper.make_node("Add", ["total", "x"], ["further"]),
        helper.make_node("SequenceInsert", ["so_far", "further"], ["after"]),
    ]
    body = _body(nodes, [(_sequence("so_far"), _sequence("after")), (total, further)], "end")
    model = _model(
        [
            _constant("limit", np.float32(5)),
            _constant("n", np.int64(trips)),
            helper.make_node("Loop", ["n", "", "none", "x"], ["s", "last"], body=body),
        ],
        (3,),
    )
    assert_agrees(model, {"x": np.ones(3, np.float32)}, {"x": np.full(3, 0.5, np.float32)})
