"""Quantised operators of ONNX: between floats and integers, and products of integers.

Takes integers with their scales and zero points; gives core ops. Invariant: sums of products are exact in i32, and
results differ from the definition by the rounding of one float32 product at most.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.frontends.onnx.call import Call, Translator, normalise_axis
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.contraction import matrices
from tessera_build.frontends.onnx.load import element_type
from tessera_build.frontends.onnx.quantisation import (
    Numbers,
    dequantised,
    integer_conv,
    integer_matmul,
    quantised,
    quantised_float,
    rescaled,
    saturated,
    spread,
)
from tessera_build.ir.core.types import F32, I8, U8, DType

BYTE_STEPS = 255.0


def _numbers(c: Context, n: Call, x: Tensor) -> Numbers:
    """Scale and zero point of QuantizeLinear and DequantizeLinear."""
    scale, zero = n.input(1), n.optional(2)
    block = n.integer("block_size", 0)
    stated = n.integer("axis", 1)
    single = scale.shape in ((), (1,))
    axis = 0 if single else normalise_axis(stated, x.rank)
    return Numbers(spread(c, scale, x, axis, block), None if zero is None else spread(c, zero, x, axis, block))


def _stated_dtype(n: Call, name: str) -> DType | None:
    code = n.integer(name, 0)
    return element_type(code, f"{n.op}'s {name}") if code else None


def _quantize(c: Context, n: Call) -> Tensor:
    x, zero = n.input(0), n.optional(2)
    saturate = bool(n.integer("saturate", 1))
    n.ignore("precision")  # float32 holds what every allowed precision holds
    dtype = _stated_dtype(n, "output_dtype") or (zero.dtype if zero is not None else U8)
    numbers = _numbers(c, n, x)
    if dtype.is_float:
        return quantised_float(c, x, numbers, dtype, saturate)
    return quantised(c, x, numbers, dtype)


def _dequantize(c: Context, n: Call) -> Tensor:
    """Weights of bytes stay visible in the graph, for products of bytes; they are converted when those are made."""
    x = n.input(0)
    if x.content is not None and x.rank > 1 and x.dtype in (U8, I8):
        x = Tensor(x.type, c.value(x), None, x.name)
    dtype = _stated_dtype(n, "output_dtype") or n.input(1).dtype
    return dequantised(c, x, _numbers(c, n, x), dtype)


def dynamic(c: Context, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(x as u8, scale, zero point) for the range of x's own values, which always has 0 in it."""
    axes, zero = tuple(range(x.rank)), c.scalar(0, F32)
    low = c.op("min", c.reduce("min", x, axes, keepdims=False), zero)
    high = c.op("max", c.reduce("max", x, axes, keepdims=False), zero)
    scale = c.op("div", c.op("sub", high, low), c.scalar(BYTE_STEPS, F32))
    scale = c.op("select", c.op("eq", high, low), c.scalar(1, F32), scale)
    start = c.op("neg", c.op("div", low, scale))
    point = saturated(c, start, None, U8)
    return quantised(c, x, Numbers(scale, point), U8), scale, point


def _dynamic_quantize(c: Context, n: Call) -> tuple[Tensor, ...]:
    return dynamic(c, n.input(0))


def _matmul_integer(c: Context, n: Call) -> Tensor:
    zeros = n.optional(2), n.optional(3)
    return matrices(c, n.input(0), n.input(1), lambda a, b: integer_matmul(c, n, (a, zeros[0]), (b, zeros[1])))


def _conv_integer(c: Context, n: Call) -> Tensor:
    return integer_conv(c, n, (n.input(0), n.optional(2)), (n.input(1), n.optional(3)))


def _qlinear_matmul(c: Context, n: Call) -> Tensor:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (n.input(i) for i in range(8))
    total = matrices(c, a, b, lambda left, right: integer_matmul(c, n, (left, a_zero), (right, b_zero)))
    rows = c.reshape(a_scale, (*a_scale.shape, 1)) if a_scale.rank == 1 and a_scale.shape != (1,) else a_scale
    return rescaled(c, total, (rows, b_scale), (Numbers(y_scale, y_zero), y_zero.dtype))


def _qlinear_conv(c: Context, n: Call) -> Tensor:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = (n.input(i) for i in range(8))
    bias, spatial = n.optional(8), (1,) * (x.rank - 2)
    total = integer_conv(c, n, (x, x_zero), (w, w_zero))
    if bias is not None:
        total = c.op("add", total, c.reshape(bias, (*bias.shape, *spatial)))
    per_channel = c.reshape(w_scale, (*w_scale.shape, *spatial)) if w_scale.rank else w_scale
    single = [c.reshape(t, ()) for t in (x_scale, y_scale, y_zero)]
    return rescaled(c, total, (single[0], per_channel), (Numbers(single[1], single[2]), y_zero.dtype))


QUANTISED_OPERATORS: Mapping[str, Translator] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic_quantize,
    "MatMulInteger": _matmul_integer,
    "ConvInteger": _conv_integer,
    "QLinearMatMul": _qlinear_matmul,
    "QLinearConv": _qlinear_conv,
}
