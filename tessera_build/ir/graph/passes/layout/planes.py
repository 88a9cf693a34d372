"""Which depthwise convolutions stay channels-first: regions of nothing else, where vectors run along the pixels.

Takes a function before layouts are chosen; gives the outputs of such regions' nodes. Invariant: a region stays whole,
or becomes channels-last whole. When it pays: docs/adr/0026-depthwise-alone-stays-channels-first.md.
"""

from __future__ import annotations

import math

from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import F32
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.graph.ops.op import int_of, ints_of
from tessera_build.ir.graph.passes.layout.regions import EXCHANGE, IMAGE, Regions, unused_lanes

# Each tap fills a register with one number; of more than 3 x 3, numbers are loaded again for every use. 5 x 5 on 28 x
# 28 took as long as channels-last with its transpositions, 7 x 7 half as long again.
_MOST_TAPS = 9
# What a tap costs beyond one that is channels-last, whose reads are aligned: 3 x 3 on 56 x 56 takes 57 us, not 48.
_UNALIGNED = 0.7


def planes_of(function: Function) -> frozenset[int]:
    """The outputs of the nodes that stay."""
    return Regions(function, _slides).chosen(_gains)


def _slides(node: GraphNode, regions: Regions) -> bool:
    """Whether a node is a depthwise convolution in steps of one, of f32, few taps and known extents."""
    if node.op != "conv" or node.attributes["layout"] != "NCHW" or set(ints_of(node.attributes, "strides")) != {1}:
        return False
    image, weights = (regions.types[value] for value in node.inputs[:2])
    if image.dtype != F32 or not regions.known(node.inputs[0]) or not regions.known(node.output):
        return False
    alone = int_of(node.attributes, "groups") == image.shape[1] == weights.shape[0]
    return alone and image.rank > IMAGE and math.prod(weights.static_shape[IMAGE:]) <= _MOST_TAPS


def _gains(regions: Regions, region: set[int]) -> bool:
    """Whether what is not transposed is worth more than lanes without pixels and unaligned reads."""
    lost = 0.0
    for node in regions.convolutions(region):
        shape = [extent for extent in regions.types[node.output].shape[1:] if isinstance(extent, int)]
        taps = math.prod(regions.types[node.inputs[1]].static_shape[IMAGE:])
        lost += math.prod(shape) * taps * (unused_lanes(shape[-1]) + _UNALIGNED)
    return regions.exchanged(region) * EXCHANGE > lost
