"""Which part of the next panel a register tile asks for while it works on its own.

Takes a nest at the place of one contraction; gives the cache lines to ask for. Every tile of rows that uses a panel
takes its share of the next one, in the order in which they run, so that memory is read at an even rate however often
a panel is used. A panel that is used once is read as fast as memory gives it: its tile asks for what lies a little
further on; so does that of a window, of whose weights a panel alone may be larger than a cache. Of an operand without
panels, the next panel is the columns behind those of the tile, a stretch of every row of it. Invariant: nothing but
time depends on it; addresses beyond the operand are allowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from tessera_build.ir.core.dims import Extent, substitute, symbol
from tessera_build.ir.core.types import F32, int_extent, memref
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.schedule_to_tile.halves import strides_of
from tessera_build.lower.schedule_to_tile.indices import coefficient
from tessera_build.lower.schedule_to_tile.nest import Nest, Operand
from tessera_build.space.contraction import known
from tessera_build.space.panels import LEAST_USES

LINE_BYTES = 64  # of every processor that is built for
# How many bytes on a stream of weights is asked for, and into which level. On a Zen 5, fourteen 3x3 of 256 channels on
# 14 x 14 at Winograd's points took 18.2 ms without asking, 12.2 from 1 KiB ahead, 11.8 from 2, 11.2 from 4, 9.9 from 8
# and 10.0 from 12; six 3x3 of 512 channels in steps of two on 14 x 14 took 10.2 ms without, 7.7 from 4, 7.1 from 8;
# into the second level from 16 KiB ahead 11.4 and 7.4. Hardware alone drew 7 of the 38 GB/s that memory gives.
OF_STREAM: Final = (8192, 1)
# A single row reads a large matrix at the rate of memory. A Zen 4 read 500 MB of mapped weights at 30.0 GB/s without
# asking; into the second level at 32.8 and 33.0 from 4 and 6 KiB ahead, 32.3 from 8, 29.6 from 16; into the first level
# it gained 1 GB/s at most. A Zen 5 reads them as fast either way.
OF_LARGE: Final = (5120, 2)
LARGE_BYTES: Final = 4 << 20


def lines_ahead(nest: Nest, schedule: Schedule, node: Compute, size: int, *, once: bool = False) -> t.Ahead | None:
    """What a contraction of `size` steps asks for at the current offsets; `once`: no line twice, some never.

    Panels of one line a step, 24 products of 49 rows of 160 and 960 with weights from memory on a Zen 4: 2.70 ms where
    no line is asked for twice, 3.54 where all are, 3.48 without asking, 3.16 and 3.64 into the second level.
    """
    read = schedule.prefetched()
    if read is None:
        return None
    if (node.reads[read], node.accesses[read]) not in nest.packed:
        return _columns_ahead(nest, schedule, node, size)
    packing, shape, indices = nest.packed[node.reads[read], node.accesses[read]]
    vector = nest.axes[-1]
    places = nest.offsets | {f"{vector}_panel": nest.offsets[vector] // packing.width}
    panel = indices.index(symbol(f"{vector}_panel"))
    strides = [math.prod(int_extent(e) for e in shape[i + 1 :]) for i in range(panel + 1)]
    loops = _loops_inside(nest, schedule)
    turn, turns = _turn(nest, node, loops)
    bytes_each = nest.dtype(node.reads[read]).bytes
    distance, level = strides[panel], 1
    known_turns = all(isinstance(nest.domain[axis], int) for axis in loops)
    if turns < LEAST_USES or not known_turns or len(node.reduction) > 1:
        large = math.prod(int_extent(e) for e in shape) * bytes_each >= LARGE_BYTES
        distance, level = OF_LARGE if large and turns == 1 and _is_of_a_row(nest, node) else OF_STREAM
        distance, turn, turns = distance // bytes_each, 0, 1
    start: Extent = distance
    for index, stride in zip(indices, strides, strict=False):
        start = start + substitute(index, places) * stride
    depth = math.prod(known(a.extent) for a in node.reduction)
    rate = -(-strides[panel] // (depth * turns))
    start = start + turn * (rate * depth) + _step(nest, node) * rate
    lines = rate * size * bytes_each / LINE_BYTES
    return t.Ahead(start, max(1, math.floor(lines)) if once else math.ceil(lines), level)


def ahead_of(read: Extent, count: int) -> t.Ahead:
    """What a product asks for that reads so many f32 of a stream of weights from element `read` on."""
    distance, level = OF_STREAM
    return t.Ahead(read + distance // F32.bytes, -(-count * F32.bytes // LINE_BYTES), level)


def _is_of_a_row(nest: Nest, node: Compute) -> bool:
    """Whether a tile has one row of a matrix."""
    return len(node.reduction) == 1 and all(nest.tiles.get(axis, 1) == 1 for axis in nest.axes[:-1])


def _columns_ahead(nest: Nest, schedule: Schedule, node: Compute, size: int) -> t.Ahead:
    """A tile's share of the next columns: so much of each row as a tile is wide.

    Into the first level: 1x1 256 -> 64 on 56 x 56, whose columns take 48 KiB there, gains 18 % with cold caches, and
    3 % where they are asked into the second.
    """
    value, vector, (along,) = node.reads[1], nest.axes[-1], node.reduction
    strides, indices = strides_of(nest, value), [nest.expressed(index) for index in node.accesses[1].indices]
    width, bytes_each, depth = nest.tiles[vector], nest.dtype(value).bytes, known(along.extent)
    turn, turns = _turn(nest, node, _loops_inside(nest, schedule))
    row = (turn * depth + nest.offsets[along.name]) // turns
    places = nest.offsets | {along.name: row, vector: nest.offsets[vector] + width}
    first, apart = element_at(indices, strides, places), 0
    for index, stride in zip(indices, strides, strict=True):
        step = coefficient(index, along.name)
        apart += step * int_extent(stride) if step else 0
    return t.Ahead(first, -(-width * bytes_each // LINE_BYTES), 1, -(-size // turns), apart)


def element_at(indices: Sequence[Extent], strides: Sequence[Extent], places: Mapping[str, Extent]) -> Extent:
    """Where an element lies in its buffer."""
    found: Extent = 0
    for index, stride in zip(indices, strides, strict=True):
        found = found + substitute(index, places) * stride
    return found


def ask_for_results(nest: Nest, schedule: Schedule, node: Compute) -> None:
    """Where columns of an operand are asked for, the lines of the tile's own results, which lie as far apart.

    1x1 64 -> 256 on 56 x 56, 3.2 MB of results: 5 to 10 % faster.
    """
    tiled = [axis for axis in nest.axes[:-1] if nest.tiles.get(axis, 1) > 1]
    columns = schedule.prefetched() is not None and (node.reads[1], node.accesses[1]) not in nest.packed
    if not columns or len(tiled) > 1 or schedule.groups():
        return
    for value in nest.task.outputs:
        _ask_for_result(nest, value, tiled[0] if tiled else nest.axes[0])


def _ask_for_result(nest: Nest, value: int, axis: str) -> None:
    """A view that asks for a tile with so many rows along an axis."""
    strides, kind, axes = strides_of(nest, value), nest.task.function.types[value], nest.axes
    apart = strides[axes.index(axis)] if len(strides) == len(axes) else None
    if not isinstance(apart, int):
        return
    offsets = tuple(nest.offsets[a] for a in axes)
    lines, rows = -(-nest.tiles.get(axes[-1], 1) * kind.dtype.bytes // LINE_BYTES), nest.tiles.get(axis, 1)
    binding = t.Binding(ahead=t.Ahead(element_at(offsets, strides, {}), lines, 1, rows, apart))
    buffer, walks = nest.buffer(Operand(value), kind.shape), tuple(t.ViewAxis(-1) for _ in axes)
    view = memref(kind.dtype, *(1 for _ in axes))
    nest.builder.emit(lambda r: t.View(r, buffer, offsets, walks, binding=binding), view)


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
