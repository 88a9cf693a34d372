"""Models with extents of 0, beside fixed and dynamic ones, agree with onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.frontends_onnx.built import assert_built_agrees
from tests.frontends_onnx.oracle import floats, make_model, one_node

pytestmark = pytest.mark.numerics


def shapes(*extents: int, dynamic: bool) -> list[int | str]:
    """The shape, with its first axis left open unless it is 0: models say of no axis that it may be."""
    return ["N" if dynamic and axis == 0 and extent else extent for axis, extent in enumerate(extents)]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("sizes", [(0, 4, 5), (3, 0, 5), (3, 4, 0), (0, 0, 5), (3, 0, 0), (0, 0, 0)])
def test_product_when_an_extent_is_0_then_agrees(sizes: tuple[int, int, int], dynamic: bool) -> None:
    m, k, n = sizes
    nodes = [
        helper.make_node("Gemm", ["x", "w", "c"], ["z"], transB=1),
        helper.make_node("Relu", ["z"], ["y"]),
        helper.make_node("MatMul", ["x", "v"], ["u"]),
    ]
    weights = {"w": floats(n, k), "c": floats(n), "v": floats(k, n)}
    model = make_model(nodes, {"x": (np.float32, shapes(m, k, dynamic=dynamic))}, ["y", "u"], weights)
    assert_built_agrees(model, {"x": floats(m, k)})


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("x", "w"),
    [
        ((0, 3, 8, 8), (4, 3, 3, 3)),
        ((2, 0, 8, 8), (4, 0, 3, 3)),
        ((2, 0, 8, 8), (4, 0, 1, 1)),
        ((2, 3, 8, 8), (0, 3, 3, 3)),
        ((2, 0, 8), (4, 0, 3)),
    ],
)
def test_convolution_when_an_extent_is_0_then_agrees(x: Sequence[int], w: Sequence[int], dynamic: bool) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 2 * (len(x) - 2))
    model = make_model([node], {"x": (np.float32, shapes(*x, dynamic=dynamic))}, ["y"], {"w": floats(*w)})
    assert_built_agrees(model, {"x": floats(*x)})


@pytest.mark.parametrize("kind", ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSumExp", "SumSquare"])
def test_reduction_when_an_extent_is_0_then_agrees(kind: str) -> None:
    node = helper.make_node(f"Reduce{kind}", ["x", "axes"], ["y"], keepdims=0)
    axes = {"axes": np.array([1], np.int64)}
    model = make_model([node], {"x": (np.float32, ["N", 0])}, ["y"], axes, opset=20)
    assert_built_agrees(model, {"x": floats(3, 0)})


@pytest.mark.parametrize(("keys", "columns"), [(0, 8), (6, 0), (0, 0)])
def test_attention_when_there_are_no_keys_or_columns_then_agrees(keys: int, columns: int) -> None:
    nodes: list[onnx.NodeProto] = [
        helper.make_node("MatMul", ["q", "k"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["y"]),
    ]
    shape = {"q": (2, 2, 5, columns), "k": (2, 2, columns, keys), "v": (2, 2, keys, 4)}
    inputs = {name: (np.float32, shapes(*extents, dynamic=True)) for name, extents in shape.items()}
    model = make_model(nodes, inputs, ["y"])
    assert_built_agrees(model, {name: floats(*extents) for name, extents in shape.items()})


@pytest.mark.parametrize("kernel", [(0, 3), (3, 0)])
def test_convolution_when_it_has_no_taps_then_it_is_refused(kernel: tuple[int, int]) -> None:
    model = one_node("Conv", {"x": (1, 3, 8, 8)}, {"w": np.zeros((4, 3, *kernel), np.float32)})
    with pytest.raises(Exception, match="impossible window"):
        assert_built_agrees(model, {"x": floats(1, 3, 8, 8)})
