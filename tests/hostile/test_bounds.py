"""A few bytes that ask for any amount of work or memory are refused, and quickly."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from tessera_build.frontends.onnx import reader
from tessera_build.frontends.onnx.errors import ModelError, UnsupportedError
from tessera_build.frontends.onnx.reader import read_onnx
from tessera_build.frontends.onnx.restarts import Work

pytestmark = [pytest.mark.errors]

_OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]


def _model(nodes: list[onnx.NodeProto], inputs: dict[str, tuple[int, list[int]]], **more: object) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info(name, code, shape) for name, (code, shape) in inputs.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = more.get("weights", [])
    graph = helper.make_graph(nodes, "g", infos, [output], weights)  # type: ignore[arg-type]
    functions = more.get("functions", [])
    return helper.make_model(graph, opset_imports=_OPSETS, functions=functions)  # type: ignore[arg-type]


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
