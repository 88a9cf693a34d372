"""Operators of com.microsoft that older exporters wrote for what ONNX lacked, and weights in bitsandbytes' four bits.

Takes what onnxruntime documents for each; gives core ops, mostly through the translators of ONNX's own operators.
Invariant: scores that an n-gram forbids become minus infinity, and every other element passes as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tessera_build.frontends.onnx.call import Call, Translator, normalise_axis
from tessera_build.frontends.onnx.containers import Value
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.contraction import matrices, matrix_product
from tessera_build.frontends.onnx.counted import COUNTED_OPERATORS
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.frontends.onnx.grids import GRID_OPERATORS
from tessera_build.frontends.onnx.order import larger
from tessera_build.frontends.onnx.shapes import SHAPE_OPERATORS
from tessera_build.frontends.onnx.transposed import TRANSPOSED_OPERATORS
from tessera_build.ir.core.dims import floordiv
from tessera_build.ir.core.types import F32, I32, I64

_GRIDS_SINCE = 16
# What four bits mean, by onnxruntime's number of the type: FP4 and NF4 of bitsandbytes (Dettmers et al., 2023).
_FP4 = (0.0, 5.208333333e-03, 2 / 3, 1.0, 1 / 3, 0.5, 1 / 6, 0.25)
_NF4_BELOW = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453)
_NF4_NEAR = (-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0)
_NF4_ABOVE = (0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224)
_NF4_FAR = (0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)
_FOUR_BITS = ((*_FP4, *(-v for v in _FP4)), (*_NF4_BELOW, *_NF4_NEAR, *_NF4_ABOVE, *_NF4_FAR))


def _expand_dims(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    (stated,) = c.known_ints(n.input(1), "the axis of ExpandDims")
    axis = normalise_axis(stated, x.rank + 1)
    return c.reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))


def _range(c: Context, n: Call) -> Value | tuple[Value, ...]:
    """Range, whose bounds may be vectors of one element, and whose step may be left out."""
    start, limit, step = n.input(0), n.input(1), n.optional(2)
    single = tuple(c.reshape(t, ()) for t in (start, limit, c.scalar(1, start.dtype) if step is None else step))
    return SHAPE_OPERATORS["Range"](c, replace(n, inputs=single))


def _unique(c: Context, n: Call) -> tuple[Value, ...]:
    """Elements in the order of their first appearance, where each went, and how often."""
    found = COUNTED_OPERATORS["Unique"](c, replace(n, attributes={"sorted": 0}))
    assert isinstance(found, tuple)
    return found[0], found[2], found[3]


def _grid_sample(c: Context, n: Call) -> Value | tuple[Value, ...]:
    return GRID_OPERATORS["GridSample"](c, replace(n, opset=_GRIDS_SINCE))


def _unfold(c: Context, n: Call) -> Tensor:
    """All slices of one size along an axis, on an axis of their own at the end."""
    x, size, step = n.input(0), n.integer("size"), n.integer("step", 1)
    axis = normalise_axis(n.integer("dim", -1), x.rank)
    if size < 1 or step < 1:
        raise ill_formed("UnfoldTensor's size and step are at least 1", found=f"{size}, {step}")
    c.require(x.shape[axis], ">=", size, "UnfoldTensor's slices are longer than their axis")
    turns = floordiv(x.shape[axis] - size, step) + 1
    first = c.op("mul", c.op("iota", shape=(turns, 1), axis=0, dtype=I64), c.scalar(step, I64))
    places = c.op("add", first, c.op("iota", shape=(1, size), axis=1, dtype=I64))
    cut = c.op("gather", x, places, axis=axis)
    rest = [i for i in range(cut.rank) if i != axis + 1]
    return c.transpose(cut, (*rest, axis + 1))


def _conv_transpose(c: Context, n: Call) -> Tensor:
    """ConvTranspose whose padding is an operand: what only a run knows is cut from the whole result."""
    x, w, pads, bias = n.input(0), n.input(1), n.optional(2), n.optional(3)
    plain = replace(n, inputs=(x, w, bias))
    known = None if pads is None or pads.content is None else c.known_ints(pads, "the padding of ConvTranspose")
    if known is not None:
        plain = replace(plain, attributes={**n.attributes, "pads": known})
    result = TRANSPOSED_OPERATORS["ConvTranspose"](c, plain)
    assert isinstance(result, Tensor)
    if pads is None or known is not None:
        return result
    cut = c.extents_of(pads)
    axes = result.rank - 2
    if len(cut) != 2 * axes:
        raise ill_formed("ConvTranspose's padding does not fit its axes", expected=f"{2 * axes}", found=str(len(cut)))
    low, high = cut[:axes], cut[axes:]
    stops = [e - h for e, h in zip(result.shape[2:], high, strict=True)]
    for start, stop in zip(low, stops, strict=True):
        c.require(stop, ">=", start, "padding cuts more than there is")
    return c.slice(result, (0, 0, *low), (*result.shape[:2], *stops))


def _short_integers(c: Context, n: Call) -> Tensor:
    """Products of 16-bit integers, summed in 32 bits."""
    a, b = (c.cast(n.input(i), I32) for i in (0, 1))
    return matrices(c, a, b, lambda left, right: matrix_product(c, left, right))


def _four_bits(c: Context, n: Call) -> Tensor:
    """A times weights [N, K] of four bits each, the first in the upper half of a byte, scaled block by block."""
    columns, depth, block = n.integer("N"), n.integer("K"), n.integer("block_size")
    kind = n.integer("quant_type")
    n.ignore("training_mode")
    n.only("transB", 1, 1, "multiplies by what training goes back through")
    if kind not in (0, 1) or min(columns, depth, block) < 1:
        raise ill_formed(f"{n.op}'s attributes are out of range", found=f"{kind}, {columns}, {depth}, {block}")
    size = columns * depth
    words = c.known(n.input(1), f"{n.op}'s weights").reshape(-1)
    scales = c.known(n.input(2), f"{n.op}'s scales").astype(np.float32).reshape(-1)
    if words.size != (size + 1) // 2 or scales.size != -(-size // block):
        raise ill_formed(f"{n.op}'s weights do not fit its attributes", found=f"{words.size} bytes, {scales.size}")
    halves = np.divmod(words.astype(np.int64), 16)
    codes = np.stack(halves, axis=1).reshape(-1)[:size]
    values = np.asarray(_FOUR_BITS[kind], np.float32)[codes] * np.repeat(scales, block)[:size]
    weights = c.constant(values.astype(np.float32).reshape(columns, depth), n.input(1).name)
    product = matrix_product(c, c.cast(n.input(0), F32), weights, transpose_b=True)
    return c.cast(product, n.input(0).dtype)


def _forbidden(c: Context, n: Call) -> Tensor:
    """NGramRepeatBlock: a word that would repeat a sequence of words has no chance."""
    words, scores, size = n.input(0), n.input(1), n.integer("ngram_size")
    if words.rank != 2 or scores.rank != 2 or size < 1:
        raise ill_formed("NGramRepeatBlock takes rows of words and of scores", found=f"{words.type}, {scores.type}")
    batch = c.unify(words.shape[0], scores.shape[0], "NGramRepeatBlock has another number of rows than of scores")
    words, scores = (c.retyped(t, (batch, t.shape[1])) for t in (words, scores))
    length = words.shape[1]
    starts = larger(length - (size - 1), 0, c.ranges)
    # A row that is shorter than a sequence has nothing to repeat, and reads only what is put around it.
    around = c.op("pad", words, low=(0, size), high=(0, size))
    same: Tensor | None = None
    for position in range(size - 1):
        there = c.slice(around, (0, size + position), (batch, starts + (size + position)))
        last = c.slice(around, (0, length + (position + 1)), (batch, length + (position + 2)))
        equal = c.op("eq", there, last)
        same = equal if same is None else c.op("and", same, equal)
    following = c.slice(around, (0, 2 * size - 1), (batch, starts + (2 * size - 1)))
    most, least = c.scalar(math.inf, scores.dtype), c.scalar(-math.inf, scores.dtype)
    chances = c.broadcast_to(least, following.shape) if same is None else c.op("select", same, least, most)
    return c.op("scatter_elements", scores, following, chances, axis=1, reduction="min")


CONTRIB_OTHER_OPERATORS: Mapping[str, Translator] = {
    "ExpandDims": _expand_dims,
    "Range": _range,
    "Unique": _unique,
    "GridSample": _grid_sample,
    "UnfoldTensor": _unfold,
    "ConvTransposeWithDynamicPads": _conv_transpose,
    "MatMulInteger16": _short_integers,
    "MatMulBnb4": _four_bits,
    "NGramRepeatBlock": _forbidden,
}
