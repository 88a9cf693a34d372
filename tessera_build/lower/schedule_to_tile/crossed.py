"""Loop nests of pointwise tasks that exchange axes: tiles along the vector axis and along the one that a read follows.

Before: movement and elementwise definitions over one domain, with tiles on two of its axes. After: loops over the other
axes, over blocks of tiles, over tiles. Invariant: both extents hold a tile, so the last tile moves back inside and no
access is masked; elements that two tiles share get the same bits twice.
"""

from __future__ import annotations

from collections.abc import Callable

from tessera_build.ir.core.dims import Extent, minimum, symbol
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.lower.schedule_to_tile.nest import LoopRange, Nest

Make = Callable[[], object]


def crossed_tiles(schedule: Schedule, axes: tuple[str, ...]) -> tuple[str, ...]:
    """Axes with tiles beside the innermost one, of a pointwise task; replay takes one at most."""
    order, factors = schedule.order() or axes, schedule.factors()
    return tuple(axis for axis in order[:-1] if factors.get(axis, 1) > 1)


def emit_crossed(nest: Nest, schedule: Schedule, crossed: str) -> None:
    """Append the nest of a pointwise task with tiles along `crossed` and along the innermost axis."""
    order = schedule.order() or nest.axes
    tiled = (crossed, order[-1])
    starts: dict[str, Extent] = dict.fromkeys(tiled, 0)
    make: Make = nest.store_outputs
    for axis in reversed(tiled):
        make = _tiles(nest, schedule, axis, starts, make)
    for axis in reversed(tiled):
        make = _blocks(nest, schedule, axis, starts, make)
    for axis in reversed([a for a in order if a not in tiled]):
        make = _single(nest, schedule, axis, make)
    make()


def _single(nest: Nest, schedule: Schedule, axis: str, make: Make) -> Make:
    """A loop over an axis without tiles."""
    extent = nest.domain[axis]

    def run() -> None:
        nest.place(axis, 0 if extent == 1 else symbol(axis))
        make()

    return run if extent == 1 else _loop(nest, LoopRange(axis, extent, 1, schedule.scope(axis)), run)


def _blocks(nest: Nest, schedule: Schedule, axis: str, starts: dict[str, Extent], make: Make) -> Make:
    """A parallel loop over blocks of tiles, where the schedule cuts the axis into some."""
    chunk = schedule.factors().get(f"{axis}_chunk")
    if chunk is None:
        return make

    def run() -> None:
        starts[axis] = symbol(f"{axis}_chunk")
        make()

    return _loop(nest, LoopRange(f"{axis}_chunk", nest.domain[axis], chunk, "parallel"), run)


def _tiles(nest: Nest, schedule: Schedule, axis: str, starts: dict[str, Extent], make: Make) -> Make:
    """A loop over the tiles of a block, or over all of them."""
    chunk, extent, size = schedule.factors().get(f"{axis}_chunk"), nest.domain[axis], nest.tiles.get(axis, 1)
    exact = chunk is not None and isinstance(extent, int) and extent % chunk == 0

    def run() -> None:
        nest.place(axis, starts[axis] + symbol(axis))
        make()

    def loop() -> None:
        room = extent if chunk is None else chunk if exact else minimum(chunk, extent - starts[axis])
        _loop(nest, LoopRange(axis, room, size, schedule.scope(axis)), run)()

    return loop


def _loop(nest: Nest, span: LoopRange, make: Make) -> Make:
    def body(_: tuple[int, ...]) -> tuple[int, ...]:
        make()
        return ()

    def run() -> None:
        nest.loop(span, (), body)

    return run
