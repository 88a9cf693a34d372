"""Loop nests of row tasks: softmax, normalisations, means — several passes over a row while it is in cache.

Before: reductions along the same axes with elementwise definitions between and after them. After: loops over the rows;
for each reduction in order one pass over the row that accumulates in a tile; one last pass for the full-size outputs.
A costly intermediate that two passes need is written once, into the output's own memory, and read back.
"""

from __future__ import annotations

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.lower.schedule_to_tile.nest import LoopRange, Nest
from tessera_build.lower.schedule_to_tile.passes import Passes
from tessera_build.lower.schedule_to_tile.pointwise import vector_axis
from tessera_build.lower.schedule_to_tile.stagger import emit_staggered


def emit_row(nest: Nest, schedule: Schedule) -> None:
    """Append the nest of a row task."""
    passes = Passes.of(nest, schedule)
    kept = [a for a in (schedule.order() or nest.axes) if a not in passes.reduced]
    _outer(nest, schedule, kept, passes)


def _outer(nest: Nest, schedule: Schedule, kept: list[str], passes: Passes) -> None:
    if not kept:
        _in_order(passes)
        return
    axis, rest = kept[0], kept[1:]
    extent, size = nest.domain[axis], nest.tiles.get(axis, 1)
    if axis == schedule.staggered():
        emit_staggered(passes, axis)
        return
    if size > 1 and axis == nest.axes[-1]:

        def tiles(_: tuple[int, ...]) -> tuple[int, ...]:
            _outer(nest, schedule, rest, passes)
            return ()

        vector_axis(nest, schedule, axis, (), tiles)
        return
    if extent == size:
        nest.place(axis, 0)
        _outer(nest, schedule, rest, passes)
        return

    def body(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.place(axis, symbol(axis))
        _outer(nest, schedule, rest, passes)
        return ()

    nest.loop(LoopRange(axis, extent, size, schedule.scope(axis)), (), body)


def _in_order(passes: Passes) -> None:
    """Every pass over the rows of one tile ends before the next one begins."""
    done: dict[int, int] = {}
    for number, node in enumerate(passes.reductions):
        done[node.result] = passes.reduce(number, done)
    passes.finish(done)
