"""The onnx package's nine `light_*` topologies with seeded weights in place of their constant ones.

Takes a model's name; gives a model whose outputs depend on every weight. Invariant: a weight's values depend on its
name and shape alone; logits are outputs too, because a softmax of random features saturates.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tessera_build.ir.graph.nodes import Array

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NAMES = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)
_VIEWS = ("Unsqueeze", "Reshape")


def refilled(name: str) -> onnx.ModelProto:
    """The topology with seeded weights."""
    model = onnx.load_model(FOLDER / f"light_{name}.onnx")
    graph = model.graph
    shapes = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    makers = [n for n in graph.node if n.op_type == "ConstantOfShape" and n.input[0] in shapes]
    made = {m.output[0] for m in makers}
    kept = [n for n in graph.node if n.output[0] not in made]
    consumers = {operand: (n, index) for n in kept for index, operand in enumerate(n.input)}
    for maker in makers:
        shape = tuple(int(e) for e in shapes[maker.input[0]])
        values = _values(maker.output[0], shape, _role(maker.output[0], consumers))
        graph.initializer.append(numpy_helper.from_array(values, maker.output[0]))
        # Models of this age list their weights as inputs, too.
        graph.input.append(helper.make_tensor_value_info(maker.output[0], onnx.TensorProto.FLOAT, shape))
    del graph.node[:]
    graph.node.extend(kept)
    for node in kept:
        if node.op_type == "Softmax":
            graph.output.append(onnx.ValueInfoProto(name=node.input[0]))
    return model


def data_input(model: onnx.ModelProto) -> tuple[str, tuple[int, ...]]:
    """Name and shape of the only input that is no weight."""
    weights = {i.name for i in model.graph.initializer}
    (info,) = [i for i in model.graph.input if i.name not in weights]
    return info.name, tuple(d.dim_value for d in info.type.tensor_type.shape.dim)


def _role(name: str, consumers: dict[str, tuple[onnx.NodeProto, int]]) -> tuple[str, int]:
    """The operator that finally reads a weight, and as which operand."""
    node, index = consumers[name]
    while node.op_type in _VIEWS and node.output[0] in consumers:
        node, index = consumers[node.output[0]]
    return node.op_type, index


def _values(name: str, shape: Sequence[int], role: tuple[str, int]) -> Array:
    """Magnitudes that keep activations near one through a hundred layers."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if role[0] in ("Mul", "BatchNormalization") and role[1] in (0, 1, 4):
        return random.uniform(0.8, 1.2, shape).astype(np.float32)
    if len(shape) > 1 and role[0] in ("Conv", "Gemm"):
        return (random.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))).astype(np.float32)
    return (random.standard_normal(shape) * 0.05).astype(np.float32)
