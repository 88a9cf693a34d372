"""Joins chains of elementwise operators into one program a tile, so that Python's operators cost no extra tiles.

Takes the nodes of one trace; gives the same program with every `Map` that feeds exactly one other `Map` of its own
block and shape inlined there.

    %1 = map(%0) {x * 2}                         %2 = map(%0) {exp(x * 2)}
    %2 = map(%1) {exp(x)}                  →

Invariant: each element's operations stay the same and in the same order, so results are bitwise the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tessera_build.ir.core.node import Node, Region, Span, walk
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.structure import regions_of, uses_of, with_regions
from tessera_build.ir.core.types import DType, Type
from tessera_build.ir.tile import nodes


@dataclass(frozen=True, slots=True)
class FuseMaps:
    """The pass; `types` and `locations` are those of the trace, and `locations` gains the nodes made here."""

    types: Mapping[int, Type]
    locations: dict[Node, Span]

    def run(self, block: tuple[Node, ...]) -> tuple[Node, ...]:
        """The block with its chains joined, nested blocks included."""
        uses = Counter(use for node in walk(block) for use in uses_of(node))
        uses.update(r for node in walk(block) for region in regions_of(node) for r in region.results)
        return self._block(block, uses)

    def _block(self, block: tuple[Node, ...], uses: Counter[int]) -> tuple[Node, ...]:
        maps: dict[int, nodes.Map] = {}
        inlined: set[int] = set()
        result: list[Node] = []
        for node in block:
            new = self._node(node, maps, inlined, uses)
            if isinstance(new, nodes.Map):
                maps[new.result] = new
            result.append(new)
        return tuple(n for n in result if not (isinstance(n, nodes.Map) and n.result in inlined))

    def _node(self, node: Node, maps: Mapping[int, nodes.Map], inlined: set[int], uses: Counter[int]) -> Node:
        if isinstance(node, nodes.Map):
            new: Node = self._join(node, maps, inlined, uses)
        elif regions := regions_of(node):
            new = with_regions(node, [self._region(region, uses) for region in regions])
        else:
            return node
        if new is not node and node in self.locations:
            self.locations[new] = self.locations[node]
        return new

    def _region(self, region: Region, uses: Counter[int]) -> Region:
        return replace(region, nodes=self._block(region.nodes, uses))

    def _join(self, node: nodes.Map, maps: Mapping[int, nodes.Map], inlined: set[int], uses: Counter[int]) -> nodes.Map:
        shape = self.types[node.result].shape
        joined = [
            maps[o] if o in maps and uses[o] == 1 and (self.types[o].shape == shape or not maps[o].operands) else None
            for o in node.operands
        ]
        if not any(joined):
            return node
        operands: list[int] = []
        for own, producer in zip(node.operands, joined, strict=True):
            operands += [o for o in (producer.operands if producer else (own,)) if o not in operands]
        if not operands:
            return node  # a map without operands takes its shape from nowhere else: keep what gives the shape
        builder = ScalarBuilder([self._dtype(o) for o in operands])
        arguments: list[int] = []
        for own, producer in zip(node.operands, joined, strict=True):
            if producer is None:
                arguments.append(operands.index(own))
            else:
                inlined.add(own)
                arguments += builder.inline(producer.program, [operands.index(o) for o in producer.operands])
        return nodes.Map(node.result, tuple(operands), builder.finish(*builder.inline(node.program, arguments)))

    def _dtype(self, value: int) -> DType:
        return self.types[value].dtype
