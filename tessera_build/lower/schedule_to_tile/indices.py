"""What index expressions over axes say: steps along an axis, divisions that ranges prove to be zero, names of parts.

Takes extents and axis names; gives extents and numbers. Invariant: nothing here knows a nest or a task.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.ir.core.dims import Atom, Dim, Extent, Range, bounds, symbols_of, terms_of


def quad_of(axis: str) -> str:
    """The symbol that counts groups of four along an axis."""
    return f"{axis}_quad"


def byte_of(axis: str) -> str:
    """The symbol for the place in such a group."""
    return f"{axis}_byte"


def without_zeros(index: Extent, ranges: Mapping[str, Range]) -> Extent:
    """Drop the floor divisions that ranges prove to be zero: floordiv(o, n) where 0 <= o < n."""
    total: Extent = 0
    for monomial, factor in terms_of(index):
        zero = any(atom.function == "floordiv" and _range_of(atom, ranges) == (0, 0) for atom, _ in monomial)
        if not zero:
            total = total + (Dim(((monomial, factor),)) if monomial else factor)
    return total


def _range_of(atom: Atom, ranges: Mapping[str, Range]) -> Range:
    return bounds(Dim(((((atom, 1),), 1),)), ranges)


def coefficient(index: Extent, axis: str) -> int | None:
    """The constant factor of a symbol in a linear expression; None when it does not enter linearly."""
    found = 0
    for monomial, factor in terms_of(index):
        names = [atom.name for atom, power in monomial for _ in range(power) if not atom.function]
        nested = any(atom.function and axis in symbols_of(Dim(((((atom, 1),), 1),))) for atom, _ in monomial)
        if nested or (axis in names and names != [axis]):
            return None
        found += factor if names == [axis] and len(monomial) == 1 else 0
    return found


def may_leave(index: Extent, extent: Extent, loops: Mapping[str, Extent]) -> bool:
    """Whether an index over loops of known extents is known to leave 0 .. extent - 1 in some of their steps."""
    ranges = {name: (0, steps - 1 if isinstance(steps, int) else None) for name, steps in loops.items()}
    low, high = bounds(index, ranges)
    return (low is not None and low < 0) or (high is not None and isinstance(extent, int) and high >= extent)
