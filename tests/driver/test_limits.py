"""What a build refuses before it costs anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tessera_build.driver.build import build
from tessera_build.verify.errors import VerificationError


@pytest.mark.errors
def test_proof_when_the_values_take_more_than_is_allowed_then_says_how_much(tmp_path: Path) -> None:
    types = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1 << 20]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "graph", types[:1], types[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    with pytest.raises(VerificationError, match="allowed memory") as caught:
        build(model, ["x86-64-v3"], tmp_path / "m", proof_bytes=1 << 20)
    assert (caught.value.found, (tmp_path / "m").exists()) == ("56 MiB", False)
    assert build(model, ["x86-64-v3"], tmp_path / "m", proof_bytes=np.iinfo(np.int64).max).verification


def _correlation(size: int, width: int) -> onnx.ModelProto:
    """A filter as large as its image: little memory, and operations as its fourth power."""
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, s, s]) for n, s in (("x", size), ("w", width))]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "graph", infos, [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.mark.errors
def test_proof_when_it_computes_more_than_is_allowed_then_says_how_much(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="computes more") as caught:
        build(_correlation(2200, 1100), ["x86-64-v3"], tmp_path / "m", workers=1)
    assert (caught.value.code, (tmp_path / "m").exists()) == ("PROOF_TOO_LONG", False)
    assert 1.4e12 < float((caught.value.found or "").split()[0]) < 3e12
    small = _correlation(40, 20)
    with pytest.raises(VerificationError, match="computes more"):
        build(small, ["x86-64-v3"], tmp_path / "m", workers=1, proof_operations=1e5)
    assert build(small, ["x86-64-v3"], tmp_path / "m", workers=1, proof_operations=1e7).verification


@pytest.mark.errors
def test_proof_when_a_loop_repeats_what_is_cheap_once_then_counts_every_iteration(tmp_path: Path) -> None:
    infos = [helper.make_tensor_value_info(*i) for i in (("i", 7, []), ("going", 9, []), ("v", 1, [64, 64]))]
    nodes = [helper.make_node("Identity", ["going"], ["again"]), helper.make_node("MatMul", ["v", "v"], ["w"])]
    outputs = [helper.make_tensor_value_info("again", 9, []), helper.make_tensor_value_info("w", 1, [64, 64])]
    loop = helper.make_node("Loop", ["trips", "", "x"], ["y"], body=helper.make_graph(nodes, "b", infos, outputs))
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [64, 64])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    trips = helper.make_tensor("trips", TensorProto.INT64, [], [1000])
    graph = helper.make_graph([loop], "g", [image], [result], [trips])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    with pytest.raises(VerificationError) as caught:
        build(model, ["x86-64-v3"], tmp_path / "m", workers=1, proof_operations=1e8)
    assert 2 * 64**3 * 1000 <= float((caught.value.found or "").split()[0]) < 2.2 * 64**3 * 1000
