"""A few bytes that ask for any amount of work or memory are refused, and quickly."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tessera_runtime
from bundle_format.errors import TesseraError
from tessera_build.driver.build import build
from tessera_build.frontends.onnx import reader
from tessera_build.frontends.onnx.errors import ModelError, OnnxError, UnsupportedError
from tessera_build.frontends.onnx.reader import read_onnx
from tessera_build.frontends.onnx.restarts import Work
from tessera_build.verify.errors import VerificationError
from tessera_build.verify.onnx_reference import OnnxReference

pytestmark = [pytest.mark.errors]

_OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]


def _model(nodes: list[onnx.NodeProto], inputs: Mapping[str, tuple[int, list[int]]], **more: object) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info(name, code, shape) for name, (code, shape) in inputs.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = more.get("weights", [])
    graph = helper.make_graph(nodes, "g", infos, [output], weights)  # type: ignore[arg-type]
    functions = more.get("functions", [])
    return helper.make_model(graph, opset_imports=_OPSETS, functions=functions, ir_version=10)  # type: ignore[arg-type]


def _function(name: str, *nodes: onnx.NodeProto) -> onnx.FunctionProto:
    return helper.make_function("own", name, ["x"], ["y"], list(nodes), _OPSETS)


def _call(name: str, operand: str, result: str) -> onnx.NodeProto:
    return helper.make_node(name, [operand], [result], domain="own")


def _doubling(levels: int) -> list[onnx.FunctionProto]:
    """Functions of which each calls the one before it twice."""
    functions = [_function("f0", helper.make_node("Relu", ["x"], ["y"]))]
    for i in range(1, levels):
        functions.append(_function(f"f{i}", _call(f"f{i - 1}", "x", "t"), _call(f"f{i - 1}", "t", "y")))
    return functions


_X = {"x": (TensorProto.FLOAT, [2])}


@pytest.mark.parametrize("operator", ["ConstantOfShape", "Reshape", "Slice"])
def test_shape_operand_when_of_billions_of_elements_then_it_is_refused(operator: str) -> None:
    inputs = {"s": (TensorProto.INT64, [2**31]), "x": (TensorProto.FLOAT, [4, 4])}
    operands = {"ConstantOfShape": ["s"], "Reshape": ["x", "s"], "Slice": ["x", "s", "s"]}[operator]
    with pytest.raises(ModelError, match="too long"):
        read_onnx(_model([helper.make_node(operator, operands, ["y"])], inputs))


def test_shape_operand_when_there_are_exponentially_many_ways_to_it_then_each_value_is_looked_at_once() -> None:
    nodes: list[onnx.NodeProto] = []
    name = "s"
    for i in range(60):
        nodes.append(helper.make_node("Concat", [name, name], [f"pair{i}"], axis=0))
        nodes.append(helper.make_node("Slice", [f"pair{i}", "from", "to"], [f"one{i}"]))
        name = f"one{i}"
    weights = [helper.make_tensor(n, TensorProto.INT64, [1], [v]) for n, v in (("from", 0), ("to", 1))]
    model = _model([*nodes, helper.make_node("ConstantOfShape", [name], ["y"])], {"s": (7, [1])}, weights=weights)
    assert len(read_onnx(model).entries["main"].results) == 1


def test_functions_when_they_double_at_every_level_then_they_are_counted_not_copied() -> None:
    assert len(read_onnx(_model([_call("f5", "x", "y")], _X, functions=_doubling(6))).entries["main"].nodes) == 33
    with pytest.raises(UnsupportedError, match="functions come to too much") as caught:
        read_onnx(_model([_call("f59", "x", "y")], _X, functions=_doubling(60)))
    assert caught.value.code == "FUNCTIONS_TOO_LARGE"


@pytest.mark.parametrize(
    ("functions", "reason"),
    [
        ([_function("f", _call("f", "x", "y"))], "calls itself"),
        ([_function("f", _call("g", "x", "y")), _function("g", _call("f", "x", "y"))], "calls itself"),
        ([_function("f", helper.make_node("Relu", ["x"], ["y"]))] * 2, "multiple local functions"),
        ([*_doubling(200), _function("f", _call("f199", "x", "y"))], "100 deep"),
    ],
)
def test_functions_when_they_break_the_rules_then_the_error_says_which(
    functions: list[onnx.FunctionProto], reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        read_onnx(_model([_call("f", "x", "y")], _X, functions=functions))


def test_function_when_called_with_too_many_operands_then_it_is_refused() -> None:
    call = helper.make_node("f", ["x", "x"], ["y"], domain="own")
    with pytest.raises(ModelError, match="break the rules"):
        read_onnx(_model([call], _X, functions=[_function("f", helper.make_node("Relu", ["x"], ["y"]))]))


def test_import_when_its_work_is_done_and_the_model_is_not_then_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model([helper.make_node("Relu", ["x"], ["t"]), helper.make_node("Neg", ["t"], ["y"])], _X)
    monkeypatch.setattr(reader.Work, "for_nodes", lambda _: Work(2))
    assert read_onnx(model)
    monkeypatch.setattr(reader.Work, "for_nodes", lambda _: Work(1))
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(model)
    assert caught.value.code == "TOO_MUCH_WORK"


def _loop(trips: int) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info(*i) for i in (("i", 7, []), ("going", 9, []), ("v", 1, [2]))]
    nodes = [helper.make_node("Identity", ["going"], ["again"]), helper.make_node("Sin", ["v"], ["w"])]
    outputs = [helper.make_tensor_value_info("again", 9, []), helper.make_tensor_value_info("w", 1, [2])]
    body = helper.make_graph(nodes, "body", infos, outputs)
    node = helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body)
    return _model([node], _X, weights=[helper.make_tensor("trips", TensorProto.INT64, [], [trips])])


def test_proof_when_a_loop_has_billions_of_iterations_then_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TesseraError, match="loops take more steps"):
        build(_loop(2**31), ["x86-64-v3"], tmp_path / "m", workers=1)
    assert build(_loop(3), ["x86-64-v3"], tmp_path / "m", workers=1).verification


def test_proof_when_the_reference_ends_its_process_then_the_build_goes_on_to_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGFPE)

    monkeypatch.setattr(OnnxReference, "run", die)
    with pytest.raises(VerificationError, match="ended its process") as caught:
        build(_model([helper.make_node("Relu", ["x"], ["y"])], _X), ["x86-64-v3"], tmp_path / "m", workers=1)
    assert (caught.value.code, caught.value.found) == ("REFERENCE_FAILED", "signal SIGFPE")


def test_proof_when_memory_ends_in_its_process_then_it_is_said_like_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grow(*_: object) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr(OnnxReference, "run", grow)
    with pytest.raises(TesseraError) as caught:
        build(_model([helper.make_node("Relu", ["x"], ["y"])], _X), ["x86-64-v3"], tmp_path / "m", workers=1)
    assert caught.value.code == "OUT_OF_MEMORY"


def test_run_when_an_empty_input_makes_sizes_overflow_then_there_is_not_enough_memory(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["t", "x"], ["q"]),
        helper.make_node("Softmax", ["q"], ["s"]),
        helper.make_node("MatMul", ["x", "s"], ["y"]),
    ]
    model = _model(nodes, {"x": (TensorProto.FLOAT, ["N", "M"])})  # type: ignore[dict-item]
    dims = {"N": (0, 4), "M": (1, 2**40)}
    build(model, ["native"], tmp_path / "m", workers=1, verify=False, dims=dims)
    with tessera_runtime.load(tmp_path / "m", threads=1) as loaded:
        assert loaded.run(x=np.zeros((0, 3), np.float32))["y"].shape == (0, 3)
        with pytest.raises(tessera_runtime.RunError) as caught:  # 2^32 rows of 2^32 numbers of 4 bytes: 0 of 2^64
            loaded.run(x=np.zeros((0, 2**32), np.float32))
    assert caught.value.code == "OUT_OF_MEMORY"


def test_name_when_no_text_inside_a_subgraph_then_the_model_is_refused(tmp_path: Path) -> None:
    data = _loop(3).SerializeToString().replace(b"Sin", b"S\xdfn")
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        read_onnx(tmp_path / "m.onnx")


def test_extents_when_a_value_of_none_has_strides_beyond_64_bits_then_it_is_refused() -> None:
    with pytest.raises(OnnxError, match="larger than any machine"):
        read_onnx(_model([helper.make_node("Relu", ["x"], ["y"])], {"x": (1, [0, 2**62, 2**31])}))


@pytest.mark.parametrize(("weights", "result"), [([1, 0, 3, 3], [1, 0, 5, 5]), ([0, 2, 3, 3], [1, 2, 5, 5])])
def test_contraction_when_it_has_no_channels_then_it_builds(
    weights: list[int], result: list[int], tmp_path: Path
) -> None:
    shapes = {"x": (1, [1, weights[0], 3, 3]), "w": (1, weights)}
    model = _model([helper.make_node("ConvTranspose", ["x", "w"], ["y"])], shapes)
    build(model, ["x86-64-v3"], tmp_path / "m", workers=1, verify=False)
    with tessera_runtime.load(tmp_path / "m", threads=1) as loaded:
        (found,) = loaded.run({n: np.ones(s, np.float32) for n, (_, s) in shapes.items()}).values()
    assert list(found.shape) == result
    assert not found.any()


def test_range_when_of_trillions_of_constants_then_it_is_refused() -> None:
    weights = [helper.make_tensor(n, TensorProto.FLOAT, [], [v]) for n, v in (("a", 0.0), ("b", 2.0**40), ("c", 1.0))]
    with pytest.raises(UnsupportedError, match="counts further"):
        read_onnx(_model([helper.make_node("Range", ["a", "b", "c"], ["y"])], _X, weights=weights))


def test_integer_convolution_when_its_window_has_billions_of_elements_then_it_is_refused() -> None:
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    shapes = {"x": [1, 1, 7, 7], "w": [1, 1, 2**31 - 1, 1], "ws": [1], "wz": [1]}
    kinds = {name: TensorProto.FLOAT if name in ("xs", "ws", "ys") else TensorProto.UINT8 for name in names}
    inputs = {name: (kinds[name], shapes.get(name, [])) for name in names}
    with pytest.raises(OnnxError) as caught:
        read_onnx(_model([helper.make_node("QLinearConv", names, ["y"])], inputs))
    assert "windows of 2147483647 elements" in caught.value.diagnostics()


def test_average_pool_when_padded_windows_are_too_many_to_count_then_it_is_refused() -> None:
    side = 2**25
    node = helper.make_node(
        "AveragePool", ["x"], ["y"], kernel_shape=[side // 2], pads=[1, 1], count_include_pad=0, strides=[1]
    )
    with pytest.raises(OnnxError) as caught:
        read_onnx(_model([node], {"x": (TensorProto.FLOAT, [1, 1, side])}))
    assert "reach into their padding" in caught.value.diagnostics()
