"""Which smooth piece of a model a point lies on: what the comparisons of its derivative gave.

Takes an entry with gradients; gives the same entry with every comparison of floats as a further output, or as an input
in its place. Invariant: between points whose comparisons agree nothing has a kink; the derivative that is given the
comparisons of other code is that of the piece on which the other code has gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tessera_build.ir.core.node import Function
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Array, GraphNode, Module

# What is constant between jumps: derivatives of all that has kinks are written with these.
SIDES = frozenset({"gt", "ge", "lt", "le", "eq", "ne"})
STAIRS = frozenset({"floor", "ceil", "cast"})


def comparisons(function: Function) -> list[GraphNode]:
    """The nodes that jump, in order; none may stand in a region, where its values are not one array."""
    found = [n for n in graph_nodes(function) if _jumps(function, n)]
    assert all(node in function.nodes for node in found)
    return found


def _jumps(function: Function, node: GraphNode) -> bool:
    if not node.inputs or not function.types[node.inputs[0]].dtype.is_float:
        return False
    return node.op in SIDES | STAIRS | {"sign"} and (
        node.op != "cast" or not function.types[node.output].dtype.is_float
    )


def observed(module: Module, entry: str) -> Module:
    """The module whose entry also gives its comparisons, as `piece_0`, `piece_1`, ..."""
    function = module.entries[entry]
    pieces = [n.output for n in comparisons(function)]
    made = replace(function, results=(*function.results, *pieces))
    names = (*module.output_names[entry], *names_of(pieces))
    return replace(module, entries={**module.entries, entry: made}, output_names={**module.output_names, entry: names})


def told(module: Module, entry: str) -> Module:
    """The module whose entry takes its comparisons."""
    function = module.entries[entry]
    nodes = comparisons(function)
    pieces, gone = [n.output for n in nodes], set(nodes)
    kept = tuple(n for n in function.nodes if n not in gone)
    made = replace(function, args=(*function.args, *pieces), nodes=kept)
    names = (*module.input_names[entry], *names_of(pieces))
    return replace(module, entries={**module.entries, entry: made}, input_names={**module.input_names, entry: names})


def names_of(pieces: Sequence[int]) -> tuple[str, ...]:
    """Their names."""
    return tuple(f"piece_{i}" for i in range(len(pieces)))


def distance_of(node: GraphNode, operands: Sequence[Array]) -> tuple[Array, float]:
    """How far operands are from where the node jumps, and their size."""
    values = np.asarray(operands[0], np.float64)
    if node.op in SIDES:
        jump = np.asarray(operands[1], np.float64)
    else:
        jump = np.round(values) if node.op in STAIRS else np.zeros(())
    return np.abs(values - jump), max(float(np.abs(operand).max(initial=0)) for operand in operands)
