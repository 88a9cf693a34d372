"""The transforms of Winograd's convolution: exact in fractions, exact in f32 where they must be, the same anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from tessera_build.lower.schedule_to_tile.layouts import Packing
from tessera_build.space.toom_cook import ToomCook, Transform, from_points, taps_first, tiles_for, to_points
from tests.architecture.tree import ROOT
from tests.lower.winograd_cases import fingerprint

ROWS = [(tile, count) for count in range(2, 8) for tile in tiles_for((1, count))]
STRIDED = [(t, count, s) for count in range(2, 8) for s in (2, 3, 4) for t in tiles_for((1, count), (1, s))]


def _sum(factors: object, terms: object) -> Fraction:
    pairs = zip(list[Fraction](factors), list[Fraction](terms), strict=False)  # type: ignore[call-overload]
    return sum((f * t for f, t in pairs), Fraction(0))


@pytest.mark.unit
@pytest.mark.parametrize(("tile", "count", "stride"), [*((*row, 1) for row in ROWS), *STRIDED])
def test_transforms_when_taken_in_fractions_then_filter_exactly(tile: int, count: int, stride: int) -> None:
    transform = ToomCook(tile, count, stride)
    inputs = [Fraction(n * n % 11 - 5) for n in range(transform.size)]
    taps = [Fraction(3), Fraction(-7), Fraction(2), Fraction(5), Fraction(-1), Fraction(4), Fraction(9)][:count]
    weights = [_sum(row, taps) for row in transform.weights]
    products = [a * b for a, b in zip(to_points(transform, inputs, _sum), weights, strict=True)]
    expected = [_sum(taps, inputs[i * stride : i * stride + count]) for i in range(tile)]
    assert len(products) < tile * count
    assert from_points(transform, products, _sum) == expected


@pytest.mark.unit
@pytest.mark.parametrize(("tile", "count"), ROWS)
def test_factors_when_rounded_to_f32_then_stay_what_they_are(tile: int, count: int) -> None:
    transform = ToomCook(tile, count)
    powers = [pair.point**e for pair in transform.pairs for e in range(tile)]
    factors = [*transform.whole, *(c for pair in transform.pairs for c in pair.others), *powers]
    assert all(Fraction(float(np.float32(float(f)))) == f for f in factors)


@pytest.mark.unit
def test_packing_when_of_a_transform_then_names_it_and_holds_panels_of_points() -> None:
    weights = np.random.default_rng(0).standard_normal((20, 3, 3, 3)).astype(np.float32)
    transform = Transform.of(4, (3, 3))
    packing = Packing((2, 3, 1, 0), 0, 16, winograd=transform)
    packed = packing.apply(weights)
    points = transform.transformed(taps_first(weights, (2, 3, 1, 0)))
    assert packing.layout == "v1:winograd(4,3),order(2,3,1,0),panels(0,16)"
    assert packed.shape == (2, 36, 3, 16)
    np.testing.assert_array_equal(packed[1, :, :, :4], points[:, :, 16:])
    assert not packed[1, :, :, 4:].any()


@pytest.mark.numerics
def test_weights_and_errors_when_vector_instructions_are_switched_off_then_are_the_same() -> None:
    config = np.show_config(mode="dicts")
    assert config is not None
    features = " ".join(config.get("SIMD Extensions", {}).get("found", []))
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": features, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "from tests.lower.winograd_cases import fingerprint; print(fingerprint())"]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == fingerprint()
