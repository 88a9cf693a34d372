"""Products of com.microsoft with quantised weights: of bytes, and of a few bits in blocks.

Takes floats or integers with scales and zero points; gives core ops. Invariant: sums of products of bytes are exact in
i32; weights of a few bits are unpacked and dequantised at build time, to the very numbers that they stand for.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tessera_build.frontends.onnx.call import Call, Translator, normalise_axis
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.contraction import matrices, matrix_product
from tessera_build.frontends.onnx.contrib_attention import projected_attention
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.quantisation import Numbers, Pair, dequantised, integer_matmul, rescaled, spread
from tessera_build.frontends.onnx.quantised import dynamic
from tessera_build.ir.core.types import F32, I32, U8
from tessera_build.ir.graph.nodes import Array

_BYTE_BITS = 8
_AXES = (("gather_axis", 0), ("quantize_axis", -1))


def _floats(c: Context, total: Tensor, factor: Tensor, bias: Tensor | None, scales: Tensor) -> Tensor:
    """Exact sums times one factor, plus the bias, in the type of the scales."""
    result = c.op("mul", c.cast(total, F32), factor)
    result = result if bias is None else c.op("add", result, c.cast(bias, F32))
    return c.cast(result, scales.dtype)


def _scale_product(c: Context, a: Tensor, b: Tensor) -> Tensor:
    """Both scales as one; the left one is one number."""
    return c.op("mul", c.reshape(c.cast(a, F32), ()), c.reshape(c.cast(b, F32), () if b.shape == (1,) else b.shape))


def _to_float(c: Context, n: Call) -> Tensor:
    """MatMulIntegerToFloat."""
    zeros = n.optional(4), n.optional(5)
    total = matrices(c, n.input(0), n.input(1), lambda a, b: integer_matmul(c, n, (a, zeros[0]), (b, zeros[1])))
    return _floats(c, total, _scale_product(c, n.input(2), n.input(3)), n.optional(6), n.input(2))


def _dynamic(c: Context, n: Call) -> Tensor:
    """DynamicQuantizeMatMul: the left side is quantised by the range of its own values."""
    x, scale, zero = dynamic(c, n.input(0))
    total = matrices(c, x, n.input(1), lambda a, b: integer_matmul(c, n, (a, zero), (b, n.optional(3))))
    return _floats(c, total, _scale_product(c, scale, n.input(2)), n.optional(4), n.input(0))


def _gemm(c: Context, n: Call) -> Tensor:
    """QGemm: alpha * a_scale * b_scale * (a * b + bias) as floats, or quantised where the result has a scale."""
    flips = [bool(n.integer(name, 0)) for name in ("transA", "transB")]
    a, b = (c.transpose(n.input(i), (1, 0)) if flip else n.input(i) for i, flip in ((0, flips[0]), (3, flips[1])))
    total = integer_matmul(c, n, (a, n.optional(2)), (b, n.optional(5)))
    bias, y_scale, y_zero = n.optional(6), n.optional(7), n.optional(8)
    if bias is not None:
        total = c.op("add", total, c.cast(bias, I32))
    left = c.op("mul", c.scalar(n.number("alpha", 1.0), F32), c.reshape(n.input(1), ()))
    if y_scale is None:
        return c.op("mul", c.cast(total, F32), _scale_product(c, left, n.input(4)))
    dtype = n.input(0).dtype if y_zero is None else y_zero.dtype
    single = [None if t is None else c.reshape(t, ()) for t in (y_scale, y_zero)]
    right = n.input(4)
    columns = c.reshape(right, ()) if right.shape == (1,) else right
    assert single[0] is not None
    return rescaled(c, total, (left, columns), (Numbers(single[0], single[1]), dtype))


# -- weights of a few bits ---------------------------------------------------------------------------------------------


def _unpacked(packed: Array, bits: int, count: int) -> NDArray[np.float32]:
    """The first `count` numbers of each row of bytes, whose lowest bits come first."""
    shifts = np.arange(_BYTE_BITS // bits, dtype=np.int32) * bits
    wide = (packed.astype(np.int32)[..., None] >> shifts) & ((1 << bits) - 1)
    return wide.reshape(*packed.shape[:-1], -1)[..., :count].astype(np.float32)


def _blockwise(c: Context, n: Call) -> Tensor:
    """MatMulNBits: A times weights [N, K] in blocks along K, each block with a scale and a zero point."""
    n.ignore("accuracy_level")  # how coarsely A may be quantised on the way: here it never is
    depth, columns, block = n.integer("K"), n.integer("N"), n.integer("block_size")
    bits = n.integer("bits", 4)
    if bits not in (2, 4, 8) or n.optional(4) is not None or n.integer("weight_prepacked", 0):
        raise unsupported(f"{n.op} with {bits} bits, with g_idx or with weights packed beforehand is not built")
    blocks = -(-depth // block)
    words = c.known(n.input(1), f"{n.op}'s weights").reshape(columns, -1)
    numbers = _unpacked(words.view(np.uint8), bits, blocks * block).reshape(columns, blocks, block)
    scales = c.known(n.input(2), f"{n.op}'s scales").astype(np.float32).reshape(columns, blocks, 1)
    weights = (numbers - _zeros(c, n, (columns, blocks, bits))) * scales
    weights = weights.reshape(columns, blocks * block)[:, :depth].astype(np.float32)
    x, bias = n.input(0), n.optional(5)
    product = matrix_product(c, c.cast(x, F32), c.constant(weights, n.input(1).name), transpose_b=True)
    return c.cast(product if bias is None else c.op("add", product, c.cast(bias, F32)), x.dtype)


def _zeros(c: Context, n: Call, layout: tuple[int, int, int]) -> NDArray[np.float32]:
    """The zero points of all blocks: packed like weights, or plain numbers; the middle of the range by default."""
    columns, blocks, bits = layout
    zeros = n.optional(3)
    if zeros is None:
        return np.full((1, 1, 1), 1 << (bits - 1), np.float32)
    known = c.known(zeros, f"{n.op}'s zero points")
    if known.dtype == np.uint8:
        known = _unpacked(known.reshape(columns, -1), bits, blocks)
    return known.astype(np.float32).reshape(columns, blocks, 1)


def _rows(c: Context, n: Call) -> Tensor:
    """GatherBlockQuantized: rows of a table of a few bits, dequantised after they were taken."""
    table, indices, scales, zeros = n.input(0), n.input(1), n.input(2), n.optional(3)
    axis, along = (normalise_axis(n.integer(name, default), table.rank) for name, default in _AXES)
    bits, block = n.integer("bits", 4), n.integer("block_size", 128)
    if axis != 0 or along != table.rank - 1 or bits not in (4, 8):
        raise unsupported(f"{n.op} along other axes than the first and the last, or of {bits} bits, is not built")
    middle = 0
    if table.dtype == U8:
        depth = _BYTE_BITS // bits * (table.shape[-1] if isinstance(table.shape[-1], int) else 0)
        table = _wide(c, n, table, (bits, depth))
        zeros = None if zeros is None else _wide(c, n, zeros, (bits, c.known(scales, "scales").shape[-1]))
        middle = 1 << (bits - 1)
    taken = [c.op("gather", t, indices, axis=0) for t in (table, scales, *([] if zeros is None else [zeros]))]
    rank = taken[0].rank - 1
    scale, *zero = (spread(c, t, taken[0], rank, block) for t in taken[1:])
    point = zero[0] if zero else c.scalar(middle, I32)
    return dequantised(c, taken[0], Numbers(scale, point), scales.dtype)


def _wide(c: Context, n: Call, packed: Tensor, layout: tuple[int, int]) -> Tensor:
    """Numbers of a few bits, a byte each: `layout` is how many bits, and how many numbers a row."""
    known = c.known(packed, f"{n.op}'s packed numbers")
    return c.constant(_unpacked(known, *layout).astype(np.uint8), packed.name)


# -- attention ---------------------------------------------------------------------------------------------------------


def _attention(c: Context, n: Call) -> tuple[Tensor, Tensor]:
    """QAttention: attention whose projections are products of bytes."""
    x, w, x_zero, w_zero = n.input(0), n.input(1), n.optional(6), n.optional(7)
    if x.rank != 3 or w.rank != 2:
        raise ill_formed(f"{n.op} takes a batch of sequences and a matrix", found=f"{x.type} and {w.type}")
    left: Pair = (x, None if x_zero is None else c.reshape(x_zero, ()))
    total = integer_matmul(c, n, left, (w, w_zero))
    projected = _floats(c, total, _scale_product(c, n.input(3), n.input(4)), n.input(2), n.input(3))
    return projected_attention(c, n, projected, (n.optional(5), n.optional(8), None))


CONTRIB_INTEGER_OPERATORS: Mapping[str, Translator] = {
    "MatMulIntegerToFloat": _to_float,
    "DynamicQuantizeMatMul": _dynamic,
    "QGemm": _gemm,
    "MatMulNBits": _blockwise,
    "GatherBlockQuantized": _rows,
    "QAttention": _attention,
}
