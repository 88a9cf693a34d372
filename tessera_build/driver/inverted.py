"""Weights that were transformed for kernels, turned back: from Winograd's points, Strassen's quarters, beside sums.

Takes an array as a bundle stores it, its packing and the shape that it came from; gives the weights. Invariant: what is
given has the transforms that are stored, but for a few units in the last place of the largest number beside each; they
were rounded there, so that the numbers they were made from are known to that and no further.
"""

from __future__ import annotations

from math import prod
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.scalar import Array
from tessera_build.lower.schedule_to_tile.layouts import Packing
from tessera_build.space.toom_cook import ToomCook, Transform, taps_first

Floats = NDArray[np.float64]
# Of the largest number that was transformed together: weights are rounded once, and so are their transforms.
CLOSE: Final = 2.0**-21


def turned_back(packed: Array, packing: Packing, shape: tuple[int, ...]) -> Array | None:
    """The weights [*shape] behind `packed`; None where their transforms are not those that are stored."""
    found = _from_points(packed, packing, shape) if packing.winograd else _from_quarters(packed, packing, shape)
    again = packing.apply(found).astype(np.float64)
    if again.shape != packed.shape:
        return None
    off = float(np.abs(again - packed.astype(np.float64)).max(initial=0))
    return found if off <= CLOSE * float(np.abs(again).max(initial=0)) else None


def _from_points(packed: Array, packing: Packing, shape: tuple[int, ...]) -> Array:
    """The taps [rows, columns, summed, outputs] whose values at the points are nearest to those stored."""
    transform = packing.winograd
    assert transform is not None
    taps = (transform.rows.taps, transform.columns.taps)
    summed, outputs = _extents(shape, packing.order)
    _, points, _, width = packed.shape
    whole = np.moveaxis(packed, 0, 2).reshape(points, summed, -1 if outputs else width)[..., :outputs]
    inverse = np.asarray(np.linalg.pinv(_values(transform)), np.float64)
    found = (inverse @ whole.reshape(points, -1).astype(np.float64)).astype(packed.dtype)
    return _in_place(found.reshape(*taps, summed, outputs), packing.order, shape)


def _extents(shape: tuple[int, ...], order: tuple[int, ...]) -> tuple[int, int]:
    """The numbers of what is summed at a point and of outputs."""
    *summed, outputs = (1 if place < 0 else shape[place] for place in order[2:])
    return prod(summed), outputs


def _values(transform: Transform) -> Floats:
    """What each tap adds to the value at each point."""

    def matrix(along: ToomCook) -> Floats:
        return np.array([[float(value) for value in row] for row in along.weights], np.float64)

    return np.kron(matrix(transform.rows), matrix(transform.columns)).astype(np.float64)


def _in_place(taps: Array, order: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """The taps where `taps_first` took them from: the same rearrangement of the elements' numbers says where."""
    numbers = taps_first(np.arange(taps.size).reshape(shape), order)
    array = np.empty(taps.size, taps.dtype)
    array[numbers.reshape(-1).astype(np.int64)] = taps.reshape(-1)
    return array.reshape(shape)


def _from_quarters(packed: Array, packing: Packing, shape: tuple[int, ...]) -> Array:
    """Three quarters as they are stored; the fourth is the sum of the first and the difference from it."""
    panels, pieces, _, piece, width = packed.shape
    apart = np.moveaxis(packed, (2, 1, 3, 0, 4), (0, 1, 2, 3, 4)).reshape(4, pieces * piece, panels * width)
    b11, b21, b22, t1 = apart
    b12 = np.add(t1.astype(np.float64), b11.astype(np.float64)).astype(packed.dtype)
    both = np.concatenate([np.concatenate([b11, b12], 1), np.concatenate([b21, b22], 1)], 0)
    rest = [axis for axis in range(len(shape)) if axis not in packing.order]
    moved = both.reshape(*(shape[axis] for axis in packing.order), *(shape[axis] for axis in rest))
    return np.ascontiguousarray(np.moveaxis(moved, (0, 1), packing.order))


def without_sums(packed: Array, order: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """The weights [*shape] in panels [panels, depth + 1, width], whose last rows are sums of the others, exactly."""
    rows = np.moveaxis(packed[:, :-1], 0, 1).reshape(packed.shape[1] - 1, -1)[:, : shape[order[1]]]
    rest = [extent for axis, extent in enumerate(shape) if axis not in order]
    moved = rows.reshape(*(shape[axis] for axis in order), *rest)
    return np.ascontiguousarray(np.moveaxis(moved, (0, 1), order))
