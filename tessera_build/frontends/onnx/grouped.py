"""GroupQueryAttention of com.microsoft: causal attention over a cache whose rows may be filled to different lengths.

Takes new queries, keys and values, the cache and how long each row of the batch is; gives the result and the next
cache. Invariant: the new keys of a row stand right after its own earlier ones, whatever lies behind them in the cache.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

from tessera_build.frontends.onnx.attend import (
    Attended,
    Heads,
    Weighing,
    attend,
    bias_of,
    join_heads,
    split_heads,
    window,
)
from tessera_build.frontends.onnx.call import Call
from tessera_build.frontends.onnx.containers import Value
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.indexing import counting
from tessera_build.frontends.onnx.order import larger
from tessera_build.frontends.onnx.rotary import Turn, rotated
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import I32, I64, DType
from tessera_build.ir.graph.ops.shapes import count

# What these operands and attributes ask for is not built: quantised caches, norms of queries, caches of a window.
_OPERANDS = (12, 13, 14, 15)
_FLAGS = ("sliding_window_cache", "kv_cache_bit_width")
_BEFORE_SOFTMAX = 1


def grouped_attention(c: Context, n: Call) -> tuple[Tensor, ...]:
    """The operator; over a cache of wider numbers than the queries, all of it computes in those."""
    query, past = n.input(0), (n.optional(3), n.optional(4))
    if past[0] is not None and past[0].dtype.bits > query.dtype.bits:
        kind = past[0].dtype
        widened = tuple(_widened(c, t, query.dtype, kind) for t in n.inputs)
        result, *caches = grouped_attention(c, replace(n, inputs=widened))
        return c.cast(result, query.dtype), *caches
    _refuse(n)
    q, k, v = _projections(c, n)
    (total,) = c.extents_of(n.input(6))
    # How many keys of each row came before: seqlens_k counts all of them but one.
    stated = n.input(5)
    if stated.rank == 0:
        raise ill_formed("GroupQueryAttention has one length a row", found=str(stated.type))
    c.unify(q.shape[0], count(stated.shape), "GroupQueryAttention's lengths and queries differ in number")
    stated = c.retyped(stated, (q.shape[0], *stated.shape[1:])) if stated.rank == 1 else stated
    lengths = c.op("add", c.cast(stated, I32), c.op("sub", c.scalar(1, I32), c.number(q.shape[2], I32)))
    earlier = c.reshape(c.op("max", lengths, c.scalar(0, I32)), (q.shape[0], 1, 1, 1))
    if n.integer("do_rotary", 0):
        turn = _turn(c, n, earlier, q.shape[2])
        q, k = rotated(c, q, turn), rotated(c, k, turn)
    else:
        n.ignore("rotary_interleaved")
    keys = _cached(c, past[0], k, (earlier, total))
    values = _cached(c, past[1], v, (earlier, total))
    heads = Heads(q, c.cast(keys, q.dtype), c.cast(values, q.dtype))
    seen = _seen(c, n, q, (keys.shape[2], earlier))
    done = attend(c, *_sunk(c, n, heads, _weighing(c, n, q, seen)))
    return join_heads(c, done.result), keys, values, _scores(c, n, done, (seen, total))


def _sunk(c: Context, n: Call, heads: Heads, how: Weighing) -> tuple[Heads, Weighing]:
    """What a head may attend to beside all keys: one more that is zero, and whose score is the head's sink."""
    sink, smooth = n.optional(11), n.integer("smooth_softmax", -1) > 0
    if sink is None and smooth:
        sink = c.broadcast_to(c.scalar(0, heads.queries.dtype), (heads.queries.shape[1],))
    if sink is None:
        return heads, how
    batch, own, length, _ = heads.queries.shape
    c.unify(sink.shape[0], own, "GroupQueryAttention has another number of sinks than heads")
    column = c.broadcast_to(c.reshape(sink, (1, own, 1, 1)), (batch, own, length, 1))
    bias = c.scalar(0, heads.queries.dtype) if how.bias is None else how.bias
    bias = c.op("concat", c.broadcast_to(bias, (batch, own, length, heads.keys.shape[2])), column, axis=3)
    keys, values = (
        c.op("concat", t, c.broadcast_to(c.scalar(0, t.dtype), (*t.shape[:2], 1, t.shape[3])), axis=2)
        for t in (heads.keys, heads.values)
    )
    return Heads(heads.queries, keys, values), replace(how, bias=bias)


def _scores(c: Context, n: Call, done: Attended, keys: tuple[Tensor, Extent]) -> Tensor:
    """The scores as a result, zero for keys that are hidden, or the weights that they become."""
    seen, total = keys
    before = n.integer("qk_output", 0) == _BEFORE_SOFTMAX
    scores = done.stages[2 if before else 3]
    found = c.slice(scores, (0, 0, 0, 0), (*scores.shape[:3], seen.shape[3]))
    found = c.op("select", seen, found, c.scalar(0, found.dtype)) if before else found
    return c.slice(found, (0, 0, 0, 0), (*found.shape[:3], total))


def _widened(c: Context, operand: Value | None, narrow: DType, wide: DType) -> Value | None:
    return c.cast(operand, wide) if isinstance(operand, Tensor) and operand.dtype == narrow else operand


def _refuse(n: Call) -> None:
    given = [f"operand {i}" for i in _OPERANDS if n.optional(i) is not None]
    given += [name for name in _FLAGS if n.has(name) and n.integer(name)]
    given += [name for name in ("k_quant_type", "v_quant_type") if n.text(name, "NONE") != "NONE"]
    n.ignore("qk_norm_epsilon")
    if given:
        raise unsupported(f"GroupQueryAttention with {' and '.join(given)} is not built")


def _projections(c: Context, n: Call) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = n.input(0), n.optional(1), n.optional(2)
    own, shared = n.integer("num_heads"), n.integer("kv_num_heads")
    if key is not None and value is not None:
        return split_heads(c, query, own), split_heads(c, key, shared), split_heads(c, value, shared)
    extent = query.shape[2]
    if not isinstance(extent, int) or extent % (own + 2 * shared):
        raise ill_formed("GroupQueryAttention's packed queries do not fit its heads", found=str(query.type))
    heads = split_heads(c, query, own + 2 * shared)
    edges = (0, own, own + shared, own + 2 * shared)
    batch, _, length, depth = heads.shape
    q, k, v = (c.slice(heads, (0, low, 0, 0), (batch, high, length, depth)) for low, high in itertools.pairwise(edges))
    return q, k, v


def _turn(c: Context, n: Call, earlier: Tensor, length: Extent) -> Turn:
    """The rotation at the place of each new token."""
    stated = n.optional(9)
    if stated is None:
        steps = counting(c, 2, 1, length)
        places = c.op("add", c.reshape(earlier, (earlier.shape[0], 1)), steps)
    else:
        places = stated
    return Turn.at(c, (n.input(7), n.input(8)), c.cast(places, I64), bool(n.integer("rotary_interleaved", 0)))


def _cached(c: Context, past: Tensor | None, new: Tensor, lengths: tuple[Tensor, Extent]) -> Tensor:
    """The next cache: each row's earlier keys, then the new ones, then whatever lay there."""
    earlier, total = lengths
    if past is None:
        return new
    new = c.cast(new, past.dtype)  # a cache may be of another type than the queries
    batch, heads, depth = (
        c.unify(past.shape[i], new.shape[i], "the cache differs from the new keys") for i in (0, 1, 3)
    )
    held, added = past.shape[2], new.shape[2]
    room = larger(total, held, c.ranges)
    both = c.op("concat", *(c.retyped(t, (batch, heads, t.shape[2], depth)) for t in (past, new)), axis=2)
    places = counting(c, 4, 2, room)
    step = c.op("sub", places, earlier)
    fresh = c.op("and", c.op("ge", step, c.scalar(0, I32)), c.op("lt", step, c.number(added, I32)))
    old = c.op("min", places, c.number(held - 1, I32))
    source = c.op("select", fresh, c.op("add", step, c.number(held, I32)), old)
    # One gather of whole rows: row (b, h, j) of the two tensors in one is row (b * heads + h) * extent + j.
    first = c.op("add", c.op("mul", counting(c, 4, 0, batch), c.number(heads, I32)), counting(c, 4, 1, heads))
    rows = c.op("add", c.op("mul", first, c.number(held + added, I32)), source)
    flat = c.reshape(both, (batch * heads * (held + added), depth))
    return c.op("gather", flat, c.reshape(rows, (batch, heads, room)), axis=0)


def _seen(c: Context, n: Call, q: Tensor, keys: tuple[Extent, Tensor]) -> Tensor:
    """Each new token sees the keys before it, or the last few of them; or all that its row has."""
    length, earlier = keys
    local = n.integer("local_window_size", -1)
    if not n.integer("causal", 1):
        return c.op("lt", counting(c, 4, 3, length), c.op("add", earlier, c.number(q.shape[2], I32)))
    seen = window(c, (q.shape[2], length), earlier, (-1 if local <= 0 else local - 1, 0))
    assert seen is not None
    return seen


def _weighing(c: Context, n: Call, q: Tensor, seen: Tensor) -> Weighing:
    scale = n.number("scale", 0.0)
    return Weighing(scale or None, n.number("softcap", 0.0), bias_of(c, seen, n.optional(10), q.dtype))
