"""Attention operators of com.microsoft: Attention, MultiHeadAttention, GroupQueryAttention, RotaryEmbedding.

Takes what onnxruntime documents for each, in the layouts that its CPU kernels read; gives core ops through `attend`.
Invariant: a masked key has the model's own filter value added, as onnxruntime does, and not minus infinity; caches
that are shared between calls in place, or quantised, are refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tessera_build.frontends.onnx.attend import (
    SPLIT,
    Heads,
    Weighing,
    appended,
    attend,
    bias_of,
    join_heads,
    split_heads,
    window,
)
from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.contraction import matrix_product
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.grouped import grouped_attention
from tessera_build.frontends.onnx.indexing import counting
from tessera_build.frontends.onnx.rotary import Turn, rotated
from tessera_build.frontends.onnx.shapes import reshaped
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import I32, I64

_FILTER = -10000.0


def _refuse(n: Call, operands: Sequence[int] = (), attributes: Sequence[str] = ()) -> None:
    """Refuse operands and attributes that mean caches or modes which are not built."""
    given = [f"operand {i}" for i in operands if n.optional(i) is not None]
    given += [name for name in attributes if n.has(name) and n.integer(name)]
    if given:
        raise unsupported(f"{n.op} with {' and '.join(given)} is not built")


def _part(c: Context, x: Tensor, axis: int, bounds: tuple[Extent, Extent]) -> Tensor:
    starts = [bounds[0] if i == axis else 0 for i in range(x.rank)]
    stops = [bounds[1] if i == axis else e for i, e in enumerate(x.shape)]
    return c.slice(x, starts, stops)


def _plane(c: Context, x: Tensor, axis: int, index: int) -> Tensor:
    """The tensor at one place of an axis, without that axis."""
    part = _part(c, x, axis, (index, index + 1))
    return c.reshape(part, [e for i, e in enumerate(x.shape) if i != axis])


# -- masks ------------------------------------------------------------------------------------------------------------


def _masked(c: Context, n: Call, mask: Tensor | None, heads: Heads) -> Tensor | None:
    """The bias for a mask of keys in one of onnxruntime's forms."""
    if mask is None:
        return None
    batch, total = heads.keys.shape[0], heads.keys.shape[2]
    if mask.rank == 1:
        seen = _within(c, mask, batch, total)
    elif mask.rank in (2, 3):
        shape = (mask.shape[0], 1, *((1,) if mask.rank == 2 else mask.shape[1:2]), mask.shape[-1])
        seen = c.op("gt", c.reshape(mask, shape), c.scalar(0, mask.dtype))
    else:
        raise unsupported(f"{n.op} with a mask of rank {mask.rank} is not built", found=str(mask.type))
    hidden = c.scalar(n.number("mask_filter_value", _FILTER), heads.queries.dtype)
    return c.op("select", seen, c.scalar(0, heads.queries.dtype), hidden)


def _within(c: Context, mask: Tensor, batch: Extent, total: Extent) -> Tensor:
    """Keys before each row's end, and from its start where a second half of the mask states one."""
    places, length = counting(c, 4, 3, total), mask.shape[0]
    two = isinstance(length, int) and isinstance(batch, int) and length == 2 * batch
    if not two and isinstance(length, int) and isinstance(batch, int) and length != batch:
        raise unsupported("attention with a mask of cumulated lengths is not built", found=str(mask.type))
    bounds = [_part(c, mask, 0, (batch * i, batch * (i + 1))) for i in (0, 1)] if two else [mask]
    ends = [c.reshape(c.cast(b, I32), (*b.shape, 1, 1, 1)) for b in bounds]
    before = c.op("lt", places, ends[0])
    return c.op("and", before, c.op("ge", places, ends[1])) if two else before


def _weighing(
    c: Context, n: Call, heads: Heads, sources: tuple[Tensor | None, Tensor | None, Tensor | None]
) -> Weighing:
    """From the mask, the additive bias and the keys of earlier calls."""
    mask, added, past = sources
    kind, lengths = heads.queries.dtype, (heads.queries.shape[2], heads.keys.shape[2])
    bias = _masked(c, n, mask, heads)
    if added is not None:
        bias = added if bias is None else c.op("add", bias, added)
    if n.integer("unidirectional", 0):
        offset = c.scalar(0, I32) if past is None else c.number(past.shape[2], I32)
        bias = bias_of(c, window(c, lengths, offset, (-1, 0)), bias, kind)
    scale = n.number("scale") if n.has("scale") else 0.0
    return Weighing(scale or None, bias=bias)


# -- operators --------------------------------------------------------------------------------------------------------


def _attention(c: Context, n: Call) -> tuple[Tensor, ...]:
    """Projection, split into heads, attention; past and present hold keys and values in one tensor."""
    _refuse(n, (6,))
    n.ignore("rotary_embedding_dim")
    x, weights, bias = n.input(0), n.input(1), n.optional(2)
    joined = matrix_product(c, x, weights)
    joined = joined if bias is None else c.op("add", joined, bias)
    return projected_attention(c, n, joined, (n.optional(3), n.optional(4), n.optional(5)))


def projected_attention(
    c: Context, n: Call, joined: Tensor, operands: tuple[Tensor | None, Tensor | None, Tensor | None]
) -> tuple[Tensor, Tensor]:
    """Attention of queries, keys and values that lie side by side; `operands` are the mask, the past, the bias."""
    _refuse(n, (), ("do_rotary", "past_present_share_buffer"))
    mask, past, added = operands
    count = n.integer("num_heads")
    q, k, v = (split_heads(c, t, count) for t in _columns_of(c, n, joined))
    earlier = (None, None) if past is None else tuple(_plane(c, past, 0, i) for i in (0, 1))
    heads = Heads(q, appended(c, earlier[0], k), appended(c, earlier[1], v))
    done = attend(c, heads, _weighing(c, n, heads, (mask, added, earlier[0])))
    present = heads.keys
    if n.wants(1):
        both = [c.reshape(t, (1, *t.shape)) for t in (heads.keys, heads.values)]
        present = c.op("concat", *both, axis=0)
    return join_heads(c, done.result), present


def _columns_of(c: Context, n: Call, joined: Tensor) -> list[Tensor]:
    """Queries, keys and values side by side, taken apart."""
    extent = joined.shape[-1]
    if n.has("qkv_hidden_sizes") and any(n.integers("qkv_hidden_sizes")):
        sizes = n.integers("qkv_hidden_sizes")
    elif isinstance(extent, int) and extent % 3 == 0:
        sizes = (extent // 3,) * 3
    else:
        raise unsupported("Attention with weights of a symbolic shape", found=str(n.input(1).type))
    if len(sizes) != 3 or sum(sizes) != extent:
        raise ill_formed("Attention's hidden sizes do not fit its weights", found=f"{sizes} of {extent}")
    edges = [0, sizes[0], sizes[0] + sizes[1], sum(sizes)]
    return [_part(c, joined, 2, (low, high)) for low, high in itertools.pairwise(edges)]


def _multi_head(c: Context, n: Call) -> tuple[Tensor, ...]:
    _refuse(n, (8, 9))
    q, k, v = _projections(c, n)
    past = (n.optional(6), n.optional(7))
    if (past[0] is None) != (past[1] is None):
        raise ill_formed("MultiHeadAttention has past keys without past values, or values without keys")
    heads = Heads(q, appended(c, past[0], k), appended(c, past[1], v))
    done = attend(c, heads, _weighing(c, n, heads, (n.optional(4), n.optional(5), past[0])))
    return join_heads(c, done.result), heads.keys, heads.values, done.stages[2]


def _projections(c: Context, n: Call) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as heads, from each of the forms that they may be packed in, with their bias."""
    query, key, value, bias, count = n.input(0), n.optional(1), n.optional(2), n.optional(3), n.integer("num_heads")
    if key is None:
        if query.rank != 5:
            raise unsupported("MultiHeadAttention without keys takes packed queries of rank 5", found=str(query.type))
        packed = [_plane(c, query, 3, i) for i in range(3)]
    elif key.rank == 5:
        packed = [reshaped(c, query, (*query.shape[:2], count, -1)), *(_plane(c, key, 3, i) for i in (0, 1))]
    elif value is None:
        raise ill_formed("MultiHeadAttention has keys without values")
    else:
        packed = [t if t.rank == 4 else reshaped(c, t, (*t.shape[:2], count, -1)) for t in (query, key, value)]
    split = [key is not None and key.rank == 4 and i > 0 for i in range(3)]  # keys of another call are split already
    packed = _with_bias(c, packed, None if any(split) else bias)
    if any(split) and bias is not None:
        packed[0] = _with_bias(c, packed[:1], _part(c, bias, 0, (0, packed[0].shape[2] * packed[0].shape[3])))[0]
    q, k, v = (t if done else c.transpose(t, SPLIT) for t, done in zip(packed, split, strict=True))
    return q, k, v


def _with_bias(c: Context, parts: Sequence[Tensor], bias: Tensor | None) -> list[Tensor]:
    """[batch, length, heads, depth] each, plus its own stretch of the bias."""
    found: list[Tensor] = []
    first: Extent = 0
    for part in parts:
        width = part.shape[2] * part.shape[3]
        if bias is not None:
            own = c.reshape(_part(c, bias, 0, (first, first + width)), part.shape[2:])
            part = c.op("add", part, own)
        found.append(part)
        first = first + width
    return found


def _rotary(c: Context, n: Call) -> Tensor:
    """Places are stated for each token, or as the place of the first."""
    _refuse(n, (), ("is_packed_batching",))
    x, places, tables = n.input(0), n.input(1), (n.input(2), n.input(3))
    if n.number("scale", 1.0) != 1.0:
        raise unsupported("RotaryEmbedding with a scale is not built")
    heads = _heads_to_turn(c, n, x, tables[0].shape[1])
    if places.rank == 1:
        steps = c.cast(counting(c, 2, 1, heads.shape[2]), I64)
        places = c.op("add", c.reshape(places, (1, 1)), steps)
    turn = Turn.at(c, tables, places, bool(n.integer("interleaved", 0)))
    result = rotated(c, heads, turn)
    return join_heads(c, result) if x.rank == 3 else result


def _rotary_of_images(c: Context, n: Call) -> Tensor:
    """Each column of the tables is read at one of three places of its token: in time, in height or in width."""
    _refuse(n, (), ("is_packed_batching",))
    x, places, tables = n.input(0), n.input(1), (n.input(2), n.input(3))
    sections, width = n.integers("mrope_section"), tables[0].shape[1]
    if len(sections) != 3 or min(sections) < 0 or places.rank != 3 or n.number("scale", 1.0) != 1.0:
        raise ill_formed("MRotaryEmbedding has three sections and places", found=f"{sections} at {places.type}")
    c.unify(width, sum(sections), "MRotaryEmbedding's sections do not fill its tables")
    c.unify(places.shape[0], 3, "MRotaryEmbedding has three places a token")
    columns = _streams(sections, bool(n.integer("mrope_layout", 0)))
    turns = [Turn.at(c, tables, _plane(c, places, 0, i), False) for i in range(3)]
    chosen = [c.constant(columns == i) for i in (1, 2)]
    cosine, sine = (
        c.op("select", chosen[1], third, c.op("select", chosen[0], second, first))
        for first, second, third in (
            [c.retyped(getattr(t, name), (*places.shape[1:], sum(sections))) for t in turns]
            for name in ("cosine", "sine")
        )
    )
    heads = _heads_to_turn(c, n, x, width)
    result = rotated(c, heads, Turn(cosine, sine, bool(n.integer("interleaved", 0))))
    return join_heads(c, result) if x.rank == 3 else result


def _streams(sections: Sequence[int], interleaved: bool) -> NDArray[np.int64]:
    """Which of the three places each column is read at."""
    if not interleaved:
        return np.repeat(np.arange(3), sections)
    columns = np.zeros(sum(sections), np.int64)
    for stream in (1, 2):
        columns[stream : 3 * sections[stream] : 3] = stream
    return columns


def _heads_to_turn(c: Context, n: Call, x: Tensor, width: Extent) -> Tensor:
    """The operand as heads; without their number, a head is as deep as the tables turn."""
    partial, count = n.integer("rotary_embedding_dim", 0), n.integer("num_heads", 0)
    if x.rank == 4:
        return x
    if partial and count:
        return split_heads(c, x, count)
    return c.transpose(reshaped(c, x, (*x.shape[:2], -1, width * 2)), SPLIT)


CONTRIB_ATTENTION_OPERATORS: Mapping[str, Translator] = {
    "Attention": _attention,
    "MultiHeadAttention": _multi_head,
    "GroupQueryAttention": grouped_attention,
    "RotaryEmbedding": _rotary,
    "MRotaryEmbedding": _rotary_of_images,
}
