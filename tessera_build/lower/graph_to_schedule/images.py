"""Definitions of the ops that change the resolution of images: `repeat`, `depth_to_space`, `resample`.

Takes graph nodes; gives one `Compute` each without a reduction, so elementwise nodes after it join its task.
Invariant: taps are summed in their order, each product rounded before it is added.
"""

from __future__ import annotations

import math

from tessera_build.ir.core.dims import Extent, floordiv, mod, symbol
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.schedule.nodes import Access, Compute
from tessera_build.lower.graph_to_schedule.defining import (
    Context,
    axes_of,
    integer_of,
    integers,
    movement,
    symbols_of_axes,
)


def define_repeat(node: GraphNode, context: Context) -> tuple[Compute, ...]:
    """result[i] = x[i // factor] on every axis."""
    symbols = symbols_of_axes(axes_of(context.types[node.output].shape))
    indices = [floordiv(s, f) for s, f in zip(symbols, integers(node, "factors"), strict=True)]
    return (movement(node, context, indices),)


def define_depth_to_space(node: GraphNode, context: Context) -> tuple[Compute, ...]:
    """The block's own place chooses a run of channels."""
    kind = context.types[node.output]
    symbols = symbols_of_axes(axes_of(kind.shape))
    last = node.attributes["layout"] == "NHWC"
    channel = kind.rank - 1 if last else 1
    spatial = [i for i in range(1, kind.rank) if i != channel]
    phase: Extent = 0
    indices = list(symbols)
    for axis, block in zip(spatial, integers(node, "blocks"), strict=True):
        phase = phase * block + mod(symbols[axis], block)
        indices[axis] = floordiv(symbols[axis], block)
    if node.attributes["order"] == "DCR":
        indices[channel] = phase * kind.shape[channel] + symbols[channel]
    else:
        indices[channel] = symbols[channel] * math.prod(integers(node, "blocks")) + phase
    return (movement(node, context, indices),)


def define_resample(node: GraphNode, context: Context) -> tuple[Compute, ...]:
    """Every tap reads its index, its weight and the element that the index chooses."""
    x, positions, weights = node.inputs
    kind = context.types[node.output]
    axis, taps = integer_of(node.attributes["axis"]), integer_of(context.types[positions].shape[0])  # type: ignore[arg-type]
    axes = axes_of(kind.shape)
    symbols = symbols_of_axes(axes)
    reads: list[int] = []
    accesses: list[Access] = []
    for tap in range(taps):
        chosen = (*symbols[:axis], symbol(f"_r{3 * tap}"), *symbols[axis + 1 :])
        reads += [positions, x, weights]
        accesses += [Access((tap, symbols[axis])), Access(chosen), Access((tap, symbols[axis]))]
    builder = ScalarBuilder([context.types[v].dtype for v in reads])
    products = [builder.op("mul", 3 * tap + 1, 3 * tap + 2) for tap in range(taps)]
    total = products[0]
    for product in products[1:]:
        total = builder.op("add", total, product)
    return (Compute(node.output, tuple(reads), tuple(accesses), axes, (), "none", builder.finish(total)),)
