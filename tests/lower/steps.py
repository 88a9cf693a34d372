"""A tile program as it runs, step by step.

Takes nodes and the values of symbols; gives every node that is no loop and no choice, as often as it runs, with the
values of the loops' indices. Invariant: the order is that of the program.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tessera_build.ir.core.dims import evaluate
from tessera_build.ir.core.node import Node
from tessera_build.ir.tile import nodes as t


def steps_of(nodes: Sequence[Node], places: dict[str, int]) -> Iterator[tuple[Node, dict[str, int]]]:
    """Every step with where the loops are."""
    for node in nodes:
        if isinstance(node, t.For):
            for index in range(0, evaluate(node.extent, places), node.step):
                yield from steps_of(node.body.nodes, {**places, node.index: index})
        elif isinstance(node, t.If):
            chosen = node.then if evaluate(node.left, places) <= evaluate(node.right, places) else node.otherwise
            yield from steps_of(chosen.nodes, places)
        else:
            yield node, places
