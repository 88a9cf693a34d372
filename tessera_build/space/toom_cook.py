"""The transforms of Winograd's convolution: points, matrices, and weights taken to the points.

Takes the extent m of an output tile and the number r of taps; gives the matrices of m outputs of a filter of r taps
from m + r - 1 inputs, made by evaluating polynomials at as many points (Toom and Cook; Winograd 1980). Invariant: every
number is exact until the last rounding to float64, and weights are rounded to their own type once.

With A, B and G for the outputs, the inputs and the weights, y = A^T ((G g) * (B^T d)). The points are 0, pairs of
opposite ones, and infinity: rows of opposite points share their even and their odd half. Where outputs lie s inputs
apart, the inputs that have one rest by s, and the taps that meet them, are a filter of their own; outputs are the sums
of all s filters'.
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
# Positive halves of the pairs, by the number of points. Error over 64 channels, relative to the outputs' deviation:
# 3 x 3 taps 5.2e-6 with 11/16 and 23/16, 4.4e-6 with their neighbours sqrt(1/2) and sqrt(2), which no f32 holds, 1.9e-5
# with the usual 1 and 2, direct 2.9e-6; five taps in a row at eight points 3.0e-6, direct 1.3e-6.
_POINTS: Final = {
    1: (),
    4: (Fraction(1),),
    6: (Fraction(11, 16), Fraction(23, 16)),
    8: (Fraction(5, 8), Fraction(1), Fraction(15, 8)),
}
# Of two transforms, one on the other, errors multiply, and the weights' size is the square of the points'.
_MOST_POINTS_TWICE: Final = 6
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
    """Transforms for output tiles of `tile` and `taps`; points in the order 0, +p, -p for every pair, infinity.

    One tap is kept as it is, at as many points as there are outputs. Outputs lie `stride` inputs apart, at most `taps`;
    of several filters one has its points behind the other's.
    """

    tile: int
    taps: int = 3
    stride: int = 1

    @property
    def size(self) -> int:
        """The number of points along one axis, and of inputs that a tile reads."""
        return self.stride * (self.tile - 1) + self.taps

    @property
    def filters(self) -> tuple[ToomCook, ...]:
        """Those of which outputs are the sum, each of every `stride`-th input and tap."""
        return tuple(ToomCook(self.tile, len(range(rest, self.taps, self.stride))) for rest in range(self.stride))

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs of opposite points."""
        points = _POINTS[self.size]
        return tuple(Pair(p, _product([q for q in points if q != p])) for p in points)

    @property
    def whole(self) -> tuple[Fraction, ...]:
        """The coefficients, in x squared, of the product over all pairs p of (x^2 - p^2)."""
        return _product(_POINTS[self.size])

    @property
    def weights(self) -> tuple[tuple[Fraction, ...], ...]:
        """G: one row a point."""
        if self.stride > 1:
            return tuple(self._spread(row, rest) for rest, own in enumerate(self.filters) for row in own.weights)
        if self.taps == 1:
            return ((Fraction(1),),) * self.tile
        zero = prod((-p.point * p.point for p in self.pairs), start=Fraction(1))
        rows = [tuple(Fraction(int(e == 0)) / zero for e in range(self.taps))]
        for pair in self.pairs:
            for point in (pair.point, -pair.point):
                rows.append(tuple(point**e / pair.scale for e in range(self.taps)))
        return (*rows, tuple(Fraction(int(e == self.taps - 1)) for e in range(self.taps)))

    def _spread(self, row: tuple[Fraction, ...], rest: int) -> tuple[Fraction, ...]:
        """A filter's row among all taps."""
        return tuple(row[e // self.stride] if e % self.stride == rest else Fraction(0) for e in range(self.taps))


@dataclass(frozen=True, slots=True)
class Transform:
    """The transforms of a tile's rows and of its columns, taken one on the other."""

    rows: ToomCook
    columns: ToomCook

    @classmethod
    def of(cls, tile: int, taps: tuple[int, int], strides: tuple[int, int] = (1, 1)) -> Transform:
        """That of tiles of `tile` outputs along each axis with several taps, and of one along the other."""
        rows, columns = (ToomCook(tile, n, s) if n > 1 else ToomCook(1, 1) for n, s in zip(taps, strides, strict=True))
        return cls(rows, columns)

    @property
    def size(self) -> int:
        """The number of points of a tile."""
        return self.rows.size * self.columns.size

    @property
    def text(self) -> str:
        """What a layout is called by: `4,3` for F(4x4, 3x3), `4,1x5` for F(4, 5) along columns, `3,3/2x2` with outputs
        two inputs apart."""
        tile, taps = max(self.rows.tile, self.columns.tile), (self.rows.taps, self.columns.taps)
        strides = f"/{self.rows.stride}x{self.columns.stride}" if self.rows.stride * self.columns.stride > 1 else ""
        return f"{tile},{taps[0]}{strides}" if taps[0] == taps[1] else f"{tile},{taps[0]}x{taps[1]}{strides}"

    def transformed(self, taps: Array) -> Array:
        """Weights at the points: the first two axes, of rows and columns of taps, become one of `size`."""
        moved = taps.astype(np.float64)
        half = [_combined(row, moved) for row in self.rows.weights]
        points = [_combined(row, part) for part in half for row in self.columns.weights]
        return np.stack(points).astype(taps.dtype)


def taps_first(weights: Array, places: tuple[int, ...]) -> Array:
    """Weights as [rows of taps, columns of taps, summed, outputs]; `places` says where they are, -1 for one tap.

    What is summed at each point, taps along further axes and channels, has several places and one axis here. Axes that
    are in none of the places have one element.
    """
    named = [place for place in places if place >= 0]
    rest = [axis for axis in range(weights.ndim) if axis not in named]
    rows, columns, *summed, outputs = (1 if place < 0 else weights.shape[place] for place in places)
    return np.transpose(weights, (*named, *rest)).reshape(rows, columns, prod(summed), outputs)


def tiles_for(taps: tuple[int, int], strides: tuple[int, int] = (1, 1)) -> tuple[int, ...]:
    """Extents of output tiles, of two at least, for which there are points, ascending; none without several taps that
    meet the same inputs."""
    several = [ToomCook(2, n, s) for n, s in zip(taps, strides, strict=True) if n > 1]
    sizes = [n for n in _POINTS if n <= _MOST_POINTS_TWICE or len(several) == 1]
    if not several or any(side.taps <= side.stride for side in several):
        return ()
    counts = {own.taps for side in several for own in side.filters if own.taps > 1}
    tiles = (size - max(counts) + 1 for size in sizes)
    return tuple(t for t in tiles if t > 1 and all(t + count - 1 in sizes for count in counts))


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
    if transform.stride > 1:
        apart = [inputs[rest :: transform.stride] for rest in range(transform.stride)]
        return [p for own, part in zip(transform.filters, apart, strict=True) for p in to_points(own, part, total)]
    if transform.taps == 1:
        return list(inputs)
    found = [total(transform.whole, inputs[::2])]
    for pair in transform.pairs:
        even, odd = total(pair.others, inputs[2::2]), total(pair.others, inputs[1::2])
        found += [total((sign * pair.point, Fraction(1)), (odd, even)) for sign in (1, -1)]
    return [*found, total(transform.whole, inputs[1::2])]


def from_points(transform: ToomCook, values: Sequence[Value], total: Total[Value]) -> list[Value]:
    """A^T v: `tile` outputs from `size` values; opposite points enter by their sum and their difference."""
    if transform.stride > 1:
        return _of_filters(transform, values, total)
    if transform.taps == 1:
        return list(values)
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


def _of_filters(transform: ToomCook, values: Sequence[Value], total: Total[Value]) -> list[Value]:
    """The outputs of several filters, added up."""
    found: list[list[Value]] = []
    for own in transform.filters:
        found.append(from_points(own, values[: own.size], total))
        values = values[own.size :]
    return [total((Fraction(1),) * len(found), terms) for terms in zip(*found, strict=True)]
