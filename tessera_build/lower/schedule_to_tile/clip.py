"""The turns over a window's taps at which a tile reads anything but padding.

Takes a nest at a tile's offsets; gives the first turn and how many follow. Invariant: where ranges of the loops around
prove that all turns are taken, the numbers are plain, and the loop is the one that it would have been.
"""

from __future__ import annotations

from tessera_build.ir.core.dims import Extent, Range, bounds, maximum, minimum, substitute, symbols_of
from tessera_build.ir.schedule.nodes import Axis, Compute
from tessera_build.ir.schedule.trace import ScheduleRejectedError
from tessera_build.lower.schedule_to_tile.indices import coefficient
from tessera_build.lower.schedule_to_tile.nest import Nest


def turns_inside(nest: Nest, node: Compute, axis: Axis) -> tuple[Extent, Extent]:
    """The first turn at which the tile of the first read has an element inside its buffer, and the number of turns."""
    _, shape, indices = nest.resolve(node.reads[0], node.accesses[0])
    moved = [(i, size) for i, size in zip(indices, shape, strict=True) if axis.name in symbols_of(i)]
    steps = {name: coefficient(index, name) for index, _ in moved for name in (*nest.axes, axis.name)}
    apart = steps.get(axis.name)
    if len(moved) != 1 or not apart or apart < 1 or any(step is None or step < 0 for step in steps.values()):
        raise ScheduleRejectedError("NOT_AFFINE", f"{axis.name} of {nest.task.name} moves {indices} not affinely")
    index, size = moved[0]
    start = substitute(index, {**nest.offsets, axis.name: 0})
    reach = sum((step or 0) * (nest.tiles.get(name, 1) - 1) for name, step in steps.items() if name != axis.name)
    first = _exactly(nest, maximum((apart - 1 - reach - start) // apart, 0), 0)
    behind = _exactly(nest, minimum((size - 1 - start) // apart + 1, axis.extent), axis.extent)
    return first, behind if first == 0 and behind == axis.extent else maximum(behind - first, 0)


def _exactly(nest: Nest, turn: Extent, usual: Extent) -> Extent:
    """`usual`, where the ranges of all loops say that it is that."""
    if not isinstance(usual, int):
        return turn
    ranges: dict[str, Range] = {}
    for name, extent in nest.domain.items():
        step = nest.tiles.get(name, 1)
        ranges[name] = (0, (extent - 1) // step * step if isinstance(extent, int) else None)
    return usual if bounds(turn, ranges) == (usual, usual) else turn
