"""Groups as tasks: one Schedule function each, with what it reads and writes in graph values.

Takes an entry's function and its fusion groups; gives `Task`s in running order. Invariant: a task's function has one
argument per external value that it reads and one result per value that is used outside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.node import Function, Node
from tessera_build.ir.core.structure import captured
from tessera_build.ir.graph.nodes import Array, GraphNode
from tessera_build.ir.schedule.nodes import Compute, KernelCall
from tessera_build.lower.graph_to_schedule.defining import Context
from tessera_build.lower.graph_to_schedule.definitions import define
from tessera_build.lower.graph_to_schedule.fusion import ALONE, FusionGroup, Kind, fuse


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One unit of scheduling: its Schedule function over graph value ids, and the graph nodes it stands for.

    `stages`: of a chain, the contractions it was joined from, in running order. `operators`: the names in the source
    model of all that was fused into it.
    """

    kind: Kind
    name: str
    function: Function
    domain: tuple[Extent, ...]
    reduced: frozenset[int]
    nodes: tuple[GraphNode, ...]
    stages: tuple[Task, ...] = ()
    operators: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[int, ...]:
        """Graph values read, in argument order."""
        return self.function.args

    @property
    def outputs(self) -> tuple[int, ...]:
        """Graph values written, in result order."""
        return self.function.results


def graph_to_schedule(function: Function, constants: Mapping[int, Array]) -> tuple[Task, ...]:
    """All tasks of one entry in running order; views (reshapes) and concatenations are tasks of their own kind."""
    groups = fuse(function, constants)
    users = _users(function, groups)
    return tuple(_task(function, constants, index, group, users) for index, group in enumerate(groups))


def _users(function: Function, groups: Sequence[FusionGroup]) -> dict[int, set[int]]:
    """Which groups read each value; -1 stands for the entry's own results."""
    users: dict[int, set[int]] = {}
    for index, group in enumerate(groups):
        for node in group.nodes:
            for value in (*node.inputs, *captured(node.regions)):
                users.setdefault(value, set()).add(index)
    for value in function.results:
        users.setdefault(value, set()).add(-1)
    return users


def _task(
    function: Function, constants: Mapping[int, Array], index: int, group: FusionGroup, users: Mapping[int, set[int]]
) -> Task:
    context = Context(dict(function.types), constants)
    nodes: list[Node] = []
    for node in group.nodes:
        nodes.extend(_lower(node, group, context))
    made = [value for node in group.nodes for value in node.outputs]
    # A kernel or a loop writes every result that it has, whether or not somebody reads it.
    results = tuple(v for v in made if group.kind in {"kernel", "control"} or users.get(v, set()) - {index})
    args = tuple(dict.fromkeys(v for n in nodes for v in _reads(n) if v not in set(_made(nodes))))
    types = {v: context.types[v] for v in (*args, *_made(nodes))}
    name = _name(function, group)
    lowered = Function(name, args, tuple(nodes), results, types)
    spans = (function.locations.get(node) for node in group.nodes)
    operators = tuple(dict.fromkeys(str(span) for span in spans if span is not None))
    return Task(group.kind, name, lowered, group.domain or (1,), group.reduced, tuple(group.nodes), operators=operators)


def _lower(node: GraphNode, group: FusionGroup, context: Context) -> Sequence[Node]:
    if group.kind in ALONE:
        parameters = tuple(sorted(node.attributes.items())) if group.kind == "kernel" else ()
        return (KernelCall(node.outputs, node.op, (*node.inputs, *captured(node.regions)), parameters),)
    return define(node, context)


def _reads(node: Node) -> tuple[int, ...]:
    if isinstance(node, Compute):
        return node.reads
    return node.operands if isinstance(node, KernelCall) else ()


def _made(nodes: Sequence[Node]) -> list[int]:
    found: list[int] = []
    for node in nodes:
        if isinstance(node, Compute):
            found.append(node.result)
        elif isinstance(node, KernelCall):
            found.extend(node.results)
    return found


def _name(function: Function, group: FusionGroup) -> str:
    """The name of the task's first node in the source model: what a person would look for."""
    span = function.locations.get(group.nodes[0])
    return str(span) if span is not None else group.nodes[0].op
