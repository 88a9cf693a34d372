"""Loop nests without accumulation, and the vector loop that row tasks share.

Before: elementwise and movement definitions over one domain. After: loops over all axes but the last, a vector loop
over the last one (whole tiles, then one masked tile), stores of every output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent, minimum, symbol
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.lower.schedule_to_tile.nest import LoopRange, Nest


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of an axis."""

    axis: str
    start: Extent
    extent: Extent


Step = Callable[[tuple[int, ...]], tuple[int, ...]]


def emit_pointwise(nest: Nest, schedule: Schedule) -> None:
    """Append the nest of a pointwise task."""
    _loops(nest, schedule, list(schedule.order() or nest.axes))


def _loops(nest: Nest, schedule: Schedule, axes: list[str]) -> None:
    axis, rest = axes[0], axes[1:]
    if not rest:
        vector_axis(nest, schedule, axis, (), lambda _: nest.store_outputs())
        return
    extent = nest.domain[axis]
    if extent == 1:
        nest.place(axis, 0)
        _loops(nest, schedule, rest)
        return

    def body(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.place(axis, symbol(axis))
        _loops(nest, schedule, rest)
        return ()

    nest.loop(LoopRange(axis, extent, 1, schedule.scope(axis)), (), body)


def vector_axis(nest: Nest, schedule: Schedule, axis: str, carried: tuple[int, ...], step: Step) -> tuple[int, ...]:
    """Run `step` for every tile of an axis; a parallel vector axis runs in chunks of many tiles."""
    chunk = schedule.factors().get(f"{axis}_chunk")
    if chunk is None:
        return tiles_of(nest, Part(axis, 0, nest.domain[axis]), carried, step)

    def body(_: tuple[int, ...]) -> tuple[int, ...]:
        start = symbol(f"{axis}_chunk")
        exact = nest.domain[axis] // chunk * chunk == nest.domain[axis]
        room = chunk if exact else minimum(chunk, nest.domain[axis] - start)
        return tiles_of(nest, Part(axis, start, room), (), step)

    return nest.loop(LoopRange(f"{axis}_chunk", nest.domain[axis], chunk, "parallel"), (), body)


def tiles_of(nest: Nest, part: Part, carried: tuple[int, ...], step: Step) -> tuple[int, ...]:
    """Whole tiles first, then the rest as one tile whose views check the axis."""
    whole = part.extent // nest.tiles.get(part.axis, 1) * nest.tiles.get(part.axis, 1)
    if whole != 0:
        carried = _tile_loop(nest, Part(part.axis, part.start, whole), part.axis, carried, step)
    if part.extent != whole:
        nest.ragged.add(part.axis)
        rest = Part(part.axis, part.start + whole, part.extent - whole)
        carried = _tile_loop(nest, rest, f"{part.axis}_rest", carried, step)
        nest.ragged.discard(part.axis)
    return carried


def _tile_loop(nest: Nest, part: Part, index: str, carried: tuple[int, ...], step: Step) -> tuple[int, ...]:
    size = nest.tiles.get(part.axis, 1)
    if isinstance(part.extent, int) and part.extent <= size:
        nest.offsets[part.axis] = part.start
        return step(carried)

    def body(inner: tuple[int, ...]) -> tuple[int, ...]:
        nest.offsets[part.axis] = part.start + symbol(index)
        return step(inner)

    return nest.loop(LoopRange(index, part.extent, size), carried, body)
