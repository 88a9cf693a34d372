"""Inequalities between symbolic extents, where interval arithmetic alone does not see that two of them move together.

Takes an extent and the ranges of its symbols; gives whether it is never negative. Invariant: True is a proof, False
says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from tessera_build.ir.core.dims import Atom, Dim, Extent, Range, bounds, terms_of

_MOST_STEPS: Final = 4


def never_negative(extent: Extent, ranges: Mapping[str, Range], steps: int = _MOST_STEPS) -> bool:
    """Whether `extent` is at least 0 by its bounds, or by those of something that is surely no larger.

    A symbol that stands beside a quotient or a minimum of it, as in n - 8 * floordiv(min(n, 128), 8), has to be freed
    from there before it cancels.
    """
    low, _ = bounds(extent, ranges)
    if low is not None:
        return low >= 0
    return steps > 0 and any(never_negative(smaller, ranges, steps - 1) for smaller in _smaller(extent))


def _smaller(extent: Extent) -> Iterator[Extent]:
    """Extents that are at most `extent`: one subtracted quotient or minimum is replaced by something no smaller."""
    for monomial, coefficient in terms_of(extent):
        if coefficient < 0 and len(monomial) == 1 and monomial[0][1] == 1:
            rest = extent - Dim(((monomial, coefficient),))
            yield from (rest + larger * share for larger, share in _larger(monomial[0][0], coefficient))


def _larger(atom: Atom, coefficient: int) -> Iterator[tuple[Extent, int]]:
    """(what is no smaller than the atom, or than its multiple, how often it is taken) for `coefficient` of the atom."""
    if atom.function == "min":
        yield atom.left, coefficient
        yield atom.right, coefficient
    if atom.function == "floordiv" and isinstance(atom.right, int) and coefficient % atom.right == 0:
        yield atom.left, coefficient // atom.right
