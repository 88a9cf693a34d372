"""Rules for extents of 0: what has no elements is a constant, and what is added up of none is its identity.

Takes a site; gives the values that replace it, or None. Invariant: no contraction and no reduction over a fixed extent
of 0 is left, so that no schedule is derived for a sum without terms; an extent that may be 0 is a loop without turns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tessera_build.ir.core.structure import symbols_defined_by
from tessera_build.ir.core.types import Type, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.ops.attention import heads_per_key
from tessera_build.ir.graph.ops.indexing import INDEXING
from tessera_build.ir.graph.ops.op import word_of
from tessera_build.ir.graph.ops.reduction import KINDS, identity
from tessera_build.ir.graph.ops.scatter import SCATTERS
from tessera_build.ir.graph.ops.shapes import Shape
from tessera_build.ir.graph.sweep import Site

# Constants already, and what looks at its indices: one out of range ends the run, whatever is read or written there.
_KEPT = frozenset({"constant", "dimension", *(op.name for op in (*INDEXING, *SCATTERS))})


def without_elements(site: Site) -> Sequence[int] | None:
    """A node all of whose results have an extent of 0 → constants, broadcast along dynamic axes."""
    types = [site.old.types[output] for output in site.node.outputs]
    if site.node.op in _KEPT or site.node.regions or symbols_defined_by(site.node) or not all(map(_empty, types)):
        return None
    source = site.to.producer(site.inputs[0]) if site.node.op == "broadcast_to" else None
    if source is not None and source.op == "constant" and not _static(types[0]):
        return None  # as this rule leaves it
    return [_filled(site.to, 0, type_) for type_ in types]


def sum_of_nothing(site: Site) -> Sequence[int] | None:
    """matmul, conv and reduce over an extent of 0 → the identity of the sum, for every element of the result."""
    result = site.old.types[site.node.outputs[0]] if site.node.outputs else None
    if result is None or site.node.op not in _IDENTITIES or not any(_empty(site.to.type(v)) for v in site.inputs):
        return None
    return [_filled(site.to, _IDENTITIES[site.node.op](site, result), result)]


def attention_to_nothing(site: Site) -> Sequence[int] | None:
    """attention over no keys → zeros; over heads without columns, whose scores are 0 → the mask's mean of the values.

    attention(q, k, v, mask) → matmul(softmax(0 + mask), v)
    """
    if site.node.op != "attention" or not any(_empty(site.to.type(v)) for v in site.inputs):
        return None
    to, (q, k, v) = site.to, site.inputs[:3]
    (batch, heads, queries, _), (_, served, keys, _) = to.type(q).shape, to.type(k).shape
    scores = _filled(to, 0, tensor(to.type(q).dtype, batch, heads, queries, keys))
    for mask in site.inputs[3:]:
        scores = to.op("add", scores, mask)
    weights = to.op("softmax", scores, axis=3)
    # Heads of queries that share keys lie side by side: they are rows of one product.
    rows = heads_per_key(heads, served) * queries
    product = to.op("matmul", to.op("reshape", weights, shape=(batch, served, rows, keys)), v)
    return [to.op("reshape", product, shape=site.old.types[site.node.output].shape)]


def _zero(_: Site, __: Type) -> float:
    return 0


def _of_kind(site: Site, result: Type) -> float:
    return identity(word_of(site.node.attributes, "kind", KINDS), result.dtype)


_IDENTITIES: Mapping[str, Callable[[Site, Type], float]] = {"matmul": _zero, "conv": _zero, "reduce": _of_kind}


def _empty(type_: Type) -> bool:
    return 0 in type_.shape


def _static(type_: Type) -> bool:
    return all(isinstance(extent, int) for extent in type_.shape)


def _filled(to: GraphBuilder, number: float, type_: Type) -> int:
    """A value with this one number everywhere."""
    if _empty(type_) and _static(type_):
        return to.constant(np.zeros(type_.static_shape, type_.dtype.numpy))
    ones: Shape = tuple(0 if extent == 0 else 1 for extent in type_.shape) if _empty(type_) else ()
    value = to.constant(np.full(ones, number).astype(type_.dtype.numpy))
    return value if not type_.rank else to.op("broadcast_to", value, shape=type_.shape)


NOTHING: tuple[Callable[[Site], Sequence[int] | None], ...] = (without_elements, sum_of_nothing, attention_to_nothing)
