"""Packed weights, element by element beside what the layout's name says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tessera_build.ir.core.scalar import Array
from tessera_build.lower.schedule_to_tile.layouts import Packing


def packed_by_definition(packing: Packing, array: Array) -> Array:
    """Every element put where `order` and panels of `width` say, zeros elsewhere."""
    moved = np.transpose(array, packing.order)
    *lead, last = moved.shape
    panels = -(-last // packing.width)
    packed = np.zeros((*lead[: packing.outer], panels, *lead[packing.outer :], packing.width), array.dtype)
    for place in itertools.product(*(range(extent) for extent in moved.shape)):
        panel, lane = divmod(place[-1], packing.width)
        packed[(*place[: packing.outer], panel, *place[packing.outer : -1], lane)] = moved[place]
    return packed


@pytest.mark.parametrize(
    ("shape", "order", "outer", "width"),
    [
        ((96, 700), (0, 1), 0, 32),  # rows lie as in the source: blocks are of rows
        ((700, 300), (1, 0), 0, 32),  # the vector axis moves slowest in the source: blocks are of panels
        ((40, 24, 3, 3), (2, 3, 1, 0), 0, 16),
        ((40, 24, 3, 3), (2, 3, 1, 0), 2, 16),
        ((7, 5), (1, 0), 0, 8),  # less than one panel
        ((0, 5), (0, 1), 0, 4),
    ],
)
def test_packing_when_applied_then_every_element_lies_where_the_layout_says(
    shape: tuple[int, ...], order: tuple[int, ...], outer: int, width: int
) -> None:
    array = np.arange(1, 1 + int(np.prod(shape)), dtype=np.float32).reshape(shape)
    packing = Packing(order, outer, width)
    found = packing.apply(array)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, packed_by_definition(packing, array))
