"""Re-drawn nodes of com.microsoft's quantised operators.

Takes a seeded generator; gives a model of one node with its data. Invariant: a seed always draws the same case; what
onnxruntime approximates by tables or in another order differs by one step of the result's scale at most.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tests.frontends_onnx.quantised_cases import MICROSOFT, Draw, finish


def _parameters(draw: Draw, dtype: type[np.generic], most: float = 1.0) -> None:
    """A scale and a zero point, constants."""
    draw.give(draw.scale(most=most), constant=True)
    draw.give(draw.zero(dtype), constant=True)


def _shape(draw: Draw, low: int = 1) -> list[int]:
    return [draw.size() for _ in range(draw.size(low, 4))]


def _two(op: str, most: float) -> Callable[[Draw], onnx.ModelProto]:
    def make(draw: Draw) -> onnx.ModelProto:
        dtype, shape = draw.byte_type(), _shape(draw)
        for extents in (shape, shape[draw.size(0, len(shape)) :]):
            draw.give(draw.integers(dtype, *extents))
            _parameters(draw, dtype)
        _parameters(draw, dtype, most)
        return finish(draw, op, domain=MICROSOFT)

    return make


def _one(op: str, low: int = 1, most: float = 1.0) -> Callable[[Draw], onnx.ModelProto]:
    def make(draw: Draw) -> onnx.ModelProto:
        dtype, shape = draw.byte_type(), [e + 1 for e in _shape(draw, low)]
        draw.give(draw.integers(dtype, *shape))
        _parameters(draw, dtype)
        if op == "QLinearSoftmax":  # onnxruntime wraps a probability of 1 around where it is 256 steps
            draw.attributes.update(axis=draw.size(0, len(shape)), opset=13 if draw.coin() else 11)
            draw.give(np.asarray(1 / 256 if draw.coin() else draw.rng.uniform(1 / 256, 1 / 60), np.float32), True)
            draw.give(np.asarray(0 if dtype == np.uint8 else -128, dtype), constant=True)
        else:
            _parameters(draw, dtype, most)
        return finish(draw, op, domain=MICROSOFT)

    return make


def average_pool(draw: Draw) -> onnx.ModelProto:
    """QLinearAveragePool with pads that count or not."""
    draw.give(draw.integers(np.uint8, draw.size(1, 3), draw.size(), draw.size(5, 9), draw.size(5, 9)))
    _parameters(draw, np.uint8)
    _parameters(draw, np.uint8)
    draw.attributes.update(kernel_shape=[2, 3], strides=[draw.size(1, 3), 1], count_include_pad=int(draw.coin()))
    if draw.coin():
        draw.attributes["pads"] = [1, 0, 0, 1]
    return finish(draw, "QLinearAveragePool", domain=MICROSOFT)


def global_average(draw: Draw) -> onnx.ModelProto:
    """QLinearGlobalAveragePool with the channels first or last."""
    dtype = draw.byte_type()
    draw.give(draw.integers(dtype, draw.size(1, 3), draw.size(), draw.size(), draw.size()))
    _parameters(draw, dtype)
    _parameters(draw, dtype)
    draw.attributes["channels_last"] = int(draw.coin())
    return finish(draw, "QLinearGlobalAveragePool", domain=MICROSOFT)


def concat(draw: Draw) -> onnx.ModelProto:
    """QLinearConcat of two or three parts."""
    dtype, shape = draw.byte_type(), _shape(draw)
    axis = draw.size(0, len(shape))
    _parameters(draw, dtype)
    for _ in range(draw.size(2, 4)):
        draw.give(draw.integers(dtype, *(draw.size() if i == axis else e for i, e in enumerate(shape))))
        _parameters(draw, dtype)
    draw.attributes["axis"] = axis
    return finish(draw, "QLinearConcat", domain=MICROSOFT)


def to_float(draw: Draw) -> onnx.ModelProto:
    """MatMulIntegerToFloat."""
    m, k, n = draw.size(), draw.size(1, 40), draw.size(1, 20)
    left, right = np.uint8, draw.byte_type()
    columns = (n,) if draw.coin() else ()
    draw.give(draw.integers(left, draw.size(1, 3), m, k))
    draw.give(draw.integers(right, k, n), constant=True)
    draw.give(draw.scale(), draw.coin())
    draw.give(draw.scale(*columns), constant=True)
    draw.give(draw.zero(left), draw.coin())
    draw.give(draw.zero(right, *columns), constant=True)
    if draw.coin():
        draw.give(draw.rng.normal(0, 99, n).astype(np.float32), constant=True)
    return finish(draw, "MatMulIntegerToFloat", domain=MICROSOFT)


def dynamic_matmul(draw: Draw) -> onnx.ModelProto:
    """DynamicQuantizeMatMul."""
    m, k, n = draw.size(), draw.size(1, 40), draw.size(1, 20)
    right = draw.byte_type()
    columns = (n,) if draw.coin() else ()
    draw.give(draw.rng.normal(0, 2, (draw.size(1, 3), m, k)).astype(np.float32))
    draw.give(draw.integers(right, k, n), constant=True)
    draw.give(draw.scale(*columns), constant=True)
    draw.give(draw.zero(right, *columns), constant=True)
    if draw.coin():
        draw.give(draw.rng.normal(0, 99, n).astype(np.float32), constant=True)
    return finish(draw, "DynamicQuantizeMatMul", domain=MICROSOFT)


def gemm(draw: Draw) -> onnx.ModelProto:
    """QGemm with and without bias, result in floats or in integers."""
    m, k, n = draw.size(), draw.size(1, 40), draw.size(1, 20)
    left = draw.byte_type()
    right = np.int8 if left == np.int8 else draw.byte_type()
    flips = [int(draw.coin()), int(draw.coin())]
    draw.attributes.update(transA=flips[0], transB=flips[1], alpha=float(draw.rng.uniform(0.5, 2)))
    columns = (n,) if draw.coin() else ()
    draw.give(draw.integers(left, *((k, m) if flips[0] else (m, k))))
    _parameters(draw, left)
    draw.give(draw.integers(right, *((n, k) if flips[1] else (k, n))), constant=True)
    draw.give(draw.scale(*columns), constant=True)
    draw.give(draw.zero(right, *columns), constant=True)
    draw.give(draw.rng.integers(-9999, 9999, n).astype(np.int32) if draw.coin() else None, constant=True)
    if draw.coin():
        _parameters(draw, left, 300)
    return finish(draw, "QGemm", domain=MICROSOFT)


def blockwise(draw: Draw) -> onnx.ModelProto:
    """MatMulNBits of four and eight bits."""
    bits, block = (4, 8)[int(draw.coin())], 16 << draw.size(0, 2)
    m, k, n = draw.size(), draw.size(1, 80), draw.size(1, 20)
    blocks = -(-k // block)
    draw.give(draw.rng.normal(0, 1, (m, k)).astype(np.float32))
    draw.give(draw.integers(np.uint8, n, blocks, block * bits // 8), constant=True)
    draw.give(draw.scale(n * blocks), constant=True)
    if draw.coin():
        draw.give(draw.integers(np.uint8, n * -(-blocks * bits // 8)), constant=True)
    draw.attributes.update(K=k, N=n, bits=bits, block_size=block)
    return finish(draw, "MatMulNBits", domain=MICROSOFT)


def rows(draw: Draw) -> onnx.ModelProto:
    """GatherBlockQuantized of a table packed in bytes."""
    bits, block, count = (4, 8)[int(draw.coin())], 16, draw.size(2, 9)
    depth = block * draw.size(1, 4) - 8 * int(draw.coin())
    blocks = -(-depth // block)
    draw.give(draw.integers(np.uint8, count, depth * bits // 8), constant=True)
    draw.give(draw.rng.integers(-count, count, (draw.size(), draw.size())))
    draw.give(draw.scale(count, blocks), constant=True)
    if draw.coin():
        draw.give(draw.integers(np.uint8, count, -(-blocks * bits // 8)), constant=True)
    draw.attributes.update(bits=bits, block_size=block)
    return finish(draw, "GatherBlockQuantized", domain=MICROSOFT)


def attention(draw: Draw) -> onnx.ModelProto:
    """QAttention with a mask of keys now and then."""
    batch, length, depth, heads = draw.size(1, 3), draw.size(1, 6), draw.size(2, 10), draw.size(1, 3)
    hidden = heads * draw.size(2, 6)
    draw.give(draw.integers(np.uint8, batch, length, depth))
    draw.give(draw.integers(np.int8, depth, 3 * hidden), constant=True)
    draw.give(draw.rng.normal(0, 1, 3 * hidden).astype(np.float32), constant=True)
    draw.give(np.asarray(0.01, np.float32), constant=True)
    draw.give(draw.scale(*((3 * hidden,) if draw.coin() else ()), most=0.02), constant=True)
    masked = draw.coin()
    draw.give(draw.rng.integers(1, length, batch, endpoint=True).astype(np.int32) if masked else None)
    draw.give(draw.zero(np.uint8), constant=True)
    draw.give(np.asarray(0, np.int8), constant=True)
    draw.attributes.update(num_heads=heads, unidirectional=int(draw.coin()))
    return finish(draw, "QAttention", domain=MICROSOFT)


def lstm(draw: Draw) -> onnx.ModelProto:
    """DynamicQuantizeLSTM, one direction or two, scales for a direction or a column."""
    steps, batch, features, hidden = draw.size(1, 5), draw.size(1, 4), draw.size(2, 7), draw.size(1, 7)
    ways = 1 + int(draw.coin())
    draw.give(draw.rng.normal(0, 1, (steps, batch, features)).astype(np.float32))
    dtype, columns = draw.byte_type(), (4 * hidden,) if draw.coin() else ()
    draw.give(draw.integers(dtype, ways, features, 4 * hidden), constant=True)
    draw.give(draw.integers(dtype, ways, hidden, 4 * hidden), constant=True)
    biased = draw.coin()
    draw.give(draw.rng.normal(0, 1, (ways, 8 * hidden)).astype(np.float32) if biased else None, constant=True)
    for _ in range(4):
        draw.give(None)
    for _ in range(2):
        draw.give(draw.scale(ways, *columns, most=0.01), constant=True)
        draw.give(np.zeros((ways, *columns), dtype) if dtype == np.int8 else draw.zero(dtype, ways, *columns), True)
    draw.attributes.update(hidden_size=hidden, direction="bidirectional" if ways > 1 else "forward")
    return finish(draw, "DynamicQuantizeLSTM", outputs=3, domain=MICROSOFT)


CASES: dict[str, Callable[[Draw], onnx.ModelProto]] = {
    "ms_add": _two("QLinearAdd", 2.0),
    "ms_mul": _two("QLinearMul", 99.0),
    "ms_sigmoid": _one("QLinearSigmoid", most=1 / 64),
    "ms_leaky_relu": _one("QLinearLeakyRelu"),
    "ms_softmax": _one("QLinearSoftmax"),
    "ms_average_pool": average_pool,
    "ms_global_average": global_average,
    "ms_concat": concat,
    "ms_to_float": to_float,
    "ms_dynamic_matmul": dynamic_matmul,
    "ms_gemm": gemm,
    "ms_blockwise": blockwise,
    "ms_rows": rows,
    "ms_attention": attention,
    "ms_lstm": lstm,
}
