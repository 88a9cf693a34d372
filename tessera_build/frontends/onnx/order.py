"""Which of two extents is larger, as far as the ranges of the dims tell.

Takes extents and ranges; gives signs, and minima and maxima that are simplified where the order is known. Invariant:
an answer holds for every value of the dims within their ranges; what is not proved stays symbolic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tessera_build.ir.core.dims import (
    Atom,
    Dim,
    Extent,
    Monomial,
    Range,
    bounds,
    evaluate,
    maximum,
    minimum,
    symbols_of,
    terms_of,
)

Ranges = Mapping[str, Range]
# Each step removes one function from a difference; shapes of real models nest less than ten divisions.
STEPS = 24
_FARTHEST = 1 << 40  # no dim is longer


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


def primitive(difference: Extent, ranges: Ranges) -> Extent:
    """The difference without the factors that all its terms share and that are never 0: it is 0 for the same dims."""
    terms = terms_of(difference)
    powers = [dict(monomial) for monomial, _ in terms]
    common = {atom: min(p.get(atom, 0) for p in powers) for atom in (powers[0] if powers else ())}
    common = {atom: p for atom, p in common.items() if p and never_negative(Dim(((((atom, 1),), 1),)) - 1, ranges)}
    divisor = math.gcd(*(coefficient for _, coefficient in terms))
    result: Extent = 0
    for monomial, coefficient in terms:
        rest: Extent = coefficient // divisor
        for atom, power in monomial:
            for _ in range(power - common.get(atom, 0)):
                rest = rest * Dim(((((atom, 1),), 1),))
        result = result + rest
    return result


def tightened(difference: Extent, ranges: Ranges) -> dict[str, Range]:
    """The range of the one dim that the difference grows with, where the difference is not negative; else nothing."""
    name, *others = symbols_of(difference)
    low, high = ranges.get(name, (None, None))
    if others or low is None or low < 0 or not _grows(difference):
        return {}
    beyond = low
    while evaluate(difference, {name: beyond}) < 0:
        if beyond > _FARTHEST:
            return {}
        low, beyond = beyond + 1, 2 * beyond + 1
    while low < beyond:
        middle = (low + beyond) // 2
        low, beyond = (low, middle) if evaluate(difference, {name: middle}) >= 0 else (middle + 1, beyond)
    return {name: (low, high)} if high is None or low <= high else {}


def _grows(extent: Extent) -> bool:
    """Whether larger dims, none of them negative, never make the extent smaller."""
    return all(coefficient > 0 and _product_grows(monomial) for monomial, coefficient in terms_of(extent) if monomial)


def _product_grows(monomial: Monomial) -> bool:
    (first, power), *others = monomial
    if others or power > 1:  # a quotient or a minimum may be negative
        return all(not atom.function for atom, _ in monomial)
    if first.function == "floordiv":
        return isinstance(first.right, int) and first.right > 0 and _grows(first.left)
    return not first.function or (first.function in ("min", "max") and _grows(first.left) and _grows(first.right))


def solve(difference: Extent, name: str) -> Extent | None:
    """The value of dim `name` that makes the difference zero, where it is linear and alone in its term."""
    for monomial, coefficient in terms_of(difference):
        if len(monomial) == 1 and monomial[0][1] == 1 and monomial[0][0].name == name and abs(coefficient) == 1:
            own = Dim(((monomial, 1),))
            rest = difference - own * coefficient
            return None if name in symbols_of(rest) else rest * -coefficient
    return None
