"""Sizes from data in the host program: reads, the guards that wait for them, and memory that no plan can size.

Takes tasks that read sizes, guards, and roots with their bytes; gives host nodes. Invariant: a guard stands where the
last of its symbols is read, and a dynamic slot is held exactly while its root is alive.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from bundle_format.errors import TesseraError
from tessera_build.ir.core.node import Node
from tessera_build.ir.graph.builder import guard_symbols
from tessera_build.ir.graph.nodes import Guard as GraphGuard
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.ops.op import extents_of
from tessera_build.ir.graph.ops.sizes import names_of
from tessera_build.ir.target.host import Allocate, Buffer, Guard, Read, Release
from tessera_build.lower.graph_to_schedule.tasks import Task


@dataclass(frozen=True, slots=True)
class Dynamic:
    """A root outside every plan: its slot or output, its bytes, and the first and the last step that touches it."""

    memory: Allocate
    first: int
    last: int

    def before(self, step: int) -> Iterator[Node]:
        """What comes before a step."""
        if step == self.first:
            yield self.memory

    def after(self, step: int) -> Iterator[Node]:
        """What comes after a step; the memory of an output is the caller's."""
        if step == self.last and self.memory.space == "dynamic":
            yield Release(self.memory.index)


def read_nodes(task: Task, buffer: Buffer, row: int) -> list[Node]:
    """One read for each size of a task."""
    (node,) = task.nodes
    uppers = extents_of(node.attributes, "uppers")
    return [
        Read(name, buffer, element, upper, row)
        for element, (name, upper) in enumerate(zip(names_of(node.attributes), uppers, strict=True))
    ]


def early_guards(module: Module, dims: Collection[str]) -> list[Node]:
    """The guards over the dims of one entry alone."""
    known = frozenset(dims)
    return [guard_node(guard, i) for i, guard in enumerate(module.guards) if guard_symbols(guard) <= known]


def late_guards(module: Module, fresh: Collection[str], known: Collection[str]) -> list[Node]:
    """The guards that can be checked now that the symbols `fresh` are read; `known` includes them."""
    return [
        guard_node(guard, index)
        for index, guard in enumerate(module.guards)
        if not guard_symbols(guard).isdisjoint(fresh) and guard_symbols(guard) <= {*known, *module.dims}
    ]


def check_placed(module: Module, nodes: Iterable[Node]) -> None:
    """Raise unless every guard stands somewhere: one that is lost would let a wrong shape pass in silence."""
    placed = {node.index for node in nodes if isinstance(node, Guard)}
    lost = [guard for i, guard in enumerate(module.guards) if i not in placed]
    if lost:
        left, relation, right, message = lost[0]
        raise TesseraError(
            "INTERNAL", f"no place knows what a guard needs: {message}", found=f"{left} {relation} {right}"
        )


def guard_node(guard: GraphGuard, index: int) -> Guard:
    """A guard of the module in the host program."""
    left, relation, right, _ = guard
    if relation == "==":
        return Guard(left, "eq", right, index)
    return Guard(right, "le", left, index)
