"""What taking terms in pairs costs in accuracy, for given weights: computed, not assumed.

Takes weights, where they have depth and outputs, and the scale of rows; gives the largest error of some outputs,
relative to their deviation. Invariant: inputs come from a fixed sequence and every sum is formed in a fixed order, so
that the number, and with it the choice of an algorithm, is the same on every machine.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.scalar import Array
from tessera_build.space.scale import deviation_of, with_peak, without_peaks

Floats, Doubles = NDArray[np.float32], NDArray[np.float64]
_ROWS: Final = 16
_COLUMNS: Final = 32


def third_of(depth: int) -> int:
    """The pairs of a sum of so many terms: an even number, and as many terms again that are not paired."""
    return depth // 6 * 2


def pairing_error(weights: Array, axes: tuple[int, int], scale: int) -> float:
    """`axes`: where the weights have depth and outputs.

    Inputs are uniform in -1 .. 1 with the negative ones set to zero, as after a rectifier: sums that do not cancel are
    the harder case. What is computed is what a kernel computes, in f32, but that products are rounded before they are
    added up.
    """
    depth, columns = (weights.shape[axis] for axis in axes)
    matrix = np.moveaxis(weights.astype(np.float32), axes, (0, 1)).reshape(depth, columns)
    chosen = with_peak(matrix, _COLUMNS)
    inputs = np.random.default_rng(0).random((_ROWS, depth), np.float32) * 2 - 1
    values = np.maximum(inputs, np.float32(0))
    exact, found = _direct(values, chosen), _in_pairs(values, chosen, scale)
    usual = without_peaks(chosen)
    deviation = deviation_of(exact if usual is chosen else _direct(values, usual))
    return float(np.abs(found.astype(np.float64) - exact).max()) / deviation if deviation > 0 else math.inf


def _direct(values: Floats, weights: Floats) -> Doubles:
    """The outputs in f64."""
    terms = values.astype(np.float64).T[:, :, None] * weights.astype(np.float64)[:, None, :]
    return np.asarray(np.add.reduce(terms, axis=0), np.float64)


def _in_pairs(values: Floats, weights: Floats, scale: int) -> Floats:
    """The same as a kernel forms them."""
    sizes = np.frexp(np.abs(values).sum(axis=1, dtype=np.float32))[1] - 1
    factors = np.ldexp(np.float32(1), scale - sizes).astype(np.float32)
    rows = np.multiply(values, factors[:, None])
    third = third_of(len(weights))
    parts = slice(0, third), slice(third, 2 * third), slice(2 * third, None)
    signs = np.where(np.arange(third) % 2, -1, 1).astype(np.float32)
    x, y, rest = (rows.T[:, :, None][part] for part in parts)
    bx, by, others = (weights[:, None, :][part] for part in parts)
    sums, plain = np.add(x, by) * np.add(y, bx), -(np.subtract(by, x) * np.subtract(bx, y))
    pairs = np.where(signs[:, None, None] > 0, sums, plain)
    row = np.add.reduce(x[:, :, 0] * y[:, :, 0] * signs[:, None], axis=0)
    column = np.add.reduce(bx[:, 0].astype(np.float64) * by[:, 0] * signs[:, None], axis=0).astype(np.float32)
    begin = np.subtract(np.negative(row)[:, None], column[None])
    terms = np.multiply(rest, others)
    turns = np.stack([terms[:third], pairs], axis=1).reshape(2 * third, *pairs.shape[1:])
    total = np.add.reduce(np.concatenate([begin[None], turns, terms[third:]]), axis=0)
    return np.asarray(total / factors[:, None], np.float32)
