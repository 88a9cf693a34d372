"""Which part of the next panel a register tile asks for while it works on its own.

Takes a nest at the place of one contraction; gives the cache lines to ask for. Every tile of rows that uses a panel
takes its share of the next one, in the order in which they run, so that memory is read at an even rate however often
a panel is used. A panel that is used once is read as fast as memory gives it: its tile asks for what lies a little
further on. Invariant: nothing but time depends on it; addresses beyond the operand are allowed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tessera_build.ir.core.dims import Extent, substitute, symbol
from tessera_build.ir.core.types import int_extent
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.schedule_to_tile.nest import Nest
from tessera_build.space.contraction import known

LINE_BYTES = 64  # of every processor that is built for
# How far on one stream asks, of the second-level cache: 500 MB of mapped weights were read at 30.0 GB/s without asking,
# at 32.8 and 33.0 with 4 and 6 KiB, 32.3 with 8, 29.6 with 16; asking for the first level gained 1 GB/s at most.
DISTANCE_BYTES, DISTANT_LEVEL = 5120, 2


def lines_ahead(nest: Nest, schedule: Schedule, node: Compute, size: int) -> t.Ahead | None:
    """What a contraction of `size` steps asks for at the current offsets."""
    read = schedule.prefetched()
    if read is None:
        return None
    packing, shape, indices = nest.packed[node.reads[read], node.accesses[read]]
    vector = nest.axes[-1]
    places = nest.offsets | {f"{vector}_panel": nest.offsets[vector] // packing.width}
    panel = indices.index(symbol(f"{vector}_panel"))
    strides = [math.prod(int_extent(e) for e in shape[i + 1 :]) for i in range(panel + 1)]
    turn, turns = _turn(nest, node, _loops_inside(nest, schedule))
    bytes_each = nest.dtype(node.reads[read]).bytes
    start: Extent = strides[panel] if turns > 1 else DISTANCE_BYTES // bytes_each
    for index, stride in zip(indices, strides, strict=False):
        start = start + substitute(index, places) * stride
    depth = math.prod(known(a.extent) for a in node.reduction)
    rate = -(-strides[panel] // (depth * turns))
    start = start + turn * (rate * depth) + _step(nest, node) * rate
    return t.Ahead(start, -(-rate * size // (LINE_BYTES // bytes_each)), 1 if turns > 1 else DISTANT_LEVEL)


def _loops_inside(nest: Nest, schedule: Schedule) -> list[str]:
    """The loops of the domain inside the one over panels, outermost first."""
    order = list(schedule.order() or nest.axes)
    return order[order.index(nest.axes[-1]) + 1 :]


def _turn(nest: Nest, node: Compute, loops: Sequence[str]) -> tuple[Extent, int]:
    """Which use of a panel this is, and of how many; dynamic loops count as long as schedules take them to be."""
    number: Extent = 0
    turns = 1
    for axis in reversed(loops):
        step, extent = nest.tiles.get(axis, 1), nest.domain[axis]
        trips = -(-known(extent) // step)
        if extent in (1, step) or nest.depends(node.reads[1], node.accesses[1], axis):
            continue
        number = number + symbol(axis) // step * turns
        turns *= trips
    return number, turns


def _step(nest: Nest, node: Compute) -> Extent:
    """The place in the reduction, in the order in which panels hold it."""
    place: Extent = 0
    for axis in node.reduction:
        place = place * axis.extent + nest.offsets[axis.name]
    return place
