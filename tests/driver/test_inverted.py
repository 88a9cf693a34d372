"""Weights turned back from what kernels read of them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tessera_build.driver.inverted import turned_back, without_sums
from tessera_build.lower.schedule_to_tile.layouts import Packing
from tessera_build.space.toom_cook import Transform

pytestmark = pytest.mark.unit


def _weights(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("transform", "shape", "order"),
    [
        (Transform.of(4, (3, 3)), (20, 6, 3, 3), (2, 3, 1, 0)),
        (Transform.of(2, (3, 3)), (3, 3, 6, 20), (0, 1, 2, 3)),
        (Transform.of(4, (1, 5)), (20, 6, 5), (-1, 2, 1, 0)),
        (Transform.of(4, (5, 1)), (20, 6, 5, 1), (2, -1, 1, 0)),
        (Transform.of(5, (3, 3), (2, 2)), (20, 6, 3, 3), (2, 3, 1, 0)),
        (Transform.of(3, (1, 4), (1, 3)), (20, 6, 4), (-1, 2, 1, 0)),
    ],
)
def test_points_when_turned_back_then_are_the_weights_but_for_rounding(
    transform: Transform, shape: tuple[int, ...], order: tuple[int, ...]
) -> None:
    weights, packing = _weights(*shape), Packing(order, 0, 16, winograd=transform)
    found = turned_back(packing.apply(weights), packing, shape)
    assert found is not None
    np.testing.assert_allclose(found.astype(np.float64), weights, rtol=0, atol=1e-6)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_quarters_when_turned_back_then_have_the_same_quarters(order: tuple[int, ...]) -> None:
    shape = (64, 32) if order == (0, 1) else (32, 64)
    weights, packing = _weights(*shape), Packing(order, 0, 8, strassen=16)
    packed = packing.apply(weights)
    found = turned_back(packed, packing, shape)
    assert found is not None
    np.testing.assert_allclose(found.astype(np.float64), weights, rtol=0, atol=1e-6)
    assert (packing.apply(found) == packed).mean() > 0.95


@pytest.mark.parametrize(("order", "shape"), [((0, 1), (50, 40)), ((1, 0), (40, 50, 1, 1)), ((1, 0), (33, 7))])
def test_panels_with_sums_when_these_are_left_out_then_are_the_weights(
    order: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    weights, packing = _weights(*shape), Packing(order, 0, 16, paired=True)
    packed = packing.apply(weights)
    assert packed.shape == (-(-shape[order[1]] // 16), shape[order[0]] + 1, 16)
    assert without_sums(packed, order, shape).tobytes() == weights.tobytes()
    third = shape[order[0]] // 6 * 2
    column = np.moveaxis(weights, order, (0, 1)).reshape(shape[order[0]], -1)[:, 0].astype(np.float64)
    signs = np.where(np.arange(third) % 2, -1, 1)
    assert packed[0, -1, 0] == np.float32(-(column[:third] * column[third : 2 * third] * signs).sum())


def test_points_when_no_weights_have_them_then_nothing_is_told() -> None:
    packing = Packing((2, 3, 1, 0), 0, 16, winograd=Transform.of(4, (3, 3)))
    packed = packing.apply(_weights(16, 4, 3, 3))
    packed[0, 5, 1, 2] += 1.0
    assert turned_back(packed, packing, (16, 4, 3, 3)) is None
