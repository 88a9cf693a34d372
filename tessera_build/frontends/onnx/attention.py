"""ONNX's own attention operator.

Takes queries, keys and values with or without their heads split, masks and caches; gives core ops through `attend`.
Invariant: a row that may attend to nothing gives zeros, and one without such rows carries no check for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tessera_build.frontends.onnx.attend import (
    Attended,
    Heads,
    Weighing,
    appended,
    attend,
    bias_of,
    both,
    empty_rows,
    is_condition,
    join_heads,
    split_heads,
    window,
)
from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.frontends.onnx.indexing import counting
from tessera_build.frontends.onnx.load import element_type
from tessera_build.frontends.onnx.order import larger
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import BOOL, I32


def _attention(c: Context, n: Call) -> tuple[Tensor, ...]:
    heads = _heads(c, n)
    how = _weighing(c, n, heads)
    done = attend(c, heads, how)
    result = join_heads(c, done.result) if n.input(0).rank == 3 else done.result
    return result, heads.keys, heads.values, _shown(n, done)


def _shown(n: Call, done: Attended) -> Tensor:
    mode = n.integer("qk_matmul_output_mode", 0)
    if not 0 <= mode < len(done.stages):
        raise ill_formed("Attention's qk_matmul_output_mode is unknown", expected="0, 1, 2 or 3", found=str(mode))
    return done.stages[mode]


def _heads(c: Context, n: Call) -> Heads:
    """Operands with their heads split, and the keys and values of earlier calls before the new ones."""
    q, k, v = (n.input(i) for i in range(3))
    if any(t.rank != q.rank for t in (k, v)) or q.rank not in (3, 4):
        raise ill_formed("Attention takes three tensors of rank 3 or 4", found=f"{q.type}, {k.type}, {v.type}")
    if q.rank == 3:
        own, shared = n.integer("q_num_heads"), n.integer("kv_num_heads")
        q, k, v = split_heads(c, q, own), split_heads(c, k, shared), split_heads(c, v, shared)
    else:
        n.ignore("q_num_heads", "kv_num_heads")
    past = (n.optional(4), n.optional(5))
    if (past[0] is None) != (past[1] is None):
        raise ill_formed("Attention has past keys without past values, or values without keys")
    batch = c.unify(q.shape[0], k.shape[0], "Attention's queries and keys have other batches")
    k = appended(c, past[0], c.retyped(k, (batch, *k.shape[1:])))
    shared_heads = c.unify(k.shape[1], v.shape[1], "Attention's keys and values have other heads")
    v = c.retyped(v, (batch, shared_heads, *v.shape[2:]))
    v = appended(c, past[1], v)
    length = c.unify(k.shape[2], v.shape[2], "Attention's keys and values have other lengths")
    return Heads(q, c.retyped(k, (*k.shape[:2], length, k.shape[3])), c.retyped(v, (*v.shape[:2], length, v.shape[3])))


def _weighing(c: Context, n: Call, heads: Heads) -> Weighing:
    q, total = heads.queries, heads.keys.shape[2]
    mask, filled = n.optional(3), n.optional(6)
    mask = None if mask is None else _to_length(c, mask, total)
    sides = _sides(n)
    offset, seen = c.scalar(0, I32), list[Tensor | None]()
    past = n.optional(4)
    if past is not None:
        offset = c.number(past.shape[2], I32)
    elif filled is not None:
        valid = c.reshape(c.cast(filled, I32), (*filled.shape, 1, 1, 1))
        offset = c.op("sub", valid, c.number(q.shape[2], I32))
        seen.append(c.op("lt", counting(c, 4, 3, total), valid))
    seen.append(window(c, (q.shape[2], total), offset, sides))
    added = None
    if mask is not None and is_condition(mask):
        seen.append(mask)
    elif mask is not None:
        added = c.cast(mask, q.dtype)
    bias = bias_of(c, both(c, seen), added, q.dtype)
    # Causal attention over a cache leaves every query its first key; anything else may hide all of them.
    always = mask is None and filled is None and sides[0] < 0
    return Weighing(
        n.number("scale") if n.has("scale") else None,
        n.number("softcap", 0.0),
        bias,
        None if bias is None or always else empty_rows(c, bias),
        element_type(n.integer("softmax_precision"), "softmax_precision") if n.has("softmax_precision") else None,
    )


def _sides(n: Call) -> tuple[int, int]:
    """How many keys before and after its own place a query sees; -1 for all."""
    left, right = n.integer("left_window_size", -1), n.integer("right_window_size", -1)
    if left < -1 or right < -1:
        raise ill_formed("Attention's window has a negative size", found=f"{left}, {right}")
    return left, 0 if n.integer("is_causal", 0) else right


def _to_length(c: Context, mask: Tensor, total: Extent) -> Tensor:
    """The mask for every key: those beyond its end are hidden."""
    own = mask.shape[-1]
    if own == total:
        return mask
    c.require(total, ">=", own, "Attention's mask is longer than its keys")
    high = (*(0,) * (mask.rank - 1), larger(total - own, 0, c.ranges))
    if mask.dtype == BOOL:
        mask = c.op("pad", mask, low=(0,) * mask.rank, high=high, value=0.0)
    else:
        mask = c.op("pad", mask, low=(0,) * mask.rank, high=high, value=-math.inf)
    return c.retyped(mask, (*mask.shape[:-1], total))


ATTENTION_OPERATORS: Mapping[str, Translator] = {"Attention": _attention}
