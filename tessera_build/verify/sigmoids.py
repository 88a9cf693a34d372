"""Outputs that are known only absolutely: those of a Sigmoid.

Takes a module; gives names. Invariant: only what a Sigmoid made, and nothing but its place changed since, is named.

Sigmoid is 1/2 plus a rational function, in onnxruntime as here (docs/adr/0013), so its results come in steps of the
last place of 1/2: a rounding before it may move one by a step, and a detector that finds nothing in noise answers 2e-6
everywhere, 3 % of which that is. Against the exact function the error is 1.7e-7 at most.
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
