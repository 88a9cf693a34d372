"""Small networks of ONNX with a loss, imported as modules; and modules in float64.

Takes seeds; gives modules with named weights. Invariant: everything is a function of the seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from onnx import NodeProto, helper

from tessera_build.frontends.onnx import read_onnx
from tessera_build.ir.core.node import Function, Node, Region
from tessera_build.ir.core.types import F32, F64, Type, tensor
from tessera_build.ir.graph.builder import ConstantPool, GraphBuilder
from tessera_build.ir.graph.nodes import Array, Attribute, GraphNode, Module
from tessera_build.ir.graph.regions import index_range
from tests.frontends_onnx.oracle import make_model


def _weights(seed: int, **shapes: tuple[int, ...]) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        name: np.asarray(rng.standard_normal(shape) / np.sqrt(max(1, int(np.prod(shape[1:])))), np.float32)
        for name, shape in shapes.items()
    }


def perceptron(seed: int = 0) -> Module:
    """Two layers and the mean squared distance from a target."""
    weights = _weights(seed, w1=(16, 8), b1=(16,), w2=(4, 16), b2=(4,))
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], transB=1),
        helper.make_node("Tanh", ["h"], ["a"]),
        helper.make_node("Gemm", ["a", "w2", "b2"], ["y"], transB=1),
        helper.make_node("Sub", ["y", "t"], ["d"]),
        helper.make_node("Mul", ["d", "d"], ["s"]),
        helper.make_node("ReduceMean", ["s"], ["loss"], keepdims=0),
    ]
    inputs = {"x": (np.float32, ("batch", 8)), "t": (np.float32, ("batch", 4))}
    return read_onnx(make_model(nodes, inputs, ["loss"], weights))


def convolutional(seed: int = 0) -> Module:
    """Strided, padded and depthwise convolutions, pooling, normalisation; cross-entropy of four classes."""
    weights = _weights(seed, w1=(8, 3, 3, 3), b1=(8,), w2=(8, 1, 3, 3), w3=(12, 8, 1, 1), w4=(4, 12), b4=(4,))
    weights |= _weights(seed + 1, scale=(8,), shift=(8,), mean=(8,))
    weights["variance"] = np.linspace(0.5, 2.0, 8, dtype=np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c1", "scale", "shift", "mean", "variance"], ["n1"]),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("MaxPool", ["c2"], ["p"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["p", "w3"], ["c3"]),
        helper.make_node("Sigmoid", ["c3"], ["g"]),
        helper.make_node("Mul", ["c3", "g"], ["r3"]),
        helper.make_node("GlobalAveragePool", ["r3"], ["q"]),
        helper.make_node("Flatten", ["q"], ["f"]),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["y"], transB=1),
        helper.make_node("SoftmaxCrossEntropyLoss", ["y", "t"], ["loss"]),
    ]
    inputs = {"x": (np.float32, ("batch", 3, 12, 12)), "t": (np.int64, ("batch",))}
    return read_onnx(make_model(nodes, inputs, ["loss"], weights))


def transformer(seed: int = 0) -> Module:
    """An embedding, one block of attention and feed-forward with layer normalisation, and a mean."""
    weights = _weights(
        seed, table=(10, 16), wq=(16, 16), wk=(16, 16), wv=(16, 16), wo=(16, 16), w1=(16, 32), w2=(32, 16)
    )
    weights |= {
        name: np.asarray(np.add(a, 1), np.float32) for name, a in _weights(seed + 1, s1=(16,), s2=(16,)).items()
    }
    weights |= _weights(seed + 2, b1=(16,), b2=(16,), last=(16,))
    shape = np.array([0, 0, 2, 8], np.int64)
    consts: dict[str, Array] = {
        "split": shape,
        "join": np.array([0, 0, 16], np.int64),
        "root": np.asarray(8**-0.5, np.float32),
    }
    nodes = [*_attention(), *_feed_forward()]
    inputs = {"tokens": (np.int64, ("batch", "steps"))}
    return read_onnx(make_model(nodes, inputs, ["loss"], {**weights, **consts}, opset=20))


def _attention() -> list[NodeProto]:
    """From tokens x to x + attention(normalised x), called r."""
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["x"]),
        helper.make_node("LayerNormalization", ["x", "s1", "b1"], ["n"]),
    ]
    for name in "qkv":
        nodes += [
            helper.make_node("MatMul", ["n", f"w{name}"], [f"{name}0"]),
            helper.make_node("Reshape", [f"{name}0", "split"], [f"{name}1"]),
            helper.make_node("Transpose", [f"{name}1"], [name], perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]),
        ]
    nodes += [
        helper.make_node("MatMul", ["q", "k"], ["raw"]),
        helper.make_node("Mul", ["raw", "root"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["o0"]),
        helper.make_node("Transpose", ["o0"], ["o1"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["o1", "join"], ["o2"]),
        helper.make_node("MatMul", ["o2", "wo"], ["o3"]),
        helper.make_node("Add", ["x", "o3"], ["r"]),
    ]
    return nodes


def _feed_forward() -> list[NodeProto]:
    """From r to the loss."""
    return [
        helper.make_node("LayerNormalization", ["r", "s2", "b2"], ["m"]),
        helper.make_node("MatMul", ["m", "w1"], ["f0"]),
        helper.make_node("Gelu", ["f0"], ["f1"]),
        helper.make_node("MatMul", ["f1", "w2"], ["f2"]),
        helper.make_node("Add", ["r", "f2"], ["e"]),
        helper.make_node("Mul", ["e", "last"], ["weighted"]),
        helper.make_node("ReduceMean", ["weighted"], ["loss"], keepdims=0),
    ]


def widened(module: Module, entry: str = "main") -> Module:
    """An entry, as `main`, with float64 in place of float32; constants keep their names."""
    old = module.entries[entry]
    to = GraphBuilder("main", module.dims)
    values = {a: to.input(n, _wide(old.types[a])) for n, a in zip(module.input_names[entry], old.args, strict=True)}
    _write(to, module, old, values, old.nodes)
    for name, result in zip(module.output_names[entry], old.results, strict=True):
        to.output(name, values[result])
    return replace(to.finish(), guards=module.guards)


def _write(to: GraphBuilder, module: Module, old: Function, values: dict[int, int], nodes: Sequence[Node]) -> None:
    for node in nodes:
        assert isinstance(node, GraphNode)
        if node.op == "constant":
            digest = str(node.attributes["digest"])
            array = module.constants[digest]
            array = array.astype(np.float64) if array.dtype == np.float32 else array
            if not ConstantPool(module.constants, module.constant_names).is_weight(digest):
                values[node.output] = to.constant(array, module.constant_names.get(digest, ""))
                continue
            # Under its old digest: parameters that are equal stay two.
            to.pool.arrays[digest] = array
            if name := module.constant_names.get(digest):
                to.pool.names[digest] = name
            values[node.output] = to.pooled(digest)
            continue
        regions: list[Region] = []
        for region in node.regions:
            with to.region([_wide(old.types[a]) for a in region.args], index_range(node, to.dims)) as made:
                values.update(zip(region.args, made.args, strict=True))
                _write(to, module, old, values, region.nodes)
                made.yields(*(values[r] for r in region.results))
            regions.append(made.region)
        attributes: Mapping[str, Attribute] = {k: F64 if v == F32 else v for k, v in node.attributes.items()}
        # `logistic` is a rational approximation for float32, whatever its operand's type.
        op = "sigmoid" if node.op == "logistic" else node.op
        values.update(
            zip(node.outputs, to.node(op, tuple(values[i] for i in node.inputs), attributes, regions), strict=True)
        )


def _wide(type_: Type) -> Type:
    return tensor(F64, *type_.shape) if type_.dtype == F32 else type_


def only(module: Module, entry: str) -> Module:
    """The module with one entry, called `main`."""
    return Module(
        {"main": module.entries[entry]},
        module.constants,
        module.dims,
        {"main": module.input_names[entry]},
        {"main": module.output_names[entry]},
        constant_names=module.constant_names,
        guards=module.guards,
        derivatives=frozenset({"main"} if entry in module.derivatives else ()),
    )
