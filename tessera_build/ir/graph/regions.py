"""What passes and lowering ask about regions: the range of a loop's index.

Takes nodes; gives ranges. Invariant: nothing here knows an op by anything but its attributes.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.ir.core.dims import Dim, Range, bounds
from tessera_build.ir.graph.nodes import GraphNode


def index_range(node: GraphNode, dims: Mapping[str, Range]) -> dict[str, Range]:
    """The index that a node's regions may mention, with its range; empty for a node that binds none."""
    index, trips = node.attributes.get("index"), node.attributes.get("trips")
    if not isinstance(index, str) or not node.regions:
        return {}
    high = bounds(trips, dims)[1] if isinstance(trips, (int, Dim)) else None
    return {index: (0, None if high is None else max(0, high - 1))}
