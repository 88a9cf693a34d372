"""The transforms of Winograd's convolution: points, matrices, and weights taken to the points.

Takes the extent m of an output tile; gives the matrices of m outputs of a filter of three taps from m + 2 inputs, made
by evaluating polynomials at m + 2 points (Toom and Cook; Winograd 1980). Invariant: every number is exact until the
last rounding to float64, and weights are rounded to their own type once.

With A, B and G for the outputs, the inputs and the weights, y = A^T ((G g) * (B^T d)). The points are 0, pairs of
opposite ones, and infinity: rows of opposite points share their even and their odd half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Final, TypeVar

import numpy as np

from tessera_build.ir.core.scalar import Array

Value = TypeVar("Value")
TAPS: Final = 3
# Positive halves of the pairs. Error over 64 channels, relative to the outputs' deviation: 5.2e-6 with 11/16 and 23/16,
# 4.4e-6 with their neighbours sqrt(1/2) and sqrt(2), which no f32 holds, 1.9e-5 with the usual 1 and 2; direct 2.9e-6.
_POINTS: Final = {2: (Fraction(1),), 4: (Fraction(11, 16), Fraction(23, 16))}
TILES: Final = tuple(_POINTS)
# A sum with constant factors, formed from the last term to the first.
Total = Callable[[Sequence[Fraction], Sequence[Value]], Value]


@dataclass(frozen=True, slots=True)
class Pair:
    """The points `point` and -`point`: what the other pairs contribute to a product of differences.

    `others` has the coefficients, in x squared, ascending, of the product over the other pairs q of (x^2 - q^2).
    """

    point: Fraction
    others: tuple[Fraction, ...]

    @property
    def scale(self) -> Fraction:
        """The product of the differences between one of the two and all other points."""
        square = self.point * self.point
        return 2 * square * sum((c * square**i for i, c in enumerate(self.others)), Fraction(0))


@dataclass(frozen=True, slots=True)
class ToomCook:
    """Transforms for output tiles of `tile`; points in the order 0, +p, -p for every pair, infinity."""

    tile: int

    @property
    def size(self) -> int:
        """The number of points along one axis, and of inputs that a tile reads."""
        return self.tile + TAPS - 1

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs of opposite points."""
        points = _POINTS[self.tile]
        return tuple(Pair(p, _product([q for q in points if q != p])) for p in points)

    @property
    def whole(self) -> tuple[Fraction, ...]:
        """The coefficients, in x squared, of the product over all pairs p of (x^2 - p^2)."""
        return _product(_POINTS[self.tile])

    @property
    def weights(self) -> tuple[tuple[Fraction, ...], ...]:
        """G: one row a point."""
        zero = prod((-p.point * p.point for p in self.pairs), start=Fraction(1))
        rows = [tuple(Fraction(int(e == 0)) / zero for e in range(TAPS))]
        for pair in self.pairs:
            for point in (pair.point, -pair.point):
                rows.append(tuple(point**e / pair.scale for e in range(TAPS)))
        return (*rows, tuple(Fraction(int(e == TAPS - 1)) for e in range(TAPS)))

    def transformed(self, taps: Array, rows: int, columns: int) -> Array:
        """Weights at the points: the axes `rows` and `columns` of extent 3 get one of `size` * `size`, in front."""
        moved = np.moveaxis(taps.astype(np.float64), (rows, columns), (0, 1))
        half = [_combined(row, moved) for row in self.weights]
        points = [_combined(row, part) for part in half for row in self.weights]
        return np.stack(points).astype(taps.dtype)


def _combined(row: tuple[Fraction, ...], parts: Array) -> Array:
    """The sum of `parts` along the first axis with these factors, one after another."""
    total = float(row[0]) * parts[0]
    for factor, part in zip(row[1:], parts[1:], strict=True):
        total = total + float(factor) * part
    return total


def _product(points: tuple[Fraction, ...] | list[Fraction]) -> tuple[Fraction, ...]:
    """Coefficients, ascending in x squared, of the product of (x^2 - p^2)."""
    found = (Fraction(1),)
    for point in points:
        raised, lowered = (Fraction(0), *found), (*(c * -point * point for c in found), Fraction(0))
        found = tuple(a + b for a, b in zip(raised, lowered, strict=True))
    return found


def to_points(transform: ToomCook, inputs: Sequence[Value], total: Total[Value]) -> list[Value]:
    """B^T d: `size` values from as many inputs; rows of opposite points are the even half plus and minus the odd."""
    found = [total(transform.whole, inputs[::2])]
    for pair in transform.pairs:
        even, odd = total(pair.others, inputs[2::2]), total(pair.others, inputs[1::2])
        found += [total((sign * pair.point, Fraction(1)), (odd, even)) for sign in (1, -1)]
    return [*found, total(transform.whole, inputs[1::2])]


def from_points(transform: ToomCook, values: Sequence[Value], total: Total[Value]) -> list[Value]:
    """A^T v: `tile` outputs from `size` values; opposite points enter by their sum and their difference."""
    first, *paired, last = values
    one = Fraction(1)
    opposite = list(zip(paired[::2], paired[1::2], strict=True))
    even = [total((one, one), pair) for pair in opposite]
    odd = [total((-one, one), (minus, plus)) for plus, minus in opposite]
    found: list[Value] = []
    for power in range(transform.tile):
        factors = [pair.point**power for pair in transform.pairs]
        terms = list(odd if power % 2 else even)
        if power == 0:
            factors, terms = [one, *factors], [first, *terms]
        if power == transform.tile - 1:
            factors, terms = [*factors, one], [*terms, last]
        found.append(total(factors, terms))
    return found
