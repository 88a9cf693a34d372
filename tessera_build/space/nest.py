"""Loop nests of many candidates at once: tiles, trips, orders, and the bytes that each level of cache passes on.

Takes arrays of tile sizes, one number a candidate; gives arrays. A loop nest is its domain loops in an order, then the
loops of the reduction, around one tile. Invariant: a working set is that of a run of innermost loops; what fits into a
cache is fetched once for every turn of the loops around it that move it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tessera_build.space.sketch import Nest, Sketch, Values
from tessera_build.space.workload import Operand, Workload

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
_LINE_BYTES = 64.0


@dataclass(frozen=True, slots=True, eq=False)
class LoopNest:
    """Candidates of one sketch. `tiles`: per axis that has some; `unit`: elements of the reduction that one step takes.

    `order` is a position in `orders`; `unrolled` says whether the reduction's loops are.
    """

    count: int
    tiles: Mapping[str, Integers]
    orders: tuple[tuple[str, ...], ...]
    order: Integers
    parallel: Integers
    unrolled: npt.NDArray[np.bool_]
    unit: int = 1

    @classmethod
    def of(cls, sketch: Sketch, values: Values, tiles: Mapping[str, Integers], unit: int = 1) -> LoopNest:
        """The nests that a batch of a sketch's values stands for."""
        (nest,) = [part for part in sketch.parts if isinstance(part, Nest)]
        order, parallel = values[nest.order], values[nest.parallel]
        unrolled = values.get("unroll", np.zeros_like(order)) == 1
        return cls(len(order), tiles, nest.orders, order, parallel, unrolled, unit)

    def tile(self, axis: str) -> Integers:
        """Tile sizes along an axis."""
        return self.tiles[axis] if axis in self.tiles else np.ones(self.count, np.int64)

    def trips(self, axis: str, extent: int) -> Integers:
        """Turns of the loop over an axis."""
        return -(-extent // self.tile(axis))

    def calls(self, work: Workload) -> Floats:
        """Iterations that are handed out in parallel."""
        found = np.ones(self.count)
        for index, axes in enumerate(self.orders):
            for depth, axis in enumerate(axes):
                inside = (self.order == index) & (self.parallel > depth)
                found = np.where(inside, found * self.trips(axis, work.extents[axis]), found)
        return found

    def bytes_through(self, work: Workload, capacities: Sequence[float]) -> list[Floats]:
        """Per capacity, the bytes that all operands together bring into a cache of that many bytes."""
        found = [np.zeros(self.count) for _ in capacities]
        for index, axes in enumerate(self.orders):
            chosen = np.flatnonzero(self.order == index)
            if len(chosen):
                loops = (*axes, *(span.name for span in work.reduction))
                tiles = {axis: sizes[chosen] for axis, sizes in self.tiles.items()}
                for total, part in zip(
                    found, _Traffic(work, loops, tiles, len(chosen)).through(capacities), strict=True
                ):
                    total[chosen] = part
        return found


class _Traffic:
    """Footprints of every operand at every depth of one order of loops."""

    def __init__(self, work: Workload, loops: Sequence[str], tiles: Mapping[str, Integers], count: int) -> None:
        self._operands = (*work.main, *work.others)
        self._loops, self._tiles, self._count = loops, tiles, count
        self._extents = work.extents
        self._prints = [self._by_depth(operand) for operand in self._operands]

    def through(self, capacities: Sequence[float]) -> list[Floats]:
        """Bytes through a cache of each capacity."""
        sets = [_total([prints[depth] for prints in self._prints]) for depth in range(len(self._loops) + 1)]
        return [self._through(sets, capacity) for capacity in capacities]

    def _through(self, sets: Sequence[Floats], capacity: float) -> Floats:
        loops = self._loops
        fitting = np.full(self._count, len(loops))
        for depth in range(len(loops) - 1, -1, -1):
            fitting[(fitting == depth + 1) & (sets[depth] <= capacity)] = depth
        total = np.zeros(self._count)
        for operand, prints in zip(self._operands, self._prints, strict=True):
            brought = np.stack(prints)[fitting, np.arange(self._count)]
            moved = np.zeros(self._count, np.bool_)
            for depth in range(len(loops) - 1, -1, -1):
                outside = depth < fitting
                moved |= outside & operand.moves(loops[depth])
                brought = np.where(outside & moved, brought * self._trips(loops[depth]), brought)
            total = total + brought
        return total

    def _trips(self, axis: str) -> Integers | int:
        return -(-self._extents[axis] // self._tiles[axis]) if axis in self._tiles else self._extents[axis]

    def _by_depth(self, operand: Operand) -> list[Floats]:
        """Bytes that an operand covers while the loops from each depth on run; equal arrays are computed once."""
        found = [self._footprint(operand, ())]
        for depth in range(len(self._loops) - 1, -1, -1):
            moves = operand.moves(self._loops[depth])
            found.append(self._footprint(operand, self._loops[depth:]) if moves else found[-1])
        return found[::-1]

    def _footprint(self, operand: Operand, inner: Sequence[str]) -> Floats:
        found = np.full(self._count, float(operand.bytes))
        for place, steps in enumerate(operand.steps):
            fixed, span = 1, np.zeros(self._count, np.int64)
            for axis, step in steps:
                extent = self._extents.get(axis, 1)
                if axis in inner:
                    fixed += step * (extent - 1)
                elif axis in self._tiles:
                    span = span + step * (np.minimum(self._tiles[axis], extent) - 1)
            covered = np.asarray(span + fixed, np.float64)
            if place == len(operand.steps) - 1 and not operand.constant:
                covered = np.maximum(covered, _LINE_BYTES / operand.bytes)
            found = found * covered
        return found


def full_bytes(work: Workload) -> float:
    """Bytes that a task touches at all, every one once."""
    return covered_bytes(work, (*work.main, *work.others))


def weight_bytes(work: Workload) -> float:
    """Those of the constants that a reduction reads."""
    return covered_bytes(work, [operand for operand in work.main if operand.constant])


def covered_bytes(work: Workload, operands: Sequence[Operand]) -> float:
    """Bytes that some of its operands touch, every one once."""
    total = 0.0
    for operand in operands:
        own = float(operand.bytes)
        for steps in operand.steps:
            own *= 1 + sum(step * (work.extents.get(axis, 1) - 1) for axis, step in steps)
        total += own
    return total


def _total(parts: Sequence[Floats]) -> Floats:
    """A sum in the order of the parts."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
