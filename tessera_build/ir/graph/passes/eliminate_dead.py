"""Remove what no result depends on.

Takes a module; gives it without unread nodes and unnamed constants. Invariant: inputs stay, read or not, because
they are the signature.

    before:  %1 = "tgraph.exp"(%x)
             %2 = "tgraph.neg"(%x)
             return %2
    after:   %1 = "tgraph.neg"(%x)
             return %1
"""

from __future__ import annotations

from dataclasses import dataclass

from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.sweep import drop_dead


@dataclass(frozen=True, slots=True)
class EliminateDead:
    """Drop dead nodes and constants."""

    def run(self, module: Module) -> Module:
        """The module without them."""
        return drop_dead(module)
