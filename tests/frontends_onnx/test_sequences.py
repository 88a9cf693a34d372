"""Sequences and optionals: carried out by the importer, and loops over them unrolled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tessera_build.frontends.onnx import ModelError, UnsupportedError, read_onnx
from tessera_build.ir.graph.reference import run

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


@pytest.mark.errors
def test_loop_when_it_would_be_unrolled_without_end_then_is_refused() -> None:
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(_model(_accumulating_loop(10**9)))
    assert "1000000000 iterations" in caught.value.problems[0].message


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
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(_model([helper.make_node("SplitToSequence", ["x"], ["y"], axis=0)], ["batch", 3]))
    assert "batch" in (caught.value.problems[0].found or "")
