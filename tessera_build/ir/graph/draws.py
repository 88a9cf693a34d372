"""What depends on random draws, and which draws are the same in every run.

Takes modules; gives names of outputs and of nodes. Invariant: what depends on a draw by a size that is read from data
depends on it too.
"""

from __future__ import annotations

from collections.abc import Iterable

from tessera_build.ir.core.node import Function, Node, walk
from tessera_build.ir.core.structure import captured, symbols_defined_by, symbols_used_by
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import GraphNode, Module

DRAW = "random"


def drawn_outputs(module: Module, entry: str) -> frozenset[str]:
    """The outputs that another source of random numbers would change."""
    function, names = module.entries[entry], module.output_names[entry]
    if not any(node.op == DRAW for node in graph_nodes(function)):
        return frozenset()
    drawn, symbols = set[int](), set[str]()
    for node in function.nodes:
        if isinstance(node, GraphNode) and _draws(node, drawn, symbols, function):
            drawn.update(node.outputs)
            symbols.update(symbols_defined_by(node))
    return frozenset(n for n, value in zip(names, function.results, strict=True) if value in drawn)


def _draws(node: GraphNode, drawn: set[int], symbols: set[str], function: Function) -> bool:
    """Whether a node draws, inside its regions too, or reads what is drawn."""
    inside = any(isinstance(n, GraphNode) and n.op == DRAW for region in node.regions for n in walk(region.nodes))
    read = not drawn.isdisjoint((*node.inputs, *captured(node.regions)))
    return node.op == DRAW or inside or read or not symbols.isdisjoint(symbols_used_by(node, function.types))


def repeated_draws(module: Module) -> tuple[str, ...]:
    """The nodes of the source model whose keys depend on no input, so that each run draws what the last one drew."""
    found: dict[str, None] = {}
    for function in module.entries.values():
        given = set(function.args)
        for node in _fixed(function.nodes, given):
            span = function.locations.get(node)
            found[str(span) if span is not None else node.op] = None
    return tuple(found)


def _fixed(nodes: Iterable[Node], given: set[int]) -> list[GraphNode]:
    """Draws by keys that are not among the values that inputs have given; adds to those what depends on them."""
    found: list[GraphNode] = []
    for node in nodes:
        if not isinstance(node, GraphNode):
            continue
        depends = not given.isdisjoint((*node.inputs, *captured(node.regions)))
        if node.op == DRAW and not depends:
            found.append(node)
        for region in node.regions:
            given.update(region.args if depends else ())
            found += _fixed(region.nodes, given)
        given.update(node.outputs if depends else ())
    return found
