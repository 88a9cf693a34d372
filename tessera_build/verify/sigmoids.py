"""Outputs that onnxruntime knows only absolutely: those of a Sigmoid.

Takes a module; gives names. Invariant: only what a Sigmoid made, and nothing but its place changed since, is named.

Onnxruntime computes 1/2 plus a rational function, so its Sigmoid is right to the last places of 1/2 and not of its own
value: measured 1.7e-7 at most. A detector that finds nothing in noise answers 2e-6 everywhere, 3 % of which that is.
"""

from __future__ import annotations

from typing import Final

from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Module

# Twice what was measured.
ERROR: Final = 3.4e-7
_PLACES = frozenset({"reshape", "transpose", "slice", "broadcast_to"})


def sigmoid_outputs(module: Module, entry: str) -> frozenset[str]:
    """The outputs of an entry whose elements are results of Sigmoid."""
    function = module.entries[entry]
    made = {value: node for node in graph_nodes(function) for value in node.outputs}
    found: set[str] = set()
    for name, value in zip(module.output_names[entry], function.results, strict=True):
        node = made.get(value)
        while node is not None and node.op in _PLACES:
            node = made.get(node.inputs[0])
        if node is not None and node.op in {"sigmoid", "logistic"}:
            found.add(name)
    return frozenset(found)
