"""Binding of kernels written in the tile language for a CPU: their outermost loop runs in parallel.

Takes an unbound Tile function whose body is one perfect nest to start with; gives it with scope "parallel" on the outer
loop. Invariant: nothing but bindings changes.
"""

from __future__ import annotations

from dataclasses import replace

from tessera_build.ir.core.node import Function
from tessera_build.ir.tile import nodes as t


def bind_outer_loops(function: Function) -> Function:
    """Bind the outermost loop, where the function is one loop over independent instances."""
    if len(function.nodes) != 1 or not isinstance(function.nodes[0], t.For) or function.nodes[0].carried:
        return function
    loop = replace(function.nodes[0], binding=t.Binding(scope="parallel"))
    return replace(function, nodes=(loop,))
