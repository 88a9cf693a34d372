"""Where roundings take the elements of a launch: by any amount, if a comparison decides them or terms cancel.

Takes the values that a launch read and what it wrote; gives whether the elements that are off lie where roundings of
what was read take them. Invariant: an element that no rounding moves is excused nothing, an integer only what a moved
run gave.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from bundle_format.errors import TesseraError
from tessera_build.ir.core.types import F32, F64, dtype_of
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.verify.budget import MOST_STEPS
from tessera_build.verify.compare import is_float

Key = TypeVar("Key", bound=Hashable)

# About what a sum of a thousand terms is rounded by.
_JITTER: Final = 2.0**-20
# An element at the edge is on each side in half of the draws.
_DRAWS: Final = 24
# An element is a rest of terms that cancel, and does not jump, if no two neighbouring draws are so many deviations
# apart: the two values of one that jumps are 2 apart at least. Rests may be as many deviations from a draw.
_GAP: Final = 1.9
# So many elements are never at an edge, and what runs give for more is not kept.
_MOST_OFF: Final = 1 << 20


def jittered(array: Array, generator: np.random.Generator, *, of_largest: bool = False) -> Array:
    """Finite floats of 32 bits and more, each moved by a share of itself, or of the largest; all others as they are."""
    if dtype_of(array.dtype) not in (F32, F64):
        return array
    finite = np.isfinite(array)
    size = np.abs(array[finite]).max(initial=0.0) if of_largest else np.where(finite, array, 0)
    share = _JITTER * generator.uniform(-1, 1, array.shape)
    with np.errstate(over="ignore"):
        near = np.add(array, np.multiply(share, size)).astype(array.dtype)
    return np.where(finite & np.isfinite(near), near, array)


@final
class Moved(Mapping[Key, Array]):
    """Arrays of which each is moved when it is asked for: a launch reads few of a module's."""

    def __init__(self, arrays: Mapping[Key, Array], generator: np.random.Generator) -> None:
        self._arrays, self._generator = arrays, generator

    def __getitem__(self, key: Key) -> Array:
        return jittered(self._arrays[key], self._generator)

    def __contains__(self, key: object) -> bool:
        return key in self._arrays  # a mapping's own would move the array to see whether it is there

    def __iter__(self) -> Iterator[Key]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


@dataclass(frozen=True, slots=True, eq=False)
class Suspect:
    """A launch under judgement: where it stands, values that are given to it, what it wrote, the limit of floats."""

    module: Module
    entry: str
    inputs: Mapping[str, Array]
    given: Mapping[int, Array]
    found: Mapping[int, Array]
    tolerance: float


@dataclass(frozen=True, slots=True, eq=False)
class _Off:
    """The elements of one value that are off: where they are, what was found, what each run gave in their place."""

    where: NDArray[np.bool_]
    found: Array
    draws: list[Array]
    largest: float
    room: float

    @classmethod
    def of(cls, found: Array, right: Array, tolerance: float) -> _Off:
        """Those that are further from the reference's than a share of its largest; integers: that differ."""
        exact, where, largest = found.reshape(right.shape), found.reshape(right.shape) != right, 0.0
        if is_float(right):
            largest = float(np.abs(right[np.isfinite(right)].astype(np.float64)).max(initial=0.0))
            with np.errstate(invalid="ignore"):
                near = np.abs(exact.astype(np.float64) - right.astype(np.float64)) <= tolerance * largest
            where &= ~near & ~(np.isnan(exact) & np.isnan(right))
        return cls(where, exact[where], [right[where]], largest, tolerance * largest)

    def meet(self, draw: Array) -> None:
        """Take in what a moved run gave."""
        self.draws.append(draw[self.where])

    def explained(self) -> bool:
        """Whether each of them is what a run gave, or as near to it as what does not jump is moved."""
        if self.found.size > _MOST_OFF:
            return False
        same = np.any([self.found == draw for draw in self.draws], axis=0)
        if not is_float(self.found):
            return bool(np.all(same))
        draws, found = self._wide()
        nearest, deviation = np.abs(draws - found).min(axis=0), draws.std(axis=0)
        widest = np.diff(np.sort(draws, axis=0), axis=0).max(axis=0)
        rest = _GAP * deviation[widest <= _GAP * deviation].max(initial=0.0)
        return bool(np.all(same | (nearest <= max(self.room, rest))))

    def loose(self) -> float:
        """By how much roundings move each of them at least, if none is further from a run's than that; else 0."""
        if not is_float(self.found) or self.found.size > _MOST_OFF:
            return 0.0
        draws, found = self._wide()
        spread = draws.max(axis=0) - draws.min(axis=0)
        return float(spread.min(initial=np.inf)) if bool(np.all(np.abs(draws - found).min(axis=0) <= spread)) else 0.0

    def _wide(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Draws by element, and what was found, where all are finite; else what no element is near to."""
        draws, found = np.stack([draw.astype(np.float64) for draw in self.draws]), self.found.astype(np.float64)
        finite = np.isfinite(draws).all(axis=0) & np.isfinite(found)
        return np.where(finite, draws, 0.0), np.where(finite, found, np.inf)


def judged_by_reach(suspect: Suspect) -> tuple[bool, float]:
    """Whether roundings explain all that is off; if not, the share of the largest by which they move all of that.

    That share is 0 where an element is off that they move by less than it is off.
    """
    off = _elements(suspect)
    if off is None:
        return False, 0.0
    for seed in range(_DRAWS):
        generator = np.random.default_rng(seed)
        near = replace(
            suspect,
            module=replace(suspect.module, constants=Moved(suspect.module.constants, generator)),
            inputs=Moved(suspect.inputs, generator),
            given=Moved(suspect.given, generator),
        )
        for value, array in (_made(near) or {}).items():
            if array.shape == off[value].where.shape:  # data may tell another size
                off[value].meet(array)
    if all(each.explained() for each in off.values()):
        return True, 0.0
    shares = [each.loose() / each.largest if each.largest else 0.0 for each in off.values() if each.found.size]
    return False, min(shares, default=0.0)


def _elements(suspect: Suspect) -> dict[int, _Off] | None:
    right = _made(suspect)
    sizes = {value: array.size for value, array in suspect.found.items()}
    if right is None or {value: array.size for value, array in right.items()} != sizes:
        return None
    return {value: _Off.of(suspect.found[value], array, suspect.tolerance) for value, array in right.items()}


def _made(suspect: Suspect) -> dict[int, Array] | None:
    """What the launch should have written by the reference; None where the run ends early, as a moved one may."""
    made: dict[int, Array] = {}

    def keep(value: int, array: Array) -> Array:
        if value in suspect.found:
            made[value] = array
        return array

    course = reference.Course(keep, suspect.given, reference.Patience(MOST_STEPS))
    try:
        reference.run_along(suspect.module, suspect.entry, suspect.inputs, suspect.found.keys(), course)
    except TesseraError:
        return None
    return made
