"""Attention as every operator of its family means it: heads, biases, scores, weights.

Takes queries, keys and values as [batch, heads, length, depth], and what may be attended; gives the weighted values.
Invariant: the product, scale, bias, softmax and second product stand in the one form that the compiler recognises as a
single kernel, and keys that several heads share are repeated in the form that it can take away again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.contraction import matrix_product
from tessera_build.frontends.onnx.errors import unsupported
from tessera_build.frontends.onnx.indexing import counting
from tessera_build.frontends.onnx.shapes import reshaped
from tessera_build.ir.core.dims import Extent, floordiv
from tessera_build.ir.core.types import BOOL, I32, DType

SPLIT = (0, 2, 1, 3)  # [batch, length, heads, depth] to [batch, heads, length, depth], and back


@dataclass(frozen=True, slots=True)
class Heads:
    """Queries [B, H, M, D], keys [B, K, N, D] and values [B, K, N, E], where K divides H."""

    queries: Tensor
    keys: Tensor
    values: Tensor


@dataclass(frozen=True, slots=True)
class Weighing:
    """How scores become weights: `scale` None means one over the root of the depth; `softcap` 0 means none.

    `bias` is added to the scores; `empty` is true for rows that may attend to nothing, whose result is zero.
    """

    scale: float | None = None
    softcap: float = 0.0
    bias: Tensor | None = None
    empty: Tensor | None = None
    precision: DType | None = None


@dataclass(frozen=True, slots=True)
class Attended:
    """The result [B, H, M, E], and the scores at each stage: the product, capped, with bias, weights."""

    result: Tensor
    stages: tuple[Tensor, Tensor, Tensor, Tensor]


def split_heads(c: Context, x: Tensor, heads: int) -> Tensor:
    """[batch, length, heads * depth] as [batch, heads, length, depth]."""
    return c.transpose(reshaped(c, x, (*x.shape[:2], heads, -1)), SPLIT)


def join_heads(c: Context, x: Tensor) -> Tensor:
    """[batch, heads, length, depth] as [batch, length, heads * depth]."""
    moved = c.transpose(x, SPLIT)
    return c.reshape(moved, (*moved.shape[:2], moved.shape[2] * moved.shape[3]))


def appended(c: Context, past: Tensor | None, new: Tensor) -> Tensor:
    """Keys or values after those of earlier calls."""
    if past is None:
        return new
    batch, heads, depth = (c.unify(past.shape[i], new.shape[i], "keys of past calls differ") for i in (0, 1, 3))
    parts = [c.retyped(t, (batch, heads, t.shape[2], depth)) for t in (past, new)]
    return c.op("concat", *parts, axis=2)


def attend(c: Context, heads: Heads, how: Weighing) -> Attended:
    """softmax(q kᵀ · scale, capped, + bias) v."""
    q, kind = heads.queries, heads.queries.dtype
    keys, values = (_repeated(c, t, q.shape[1]) for t in (heads.keys, c.cast(heads.values, kind)))
    product = c.op("mul", matrix_product(c, q, keys, transpose_b=True), _scale(c, how.scale, q))
    capped = _capped(c, product, how.softcap)
    biased = capped if how.bias is None else c.op("add", capped, how.bias)
    precise = biased if how.precision is None else c.cast(biased, how.precision)
    weights = c.cast(c.op("softmax", precise, axis=3), kind)
    result = _where_attended(c, matrix_product(c, weights, values), how.empty)
    return Attended(result, (product, capped, biased, _where_attended(c, weights, how.empty)))


def _where_attended(c: Context, x: Tensor, empty: Tensor | None) -> Tensor:
    return x if empty is None else c.op("select", empty, c.scalar(0, x.dtype), x)


def _scale(c: Context, stated: float | None, q: Tensor) -> Tensor:
    depth = q.shape[3]
    if stated is not None:
        return c.scalar(stated, q.dtype)
    if isinstance(depth, int):
        return c.scalar(1.0 / math.sqrt(max(depth, 1)), q.dtype)
    return c.op("rsqrt", c.number(depth, q.dtype))


def _capped(c: Context, scores: Tensor, cap: float) -> Tensor:
    if cap <= 0.0:
        return scores
    limit = c.scalar(cap, scores.dtype)
    return c.op("mul", c.op("tanh", c.op("div", scores, limit)), limit)


def _repeated(c: Context, x: Tensor, heads: Extent) -> Tensor:
    """Each head as often as queries share it, side by side."""
    batch, own, length, depth = x.shape
    if own == heads:
        return x
    if isinstance(own, int) and isinstance(heads, int) and heads % own:
        raise unsupported("attention with heads of queries that heads of keys do not divide", found=f"{heads}, {own}")
    times = floordiv(heads, own)
    apart = c.reshape(x, (batch, own, 1, length, depth))
    wide = c.broadcast_to(apart, (batch, own, times, length, depth))
    return reshaped(c, wide, (batch, heads, length, depth))


# -- what may be attended -----------------------------------------------------------------------------------------


def window(c: Context, lengths: tuple[Extent, Extent], offset: Tensor, sides: tuple[int, int]) -> Tensor | None:
    """Which keys each query sees: from `sides[0]` before its own place to `sides[1]` after it; -1 is no end.

    Query i stands at i + `offset`, a 32-bit integer that broadcasts to [batch, 1, 1, 1]; None where nothing is hidden.
    """
    if sides == (-1, -1):
        return None
    rank = max(2, offset.rank)
    places = c.op("add", counting(c, rank, rank - 2, lengths[0]), offset)
    keys = counting(c, rank, rank - 1, lengths[1])
    tests: list[Tensor] = []
    if sides[1] >= 0:
        tests.append(c.op("le", keys, c.op("add", places, c.scalar(sides[1], I32))))
    if sides[0] >= 0:
        tests.append(c.op("ge", keys, c.op("sub", places, c.scalar(sides[0], I32))))
    return both(c, tests)


def both(c: Context, tests: Sequence[Tensor | None]) -> Tensor | None:
    """All conditions that there are, together."""
    result: Tensor | None = None
    for test in tests:
        if test is not None:
            result = test if result is None else c.op("and", result, test)
    return result


def bias_of(c: Context, seen: Tensor | None, bias: Tensor | None, dtype: DType) -> Tensor | None:
    """A condition and an additive bias as one bias: minus infinity where the condition does not hold."""
    if seen is None:
        return bias
    return c.op("select", seen, c.scalar(0, dtype) if bias is None else bias, c.scalar(-math.inf, dtype))


def empty_rows(c: Context, bias: Tensor) -> Tensor:
    """Where every key is hidden."""
    most = c.reduce("max", bias, (bias.rank - 1,), keepdims=True)
    return c.op("eq", most, c.scalar(-math.inf, bias.dtype))


def is_condition(mask: Tensor) -> bool:
    """Whether a mask says what may be attended, rather than what is added."""
    if mask.dtype != BOOL and not mask.dtype.is_float:
        raise unsupported("attention with a mask of integers is not built", found=str(mask.type))
    return mask.dtype == BOOL
