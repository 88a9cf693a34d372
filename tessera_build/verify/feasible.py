"""Sizes of dims that satisfy conditions on them, and what each condition leaves of a dim.

Takes conditions over symbolic dims and the sizes that may be tried for each; gives sizes that satisfy all of them.
Invariant: sizes that are tried one by one are chosen so that each condition holds as soon as all of its dims have one;
those of the last dim of a condition are tried all at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.dims import Atom, Extent, Range, symbols_of, terms_of
from tessera_build.ir.graph.nodes import Module

Values = NDArray[np.int64]

# Sizes that are tried for a dim without an upper end.
MOST = 1024
# Sizes that are tried for dims before the last one of a condition, all together.
_PATIENCE = 600


@dataclass(frozen=True, slots=True)
class Condition:
    """`left relation right`; `message` says what is amiss where it does not hold, `where` which node asked."""

    left: Extent
    relation: str
    right: Extent
    message: str
    where: str | None = None

    @property
    def symbols(self) -> frozenset[str]:
        """The dims that it is about."""
        return symbols_of(self.left) | symbols_of(self.right)

    def holds(self, sizes: Mapping[str, Values]) -> NDArray[np.bool_]:
        """Where it does, for arrays of sizes that broadcast to each other."""
        left, right = _values(self.left, sizes), _values(self.right, sizes)
        return np.asarray(left == right if self.relation == "==" else left >= right)


def conditions_of(module: Module, names: Sequence[str], extents: Sequence[Extent]) -> list[Condition]:
    """What a module asks of these dims, and that no extent is 0."""
    known = frozenset(names)
    found = [
        Condition(left, relation, right, message, str(span) if (span := module.guard_spans.get(guard)) else None)
        for guard in module.guards
        for left, relation, right, message in (guard,)
    ]
    found += [Condition(extent, ">=", 1, "a value of the model has no elements") for extent in extents]
    return [condition for condition in found if condition.symbols <= known]


def domain(range_: Range, first: Sequence[int] = ()) -> Values:
    """The sizes that are tried within a range, those that should come first in front."""
    low, high = 1 if range_[0] is None else range_[0], range_[1]
    last = max(low, MOST) if high is None else min(high, low + MOST)
    usual = [size for size in dict.fromkeys(first) if low <= size <= last]
    return np.array(list(dict.fromkeys([*usual, *range(low, last + 1)])), np.int64)


def find_sizes(conditions: Sequence[Condition], domains: Mapping[str, Values]) -> dict[str, int] | None:
    """Sizes of all dims for which all conditions hold; None where none were found, with patience for so many tries."""
    alone = {name: _filtered(name, values, conditions, {}) for name, values in domains.items()}
    # The fewer sizes a dim may have, the earlier it is given one.
    names = sorted(alone, key=lambda name: alone[name].size)
    tries = [_PATIENCE]

    def extended(sizes: dict[str, int]) -> dict[str, int] | None:
        if len(sizes) == len(names):
            return sizes
        name = names[len(sizes)]
        for size in _filtered(name, alone[name], conditions, sizes):
            tries[0] -= 1
            if tries[0] < 0:
                return None
            if (found := extended({**sizes, name: int(size)})) is not None:
                return found
        return None

    return extended({})


def left_alone(condition: Condition, name: str, domains: Mapping[str, Values]) -> Values | None:
    """The sizes of a dim that a condition allows, in order; None where the other dims have a say in that."""
    others = sorted(condition.symbols - {name})
    grid = dict(zip(others, np.meshgrid(*(domains[other][:24] for other in others), indexing="ij"), strict=True))
    values = np.sort(domains[name])
    column = {name: values.reshape(-1, *[1] * len(others))}
    held = condition.holds(column | {other: part[np.newaxis] for other, part in grid.items()}).reshape(values.size, -1)
    constant = (held.all(axis=1) | ~held.any(axis=1)).all()
    return values[held[:, 0]] if constant else None


def _filtered(name: str, values: Values, conditions: Sequence[Condition], sizes: Mapping[str, int]) -> Values:
    """The sizes of a dim for which those conditions hold whose other dims have sizes."""
    known = {name, *sizes}
    fixed = {other: np.array(size, np.int64) for other, size in sizes.items()}
    for condition in conditions:
        if name in condition.symbols <= known:
            values = values[np.broadcast_to(condition.holds({**fixed, name: values}), values.shape)]
    return values


def _values(extent: Extent, sizes: Mapping[str, Values]) -> Values:
    total = np.zeros((), np.int64)
    for monomial, coefficient in terms_of(extent):
        product = np.array(coefficient, np.int64)
        for atom, power in monomial:
            product = product * _atom(atom, sizes) ** power
        total = total + product
    return np.asarray(total)


def _atom(atom: Atom, sizes: Mapping[str, Values]) -> Values:
    if not atom.function:
        return sizes[atom.name]
    left, right = _values(atom.left, sizes), _values(atom.right, sizes)
    if atom.function in ("min", "max"):
        return np.asarray(np.minimum(left, right) if atom.function == "min" else np.maximum(left, right))
    with np.errstate(divide="ignore"):  # nothing is divided by 0 where sizes are allowed
        return np.asarray(left // right if atom.function == "floordiv" else left % right)
