"""Attention: scaled products of queries and keys choose among values.

Takes heads as axis 1: q[B, H, M, D], k[B, K, N, D], v[B, K, N, E], where K divides H; gives [B, H, M, E]. Invariant:
the scores are never written to memory; masks are added to them.
"""

from __future__ import annotations

import math

from tessera.errors import LanguageError
from tessera.model.arguments import Count, Place, door, number
from tessera.model.site import here
from tessera.model.tensor import Operand, Tensor, Value, described, emit
from tessera.model.trace import needed
from tessera.op.creation import dimension
from tessera.op.movement import reshaped, split
from tessera.op.random import dropout as dropped
from tessera.op.reduction import softmax
from tessera.state import KVCache
from tessera_build.ir.core.dims import Extent, floordiv, mod
from tessera_build.ir.core.types import I64

_MASKED = -1e30  # far below any score, and finite: a row that is masked wholly stays a number


@door
def attention(  # noqa: PLR0913  the formula has as many parts
    q: Value,
    k: Value,
    v: Value,
    *,
    mask: Value | None = None,
    causal: bool = False,
    scale: Operand | None = None,
    dropout: float = 0.0,
    key: Value | None = None,
) -> Tensor:
    """softmax(q kT * scale + mask) v. `causal`: query i of M sees keys up to i + N - M. The scale is 1 / sqrt(D).

    `dropout` leaves a share of the weights out, by a key of `op.random`; then, and where D or E is a name, scores are
    written to memory.
    """
    _expect_heads(q, k, v)
    q, factor = _scaled(q, scale)
    if causal:
        ahead = _ahead(q.shape[2], k.shape[2], q)
        mask = ahead if mask is None else mask + ahead
    if dropout or not all(isinstance(x.shape[3], int) for x in (q, v)):
        return _written_out((q * factor, k, v), mask, dropout, key)
    operands = (q, k, v) if mask is None else (q, k, v, _four_axes(mask))
    return emit("attention", *operands, scale=factor)


def _expect_heads(*tensors: Value) -> None:
    """Queries, and keys and values with them."""
    if any(x.ndim != 4 for x in tensors):
        raise LanguageError(
            "TYPE_MISMATCH",
            "attention takes heads",
            site=here(),
            expected="q[B, H, M, D], k[B, K, N, D], v[B, K, N, E]",
            found=", ".join(described(x) for x in tensors),
            hint="op.split_heads(x, heads) makes [B, H, S, D] of [B, S, H * D]",
        )


def _scaled(q: Value, scale: Operand | None) -> tuple[Value, float]:
    """The queries, and the number by which their scores are multiplied; what only a run tells goes into the queries."""
    depth = q.shape[3]
    if scale is None and depth == 0:
        raise LanguageError(
            "BAD_ARGUMENT",
            "the scale of attention is unknown",
            site=here(),
            expected="scale=..., or a depth of 1 or more",
            found=described(q),
        )
    if scale is None and isinstance(depth, int):
        return q, 1.0 / math.sqrt(depth)
    if scale is None:
        return emit("mul", q, emit("rsqrt", dimension(depth, q.dtype))), 1.0
    if isinstance(scale, float | int):
        return q, float(number(scale, Place("op.attention", "scale")))
    return emit("mul", q, scale), 1.0


def _written_out(heads: tuple[Value, Value, Value], mask: Value | None, dropout: float, key: Value | None) -> Tensor:
    """softmax(q kT + mask) v with its scores in memory. Heads that share keys lie side by side: rows of one product."""
    q, k, v = heads
    (batch, many, queries, depth), (_, served, keys, _) = q.shape, k.shape
    rows = floordiv(many * queries, served)
    needed().require(mod(many, served), "==", 0, f"the heads of {described(q)} are no multiple of {described(k)}'s")
    grouped = emit("reshape", q, shape=(batch, served, rows, depth))
    product = emit("matmul", grouped, k, transpose_a=False, transpose_b=True)
    scores = emit("reshape", product, shape=(batch, many, queries, keys))
    weights = softmax(scores if mask is None else emit("add", scores, _four_axes(mask)))
    if dropout:
        weights = dropped(weights, dropout, key)
    found = emit("reshape", weights, shape=(batch, served, rows, keys)) @ v
    return emit("reshape", found, shape=(batch, many, queries, v.shape[3]))


def _four_axes(mask: Value) -> Tensor:
    return emit("reshape", mask, shape=(*(1,) * (4 - mask.ndim), *mask.shape))


def _ahead(queries: Extent, keys: Extent, like: Value) -> Tensor:
    """Zero for keys up to a query's own place, counted from the end, and far below zero behind it."""
    row = emit("iota", shape=(queries, 1), axis=0, dtype=I64)
    column = emit("iota", shape=(1, keys), axis=1, dtype=I64)
    last = row + dimension(keys - queries)
    hidden = emit("gt", column, last)
    zeros = emit("cast", emit("sub", column, column), dtype=like.dtype)
    return emit("select", hidden, zeros + max(_MASKED, -60000.0 if like.dtype.name == "f16" else _MASKED), 0.0)


@door
def flash_attention(
    q: Value, cache: KVCache, *, dropout: float = 0.0, causal: bool = True, key: Value | None = None
) -> Tensor:
    """Attention over what a cache holds; the queries [B, H, S, D] are those whose keys were appended last.

    Gives the heads side by side, [B, S, H * D], as the product behind attention takes them. `dropout` needs a key.
    """
    _expect_heads(q)
    mask = cache.mask(q, causal)
    return merge_heads(attention(q, cache.keys, cache.values, mask=mask, dropout=dropout, key=key))


@door
def split_heads(x: Value, heads: Count) -> Tensor:
    """[B, S, H * D] as [B, H, S, D]."""
    if x.ndim != 3:
        raise LanguageError(
            "TYPE_MISMATCH",
            "split_heads takes a batch of sequences",
            site=here(),
            expected="[B, S, H * D]",
            found=described(x),
        )
    needed().require(mod(x.shape[2], heads), "==", 0, f"the last axis of {described(x)} has no {heads} heads")
    whole = reshaped(x, (x.shape[0], x.shape[1], heads, floordiv(x.shape[2], heads)))
    return emit("transpose", whole, perm=(0, 2, 1, 3))


@door
def merge_heads(x: Value) -> Tensor:
    """[B, H, S, D] as [B, S, H * D]."""
    if x.ndim != 4:
        raise LanguageError(
            "TYPE_MISMATCH",
            "merge_heads takes heads",
            site=here(),
            expected="[B, H, S, D]",
            found=described(x),
            hint="op.flash_attention gives the heads side by side already",
        )
    swapped = emit("transpose", x, perm=(0, 2, 1, 3))
    return emit("reshape", swapped, shape=(x.shape[0], x.shape[2], x.shape[1] * x.shape[3]))


@door
def split_qkv(qkv: Value, *, heads: Count) -> tuple[Tensor, Tensor, Tensor]:
    """[B, S, 3 * H * D] as queries, keys and values of [B, H, S, D]."""
    q, k, v = (split_heads(part, heads) for part in split(qkv, 3))
    return q, k, v
