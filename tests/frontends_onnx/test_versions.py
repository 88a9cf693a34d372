"""Operators whose meaning or spelling changed between opsets agree with onnxruntime in each of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.frontends_onnx.oracle import assert_agrees, floats, integers, one_node

pytestmark = pytest.mark.numerics


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(("opset", "axis"), [(9, 1), (9, 2), (11, 0), (9, 3), (13, 1), (13, -1)])
def test_softmax_when_opset_changes_then_axis_means_what_it_meant(op: str, opset: int, axis: int) -> None:
    model = one_node(op, {"x": ("N", 3, 4, 5)}, opset=opset, axis=axis)
    assert_agrees(model, {"x": floats(2, 3, 4, 5)}, {"x": floats(1, 3, 4, 5)})


X = floats(2, 3, 4)
CASES = {
    "clip 6": one_node("Clip", {"x": X}, opset=7, min=-0.5, max=0.25),
    "clip 11": one_node("Clip", {"x": X}, {"low": np.float32(-0.5), "high": np.float32(0.5)}, opset=11),
    "slice 1": one_node("Slice", {"x": X}, opset=9, starts=[0, -2], ends=[9, 3], axes=[0, 2]),
    "slice 10": one_node(
        "Slice",
        {"x": X},
        {"s": integers(-1, 0), "e": integers(-9, 2**31 - 1), "a": integers(1, 2), "t": integers(-1, 2)},
    ),
    "pad 2": one_node("Pad", {"x": X}, opset=10, pads=[0, 1, 2, 1, 0, 0], value=1.5),
    "pad 11": one_node("Pad", {"x": X}, {"p": integers(0, 1, -1, 1, 0, 2), "v": np.float32(2)}, opset=11),
    "pad 18": one_node("Pad", {"x": X}, {"p": integers(1, 2), "v": np.float32(0), "a": integers(-1)}, opset=18),
    "squeeze 1": one_node("Squeeze", {"x": floats(1, 3, 1)}, opset=11, axes=[2]),
    "squeeze 13": one_node("Squeeze", {"x": floats(1, 3, 1)}, {"a": integers(0, -1)}, opset=13),
    "squeeze all": one_node("Squeeze", {"x": floats(1, 3, 1)}, opset=13),
    "unsqueeze 1": one_node("Unsqueeze", {"x": X}, opset=11, axes=[0, 4]),
    "unsqueeze 13": one_node("Unsqueeze", {"x": X}, {"a": integers(-1, 1)}, opset=13),
    "sum 11": one_node("ReduceSum", {"x": X}, opset=11, axes=[-1], keepdims=0),
    "sum 13": one_node("ReduceSum", {"x": X}, {"a": integers(0, 2)}, opset=13),
    "mean 11": one_node("ReduceMean", {"x": X}, opset=11, axes=[1, 2]),
    "mean 18": one_node("ReduceMean", {"x": X}, {"a": integers(1)}, opset=18, keepdims=0),
    "no axes": one_node("ReduceMax", {"x": X}, opset=18, noop_with_empty_axes=0, keepdims=0),
    "dropout 7": one_node("Dropout", {"x": X}, opset=7, ratio=0.3),
    "dropout 13": one_node("Dropout", {"x": X}, {"ratio": np.float32(0.3)}, opset=13),
    "flatten": one_node("Flatten", {"x": X}, opset=11, axis=-1),
    "gemm 7": one_node(
        "Gemm",
        {"x": floats(4, 3)},
        {"b": floats(5, 4), "c": floats(3, 1)},
        opset=9,
        alpha=0.5,
        beta=2.0,
        transA=1,
        transB=1,
    ),
    "lrn": one_node("LRN", {"x": floats(2, 6, 3, 3)}, size=5, alpha=0.01, beta=0.6, bias=1.5),
    "batch norm 9": one_node(
        "BatchNormalization", {"x": floats(2, 3, 4)}, {n: abs(floats(3)) + 0.5 for n in "sbmv"}, opset=9, momentum=0.8
    ),
    "batch norm 15": one_node("BatchNormalization", {"x": X}, {n: abs(floats(3)) + 0.5 for n in "sbmv"}, epsilon=1e-3),
    "layer norm": one_node("LayerNormalization", {"x": X}, {"s": floats(4), "b": floats(4)}),
    "layer norm 1": one_node("LayerNormalization", {"x": X}, {"s": floats(3, 4)}, axis=1, epsilon=1e-2),
    "instance norm": one_node("InstanceNormalization", {"x": X}, {"s": floats(3), "b": floats(3)}),
    "group norm 18": one_node(
        "GroupNormalization", {"x": floats(2, 4, 3)}, {"s": floats(2), "b": floats(2)}, opset=18, num_groups=2
    ),
    "group norm 21": one_node(
        "GroupNormalization", {"x": floats(2, 4, 3)}, {"s": floats(4), "b": floats(4)}, opset=21, num_groups=2
    ),
    "prelu": one_node("PRelu", {"x": X}, {"s": floats(3, 1)}),
    "pow 2": one_node("Pow", {"x": X}, {"e": np.float32(2)}),
    "pow 3": one_node("Pow", {"x": X}, {"e": integers(3)[0]}, opset=15),
    "tile": one_node("Tile", {"x": X}, {"r": integers(2, 1, 3)}),
    "expand": one_node("Expand", {"x": X}, {"s": integers(5, 1, 1, 4)}),
    "vector": one_node("MatMul", {"x": X}, {"v": floats(4)}),
    "vectors": one_node("MatMul", {"x": floats(4)}, {"v": floats(4)}),
    "row": one_node("MatMul", {"x": floats(4)}, {"v": floats(2, 4, 3)}),
    "depth": one_node("DepthToSpace", {"x": floats(1, 8, 2, 3)}, blocksize=2, mode="CRD"),
    "space": one_node("SpaceToDepth", {"x": floats(1, 2, 4, 6)}, blocksize=2),
    "gather": one_node("Gather", {"x": X}, {"i": np.asarray([[0, -1], [2, 1]])}, axis=1),
    "gelu": one_node("Gelu", {"x": X}, opset=20),
    "gelu tanh": one_node("Gelu", {"x": X}, opset=20, approximate="tanh"),
    "mish": one_node("Mish", {"x": X}, opset=18),
    "hard swish": one_node("HardSwish", {"x": X}, opset=14),
    "elu": one_node("Elu", {"x": 30 * X}, alpha=0.7),
    "softplus": one_node("Softplus", {"x": 60 * X}),
    "log sum exp": one_node("ReduceLogSumExp", {"x": 100 * X}, opset=13, axes=[1]),
}


@pytest.mark.parametrize("name", CASES)
def test_operator_when_imported_then_agrees_with_onnxruntime(name: str) -> None:
    model = CASES[name]
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    scale = 30 if name in ("elu", "softplus", "log sum exp") else 1
    assert_agrees(model, {"x": scale * floats(*shape)})


@pytest.mark.parametrize("opset", [8, 13])
@pytest.mark.parametrize("op", ["Sum", "Max", "Min", "Mean"])
def test_variadic_operator_when_given_three_operands_then_agrees(op: str, opset: int) -> None:
    inputs = {name: floats(*shape) for name, shape in {"a": (2, 3), "b": (3,), "c": (2, 1)}.items()}
    assert_agrees(one_node(op, inputs, opset=opset), inputs)


def test_split_when_sizes_are_stated_then_every_part_agrees() -> None:
    model = one_node("Split", {"x": floats(2, 7)}, {"sizes": integers(3, 4)}, axis=1)
    del model.graph.node[0].output[:]
    model.graph.node[0].output.extend(["y", "z"])
    model.graph.output.append(onnx.ValueInfoProto(name="z"))
    assert_agrees(model, {"x": floats(2, 7)})
