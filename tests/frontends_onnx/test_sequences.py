"""Sequences and optionals: carried out by the importer, and loops over them unrolled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tessera_build.frontends.onnx import ModelError, UnsupportedError, read_onnx
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.reference import run
from tests.frontends_onnx.oracle import assert_agrees

X = np.arange(12, dtype=np.float32).reshape(4, 3)


def _model(nodes: Sequence[onnx.NodeProto], shape: Sequence[int | str] = (4, 3)) -> onnx.ModelProto:
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))
    graph = helper.make_graph(list(nodes), "graph", [info], [onnx.ValueInfoProto(name="y")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _constant(name: str, value: object) -> onnx.NodeProto:
    array = np.asarray(value)
    return helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(array))


@pytest.mark.numerics
def test_split_and_concat_when_sizes_are_known_then_rebuild_the_tensor() -> None:
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["s"], axis=0, keepdims=0),
        helper.make_node("SequenceErase", ["s", "i"], ["t"]),
        helper.make_node("SequenceAt", ["s", "i"], ["m"]),
        helper.make_node("SequenceInsert", ["t", "m"], ["u"]),
        helper.make_node("ConcatFromSequence", ["u"], ["y"], axis=0, new_axis=1),
    ]
    found = run(read_onnx(_model([_constant("i", np.int64(-3)), *nodes])), "main", {"x": X})["y"]
    np.testing.assert_array_equal(found, X[[0, 2, 3, 1]])


@pytest.mark.numerics
def test_sequence_output_when_given_out_then_has_an_output_for_each_member() -> None:
    found = run(read_onnx(_model([helper.make_node("SplitToSequence", ["x"], ["y"], axis=1)])), "main", {"x": X})
    assert list(found) == ["y[0]", "y[1]", "y[2]"]
    np.testing.assert_array_equal(np.concatenate(list(found.values()), 1), X)


@pytest.mark.numerics
def test_element_when_its_position_is_data_then_is_picked_at_run_time() -> None:
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["s"], axis=0, keepdims=0),
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        _constant("eight", np.float32(8)),
        helper.make_node("Sub", ["top", "eight"], ["far"]),
        helper.make_node("Cast", ["far"], ["i"], to=TensorProto.INT64),
        helper.make_node("SequenceAt", ["s", "i"], ["y"]),
    ]
    module = read_onnx(_model(nodes))
    np.testing.assert_array_equal(run(module, "main", {"x": X})["y"], X[3])
    np.testing.assert_array_equal(run(module, "main", {"x": X - 1})["y"], X[2] - 1)


def _accumulating_loop(trips: int) -> list[onnx.NodeProto]:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["again"]),
            helper.make_node("SequenceInsert", ["before", "x"], ["after"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_sequence_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_sequence_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    return [
        _constant("n", np.int64(trips)),
        _constant("yes", np.bool_(True)),
        helper.make_node("SequenceEmpty", [], ["none"], dtype=TensorProto.FLOAT),
        helper.make_node("Loop", ["n", "yes", "none"], ["s"], body=body),
        helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0),
    ]


@pytest.mark.numerics
def test_loop_when_it_carries_a_sequence_then_is_unrolled() -> None:
    found = run(read_onnx(_model(_accumulating_loop(3))), "main", {"x": X})["y"]
    np.testing.assert_array_equal(found, np.concatenate([X, X, X]))


def _loop_over_rows(*after: onnx.NodeProto, before: Sequence[onnx.NodeProto] = ()) -> list[onnx.NodeProto]:
    """A state that each row of x is added to; the states are appended to a sequence, as torch scripts scans."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["again"]),
            helper.make_node("SequenceAt", ["rows", "i"], ["row"]),
            helper.make_node("Add", ["state", "row"], ["next"]),
            helper.make_node("SequenceInsert", ["so_far", "next"], ["further"]),
            helper.make_node("Neg", ["next"], ["slice"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_sequence_value_info("so_far", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [3]),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_sequence_value_info("further", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [3]),
            helper.make_tensor_value_info("slice", TensorProto.FLOAT, [3]),
        ],
    )
    return [
        _constant("yes", np.bool_(True)),
        _constant("zeros", np.zeros(3, np.float32)),
        helper.make_node("SplitToSequence", ["x"], ["rows"], axis=0, keepdims=0),
        helper.make_node("SequenceLength", ["rows"], ["n"]),
        *(before or [helper.make_node("SequenceEmpty", [], ["none"], dtype=TensorProto.FLOAT)]),
        helper.make_node("Loop", ["n", "yes", "none", "zeros"], ["s", "last", "slices"], body=body),
        *after,
    ]


BEFORE = helper.make_node("SequenceConstruct", ["zeros"], ["none"])
AFTER: dict[str, list[onnx.NodeProto]] = {
    "stacked": [helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=1, new_axis=1)],
    "joined": [helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=-1)],
    "one": [_constant("end", np.int64(-1)), helper.make_node("SequenceAt", ["s", "end"], ["y"])],
    "counted": [helper.make_node("SequenceLength", ["s"], ["y"])],
    "state": [helper.make_node("Sub", ["last", "slices"], ["y"])],
}


@pytest.mark.numerics
@pytest.mark.parametrize("before", [(), (BEFORE,)])
@pytest.mark.parametrize("name", AFTER)
def test_loop_when_a_run_counts_what_it_appends_then_is_a_loop_that_stacks(
    name: str, before: tuple[onnx.NodeProto, ...]
) -> None:
    """Scans that torch scripts: a list of outputs, as many as the sequence has elements."""
    model = _model(_loop_over_rows(*AFTER[name], before=before), ("S", 3))
    module = assert_agrees(model, {"x": X}, {"x": X[:1]})
    assert name == "counted" or any(node.op == "loop" for node in graph_nodes(module.entries["main"]))


@pytest.mark.numerics
@pytest.mark.parametrize("size", [1, [1, 1, 1]])
def test_split_when_its_axis_is_to_go_then_goes_from_parts_of_one_stated_size_alone(size: int | list[int]) -> None:
    """What torch writes for unbind; the axis stayed."""
    nodes = [
        _constant("size", np.array(size)),
        helper.make_node("SplitToSequence", ["x", "size"], ["s"], axis=1, keepdims=0),
        helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0),
    ]
    for shape in ((4, 3), ("N", 3), ("N", "M")):
        if shape[1] == 3 or size == 1:
            assert_agrees(_model(nodes, shape), {"x": X})


@pytest.mark.numerics
@pytest.mark.parametrize(("axis", "keepdims", "fresh"), [(0, 1, 0), (1, 1, 0), (1, 0, 1), (-1, 0, 0)])
def test_split_when_a_run_counts_the_parts_then_they_are_slices_of_one_tensor(
    axis: int, keepdims: int, fresh: int
) -> None:
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["s"], axis=axis, keepdims=keepdims),
        helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0, new_axis=fresh),
    ]
    assert_agrees(_model(nodes, ("N", "M")), {"x": X}, {"x": np.ascontiguousarray(X[:2, :1])})


@pytest.mark.errors
def test_sequence_when_only_a_run_knows_its_length_then_what_needs_it_is_refused() -> None:
    after = helper.make_node("SequenceErase", ["s"], ["y"], name="shorter")
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(_model(_loop_over_rows(after), ("S", 3)))
    (problem,) = caught.value.problems
    assert (problem.where, problem.found) == ("shorter", "a sequence of S tensors")
    assert problem.message == "SequenceErase of a sequence whose length only a run knows"


@pytest.mark.errors
def test_loop_when_a_run_counts_it_and_it_appends_twice_then_is_refused() -> None:
    nodes = _loop_over_rows(helper.make_node("SequenceLength", ["s"], ["y"]))
    body = nodes[5].attribute[0].g
    body.node.append(helper.make_node("SequenceInsert", ["further", "row"], ["twice"]))
    body.output[1].name = "twice"
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(_model(nodes, ("S", 3)))
    assert "more to a sequence than append one tensor" in caught.value.problems[0].message


@pytest.mark.numerics
def test_loop_when_it_has_more_iterations_than_are_unrolled_then_is_a_loop() -> None:
    shape = read_onnx(_model(_accumulating_loop(10**4))).entries["main"]
    assert shape.types[shape.results[0]].shape == (40000, 3)


@pytest.mark.errors
@pytest.mark.parametrize(("index", "words"), [(4, "outside its sequence"), (-5, "outside its sequence")])
def test_element_when_its_position_lies_outside_then_is_the_models_fault(index: int, words: str) -> None:
    nodes = [
        _constant("i", np.int64(index)),
        helper.make_node("SplitToSequence", ["x"], ["s"], axis=0),
        helper.make_node("SequenceAt", ["s", "i"], ["y"]),
    ]
    with pytest.raises(ModelError) as caught:
        read_onnx(_model(nodes))
    assert words in caught.value.problems[0].message


@pytest.mark.errors
def test_tensor_operator_when_it_is_given_a_sequence_then_says_what_it_takes() -> None:
    nodes = [helper.make_node("SplitToSequence", ["x"], ["s"], axis=0), helper.make_node("Relu", ["s"], ["y"])]
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(_model(nodes))
    assert "Relu takes tensors" in caught.value.problems[0].message


@pytest.mark.errors
def test_split_when_the_axis_is_dynamic_then_names_the_dim() -> None:
    nodes = [_constant("two", np.int64(2)), helper.make_node("SplitToSequence", ["x", "two"], ["y"], axis=0)]
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(_model(nodes, ["batch", 3]))
    assert "batch" in (caught.value.problems[0].found or "")


@pytest.mark.errors
def test_sequence_output_when_only_a_run_knows_its_length_then_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match="output y is a sequence whose length only a run knows") as caught:
        read_onnx(_model([helper.make_node("SplitToSequence", ["x"], ["y"], axis=0)], ["batch", 3]))
    assert caught.value.found == "a sequence of batch tensors"
