"""What rules, features and costs see of a task: axes with known extents, and how every operand moves along them.

Takes a `Subject`; gives a `Workload`, a plain record without value ids, so that equal tasks are equal records and a
search is done once. Invariant: nothing in it says what an operator is called; a dynamic extent counts as
`ASSUMED_EXTENT` wherever a cost is estimated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np

from tessera_build.ir.core.dims import Dim, Extent, substitute, symbol, symbols_of, terms_of
from tessera_build.ir.core.node import Node
from tessera_build.ir.core.scalar import Array
from tessera_build.ir.schedule.nodes import Access, Axis, Compute
from tessera_build.ir.schedule.trace import Group
from tessera_build.space.chain import Shape
from tessera_build.space.contraction import known


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the precision policy lets other algorithms err by, relative to the outputs' deviation; 0: no use of them."""

    winograd: float = 0.0
    products: float = 0.0


EXACT: Final = Bounds()


@dataclass(frozen=True, slots=True)
class Subject:
    """What rules look at: definitions, loop axes, the axes a row task reduces, the weights among its values.

    `bounds`: of other algorithms' errors; `stages`: the contractions of a chain, in running order; `shapes`: of values
    that are read; `strides`: of values as they lie in memory, in elements, where that is known. `short_sums`: no long
    sequence of products is added up, so that sums err little more than by their last rounding.
    """

    kind: str
    nodes: Sequence[Node]
    domain: Sequence[Axis]
    reduced: frozenset[int]
    constants: Mapping[int, Array]
    bounds: Bounds = EXACT
    stages: tuple[Subject, ...] = ()
    shapes: Mapping[int, tuple[Extent, ...]] = field(default_factory=dict[int, tuple[Extent, ...]])
    strides: Mapping[int, tuple[Extent, ...]] = field(default_factory=dict[int, tuple[Extent, ...]])
    short_sums: bool = False


@dataclass(frozen=True, slots=True)
class Rewriting:
    """An algorithm that may take the place of a task's sum: those of its `sizes` that err little enough.

    `axes`: of the task, in an order that the algorithm's rule knows; `taps`: of a window, along each, `strides`: how
    many inputs apart outputs are, `apart`: and taps along the last axis; `kept`: the reduction axes of taps that stay
    as they are.
    """

    algorithm: str
    sizes: tuple[int, ...]
    axes: tuple[str, ...]
    taps: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    apart: int = 1
    kept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reach:
    """An index that a tap takes beyond its buffer: `start` + `step` * axis + `apart` * tap.

    `extents`: of the axis, the tap and the buffer.
    """

    tap: str
    axis: str
    start: int
    step: int
    apart: int
    extents: tuple[int, int, int]

    def share(self, tile: int) -> float:
        """Of the turns over the taps that tiles of so many outputs take, those at which one reads an element."""
        return _share(self, tile)


@dataclass(frozen=True, slots=True)
class Span:
    """One axis of a workload; `dynamic`: its extent is only assumed."""

    name: str
    extent: int
    dynamic: bool = False


@dataclass(frozen=True, slots=True)
class Operand:
    """What one access reads or writes: per axis of the buffer, (axis, step) pairs; `bytes` of an element.

    `constant`: a weight, which a contraction may read in packed order. An index that is not linear counts as steps of
    one along every axis in it; those axes are `bent`, as are those that move several axes of the buffer. `apart`: bytes
    between neighbours along an axis, where that is known.
    """

    steps: tuple[tuple[tuple[str, int], ...], ...]
    bytes: int
    constant: bool = False
    written: bool = False
    bent: frozenset[str] = frozenset()
    apart: tuple[tuple[str, int], ...] = ()

    def moves(self, axis: str) -> bool:
        """Whether it changes along an axis."""
        return any(axis == name for steps in self.steps for name, _ in steps)

    def contiguous(self, axis: str) -> bool:
        """Whether neighbours along an axis are neighbours in memory."""
        return bool(self.steps) and (axis, 1) in self.steps[-1]


@dataclass(frozen=True, slots=True)
class Workload:
    """A task as costs see it: `main` are the reads of the reduction (of all definitions, where there is none).

    `others` are what is read and written once an element of the domain; `operations` of it are done once an element.
    `passes`: the reductions of a row task that can run on rows ahead of the one that is being ended, 0 where none can.
    `rewrites`: the algorithms that may take the place of a contraction's sum, each at most once. `stages`: one row of
    every contraction of a chain, whose extents are `chain`. `reaches`: where products are with padding alone.
    """

    kind: str
    domain: tuple[Span, ...]
    reduction: tuple[Span, ...]
    main: tuple[Operand, ...]
    others: tuple[Operand, ...]
    operations: int
    groups: tuple[Group, ...] = ()
    reduced: frozenset[int] = frozenset()
    product: bool = False
    byte_product: bool = False
    stuck: bool = False
    passes: int = 0
    crossed: str = ""
    tile: tuple[int, int] = (1, 1)
    rewrites: tuple[Rewriting, ...] = ()
    stages: tuple[Workload, ...] = ()
    chain: Shape | None = None
    short_sums: bool = False
    reaches: tuple[Reach, ...] = ()

    def rewriting(self, algorithm: str) -> Rewriting | None:
        """What is known of an algorithm, if it may be used."""
        return next((r for r in self.rewrites if r.algorithm == algorithm), None)

    @property
    def vector(self) -> Span:
        """The axis that vectors run along."""
        return self.domain[-1]

    @property
    def extents(self) -> dict[str, int]:
        """Extent of every axis, those of the reduction too."""
        return {span.name: span.extent for span in (*self.domain, *self.reduction)}

    @property
    def points(self) -> int:
        """Elements of the domain."""
        return math.prod(span.extent for span in self.domain)


@lru_cache(maxsize=4096)
def _share(reach: Reach, tile: int) -> float:
    extent, taps, size = reach.extents
    tile = min(tile, extent)
    if not extent or not taps:
        return 1.0
    starts = reach.start + reach.step * np.minimum(np.arange(0, extent, tile), extent - tile)
    first = np.maximum(0, -((starts + reach.step * (tile - 1)) // reach.apart))
    behind = np.minimum(taps, (size - 1 - starts) // reach.apart + 1)
    return float(np.maximum(0, behind - first).sum()) / (len(starts) * taps)


def span_of(axis: Axis) -> Span:
    """An axis with what is assumed of it."""
    return Span(axis.name, known(axis.extent), not isinstance(axis.extent, int))


def operand_of(
    access: Access, width: int, constant: bool = False, strides: tuple[Extent, ...] | None = None
) -> Operand:
    """How an access moves, through memory with these strides."""
    found = [_steps(index) for index in access.indices]
    moving = [name for steps in found for name in steps]
    bent = {name for steps in found for name, step in steps.items() if not step or moving.count(name) > 1}
    steps = tuple(tuple((name, step or 1) for name, step in each.items()) for each in found)
    apart = () if strides is None else _apart(found, strides, width)
    return Operand(steps, width, constant, bent=frozenset(bent), apart=apart)


def _apart(found: Sequence[Mapping[str, int]], strides: tuple[Extent, ...], width: int) -> tuple[tuple[str, int], ...]:
    """Bytes between neighbours along every axis."""
    total: dict[str, Extent] = {}
    for steps, stride in zip(found, strides, strict=True):
        for name, step in steps.items():
            total[name] = total.get(name, 0) + stride * step * width
    return tuple((name, size) for name, size in total.items() if isinstance(size, int))


def _steps(index: Extent) -> dict[str, int]:
    """How far an index moves with each axis; 0 where it does not do so evenly."""
    found: dict[str, int] = {}
    for monomial, factor in terms_of(index):
        for name in sorted(symbols_of(Dim(((monomial, 1),)))) if monomial else ():
            plain = len(monomial) == 1 and monomial[0][1] == 1 and not monomial[0][0].function
            found[name] = abs(factor) if plain and name not in found else 0
    return found


def group_steps(node: Compute) -> tuple[Group, ...]:
    """One `Group` per axis that an access divides: its groups then become an axis of their own."""
    found: dict[str, int] = {}
    for access in node.accesses:
        for index in access.indices:
            for monomial, _ in terms_of(index):
                for atom, _power in monomial:
                    if atom.function == "floordiv" and isinstance(atom.right, int) and isinstance(atom.left, Dim):
                        for axis in node.axes:
                            if atom.left == symbol(axis.name):
                                found[axis.name] = atom.right
    return tuple(Group(axis, size) for axis, size in found.items())


def grouped_axes(domain: Sequence[Axis], groups: Sequence[Group]) -> tuple[Axis, ...]:
    """The domain with every grouped axis as two."""
    axes: list[Axis] = []
    for axis in domain:
        size = next((g.size for g in groups if g.axis == axis.name), None)
        if size is None:
            axes.append(axis)
        else:
            axes += [Axis(f"{axis.name}g", axis.extent // size), Axis(f"{axis.name}i", size)]
    return tuple(axes)


def regrouped(access: Access, groups: Sequence[Group]) -> Access:
    """The access over group axes; what a group's inner axis divides away is zero, so only the group index stays."""
    indices = access.indices
    for group in groups:
        inner = symbol(f"{group.axis}i")
        moved = symbol(f"{group.axis}g") * group.size + inner
        zero = inner // group.size
        indices = tuple(_without(substitute(i, {group.axis: moved}), zero) for i in indices)
    return Access(indices, access.pad)


def _without(index: Extent, zero: Extent) -> Extent:
    """The index with every term that contains `zero`, a single atom, dropped."""
    atoms = {atom for monomial, _ in terms_of(zero) for atom, _ in monomial}
    kept: Extent = 0
    for monomial, factor in terms_of(index):
        if not any(atom in atoms for atom, _ in monomial):
            kept = kept + (Dim(((monomial, factor),)) if monomial else factor)
    return kept


def is_stuck(index: Extent, axis: str) -> bool:
    """Whether an index moves with an axis in a way that is not linear."""
    for monomial, _ in terms_of(index):
        names = [atom.name for atom, power in monomial for _ in range(power) if not atom.function]
        inside = any(atom.function and axis in symbols_of(atom.left) | symbols_of(atom.right) for atom, _ in monomial)
        if inside or (axis in names and len(monomial) > 1):
            return True
    return False
