"""What passes and lowering ask about regions: the range of a loop's index, and what a region reads from outside.

Takes nodes; gives ranges and values. Invariant: nothing here knows an op by anything but its attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tessera_build.ir.core.dims import Dim, Range, bounds
from tessera_build.ir.core.node import Region, walk
from tessera_build.ir.core.structure import defs_of, regions_of, uses_of
from tessera_build.ir.graph.nodes import GraphNode


def index_range(node: GraphNode, dims: Mapping[str, Range]) -> dict[str, Range]:
    """The index that a node's regions may mention, with its range; empty for a node that binds none."""
    index, trips = node.attributes.get("index"), node.attributes.get("trips")
    if not isinstance(index, str) or not node.regions:
        return {}
    high = bounds(trips, dims)[1] if isinstance(trips, (int, Dim)) else None
    return {index: (0, None if high is None else max(0, high - 1))}


def captured(regions: Iterable[Region]) -> tuple[int, ...]:
    """Values that regions read and do not define, in order of first use."""
    found: dict[int, None] = {}
    for region in regions:
        defined = set(region.args)
        for node in walk(region.nodes):
            defined.update(defs_of(node))
            for inner in regions_of(node):
                defined.update(inner.args)
        read = [v for node in walk(region.nodes) for v in (*uses_of(node), *_given(node))]
        found |= dict.fromkeys(v for v in (*read, *region.results) if v not in defined)
    return tuple(found)


def _given(node: object) -> tuple[int, ...]:
    return tuple(v for region in node.regions for v in region.results) if isinstance(node, GraphNode) else ()
