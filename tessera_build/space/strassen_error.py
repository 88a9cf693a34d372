"""What Strassen's algorithm costs in accuracy, for given weights: computed, not assumed.

Takes weights, where they have depth and outputs, and the piece of depth that is summed at a time; gives the largest
error of some outputs, relative to their deviation. Invariant: inputs come from a fixed sequence and every sum is formed
in a fixed order, so that the number, and with it the choice of an algorithm, is the same on every machine.
"""

from __future__ import annotations

import math
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.scalar import Array
from tessera_build.space.scale import deviation_of, with_peak, without_peaks

Floats, Doubles = NDArray[np.float32], NDArray[np.float64]
Number = TypeVar("Number", np.float32, np.float64)
HALVES: Final = 2
# Pairs of rows and of columns that are looked at: 16 x 32 outputs, in some milliseconds.
_ROWS: Final = 8
_COLUMNS: Final = 16


def halving_error(weights: Array, axes: tuple[int, int], piece: int) -> float:
    """`axes`: where the weights have depth and outputs.

    Inputs are uniform in -1 .. 1 with the negative ones set to zero, as after a rectifier: sums that do not cancel are
    the harder case. What is computed is what a kernel computes, in f32, but that products are rounded before they are
    added up: no step of a sum has to be taken in Python, and the error is hardly larger.
    """
    depth, columns = (weights.shape[axis] // HALVES for axis in axes)
    matrix = np.moveaxis(weights.astype(np.float32), axes, (0, 1)).reshape(HALVES, depth, HALVES, columns)
    chosen = with_peak(matrix, _COLUMNS)
    inputs = np.random.default_rng(0).random((HALVES, _ROWS, HALVES, depth), np.float32) * 2 - 1
    values = np.maximum(inputs, np.float32(0))
    exact, found = _direct(values, chosen), _halved(values, chosen, piece)
    usual = without_peaks(chosen)
    scale = deviation_of(exact if usual is chosen else _direct(values, usual))
    return float(np.abs(found.astype(np.float64) - exact).max()) / scale if scale > 0 else math.inf


def _direct(values: Floats, weights: Floats) -> Doubles:
    """The outputs in f64, by quarters: [lower rows, later columns, row, column]."""
    left = np.moveaxis(values, 1, -1).reshape(HALVES, -1, values.shape[1]).astype(np.float64)
    right = weights.reshape(-1, HALVES, weights.shape[-1]).astype(np.float64)
    quarters = [
        [np.add.reduce(_products(left[i].T, right[:, j]), axis=0) for j in range(HALVES)] for i in range(HALVES)
    ]
    return np.stack([np.stack(row) for row in quarters])


def _halved(values: Floats, weights: Floats, piece: int) -> Floats:
    """The same as a kernel forms them."""
    a11, a12, a21, a22 = values[0, :, 0], values[0, :, 1], values[1, :, 0], values[1, :, 1]
    b11, b12, b21, b22 = weights[0, :, 0], weights[0, :, 1], weights[1, :, 0], weights[1, :, 1]
    s1 = np.add(a21, a22)
    s2, s3 = np.subtract(s1, a11), np.subtract(a11, a21)
    s4 = np.subtract(a12, s2)
    t1 = np.subtract(b12, b11)
    t2 = np.subtract(b22, t1)
    t3, t4 = np.subtract(t2, b11), np.subtract(b21, t2)
    zero = np.zeros((a11.shape[0], b11.shape[1]), np.float32)
    c11, c12, c21, c22 = zero, zero, zero, zero
    for begin in range(0, a11.shape[1], piece):
        part = slice(begin, begin + piece)
        first, w = _sum(zero, a11[:, part], b11[part]), _sum(zero, s1[:, part], t1[part])
        c11 = _sum(np.add(first, c11), a12[:, part], b21[part])
        u = _sum(first, s2[:, part], t2[part])
        v = _sum(u, s3[:, part], t3[part])
        c12 = _sum(np.add(np.add(w, u), c12), s4[:, part], b22[part])
        c21 = _sum(np.add(v, c21), a22[:, part], t4[part])
        c22 = np.add(np.add(w, v), c22)
    return np.stack((np.stack((c11, c12)), np.stack((c21, c22))))


def _sum(begin: Floats, left: Floats, right: Floats) -> Floats:
    """A product of matrices added to what it begins with, step by step along the depth: the slowest axis."""
    return np.add.reduce(np.concatenate((begin[None], _products(left, right))), axis=0)


def _products(left: NDArray[Number], right: NDArray[Number]) -> NDArray[Number]:
    """All products at each step of the depth: [step, row, column]."""
    return np.multiply(left.T[:, :, None], right[:, None, :])
