"""Bind a tile program to a machine of groups: which loops become groups, where tiles and scratch lie.

    for %i step 16 { %t = load ... }     →     for %i step 16 {scope = "group"} { %t = load ... {layout = "cyclic"} }

Takes an unbound function and a `GroupMachine`; gives the same function with bindings. Invariant: only `binding` fields
change, so the reference interpreter's result stays bitwise the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tessera_build.ir.core.dims import Dim, Extent, substitute
from tessera_build.ir.core.node import Function, Node, walk
from tessera_build.ir.core.rewrite import map_nodes
from tessera_build.ir.machine.group import GroupMachine
from tessera_build.ir.machine.instructions import LANE_FMA
from tessera_build.ir.tile import nodes as t


@dataclass(frozen=True, slots=True)
class BindGroup:
    """The pass, for one machine."""

    machine: GroupMachine

    def run(self, function: Function) -> Function:
        """The function with every node bound."""
        groups = group_loops(function)

        def bind(node: Node) -> Node:
            match node:
                case t.For():
                    scope = "group" if node.index in groups else "serial"
                    return replace(node, binding=t.Binding(scope=scope))
                case t.Alloc():
                    return replace(node, binding=t.Binding(space="shared"))
                case t.Contract():
                    return replace(node, binding=t.Binding(layout="cyclic", instruction=LANE_FMA.name))
                case t.Load() | t.Map() | t.Permute() | t.Iota() | t.Reduce():
                    return replace(node, binding=t.Binding(space="register", layout="cyclic"))
                case _:
                    return node

        return map_nodes(function, bind)


def group_loops(function: Function) -> frozenset[str]:
    """Indices of the loops of the perfect nest at the top whose turns do not depend on each other."""
    found: set[str] = set()
    nodes = function.nodes
    while len(nodes) == 1 and isinstance(nodes[0], t.For) and are_turns_independent(function, nodes[0]):
        found.add(nodes[0].index)
        nodes = nodes[0].body.nodes
    return frozenset(found)


def are_turns_independent(function: Function, loop: t.For) -> bool:
    """True when no turn of the loop touches what another turn writes.

    Proved where every write outside the turn's own scratch advances along some axis by at least what one turn covers
    there, and nothing that the loop writes is read in it.
    """
    if loop.carried:
        return False
    inside = list(walk(loop.body.nodes))
    views = {n.result: n for n in walk(function.nodes) if isinstance(n, t.View)}
    private = {n.result for n in inside if isinstance(n, t.Alloc)}
    steps = {n.index: _last(n) for n in inside if isinstance(n, t.For)}
    written = [views[n.view if isinstance(n, t.Store) else n.target] for n in inside if isinstance(n, t.Store | t.Copy)]
    written = [view for view in written if view.buffer not in private]
    read = {views[v].buffer for n in inside for v in _read_views(n) if v in views}
    if read & {view.buffer for view in written}:
        return False
    return all(_advances(function, view, loop, steps) for view in written)


def _last(loop: t.For) -> int | None:
    return (loop.extent - 1) // loop.step * loop.step if isinstance(loop.extent, int) else None


def _read_views(node: Node) -> tuple[int, ...]:
    match node:
        case t.Load():
            return (node.view,)
        case t.Copy():
            return (node.source,)
        case t.Contract():
            return (node.a, node.b)
        case _:
            return ()


def _advances(function: Function, view: t.View, loop: t.For, steps: Mapping[str, int | None]) -> bool:
    shape = function.types[view.result].static_shape
    for axis, offset in enumerate(view.offsets):
        stride = _coefficient(offset, loop.index)
        if stride is None or stride <= 0:
            continue
        width = 1 + sum((shape[i] - 1) * walk.step for i, walk in enumerate(view.axes) if walk.axis == axis)
        for name, last in steps.items():
            inner = _coefficient(offset, name)
            if inner is None or inner < 0 or (inner and last is None):
                break
            width += inner * (last or 0)
        else:
            if width <= stride * loop.step:
                return True
    return False


def _coefficient(offset: Extent, name: str) -> int | None:
    """How much the offset grows with the symbol, if by a constant."""
    if not isinstance(offset, Dim):
        return 0
    change = substitute(offset, {name: 1}) - substitute(offset, {name: 0})
    twice = substitute(offset, {name: 2}) - substitute(offset, {name: 0})
    return change if isinstance(change, int) and twice == 2 * change else None
