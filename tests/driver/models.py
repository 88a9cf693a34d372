"""Small ONNX models for tests of whole builds.

Takes nothing; gives protobufs and the digits model's path. Invariant: seeded, so that equal calls give equal bytes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tessera_build.config import resource

Shape = Sequence[str | int]


def digits() -> Path:
    """The trained network of the quickstart."""
    return resource("examples/digits/digits.onnx")


def model_of(
    nodes: Sequence[onnx.NodeProto], weights: dict[str, np.ndarray], x: Shape, y: Shape, kind: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    """A model from nodes over input `x` of a kind and float output `y`, whose shapes are given."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", kind, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def mlp(batch: str | int = "batch") -> onnx.ModelProto:
    """Two layers: matmul, bias, relu, matmul, softmax."""
    generator = np.random.default_rng(7)
    weights = {
        "w1": generator.standard_normal((20, 33)).astype(np.float32),
        "b1": generator.standard_normal(33).astype(np.float32),
        "w2": generator.standard_normal((33, 5)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="gate"),
        helper.make_node("MatMul", ["r", "w2"], ["s"], name="second"),
        helper.make_node("Softmax", ["s"], ["y"], name="scores", axis=-1),
    ]
    return model_of(nodes, weights, [batch, 20], [batch, 5])


def embedding() -> onnx.ModelProto:
    """A gather: integer inputs that must stay below 11."""
    table = np.random.default_rng(3).standard_normal((11, 8)).astype(np.float32)
    nodes = [helper.make_node("Gather", ["table", "x"], ["y"], name="lookup", axis=0)]
    return model_of(nodes, {"table": table}, ["n"], ["n", 8], TensorProto.INT64)


def unsupported() -> onnx.ModelProto:
    """An operator that ONNX has and Tessera does not build."""
    nodes = [helper.make_node("RegexFullMatch", ["x"], ["y"], name="match")]
    return model_of(nodes, {}, [3, 4, 4], [3])


STATEFUL = """
from tessera import State, Tensor, f32, graph, op

W = op.tensor((16, 16), init=op.init.he(seed=1))


@graph.module("step")
def step(x: Tensor["B", 16, f32], h: State["B", 16, f32]):
    following = op.tanh(x @ W + h.value)
    return following, h.set(following)


@graph.module("other")
def other(x: Tensor["B", "S", 16, f32]):
    return op.softmax(x @ W)
"""
