"""What Winograd's transforms cost in accuracy, for given weights: computed, not assumed.

Takes weights and a transform; gives the largest error of a tile's outputs, relative to the outputs'
deviation. Invariant: inputs come from a fixed sequence and every sum is formed in a fixed order, so that the number,
and with it the choice of an algorithm, is the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.scalar import Array
from tessera_build.space.scale import deviation_of, with_peak, without_peaks
from tessera_build.space.toom_cook import ToomCook, Total, Transform, from_points, to_points

Doubles = NDArray[np.float64]
# Output channels and tiles that are looked at: 8 x 8 tiles of 16 outputs are a thousand errors, in some milliseconds.
_OUTPUTS: Final = 8
_TILES: Final = 8


def transform_error(weights: Array, transform: Transform) -> float:
    """`weights`: [rows of taps, columns of taps, channels, outputs].

    Inputs are uniform in -1 .. 1 with the negative ones set to zero, as after a rectifier: sums that do not cancel are
    the harder case. What is computed is what a kernel computes: f32 everywhere, multiply-adds rounded once.
    """
    taps = with_peak(weights.astype(np.float64), _OUTPUTS)
    sides = transform.rows.size, transform.columns.size
    inputs = np.random.default_rng(0).random((*sides, _TILES, taps.shape[2]), np.float32) * 2 - 1
    patches = np.maximum(inputs, np.float32(0)).astype(np.float64)
    exact = _direct(patches, taps, transform)
    points = _both(patches, transform, to_points)
    factors = transform.transformed(taps.astype(np.float32)).astype(np.float64)
    sums = np.zeros((transform.size, _TILES, taps.shape[3]))
    flat = points.reshape(transform.size, _TILES, taps.shape[2])
    for channel in range(taps.shape[2]):
        sums = _rounded(sums + flat[:, :, channel, None] * factors[:, None, channel, :])
    found = _both(sums.reshape(*sides, _TILES, -1), transform, from_points)
    usual = without_peaks(taps)
    scale = deviation_of(exact if usual is taps else _direct(patches, usual, transform))
    return float(np.abs(found - exact).max()) / scale if scale > 0 else math.inf


def _both(
    values: Doubles, transform: Transform, map_: Callable[[ToomCook, Sequence[Doubles], Total[Doubles]], list[Doubles]]
) -> Doubles:
    """A transform along the first axis, then along the second."""
    half = np.stack(map_(transform.rows, list(values), _total))
    return np.stack(map_(transform.columns, list(np.swapaxes(half, 0, 1)), _total)).swapaxes(0, 1)


def _total(factors: Sequence[Fraction], terms: Sequence[Doubles]) -> Doubles:
    """The sum as a kernel forms it: from the last term to the first, each product and sum rounded to f32 once."""
    pairs = list(zip(factors, terms, strict=False))
    total = _rounded(float(pairs[-1][0]) * pairs[-1][1])
    for factor, term in reversed(pairs[:-1]):
        total = _rounded(total + float(factor) * term)
    return total


def _direct(patches: Doubles, taps: Doubles, transform: Transform) -> Doubles:
    """The outputs of every tile in f64: [row, column, tile, output]."""
    rows, columns = transform.rows, transform.columns
    found = np.zeros((rows.tile, columns.tile, _TILES, taps.shape[3]))
    for row in range(taps.shape[0]):
        for column in range(taps.shape[1]):
            met = patches[row :: rows.stride, column :: columns.stride][: rows.tile, : columns.tile]
            inside = np.moveaxis(met, -1, 0)
            products = inside[..., None] * taps[row, column][:, None, None, None]
            found = found + np.add.reduce(products, axis=0)  # along the slowest axis: one after another
    return found


def _rounded(values: Doubles) -> Doubles:
    return values.astype(np.float32).astype(np.float64)
