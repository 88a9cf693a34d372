"""Rules for rows taken from large constants: what is computed of a whole table is computed of the rows taken.

Takes a site; gives the value that replaces it, or None. Invariant: every element of the result is computed by the same
operations from the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tessera_build.ir.graph.infer import op_named
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.graph.ops.op import int_of
from tessera_build.ir.graph.ops.shapes import Shape
from tessera_build.ir.graph.sweep import Site

_DEPTH = 6


def gather_first(site: Site) -> Sequence[int] | None:
    """gather(f(table, ...), i) → f(gather(table, i), ...) for an elementwise f of constants: quantised embeddings."""
    source = site.to.producer(site.inputs[0]) if site.node.op == "gather" else None
    if source is None or not op_named(source.op).elementwise or not _of_constants(site, source):
        return None
    axis, table = int_of(site.node.attributes, "axis"), site.to.type(source.output).shape
    if not any(site.to.type(v).shape == table for v in source.inputs):
        return None
    taken = [_rows(site, value, axis, table) for value in source.inputs]
    return [site.to.op(source.op, *taken, **source.attributes)]


def _of_constants(site: Site, node: GraphNode, depth: int = _DEPTH) -> bool:
    """Whether a node computes from constants alone, perhaps by way of a few other elementwise nodes."""
    for value in node.inputs:
        source = site.to.producer(value)
        if source is None or not (source.op == "constant" or op_named(source.op).elementwise):
            return False
        if source.op != "constant" and (depth == 0 or not _of_constants(site, source, depth - 1)):
            return False
    return True


def _rows(site: Site, value: int, axis: int, table: Shape) -> int:
    """The rows of an operand that broadcasts to the table; one that is the same for all rows only gets their rank."""
    shape, indices = site.to.type(value).shape, site.inputs[1]
    own = axis - (len(table) - len(shape))
    if own < 0:
        return value
    if shape[own] == 1:
        ones = (1,) * site.to.type(indices).rank
        return site.to.op("reshape", value, shape=(*shape[:own], *ones, *shape[own + 1 :]))
    return site.to.op("gather", value, indices, axis=own)


TABLES: tuple[Callable[[Site], Sequence[int] | None], ...] = (gather_first,)
