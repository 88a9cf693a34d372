"""Nodes written once more: into another block, over other operands.

Takes finished nodes; gives their results in the block that is open. Invariant: spans stay, constants are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tessera_build.ir.core.node import Node, Region, Span
from tessera_build.ir.core.structure import captured
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.graph.regions import index_range


class Replay:
    """Writes nodes to a builder; `values` maps what they read to values there, and grows by what they make.

    `type_of` and `span_of` answer for the nodes' own values. A value that has no entry is visible in both places.
    """

    def __init__(
        self,
        to: GraphBuilder,
        values: dict[int, int],
        type_of: Callable[[int], Type],
        span_of: Callable[[Node], Span | None],
    ) -> None:
        self.to = to
        self.values = values
        self.type_of = type_of
        self.span_of = span_of

    def nodes(self, nodes: Iterable[Node]) -> None:
        """Write nodes in order."""
        for node in nodes:
            assert isinstance(node, GraphNode)
            with self.to.at(self.span_of(node) or self.to.span):
                self._node(node)

    def _node(self, node: GraphNode) -> None:
        if node.op == "constant":
            self.values[node.output] = self.to.pooled(str(node.attributes["digest"]))
            return
        regions = [self.region(node, region) for region in node.regions]
        inputs = tuple(self.values.get(i, i) for i in node.inputs)
        made = self.to.node(node.op, inputs, node.attributes, regions)
        self.values.update(zip(node.outputs, made, strict=True))

    def region(self, node: GraphNode, region: Region) -> Region:
        """A region of a node, written anew."""
        with self.to.region([self.type_of(a) for a in region.args], index_range(node, self.to.dims)) as made:
            self.values.update(zip(region.args, made.args, strict=True))
            self.nodes(region.nodes)
            made.yields(*(self.values.get(r, r) for r in region.results))
        return made.region


def live_part(region: Region, results: Sequence[int]) -> Region:
    """The region with these results and without nodes of its block that none of them depends on."""
    needed, kept = set(results), list[Node]()
    for node in reversed(region.nodes):
        assert isinstance(node, GraphNode)
        if node.outputs and needed.isdisjoint(node.outputs):
            continue
        needed.update(node.inputs)
        needed.update(captured(node.regions))
        kept.append(node)
    return Region(region.args, tuple(reversed(kept)), tuple(results))
