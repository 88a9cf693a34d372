"""Einsum: equations of every kind against numpy in float64, and the ops that contractions become."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from tessera_build.frontends.onnx import ModelError, read_onnx
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.reference import run
from tests.frontends_onnx.oracle import floats, make_model

pytestmark = pytest.mark.numerics
EXTENTS = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 1}
EQUATIONS = [
    "ab,bc->ac",
    "abc,abd->acd",
    "bhwc,hkc->bhwk",
    "bhid,bhjd->bhij",
    "ab,ab->",
    "ab,cd->abcd",
    "abc->ca",
    "abc->b",
    "aab->ab",
    "aaa->a",
    "aa,ab->b",
    "ab,bc,cd->ad",
    "ab,b->",
    "a,a->a",
    "ba",
    "ab,bc",
    "aabb,b->a",
    "...ab,...bc->...ac",
    "...a->a...",
    "a...b,b->...a",
    "aeb,ab->be",
]


def equation_model(equation: str, *, named: bool) -> tuple[onnx.ModelProto, dict[str, Array]]:
    terms = equation.split("->")[0].split(",")
    extents = {**EXTENTS, **{c: 2 + i for i, c in enumerate("hijkw")}}
    shapes = [[e for c in t.replace("...", ".") for e in ((2, 3) if c == "." else (extents[c],))] for t in terms]
    inputs: dict[str, Array] = {f"x{i}": floats(*shape) for i, shape in enumerate(shapes)}
    node = helper.make_node("Einsum", list(inputs), ["y"], equation=equation)
    kinds = {
        name: (np.float32, [f"{name}_{i}" if named and e > 1 else e for i, e in enumerate(a.shape)])
        for name, a in inputs.items()
    }
    return make_model([node], kinds, ["y"]), inputs


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum_when_equation_varies_then_agrees_with_numpy(equation: str, named: bool) -> None:
    model, inputs = equation_model(equation, named=named)
    found = run(read_onnx(model), "main", inputs)["y"]
    wanted = np.einsum(equation, *(a.astype(np.float64) for a in inputs.values()))
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("equation", ["bhid,bhjd->bhij", "abc,abd->acd", "ab,bc->ac"])
def test_einsum_when_it_contracts_two_operands_then_is_one_product(equation: str) -> None:
    module = read_onnx(equation_model(equation, named=True)[0])
    ops = [n.op for n in graph_nodes(module.entries["main"])]
    assert ops.count("matmul") == 1
    assert not {"mul", "reduce"} & set(ops)


@pytest.mark.errors
@pytest.mark.parametrize("equation", ["ab->abz", "abc,bc->a", "ab,b->aa", "a?,b->a"])
def test_einsum_when_equation_makes_no_sense_then_is_refused(equation: str) -> None:
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation=equation)
    with pytest.raises(ModelError):
        read_onnx(make_model([node], {"x": (np.float32, [2, 3]), "w": (np.float32, [3])}, ["y"]))
