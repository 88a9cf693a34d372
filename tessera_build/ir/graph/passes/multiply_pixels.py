"""Make convolutions of single pixels products that leave images as they are, channels first.

Takes a module before layouts are chosen; gives it with every region that has no other convolutions than such, and
elementwise ops beside them, over images whose pixels are one axis. Vectors then run along the pixels, and nothing is
transposed where the region begins and ends. Invariant: a region is taken whole, or left to channels-last; sums have the
order that they had. When it pays: docs/adr/0022-channels-first-where-pixels-are-multiplied.md.

    before:  %1 = "tgraph.conv"(%x, %w) <{layout = "NCHW"}>
             %2 = "tgraph.max"(%1, 0)
             return %2
    after:   %1 = "tgraph.reshape"(%x) <{shape = [1, 256, 784]}>
             %2 = "tgraph.reshape"(%w) <{shape = [64, 256]}>
             %3 = "tgraph.matmul"(%2, %1)
             %4 = "tgraph.max"(%3, 0)
             %5 = "tgraph.reshape"(%4) <{shape = [1, 64, 28, 28]}>
             return %5
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import F32
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.infer import op_named
from tessera_build.ir.graph.nodes import GraphNode, Module
from tessera_build.ir.graph.ops.op import int_of, ints_of
from tessera_build.ir.graph.passes.layout.rules import layout_rule
from tessera_build.ir.graph.sweep import Site, rewrite

Shape = tuple[Extent, ...]
_IMAGE = 2  # axes before the pixels
# Multiply-adds that an element costs which is transposed at an end: with cold caches 256 channels on 56 x 56 take 0.49
# ms, 64 take 0.28 ms, as long as 35 and 80 multiply-adds each; with all of it in the caches 6.
_EXCHANGE = 16
# Half of a long register, to which the pixels of a row are filled up.
_HALF = 8
# What products in halves gain, which have channels in their columns, and the channels that they want.
_HALVES_GAIN, _HALVES_INPUTS, _HALVES_OUTPUTS = 0.1, 192, 128
# Rows that are a multiple of so many bytes long share the sets of a cache, and columns of them find no place in it.
_ALIASING_BYTES = 4096


@dataclass(frozen=True, slots=True)
class MultiplyPixels:
    """Rewrite the regions that gain by it."""

    def run(self, module: Module) -> Module:
        """The module with products over pixels."""
        return rewrite(module, lambda: _Flattened().place)


@dataclass(slots=True)
class _Flattened:
    """The sweep of one function: outputs of the nodes to rewrite, and images that exist with their pixels in a row."""

    chosen: frozenset[int] | None = None
    known: dict[int, int] = field(default_factory=dict[int, int])

    def place(self, site: Site) -> Sequence[int] | None:
        """A rule of the sweep."""
        if self.chosen is None:
            self.chosen = _Regions(site.old).chosen()
        if not site.node.outputs or site.node.outputs[0] not in self.chosen:
            return None
        shape = site.old.types[site.node.output].shape
        if site.node.op == "conv":
            image, weights = site.inputs
            result = _product(site, weights, self._flat(site, image, len(shape)))
        else:
            operands = [self._flat(site, value, len(shape)) for value in site.inputs]
            result = site.to.op(site.node.op, *operands, **site.node.attributes)
        plain = site.to.op("reshape", result, shape=shape)
        self.known[plain] = result
        return [plain]

    def _flat(self, site: Site, value: int, rank: int) -> int:
        """A value with its pixels in a row."""
        shape = site.to.type(value).shape
        if value in self.known or not shape:
            return self.known.get(value, value)
        padded = (*(1 for _ in range(rank - len(shape))), *shape)
        return site.to.op("reshape", value, shape=(*padded[:_IMAGE], _pixels(padded)))


def _product(site: Site, weights: int, image: int) -> int:
    """Weights, as rows of inputs, times an image; as columns where their rows would share the sets of a cache.

    1024 -> 64 on 14 x 14: 0.32 ms by rows, 0.26 by columns; where rows do not, columns are 1 % slower.
    """
    outputs, inputs, *_ = site.to.type(weights).static_shape
    matrix = site.to.op("reshape", weights, shape=(outputs, inputs))
    if not _aliases(inputs):
        return site.to.op("matmul", matrix, image)
    return site.to.op("matmul", site.to.op("transpose", matrix, perm=(1, 0)), image, transpose_a=True)


def _aliases(row: int) -> bool:
    """Whether rows of so many elements lie on each other in a cache."""
    return row * F32.bytes % _ALIASING_BYTES == 0


def _pixels(shape: Shape) -> int:
    return math.prod(extent for extent in shape[_IMAGE:] if isinstance(extent, int))


class _Regions:
    """What the nodes of a function are to such regions."""

    def __init__(self, function: Function) -> None:
        self._types = function.types
        self._producers = {value: node for node in graph_nodes(function) for value in node.outputs}
        self._readers: dict[int, list[GraphNode]] = {}
        for node in graph_nodes(function):
            for value in node.inputs:
                self._readers.setdefault(value, []).append(node)
        self._ends = set(function.results) | {
            result for node in graph_nodes(function) for region in node.regions for result in region.results
        }
        self._starts = [node for node in graph_nodes(function) if node.op == "conv"]

    def chosen(self) -> frozenset[int]:
        """The outputs of all nodes of regions that gain."""
        found, seen = set[int](), set[int]()
        for start in self._starts:
            if start.output not in seen and self._multiplies(start):
                region = self._around(start)
                seen |= region or {start.output}
                found |= region if region is not None and self._gains(region) else set()
        return frozenset(found)

    def _multiplies(self, node: GraphNode) -> bool:
        """Whether a node is a convolution of single pixels, of f32 by constant weights, over a known number of them."""
        if node.op != "conv" or node.attributes["layout"] != "NCHW" or int_of(node.attributes, "groups") != 1:
            return False
        weights = self._producers.get(node.inputs[1])
        image, kernel = self._types[node.inputs[0]], self._types[node.inputs[1]].shape
        windows = (ints_of(node.attributes, name) for name in ("strides", "low", "high"))
        alone = [set(window) for window in windows] == [{1}, {0}, {0}] and set(kernel[_IMAGE:]) == {1}
        known = all(isinstance(extent, int) and extent > 0 for extent in image.shape[1:])
        return alone and known and image.dtype == F32 and weights is not None and weights.op == "constant"

    def _carries(self, node: GraphNode, pixels: Shape) -> bool:
        """Whether a node belongs to a region of images of these extents."""
        if node.op == "conv":
            return self._multiplies(node) and self._types[node.inputs[0]].shape[_IMAGE:] == pixels
        if not op_named(node.op).elementwise or self._types[node.output].shape[_IMAGE:] != pixels:
            return False
        rank = len(pixels) + _IMAGE
        own = [(1,) * (rank - len(shape)) + shape for shape in (self._types[value].shape for value in node.inputs)]
        return all(shape[_IMAGE:] == pixels or set(shape[_IMAGE:]) == {1} for shape in own)

    def _around(self, start: GraphNode) -> set[int] | None:
        """The outputs of the region around a convolution; None where something in or beside it is of another kind."""
        pixels, found, waiting = self._types[start.inputs[0]].shape[_IMAGE:], set[int](), [start]
        while waiting:
            node = waiting.pop()
            if found.intersection(node.outputs):
                continue
            if self._carries(node, pixels):
                found.add(node.output)
                waiting += self._beside(node, pixels)
            elif node.op != "constant" and layout_rule(node.op) is not None:
                return None
        return found

    def _beside(self, node: GraphNode, pixels: Shape) -> Iterator[GraphNode]:
        """The nodes that make images which a node reads, and those that read what it makes."""
        for value in node.inputs:
            if self._types[value].shape[_IMAGE:] == pixels:
                yield from (n for n in (self._producers.get(value),) if n is not None)
                yield from self._readers[value]
        yield from self._readers.get(node.output, [])

    def _gains(self, region: set[int]) -> bool:
        """Whether what is not transposed is worth more than lanes without pixels, and products that are not halved."""
        nodes = [self._producers[value] for value in region]
        images = {v for node in nodes for v in node.inputs if self._types[v].rank > _IMAGE} - region
        begin = {v for v in images if v not in self._producers or self._producers[v].op != "constant"}
        read = {v: self._readers.get(v, []) for v in region}
        ends = {v for v in region if v in self._ends or any(region.isdisjoint(n.outputs) for n in read[v])}
        exchanged = sum(math.prod(e for e in self._types[v].shape[1:] if isinstance(e, int)) for v in begin | ends)
        lost = 0.0
        for node in nodes:
            if node.op == "conv":
                outputs, inputs, *_ = self._types[node.inputs[1]].static_shape
                pixels = _pixels(self._types[node.output].shape)
                if _aliases(pixels):
                    return False
                unused = -(-pixels // _HALF) * _HALF / pixels - 1.0
                halved = _HALVES_GAIN if inputs >= _HALVES_INPUTS and outputs >= _HALVES_OUTPUTS else 0.0
                lost += outputs * inputs * pixels * (unused + halved)
        return exchanged * _EXCHANGE > lost
