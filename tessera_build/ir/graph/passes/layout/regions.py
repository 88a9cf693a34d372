"""Regions of images: convolutions of one kind and the elementwise ops that images connect them by.

Takes a function and what kind of convolution is meant; gives the outputs of each region's nodes. Invariant: nothing
beside a region carries a layout, so a region may be in one layout and all others in another, and no image is in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.node import Function
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.infer import op_named
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.graph.passes.layout.rules import layout_rule

Shape = tuple[Extent, ...]
IMAGE = 2  # axes before the pixels
# Multiply-adds that an element costs which is transposed at an end: with cold caches 256 channels on 56 x 56 take 0.49
# ms, 64 take 0.28 ms, as long as 35 and 80 multiply-adds each; with all of it in the caches 6.
EXCHANGE = 16
# Half of a long register, to which pixels that lie in a row are filled up.
_HALF = 8


def unused_lanes(pixels: int) -> float:
    """The share of multiply-adds on lanes without pixels, where so many lie in a row."""
    return -(-pixels // _HALF) * _HALF / pixels - 1.0


class Regions:
    """What the nodes of a function are to regions of the convolutions that `belongs` says."""

    def __init__(self, function: Function, belongs: Callable[[GraphNode, Regions], bool]) -> None:
        self.types = function.types
        self.producers = {value: node for node in graph_nodes(function) for value in node.outputs}
        self._belongs = belongs
        self._readers: dict[int, list[GraphNode]] = {}
        for node in graph_nodes(function):
            for value in node.inputs:
                self._readers.setdefault(value, []).append(node)
        self._ends = set(function.results) | {
            result for node in graph_nodes(function) for region in node.regions for result in region.results
        }
        self._starts = [node for node in graph_nodes(function) if node.op == "conv"]

    def chosen(self, gains: Callable[[Regions, set[int]], bool]) -> frozenset[int]:
        """The outputs of all nodes of regions of which `gains` is true."""
        found, seen = set[int](), set[int]()
        for start in self._starts:
            if start.output not in seen and self._belongs(start, self):
                region = self._around(start)
                seen |= region or {start.output}
                found |= region if region is not None and gains(self, region) else set()
        return frozenset(found)

    def exchanged(self, region: set[int]) -> int:
        """Elements of the images, for one of a batch, that channels-last transposes where a region begins and ends."""
        nodes = [self.producers[value] for value in region]
        images = {v for node in nodes for v in node.inputs if self.types[v].rank > IMAGE} - region
        begin = {v for v in images if v not in self.producers or self.producers[v].op != "constant"}
        read = {v: self._readers.get(v, []) for v in region}
        ends = {v for v in region if v in self._ends or any(region.isdisjoint(n.outputs) for n in read[v])}
        return sum(math.prod(e for e in self.types[v].shape[1:] if isinstance(e, int)) for v in begin | ends)

    def convolutions(self, region: set[int]) -> list[GraphNode]:
        """Those of a region."""
        return [node for node in (self.producers[value] for value in region) if node.op == "conv"]

    def known(self, value: int) -> bool:
        """Whether the channels and pixels of an image are known."""
        return all(isinstance(extent, int) and extent > 0 for extent in self.types[value].shape[1:])

    def _carries(self, node: GraphNode) -> bool:
        """Whether a node belongs to a region; elementwise ops do whose operands have all its pixels, or one."""
        if node.op == "conv":
            return self._belongs(node, self)
        pixels = self.types[node.output].shape[IMAGE:] if node.outputs else ()
        if not pixels or not op_named(node.op).elementwise:
            return False
        rank = len(pixels) + IMAGE
        own = [(1,) * (rank - len(shape)) + shape for shape in (self.types[value].shape for value in node.inputs)]
        return all(shape[IMAGE:] == pixels or set(shape[IMAGE:]) == {1} for shape in own)

    def _around(self, start: GraphNode) -> set[int] | None:
        """The outputs of the region around a convolution; None where something in or beside it is of another kind."""
        found, waiting = set[int](), [start]
        while waiting:
            node = waiting.pop()
            if found.intersection(node.outputs):
                continue
            if self._carries(node):
                found.add(node.output)
                waiting += self._beside(node)
            elif node.op != "constant" and layout_rule(node.op) is not None:
                return None
        return found

    def _beside(self, node: GraphNode) -> Iterator[GraphNode]:
        """The nodes that make images which a node reads, and those that read what it makes."""
        pixels = self.types[node.output].shape[IMAGE:]
        for value in node.inputs[:1] if node.op == "conv" else node.inputs:
            if node.op == "conv" or self.types[value].shape[IMAGE:] == pixels:
                yield from (n for n in (self.producers.get(value),) if n is not None)
                yield from self._readers[value]
        yield from self._readers.get(node.output, [])
