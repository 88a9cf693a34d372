"""The default schedule of any task: which rules apply is read off its definitions.

Takes a task, the machine, and which of its values are constants; gives a `Schedule`. Invariant: no rule asks what an
operator is called.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from tessera_build.ir.core.dims import Dim, Extent, substitute, symbol, symbols_of, terms_of
from tessera_build.ir.core.node import Node
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.nodes import Access, Axis, Compute
from tessera_build.ir.schedule.trace import Group, Schedule
from tessera_build.space.contraction import Domain, schedule_contraction
from tessera_build.space.crossing import crossed_axis, crossing_tile
from tessera_build.space.pointwise import schedule_crossed, schedule_pointwise, schedule_row


@dataclass(frozen=True, slots=True)
class Subject:
    """What rules look at: definitions, loop axes, the axes a row task reduces, which values are weights."""

    kind: str
    nodes: Sequence[Node]
    domain: Sequence[Axis]
    reduced: frozenset[int]
    constants: Container[int]


def derive_schedule(subject: Subject, machine: CpuMachine, crossing: bool = True) -> Schedule:
    """The schedule that the rules give a task; without `crossing` one for any extents, with tiles on one axis."""
    kind, domain = subject.kind, subject.domain
    definitions = [n for n in subject.nodes if isinstance(n, Compute)]
    if kind == "contraction":
        (node,) = [n for n in definitions if n.combine != "none"]
        return _contraction(node, domain, subject.constants, machine)
    stuck = any(_stuck(i, domain[-1].name) for n in definitions for a in n.accesses for i in a.indices)
    if kind == "row":
        return schedule_row(domain, subject.reduced, machine, stuck)
    crossed = None if stuck or not crossing else crossed_axis(definitions, domain)
    if crossed is not None:
        return schedule_crossed(domain, crossed, crossing_tile(definitions, crossed, domain[-1], machine))
    return schedule_pointwise(domain, machine, stuck)


def _contraction(node: Compute, domain: Sequence[Axis], constants: Container[int], machine: CpuMachine) -> Schedule:
    groups = group_steps(node)
    axes: list[Axis] = []
    for axis in domain:
        size = next((g.size for g in groups if g.axis == axis.name), None)
        if size is None:
            axes.append(axis)
        else:
            axes += [Axis(f"{axis.name}g", axis.extent // size), Axis(f"{axis.name}i", size)]
    moved = Compute(
        node.result, node.reads, tuple(_regrouped(a, groups) for a in node.accesses), node.axes,
        node.reduction, node.combine, node.program,
    )  # fmt: skip
    constant = len(node.reads) > 1 and node.reads[1] in constants
    derived = schedule_contraction(moved, Domain(tuple(axes)), constant, machine)
    return Schedule((*groups, *derived.steps))


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


def _regrouped(access: Access, groups: Sequence[Group]) -> Access:
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


def _stuck(index: Extent, axis: str) -> bool:
    """Whether an index moves with an axis in a way that is not linear."""
    for monomial, _ in terms_of(index):
        names = [atom.name for atom, power in monomial for _ in range(power) if not atom.function]
        inside = any(atom.function and axis in symbols_of(atom.left) | symbols_of(atom.right) for atom, _ in monomial)
        if inside or (axis in names and len(monomial) > 1):
            return True
    return False
