"""Results that are no tensors: sessions give the lists and maps that onnxruntime gives, and show them alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import tessera_build
import tessera_runtime.compat as ort
from tessera_build.ir.graph.nodes import Array
from tessera_runtime import RunError
from tests.frontends_onnx.ml_cases import Drawn, linear_classifier, support_classifier, tree_classifier

FLOAT = TensorProto.FLOAT


def model_of(nodes: Sequence[onnx.NodeProto], outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
    """A model of rows of three numbers."""
    graph = helper.make_graph(
        list(nodes), "results", [helper.make_tensor_value_info("x", FLOAT, ["N", 3])], list(outputs)
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def maps_model(**labels: Sequence[int] | Sequence[str]) -> onnx.ModelProto:
    """Rows of scores as maps, and as they are."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["p"]),
        helper.make_node("ZipMap", ["p"], ["maps"], domain="ai.onnx.ml"),
        helper.make_node("Neg", ["x"], ["n"]),
    ]
    nodes[1].attribute.extend(helper.make_attribute(name, values) for name, values in labels.items())
    key = TensorProto.STRING if "classlabels_strings" in labels else TensorProto.INT64
    value = helper.make_tensor_type_proto(FLOAT, None)
    kind = helper.make_sequence_type_proto(helper.make_map_type_proto(key, value))
    return model_of(nodes, [helper.make_value_info("maps", kind), onnx.ValueInfoProto(name="n")])


def list_model() -> onnx.ModelProto:
    """A list of columns between two tensors."""
    nodes = [
        helper.make_node("Neg", ["x"], ["a"]),
        helper.make_node("SplitToSequence", ["x"], ["columns"], axis=1),
        helper.make_node("Abs", ["x"], ["b"]),
    ]
    columns = helper.make_tensor_sequence_value_info("columns", FLOAT, None)
    return model_of(nodes, [onnx.ValueInfoProto(name="a"), columns, onnx.ValueInfoProto(name="b")])


def sessions(model: onnx.ModelProto, folder: Path) -> tuple[ort.InferenceSession, onnxruntime.InferenceSession]:
    """Ours on a proved bundle, and theirs on the model."""
    path = folder / "results.tessera"
    tessera_build.build(model, ["native"], path, workers=1)
    theirs = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return ort.InferenceSession(path), theirs


def answers(session: ort.InferenceSession | onnxruntime.InferenceSession, feeds: dict[str, Array]) -> list[Any]:
    """All results of a run, of whatever kind."""
    return list(session.run(None, feeds))


def drawn(rows: int) -> Array:
    return np.random.default_rng(rows).standard_normal((rows, 3)).astype(np.float32)


@pytest.mark.numerics
@pytest.mark.parametrize(
    "labels",
    [
        {"classlabels_int64s": [0, 1, 2]},
        {"classlabels_int64s": [7, -4, 30]},
        {"classlabels_strings": ["setosa", "Ünlü", "a"]},
    ],
)
def test_session_when_the_model_gives_maps_then_gives_them_too(
    labels: dict[str, Sequence[int] | Sequence[str]], tmp_path: Path
) -> None:
    ours, theirs = sessions(maps_model(**labels), tmp_path)
    kinds = [(value.name, value.type) for value in theirs.get_outputs()]
    assert [(value.name, value.type) for value in ours.get_outputs()] == kinds
    for rows in (1, 4):
        (found, n), (wanted, m) = (answers(session, {"x": drawn(rows)}) for session in (ours, theirs))
        assert isinstance(found, list)
        assert [list(row) for row in found if isinstance(row, dict)] == [list(row) for row in wanted]
        for row, expected in zip(found, wanted, strict=True):
            assert row == pytest.approx(expected, rel=1e-5)
        np.testing.assert_array_equal(np.asarray(n), m)


@pytest.mark.numerics
def test_session_when_the_model_gives_a_list_then_gives_it_under_its_one_name(tmp_path: Path) -> None:
    ours, theirs = sessions(list_model(), tmp_path)
    assert [(v.name, v.type) for v in ours.get_outputs()] == [(v.name, v.type) for v in theirs.get_outputs()]
    x = drawn(2)
    found, wanted = answers(ours, {"x": x}), answers(theirs, {"x": x})
    assert isinstance(found[1], list)
    for own, other in zip((found[0], *found[1], found[2]), (wanted[0], *wanted[1], wanted[2]), strict=True):
        np.testing.assert_array_equal(np.asarray(own), other)
    (alone,) = ours.run(["columns"], {"x": x})
    assert isinstance(alone, list)
    assert len(alone) == 3


@pytest.mark.numerics
@pytest.mark.parametrize("draw", [linear_classifier, support_classifier, tree_classifier])
@pytest.mark.parametrize("seed", [0, 5, 7, 9])
def test_session_when_labels_are_strings_then_gives_them_too(
    draw: Callable[[random.Random], Drawn], seed: int, tmp_path: Path
) -> None:
    model, feeds = draw(random.Random(seed))
    node = model.graph.node[0]
    (labels,) = [a for a in node.attribute if a.name.startswith("classlabels")]
    node.attribute.remove(labels)
    words = [f"Klasse {label} ä" for label in labels.ints]
    node.attribute.append(helper.make_attribute("classlabels_strings", words))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    ours, theirs = sessions(model, tmp_path)
    assert [(v.name, v.type) for v in ours.get_outputs()] == [(v.name, v.type) for v in theirs.get_outputs()]
    (found, scores), (wanted, expected) = (answers(session, feeds) for session in (ours, theirs))
    assert isinstance(found, np.ndarray)
    assert found.dtype == wanted.dtype
    assert found.tolist() == wanted.tolist()
    np.testing.assert_allclose(np.asarray(scores), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.errors
def test_boxes_when_a_result_is_no_tensor_then_are_refused(tmp_path: Path) -> None:
    ours, _ = sessions(list_model(), tmp_path)
    box = ort.OrtValue.ortvalue_from_numpy(drawn(1))
    assert ours.run_with_ort_values(["b"], {"x": box})[0].shape() == [1, 3]
    with pytest.raises(RunError, match="only tensors"):
        ours.run_with_ort_values(None, {"x": box})
