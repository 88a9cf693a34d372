"""`attention`: scaled products of queries and keys, softmax over the keys, weighted sum of the values.

Takes q[B, H, M, D], k[B, K, N, D], v[B, K, N, E], where K divides H and each head of k and v serves H / K heads of q
side by side, and optionally an additive float mask that broadcasts to [B, H, M, N]; gives [B, H, M, E]. Invariant: it
equals matmul, scale, mask, softmax and matmul; only a pass makes it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import Type, tensor
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import (
    Attributes,
    DimValues,
    Op,
    expect_count,
    expect_float,
    expect_same_dtype,
    mismatch,
    number_of,
    texts,
    wide,
)
from tessera_build.ir.graph.ops.reduction import softmax
from tessera_build.ir.graph.ops.shapes import broadcast_shapes


def _infer_attention(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("attention", types, 3, 4)
    dtype = expect_same_dtype("attention", types)
    expect_float("attention", types[0])
    number_of(attributes, "scale")
    q, k, v = (t.shape for t in types[:3])
    if not len(q) == len(k) == len(v) == 4 or q[0] != k[0] or k[:3] != v[:3] or q[3] != k[3]:
        raise mismatch("attention's operands do not fit", "q[B, H, M, D], k[B, K, N, D], v[B, K, N, E]", texts(types))
    heads_per_key(q[1], k[1])
    scores = (*q[:3], k[2])
    if len(types) == 4 and broadcast_shapes("attention", [scores, types[3].shape]) != scores:
        raise mismatch(
            "attention's mask is larger than its scores", "a mask that broadcasts to the scores", texts(types)
        )
    return (tensor(dtype, *q[:3], v[3]),)


def heads_per_key(heads: Extent, key_heads: Extent) -> int:
    """How many heads of queries share one head of keys; raises `TesseraError` where that is no whole number."""
    if heads == key_heads:
        return 1
    if not isinstance(heads, int) or not isinstance(key_heads, int) or key_heads < 1 or heads % key_heads:
        raise mismatch("attention's heads do not fit", "heads of keys that divide those of queries", (heads, key_heads))
    return heads // key_heads


def _evaluate_attention(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    q, k, v = (wide(a) for a in arrays[:3])
    k, v = (np.repeat(a, heads_per_key(q.shape[1], a.shape[1]), axis=1) for a in (k, v))
    scores = np.matmul(q, np.swapaxes(k, -1, -2)) * number_of(attributes, "scale")
    if len(arrays) == 4:
        scores = scores + wide(arrays[3])
    return (np.matmul(softmax(scores, 3), v).astype(arrays[0].dtype),)


ATTENTION: tuple[Op, ...] = (
    Op(
        "attention",
        "(q[B,H,M,D], k[B,K,N,D], v[B,K,N,E], mask?) <{scale}> -> softmax(q kᵀ · scale + mask) v",
        _infer_attention,
        _evaluate_attention,
        ("scale",),
    ),
)
