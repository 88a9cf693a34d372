"""Recognise scaled dot-product attention and make it one op.

Takes a module in canonical form; gives it with matmul, scale, masks (added, or selecting between scores and a number
below all of them), softmax and matmul over rank-4 operands (or rank 3: one head) as `attention`, where keys that were
repeated for several heads of queries are read once each.
Invariant: the values are the same sums, with the scale applied to the scores; nothing is recognised whose scores or
weights are read elsewhere, because they would have to be computed twice.

    before:  %1 = "tgraph.matmul"(%q, %k) <{transpose_b = true}>
             %2 = "tgraph.mul"(%1, 0.125)
             %3 = "tgraph.add"(%2, %mask)
             %4 = "tgraph.softmax"(%3) <{axis = 3}>
             %5 = "tgraph.matmul"(%4, %v) <{transpose_b = false}>
             return %5
    after:   %1 = "tgraph.attention"(%q, %k, %v, %mask) <{scale = 0.125}>
             return %1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import GraphNode, Module
from tessera_build.ir.graph.ops.op import flag_of, ints_of
from tessera_build.ir.graph.ops.shapes import Shape, broadcast_shapes
from tessera_build.ir.graph.sweep import Rule, Site, rewrite

RANKS = (3, 4)
# Decoding has one query a head. Where queries are many, each head by itself is work enough for a thread.
FEW = 16
# Added to any score that is not itself near the end of f32 gives a number without weight.
HIDDEN = -1e30


@dataclass(frozen=True, slots=True)
class RecogniseAttention:
    """Replace the pattern by `attention`."""

    def run(self, module: Module) -> Module:
        """The module with attention recognised."""
        return rewrite(module, _rule)


@dataclass(frozen=True, slots=True)
class _Scores:
    """softmax's operand taken apart: product(q, k) * scale + mask."""

    product: GraphNode
    scale: float
    mask: int | None = None


@dataclass(frozen=True, slots=True)
class _Weights:
    """The first operand of the second matmul: softmax, perhaps with the rows that are NaN set to zero."""

    softmax: GraphNode
    zeroed: bool


def _rule() -> Rule:
    # Values of the new function that several nodes of the old one read, and by how many.
    shared: dict[int, int] = {}

    def recognise(site: Site) -> Sequence[int] | None:
        readers = ((new, site.uses[old]) for new, old in zip(site.inputs, site.node.inputs, strict=True))
        shared.update((new, uses) for new, uses in readers if uses > 1)
        if site.node.op != "matmul" or flag_of(site.node.attributes, "transpose_a") or site.inputs[0] in shared:
            return None
        weights = _weights(site.to, site.inputs[0], shared)
        if weights is None:
            return None
        scores = _take_apart(site.to, weights.softmax.inputs[0], shared)
        result = None if scores is None else _attention(site, scores)
        if result is None or not weights.zeroed:
            return None if result is None else [result]
        # A row without any key gives NaN in every column, as it did in every weight.
        return [site.to.op("select", site.to.op("isnan", result), site.to.scalar(0, result), result)]

    return recognise


def _weights(to: GraphBuilder, value: int, shared: Mapping[int, int]) -> _Weights | None:
    """softmax(s), or select(isnan(softmax(s)), 0, softmax(s)) as PyTorch exports attention with a Boolean mask."""
    node, zeroed = to.producer(value), False
    if node is not None and node.op == "select":
        condition, zero, value = node.inputs
        check, number = to.producer(condition), to.array(zero)
        if check is None or check.op != "isnan" or check.inputs != (value,) or number is None or number.any():
            return None
        node, zeroed = to.producer(value), True
    rank = to.type(value).rank
    if node is None or node.op != "softmax" or node.attributes["axis"] != rank - 1 or rank not in RANKS:
        return None
    return _Weights(node, zeroed) if shared.get(value, 1) == 1 + zeroed else None


def _take_apart(to: GraphBuilder, value: int, shared: Mapping[int, int], masks: int = 2) -> _Scores | None:
    """Walk from the scores back to their matmul: at most so many masks, then any number of scalar factors."""
    unmasked = _scaled_product(to, value, shared)
    node = to.producer(value)
    if unmasked is not None or node is None or value in shared or not masks:
        return unmasked
    shape = to.type(value).shape
    for product, mask in _masked(to, node):
        found = _take_apart(to, product, shared, masks - 1) if to.type(product).shape == shape else None
        if found is not None:
            own = _hiding(to, node) if mask is None else mask
            return _Scores(found.product, found.scale, own if found.mask is None else to.op("add", found.mask, own))
    return None


def _masked(to: GraphBuilder, node: GraphNode) -> Sequence[tuple[int, int | None]]:
    """(scores, mask) that a node may join by addition; None where it replaces hidden scores by a very low number."""
    if node.op == "add":
        return (node.inputs, node.inputs[::-1])  # type: ignore[return-value]
    if node.op != "select":
        return ()
    return [(node.inputs[3 - i], None) for i in (1, 2) if _is_lowest(to, node.inputs[i])]


def _is_lowest(to: GraphBuilder, value: int) -> bool:
    """Whether a score that is replaced by this number could as well have it added: nothing but it would be left."""
    number = to.array(value)
    return number is not None and number.size == 1 and float(number.astype(np.float64).reshape(-1)[0]) <= HIDDEN


def _hiding(to: GraphBuilder, node: GraphNode) -> int:
    """The mask to add in place of a selection: 0 where it keeps scores. Hidden scores that are no numbers now count."""
    condition, kept, other = node.inputs
    lowest = next(v for v in (other, kept) if _is_lowest(to, v))
    zero = to.scalar(0, lowest)
    number = to.op("reshape", lowest, shape=())
    return to.op("select", condition, zero, number) if lowest == other else to.op("select", condition, number, zero)


def _scaled_product(to: GraphBuilder, value: int, shared: Mapping[int, int]) -> _Scores | None:
    scale = 1.0
    while value not in shared:
        node = to.producer(value)
        if node is not None and node.op == "matmul":
            return _Scores(node, scale)
        factor = _factor(to, node)
        if node is None or factor is None:
            return None
        scale, value = scale * factor, node.inputs[0]
    return None


def _factor(to: GraphBuilder, node: GraphNode | None) -> float | None:
    """The number c of x * c or x / c; None when the node is something else."""
    if node is None or node.op not in ("mul", "div"):
        return None
    number = to.array(node.inputs[1])
    if number is None or number.size != 1 or to.type(node.inputs[0]) != to.type(node.output):
        return None
    value = float(number.astype(np.float64).reshape(-1)[0])
    return value if node.op == "mul" else 1.0 / value if value else None


def _unscaled(to: GraphBuilder, value: int) -> tuple[int, float]:
    """An operand without its scalar factors, which may stand before a transpose, and their product."""
    node = to.producer(value)
    factor = _factor(to, node)
    if node is not None and factor is not None:
        inner, scale = _unscaled(to, node.inputs[0])
        return inner, scale * factor
    if node is not None and node.op == "transpose":
        inner, scale = _unscaled(to, node.inputs[0])
        if scale != 1.0:
            return to.op("transpose", inner, perm=ints_of(node.attributes, "perm")), scale
    return value, 1.0


def _attention(site: Site, scores: _Scores) -> int | None:
    to, product = site.to, scores.product
    q, q_scale = _unscaled(to, product.inputs[0])
    k, k_scale = _unscaled(to, product.inputs[1])
    q = _swapped(to, q) if flag_of(product.attributes, "transpose_a") else q
    k = k if flag_of(product.attributes, "transpose_b") else _swapped(to, k)
    v = _swapped(to, site.inputs[1]) if flag_of(site.node.attributes, "transpose_b") else site.inputs[1]
    batches = [to.type(x).shape[:-2] for x in (q, k, v)]
    if batches[0] != batches[1] or batches[0] != batches[2]:
        return None
    k, v = _once_each(to, k, v)
    if not all(isinstance(to.type(x).shape[-1], int) for x in (q, v)):
        return None  # the tiles of an attention kernel have the heads' depth as a static extent
    operands = [_with_head(to, x) for x in (q, k, v)]
    score_shape = to.type(product.output).shape
    if scores.mask is not None:
        if broadcast_shapes("attention", [score_shape, to.type(scores.mask).shape]) != score_shape:
            return None
        operands.append(_with_keys(to, scores.mask, score_shape))
    result = to.op("attention", *_as_rows(to, operands), scale=scores.scale * q_scale * k_scale)
    shape = site.old.types[site.node.output].shape
    return result if shape == to.type(result).shape else to.op("reshape", result, shape=shape)


def _as_rows(to: GraphBuilder, operands: list[int]) -> list[int]:
    """Few queries of heads that share keys as rows of one head, so that the keys are read once for all of them."""
    (batch, heads, rows, depth), own = to.type(operands[0]).shape, to.type(operands[1]).shape[1]
    if heads == own or not isinstance(rows, int) or rows > FEW:
        return operands
    assert isinstance(heads, int), "only heads of known number are read once"
    assert isinstance(own, int), "only heads of known number are read once"
    wide = heads // own * rows
    masks = operands[3:]
    for mask in operands[3:]:
        shape = to.type(mask).shape
        if shape[1:3] == (heads, rows):
            masks = [to.op("reshape", mask, shape=(shape[0], own, wide, shape[3]))]
        elif shape[1:3] != (1, 1):
            return operands
    return [to.op("reshape", operands[0], shape=(batch, own, wide, depth)), *operands[1:3], *masks]


def _once_each(to: GraphBuilder, k: int, v: int) -> tuple[int, int]:
    """Keys and values without the repetition of heads that several heads of queries share."""
    single = _unrepeated(to, k), _unrepeated(to, v)
    if single[0] is None or single[1] is None or to.type(single[0]).shape[1] != to.type(single[1]).shape[1]:
        return k, v
    return single[0], single[1]


def _unrepeated(to: GraphBuilder, value: int) -> int | None:
    """x[B, K, N, D] of [B, K, 1, N, D] repeated to [B, K, n, N, D] and read as [B, K * n, N, D].

    A transpose may stand in between, which moves N and D alone.
    """
    node = to.producer(value)
    if node is not None and node.op == "transpose" and ints_of(node.attributes, "perm") == (0, 1, 3, 2):
        inner = _unrepeated(to, node.inputs[0])
        return None if inner is None else to.op("transpose", inner, perm=(0, 1, 3, 2))
    wide = None if node is None or node.op != "reshape" else to.producer(node.inputs[0])
    if wide is None or wide.op != "broadcast_to":
        return None
    apart, shape = to.type(wide.inputs[0]).shape, to.type(value).shape
    if len(shape) != 4 or len(apart) != 5 or apart[2] != 1 or not all(isinstance(e, int) for e in (shape[1], apart[1])):
        return None
    if (*apart[:2], *apart[3:]) != (shape[0], apart[1], *shape[2:]) or to.type(wide.output).shape[:2] != apart[:2]:
        return None
    return to.op("reshape", wide.inputs[0], shape=(*apart[:2], *apart[3:]))


def _swapped(to: GraphBuilder, value: int) -> int:
    """The value with its last two axes swapped; canonicalise composes this with the split of the heads."""
    rank = to.type(value).rank
    return to.op("transpose", value, perm=(*range(rank - 2), rank - 1, rank - 2))


def _with_head(to: GraphBuilder, value: int) -> int:
    """An operand of rank-3 attention with one head as its axis 1; one of rank 4 as it is."""
    shape = to.type(value).shape
    return value if len(shape) == 4 else to.op("reshape", value, shape=(shape[0], 1, *shape[1:]))


def _with_keys(to: GraphBuilder, mask: int, scores: Shape) -> int:
    """The mask as [B or 1, H or 1, M or 1, N], the form that kernels take."""
    shape = to.type(mask).shape
    if len(shape) == 3 == len(scores):
        shape = (shape[0], 1, *shape[1:])
    if len(shape) != to.type(mask).rank or len(shape) < 4:
        mask = to.op("reshape", mask, shape=(1,) * (4 - len(shape)) + shape)
    if shape and shape[-1] == scores[-1]:
        return mask
    return to.op("broadcast_to", mask, shape=(*to.type(mask).shape[:-1], scores[-1]))
