"""Where the f64 coefficients of the inverse functions come from: power series interpolated at Chebyshev's points.

Takes a power series and the end of an interval that starts at zero; gives the coefficients of a polynomial as close to
it as f64 can tell. Invariant: all arithmetic is rational, so that nothing but the points themselves is rounded before
the coefficients are (a test derives the table again).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

Series = Callable[[int], Fraction]
_TERMS = 90


@dataclass(frozen=True, slots=True)
class Interpolation:
    """The series sum(term(k) * z**k) on [0, high] by a polynomial of `count` coefficients."""

    term: Series
    high: float
    count: int


def coefficients(problem: Interpolation) -> tuple[float, ...]:
    """Coefficients from the constant term upwards, rounded to f64."""
    points = [_point(problem, j) for j in range(problem.count)]
    terms = [problem.term(k) for k in range(_TERMS)]
    values = [_horner(terms, point) for point in points]
    return tuple(float(c) for c in _monomials(points, _divided_differences(points, values)))


def _point(problem: Interpolation, index: int) -> Fraction:
    angle = math.pi * (index + 0.5) / problem.count
    return Fraction(problem.high * (1 - math.cos(angle)) / 2)


def _horner(terms: Sequence[Fraction], x: Fraction) -> Fraction:
    total = Fraction(0)
    for term in reversed(terms):
        total = _short(total * x + term)
    return total


def _divided_differences(points: Sequence[Fraction], values: Sequence[Fraction]) -> list[Fraction]:
    table = list(values)
    for order in range(1, len(points)):
        for i in range(len(points) - 1, order - 1, -1):
            table[i] = (table[i] - table[i - 1]) / (points[i] - points[i - order])
    return table


def _monomials(points: Sequence[Fraction], newton: Sequence[Fraction]) -> list[Fraction]:
    """Newton's form multiplied out."""
    result = [newton[-1]]
    for point, coefficient in zip(reversed(points[:-1]), reversed(newton[:-1]), strict=True):
        raised = [Fraction(0), *result]
        lowered = [*(-point * c for c in result), Fraction(0)]
        result = [a + b for a, b in zip(raised, lowered, strict=True)]
        result[0] += coefficient
    return result


def _arcsine(k: int) -> Fraction:
    """(asin(x) - x) / x**3 in z = x*x."""
    n = k + 1
    return Fraction(math.comb(2 * n, n), 4**n * (2 * n + 1))


def _arctangent(k: int) -> Fraction:
    """(atan(x) - x) / x**3 in z = x*x."""
    return Fraction((-1) ** (k + 1), 2 * k + 3)


def _sine(k: int) -> Fraction:
    """(sinh(x) - x) / x**3 in z = x*x."""
    return Fraction(1, math.factorial(2 * k + 3))


def _error(k: int) -> Fraction:
    """(erf(x) * sqrt(pi) / 2 - x) / x**3 in z = x*x."""
    n = k + 1
    return Fraction((-1) ** n, math.factorial(n) * (2 * n + 1))


INTERPOLATIONS = {
    "ASIN": Interpolation(_arcsine, 0.2501, 14),
    "ATAN": Interpolation(_arctangent, 0.1717, 13),
    "SINH": Interpolation(_sine, 1.0, 8),
    "ERF_NEAR": Interpolation(_error, 1.0, 13),
}


# exp(x**2) * (1 - erf x) for x = ERF_MIDDLE + ERF_HALF * t with t in [-1, 1]
ERF_LOW, ERF_HIGH = 1.0, 5.95
ERF_MIDDLE, ERF_HALF = (ERF_LOW + ERF_HIGH) / 2, (ERF_HIGH - ERF_LOW) / 2
_ROOT_PI = Fraction("1.772453850905516027298167483341145182797549456122387128213807790")
_SUMMED = 260


def scaled_complement(count: int) -> tuple[float, ...]:
    """The polynomial in t, of `count` coefficients."""
    points = [Fraction(math.cos(math.pi * (j + 0.5) / count)) for j in range(count)]
    values = [_scaled_erfc(Fraction(ERF_MIDDLE) + Fraction(ERF_HALF) * t) for t in points]
    return tuple(float(c) for c in _monomials(points, _divided_differences(points, values)))


def _scaled_erfc(x: Fraction) -> Fraction:
    """exp(x**2) * (1 - erf x), by the series of both."""
    square, power, erf, exponential, factor = x * x, x, Fraction(0), Fraction(0), Fraction(1)
    for n in range(_SUMMED):
        erf += power * (-1) ** n / (2 * n + 1)
        exponential += factor
        power, factor = _short(power * square / (n + 1)), _short(factor * square / (n + 1))
    return _short(exponential * (1 - 2 / _ROOT_PI * erf))


def _short(x: Fraction) -> Fraction:
    """Cut to 300 bits after the point."""
    return Fraction(round(x * (1 << 300)), 1 << 300)
