"""Reshapes of values whose axes are in another order.

Takes a site and the moved values so far; gives the reshape in that order where each group of joined or split axes is
still contiguous, and the classifier's case: a flattened tensor times constant weights, whose rows are reordered at
build time. Invariant: elements keep their place in the original order's result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent, mod
from tessera_build.ir.graph.ops.op import extents_of, flag_of
from tessera_build.ir.graph.ops.shapes import Shape, count
from tessera_build.ir.graph.passes.layout.moved import Moved, Order
from tessera_build.ir.graph.sweep import Site


@dataclass(frozen=True, slots=True)
class Group:
    """Axes `sources` of the operand hold the same elements as axes `results` of the result."""

    sources: tuple[int, ...]
    results: tuple[int, ...]


def move_reshape(site: Site, moved: Moved) -> Sequence[int] | None:
    """reshape(moved x) → moved reshape(x), where x is first put into the nearest order that tears no group apart."""
    known = moved.of(site.inputs[0])
    if known is None:
        return None
    source, target = site.to.type(site.inputs[0]).shape, extents_of(site.node.attributes, "shape")
    groups = reshape_groups(source, target)
    if groups is None:
        return None
    ranked = sorted(groups, key=lambda g: min(known.order.index(axis) for axis in g.sources))
    kept = [axis for group in ranked for axis in group.sources]
    value = known.value
    if kept != [axis for axis in known.order if source[axis] != 1]:
        if kept == sorted(kept):
            return None
        ones = [axis for axis in range(len(source)) if source[axis] == 1]
        value = moved.ordered(site.to, site.inputs[0], (*kept, *ones))
    order = _result_order(ranked, len(target))
    result = site.to.op("reshape", value, shape=tuple(target[axis] for axis in order))
    return [moved.original(site.to, result, order)]


def _result_order(ranked: list[Group], rank: int) -> Order:
    placed = [axis for group in ranked for axis in group.results]
    # Axes of extent 1 may stand anywhere; behind the axis that they follow in the result they keep most orders short.
    for axis in range(rank):
        if axis not in placed:
            placed.insert(placed.index(axis - 1) + 1 if axis else 0, axis)
    return tuple(placed)


def reshape_groups(source: Shape, target: Shape) -> list[Group] | None:
    """The finest groups of axes, those of extent 1 left out; None when symbols leave them open."""
    sources = [axis for axis, e in enumerate(source) if e != 1]
    results = [axis for axis, e in enumerate(target) if e != 1]
    groups: list[Group] = []
    while sources and results:
        left, right = [sources.pop(0)], [results.pop(0)]
        p, q = source[left[0]], target[right[0]]
        while p != q:
            if _divides(p, q) and sources:
                left.append(sources.pop(0))
                p = p * source[left[-1]]
            elif results:
                right.append(results.pop(0))
                q = q * target[right[-1]]
            else:
                return None
        groups.append(Group(tuple(left), tuple(right)))
    return None if sources or results else groups


def _divides(p: Extent, q: Extent) -> bool:
    """Whether the operand's side of a group has to grow: it is the smaller number, or a factor of the other side."""
    if isinstance(p, int) and isinstance(q, int):
        return p < q
    return mod(q, p) == 0


def flatten_into_matmul(site: Site, moved: Moved) -> Sequence[int] | None:
    """matmul(reshape(moved x) to [N, rest], constant w) → matmul(reshape(x), w with its rows in x's order)."""
    flat = site.to.producer(site.inputs[0])
    weights = site.to.type(site.inputs[1])
    if flat is None or flat.op != "reshape" or flag_of(site.node.attributes, "transpose_a") or weights.rank != 2:
        return None
    known, shape = moved.of(flat.inputs[0]), site.to.type(flat.inputs[0]).shape
    static = tuple(e for e in shape[1:] if isinstance(e, int))
    if known is None or known.order[0] != 0 or site.to.array(site.inputs[1]) is None or len(static) != len(shape) - 1:
        return None
    if site.to.type(flat.output).shape != (shape[0], count(static)):
        return None
    rows_last = flag_of(site.node.attributes, "transpose_b")
    columns = weights.shape[0] if rows_last else weights.shape[1]
    rows = tuple(axis if rows_last else axis - 1 for axis in known.order[1:])
    split = site.to.op("reshape", site.inputs[1], shape=(columns, *static) if rows_last else (*static, columns))
    perm = (0, *rows) if rows_last else (*rows, len(static))
    reordered = site.to.op("reshape", site.to.op("transpose", split, perm=perm), shape=weights.shape)
    x = site.to.op("reshape", known.value, shape=(shape[0], count(static)))
    return [site.to.op("matmul", x, reordered, **site.node.attributes)]
