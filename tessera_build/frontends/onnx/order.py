"""Which of two extents is larger, as far as the ranges of the dims tell.

Takes extents and ranges; gives signs, and minima and maxima that are simplified where the order is known. Invariant:
an answer holds for every value of the dims within their ranges; what is not proved stays symbolic.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.ir.core.dims import (
    Atom,
    Dim,
    Extent,
    Monomial,
    Range,
    bounds,
    maximum,
    minimum,
    symbols_of,
    terms_of,
)

Ranges = Mapping[str, Range]
# Each step removes one function from a difference; shapes of real models nest less than ten divisions.
STEPS = 24


def sign_of(extent: Extent, ranges: Ranges) -> int | None:
    """1 when the extent is surely >= 0, -1 when surely < 0, None when that depends on the dims."""
    if never_negative(extent, ranges):
        return 1
    return -1 if never_negative(extent * -1 - 1, ranges) else None


def is_related(difference: Extent, relation: str, ranges: Ranges) -> bool | None:
    """Whether a difference is 0 (==) or not negative (>=); None when that depends on the dims."""
    if relation == "==":
        return difference == 0 if difference == 0 or isinstance(difference, int) else None
    sign = sign_of(difference, ranges)
    return None if sign is None else sign == 1


def larger(left: Extent, right: Extent, ranges: Ranges) -> Extent:
    """The maximum, simplified by what is known of the dims."""
    if never_negative(left - right, ranges):
        return left
    return right if never_negative(right - left, ranges) else maximum(left, right)


def smaller(left: Extent, right: Extent, ranges: Ranges) -> Extent:
    """The minimum, simplified by what is known of the dims."""
    if never_negative(right - left, ranges):
        return left
    return right if never_negative(left - right, ranges) else minimum(left, right)


def never_negative(extent: Extent, ranges: Ranges) -> bool:
    """Whether the extent is proved to be >= 0."""
    return _above(extent, 1, ranges, STEPS)


def _above(lower: Extent, scale: int, ranges: Ranges, steps: int) -> bool:
    """Whether an integer is >= 0, given that `scale` times it is at least `lower`.

    Intervals first; then each function is replaced by something never larger, which keeps correlations between terms.
    """
    low, _ = bounds(lower, ranges)
    if low is not None and low > -scale:
        return True
    if steps == 0:
        return False
    for monomial, coefficient in terms_of(lower):
        if len(monomial) == 1 and monomial[0][1] == 1 and monomial[0][0].function:
            factor, candidates = _lowered(lower, monomial, coefficient)
            if candidates:
                return any(_above(e, scale * factor, ranges, steps - 1) for e in candidates)
    return False


def _lowered(extent: Extent, monomial: Monomial, coefficient: int) -> tuple[int, list[Extent]]:
    """A positive factor, and lower bounds of factor * extent without the function that `monomial` is."""
    atom: Atom = monomial[0][0]
    rest = extent - Dim(((monomial, 1),)) * coefficient
    if atom.function == "floordiv" and isinstance(atom.right, int) and atom.right > 0:
        # The quotient lies between a/k - (k-1)/k and a/k.
        numerator = atom.left if coefficient < 0 else atom.left - (atom.right - 1)
        return atom.right, [rest * atom.right + numerator * coefficient]
    if (atom.function == "max" and coefficient > 0) or (atom.function == "min" and coefficient < 0):
        return 1, [rest + atom.left * coefficient, rest + atom.right * coefficient]
    return 1, []


def is_multiple(extent: Extent, other: Extent) -> bool:
    """Whether one expression is a number times another."""
    (_, own), (_, base) = terms_of(extent)[0], terms_of(other)[0]
    return own * other == base * extent


def solve(difference: Extent, name: str) -> Extent | None:
    """The value of dim `name` that makes the difference zero, where it is linear and alone in its term."""
    for monomial, coefficient in terms_of(difference):
        if len(monomial) == 1 and monomial[0][1] == 1 and monomial[0][0].name == name and abs(coefficient) == 1:
            own = Dim(((monomial, 1),))
            rest = difference - own * coefficient
            return None if name in symbols_of(rest) else rest * -coefficient
    return None
