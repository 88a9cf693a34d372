"""Schedules for tasks without accumulation in registers across a window: elementwise, movement and row tasks.

Takes a task's domain and a machine; gives a `Schedule`. Invariant: the vector axis is always the domain's last one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.nodes import Axis
from tessera_build.ir.schedule.trace import Bind, Interleave, Reorder, Schedule, Split, Step
from tessera_build.space.contraction import known

# Elements that one parallel iteration should touch at least (64 KiB of f32: some microseconds).
GRAIN_ELEMENTS = 16384


def vector_tile(axis: Axis, machine: CpuMachine, vectors: int = 4) -> int:
    """Elements of the vector axis in one tile: all of a short axis, else up to `vectors` registers that divide it."""
    extent = axis.extent
    if not isinstance(extent, int):
        return machine.lanes
    if extent <= vectors * machine.lanes:
        return max(1, extent)
    sizes = [n * machine.lanes for n in range(vectors, 0, -1)]
    return next((s for s in sizes if extent % s == 0), sizes[0])


def schedule_pointwise(axes: Sequence[Axis], machine: CpuMachine, scalar: bool) -> Schedule:
    """Elementwise and movement tasks; `scalar`: an index does not move affinely along the last axis."""
    last = axes[-1]
    tile = 1 if scalar else vector_tile(last, machine)
    steps: list[Step] = [Split(last.name, tile)]
    bound = list(axes[:-1])
    if not [a for a in bound if a.extent != 1] and (
        not isinstance(last.extent, int) or last.extent > 2 * GRAIN_ELEMENTS
    ):
        steps.append(Split(f"{last.name}_chunk", GRAIN_ELEMENTS // tile * tile))
    return Schedule((*steps, *(Bind(a.name, "parallel") for a in _bound(bound, known(last.extent)))))


def schedule_crossed(axes: Sequence[Axis], crossed: Axis, tile: tuple[int, int]) -> Schedule:
    """Pointwise tasks with a read that is contiguous along `crossed`: tiles along it and along the last axis.

    Blocks of tiles are shared out where one matrix is work for several; square ones touch the fewest pages.
    """
    last = axes[-1]
    bound = [a for a in axes[:-1] if a is not crossed]
    steps: list[Step] = [Split(crossed.name, tile[0]), Split(last.name, tile[1])]
    work = known(crossed.extent) * known(last.extent)
    dynamic = not (isinstance(crossed.extent, int) and isinstance(last.extent, int))
    if dynamic or work > 2 * GRAIN_ELEMENTS:
        side = math.isqrt(GRAIN_ELEMENTS)
        wide = side if not isinstance(crossed.extent, int) else max(side, GRAIN_ELEMENTS // crossed.extent)
        tall = side if not isinstance(last.extent, int) else max(side, GRAIN_ELEMENTS // last.extent)
        for axis, room, size in ((crossed, tall, tile[0]), (last, wide, tile[1])):
            chunk = -(-room // size) * size
            if not isinstance(axis.extent, int) or axis.extent > chunk:
                steps.append(Split(f"{axis.name}_chunk", chunk))
    else:
        bound = _bound(bound, work)
    return Schedule((*steps, *(Bind(a.name, "parallel") for a in bound)))


def _bound(axes: Sequence[Axis], work: int) -> list[Axis]:
    """Axes to run in parallel: all but inner ones, where an iteration had too little work otherwise."""
    bound = list(axes)
    while bound and work < GRAIN_ELEMENTS and math.prod(known(a.extent) for a in bound[:-1]) >= 4:
        work *= known(bound[-1].extent)
        bound.pop()
    return bound


def schedule_row(axes: Sequence[Axis], reduced: frozenset[int], machine: CpuMachine, scalar: bool) -> Schedule:
    """Row tasks: rows in parallel, the last axis in vectors whether it is reduced or not."""
    last = axes[-1]
    tile = 1 if scalar else vector_tile(last, machine)
    kept = [a for i, a in enumerate(axes) if i not in reduced]
    across = len(axes) - 1 in reduced
    steps: list[Step] = [Split(last.name, tile, "order-changing" if across else "bit-preserving")]
    if across:
        steps.append(Interleave(last.name, machine.lanes))
    order = (*(a.name for a in kept), *(a.name for i, a in enumerate(axes) if i in reduced))
    rows = [a for a in kept if a is not last]
    return Schedule((*steps, Reorder(order), *(Bind(a.name, "parallel") for a in rows)))
