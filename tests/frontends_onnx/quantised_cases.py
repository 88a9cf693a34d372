"""Re-drawn nodes of quantised operators: element types, zero points, scales, shapes, constant and run-time operands.

Takes a seeded generator; gives a model of one node with its data. Invariant: a seed always draws the same case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tessera_build.ir.graph.nodes import Array

MICROSOFT = "com.microsoft"
BYTES: tuple[type[np.uint8] | type[np.int8], ...] = (np.uint8, np.int8)


@dataclass(slots=True)
class Draw:
    """One node being drawn: `rng`, the operands given to it so far, and which of them are constants."""

    rng: np.random.Generator
    names: list[str] = field(default_factory=list[str])
    data: dict[str, Array] = field(default_factory=dict[str, Array])
    weights: dict[str, Array] = field(default_factory=dict[str, Array])
    attributes: dict[str, object] = field(default_factory=dict[str, object])

    def give(self, array: Array | None, constant: bool = False) -> Array | None:
        """The next operand; None leaves it out."""
        name = "" if array is None else f"v{len(self.names)}"
        self.names.append(name)
        if array is not None:
            (self.weights if constant else self.data)[name] = array
        return array

    def coin(self) -> bool:
        """True half the time."""
        return bool(self.rng.random() < 0.5)

    def size(self, low: int = 1, high: int = 9) -> int:
        """An extent."""
        return int(self.rng.integers(low, high))

    def byte_type(self) -> type[np.uint8] | type[np.int8]:
        """u8 or i8."""
        return BYTES[int(self.coin())]

    def integers(self, dtype: type[np.generic], *shape: int) -> Array:
        """Integers of the whole range."""
        info = np.iinfo(np.dtype(dtype).name)
        return self.rng.integers(info.min, info.max, shape, endpoint=True).astype(dtype)

    def zero(self, dtype: type[np.generic], *shape: int) -> Array:
        """Zero points: all zero now and then."""
        return np.zeros(shape, dtype) if self.rng.random() < 0.25 else self.integers(dtype, *shape)

    def scale(self, *shape: int, most: float = 1.0) -> NDArray[np.float32]:
        """Scales between 1/64 and 1 of the largest; powers of two now and then, so that quotients lie half way."""
        exact = np.exp2(self.rng.integers(-6, 1, shape))
        return np.asarray((exact if self.coin() else self.rng.uniform(1 / 64, 1, shape)) * most, np.float32)


def finish(draw: Draw, op: str, outputs: int = 1, domain: str = "", opset: int = 21) -> onnx.ModelProto:
    """The model; extents of its inputs are dynamic where they are above 1, half the time."""
    dynamic = draw.coin()
    inputs: list[onnx.ValueInfoProto] = []
    for name, array in draw.data.items():
        shape = [f"{name}_{i}" if dynamic and e > 1 else e for i, e in enumerate(array.shape)]
        code = helper.np_dtype_to_tensor_dtype(array.dtype)
        inputs.append(helper.make_tensor_value_info(name, code, shape))
    names = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, draw.names, names, domain=domain, name="node")
    node.attribute.extend(helper.make_attribute(name, value) for name, value in draw.attributes.items())
    constants = [numpy_helper.from_array(array, name) for name, array in draw.weights.items()]
    graph = helper.make_graph([node], "case", inputs, [onnx.ValueInfoProto(name=n) for n in names], constants)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def quantize(draw: Draw) -> onnx.ModelProto:
    """QuantizeLinear of numbers on a grid of half steps, among others."""
    shape = [draw.size() for _ in range(draw.size(1, 4))]
    axis = int(draw.rng.integers(len(shape)))
    dtype = [np.uint8, np.int8, np.uint16, np.int16][draw.size(0, 4)]
    per_axis = draw.coin()
    extents = (shape[axis],) if per_axis else ()
    scale, zero = draw.scale(*extents), draw.zero(dtype, *extents)
    wide = scale.reshape([-1 if i == axis else 1 for i in range(len(shape))]) if per_axis else scale
    steps = draw.rng.integers(-400, 400, shape) / 2
    x = np.where(draw.rng.random(shape) < 0.5, steps * wide, draw.rng.normal(0, 60, shape)).astype(np.float32)
    draw.give(x.astype(np.float16) if draw.rng.random() < 0.2 else x)
    draw.give(scale.astype(draw.data["v0"].dtype), draw.coin())
    draw.give(None if dtype == np.uint8 and draw.rng.random() < 0.2 else zero, draw.coin())
    draw.attributes["axis"] = axis if draw.coin() else axis - len(shape)
    return finish(draw, "QuantizeLinear")


def dequantize(draw: Draw) -> onnx.ModelProto:
    """DequantizeLinear of every integer type, blocked now and then."""
    shape = [draw.size() for _ in range(draw.size(1, 4))]
    axis = int(draw.rng.integers(len(shape)))
    dtype = [np.uint8, np.int8, np.uint16, np.int16, np.int32][draw.size(0, 5)]
    kind = ("tensor", "axis", "block")[draw.size(0, 3)]
    block = draw.size(2, 4)
    blocks = tuple(-(-e // block) if i == axis else e for i, e in enumerate(shape))
    extents = {"tensor": (), "axis": (shape[axis],), "block": blocks}[kind]
    draw.give(draw.integers(dtype, *shape), draw.coin() or kind == "block")
    draw.give(draw.scale(*extents), draw.coin() or kind == "block")
    zero = np.zeros(extents, dtype) if dtype == np.int32 else draw.zero(dtype, *extents)
    draw.give(None if draw.coin() else zero, draw.coin() or kind == "block")
    draw.attributes["axis"] = axis
    if kind == "block":
        draw.attributes["block_size"] = block
        draw.data["v0"] = draw.weights.pop("v0")
        model = finish(draw, "DequantizeLinear")
        for info in model.graph.input:  # blocks want static extents
            for dim, extent in zip(info.type.tensor_type.shape.dim, shape, strict=True):
                dim.dim_value = extent
        return model
    return finish(draw, "DequantizeLinear")


def dynamic_quantize(draw: Draw) -> onnx.ModelProto:
    """DynamicQuantizeLinear of numbers with and without zeros, of one sign now and then."""
    x = draw.rng.normal(draw.rng.integers(-3, 4), 2, [draw.size() for _ in range(draw.size(1, 4))])
    draw.give((x * (draw.rng.random() > 0.1)).astype(np.float32))
    return finish(draw, "DynamicQuantizeLinear", outputs=3)


def matmul_integer(draw: Draw) -> onnx.ModelProto:
    """MatMulInteger with zero points a tensor, a row or a column, batches, constant and run-time weights."""
    m, k, n = draw.size(), draw.size(1, 40), draw.size(1, 40)
    left, right = draw.byte_type(), draw.byte_type()
    batch = [draw.size(1, 4) for _ in range(draw.size(0, 3))]
    constant = draw.coin()
    draw.give(draw.integers(left, *batch, m, k))
    draw.give(draw.integers(right, *([] if constant or draw.coin() else batch), k, n), constant)
    plain = draw.weights.get("v1", draw.data.get("v1", np.zeros(()))).ndim == 2
    draw.give(draw.zero(left), draw.coin())
    draw.give(draw.zero(right, *((n,) if plain and draw.coin() else ())), draw.coin())
    while len(draw.names) > 2 and draw.rng.random() < 0.15:
        name = draw.names.pop()
        draw.data.pop(name, None)
        draw.weights.pop(name, None)
    return finish(draw, "MatMulInteger")


def _window(draw: Draw, rank: int, kernel: list[int]) -> None:
    draw.attributes["strides"] = [draw.size(1, 3) for _ in range(rank)]
    draw.attributes["dilations"] = [draw.size(1, 3) for _ in range(rank)]
    if draw.coin():
        draw.attributes["pads"] = [draw.size(0, 3) for _ in range(2 * rank)]
    if draw.coin():
        draw.attributes["kernel_shape"] = kernel


def _conv_shapes(draw: Draw) -> tuple[list[int], list[int]]:
    """The shapes of a convolution's operand and weights."""
    rank, groups = draw.size(1, 3), draw.size(1, 3)
    kernel = [draw.size(1, 4) for _ in range(rank)]
    per_group, outputs = draw.size(1, 6), groups * draw.size(1, 5)
    draw.attributes["group"] = groups
    _window(draw, rank, kernel)
    image = [draw.size(6, 11) for _ in range(rank)]
    return [draw.size(1, 3), per_group * groups, *image], [outputs, per_group, *kernel]


def conv_integer(draw: Draw) -> onnx.ModelProto:
    """ConvInteger: groups, strides, dilations, pads that count as the zero point, which is data now and then."""
    shape, weights = _conv_shapes(draw)
    draw.give(draw.integers(np.uint8, *shape))
    right = draw.byte_type()
    draw.give(draw.integers(right, *weights), constant=True)
    draw.give(draw.zero(np.uint8), draw.coin())
    draw.give(draw.zero(right), draw.coin())
    return finish(draw, "ConvInteger")


def qlinear_matmul(draw: Draw) -> onnx.ModelProto:
    """QLinearMatMul, weights for a tensor or a column."""
    m, k, n = draw.size(), draw.size(1, 40), draw.size(1, 20)
    left = draw.byte_type()
    right = np.int8 if left == np.int8 else draw.byte_type()
    columns = (n,) if draw.coin() else ()
    draw.give(draw.integers(left, draw.size(1, 4), m, k))
    draw.give(draw.scale(), constant=True)
    draw.give(draw.zero(left), constant=True)
    draw.give(draw.integers(right, k, n), draw.coin())
    draw.give(draw.scale(*columns), constant=True)
    draw.give(draw.zero(right, *columns), constant=True)
    draw.give(draw.scale(most=300), constant=True)
    draw.give(draw.zero(left), constant=True)
    return finish(draw, "QLinearMatMul")


def qlinear_conv(draw: Draw) -> onnx.ModelProto:
    """QLinearConv with and without bias, scales for a tensor or a channel."""
    shape, weights = _conv_shapes(draw)
    left = draw.byte_type()
    right = np.int8 if left == np.int8 else draw.byte_type()
    channels = (weights[0],) if draw.coin() else ()
    draw.give(draw.integers(left, *shape))
    draw.give(draw.scale(), constant=True)
    draw.give(draw.zero(left), constant=True)
    draw.give(draw.integers(right, *weights), constant=True)
    draw.give(draw.scale(*channels), constant=True)
    draw.give(np.zeros(channels, right) if right == np.int8 else draw.zero(right), constant=True)
    draw.give(draw.scale(most=300), constant=True)
    draw.give(draw.zero(left), constant=True)
    if draw.coin():
        draw.give(draw.rng.integers(-9999, 9999, weights[0]).astype(np.int32), constant=True)
    return finish(draw, "QLinearConv")


CASES: dict[str, Callable[[Draw], onnx.ModelProto]] = {
    "quantize": quantize,
    "dequantize": dequantize,
    "dynamic_quantize": dynamic_quantize,
    "matmul_integer": matmul_integer,
    "conv_integer": conv_integer,
    "qlinear_matmul": qlinear_matmul,
    "qlinear_conv": qlinear_conv,
}
