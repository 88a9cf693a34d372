"""Erase bindings: forget how a tile program is to run on one machine.

    %1 = "ttile.load"(%0) <{pad = 0.0, binding = {space = "register"}}>   →   %1 = "ttile.load"(%0) <{pad = 0.0}>

Takes any function of Tile IR; gives the same one without a binding. Invariant: the reference interpreter gives
bitwise the same buffers before and after.
"""

from __future__ import annotations

from dataclasses import replace

from tessera_build.ir.core.node import Function, Node
from tessera_build.ir.core.rewrite import map_nodes
from tessera_build.ir.core.structure import fields_of


def strip_bindings(function: Function) -> Function:
    """The function with every `binding` deleted."""
    return map_nodes(function, _unbound)


def _unbound(node: Node) -> Node:
    changes: dict[str, None] = {f.name: None for f in fields_of(type(node)) if f.name == "binding"}
    if all(getattr(node, name) is None for name in changes):
        return node
    return replace(node, **changes)
