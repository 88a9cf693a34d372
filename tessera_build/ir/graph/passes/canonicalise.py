"""Bring equal things to one form, the simplest.

Takes a module; gives it with the rules of `canonical/` applied until none fires. Invariant: a rule only ever removes a
node, replaces it by a cheaper one, or orders its operands, so the pass ends; shapes and dtypes of values are kept.

    before:  %1 = "tgraph.transpose"(%0) <{perm = [0, 2, 1]}>
             %2 = "tgraph.transpose"(%1) <{perm = [0, 2, 1]}>
             %3 = "tgraph.mul"(%ones, %2)
    after:   %0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bundle_format.errors import TesseraError
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.passes.canonical.arithmetic import ARITHMETIC
from tessera_build.ir.graph.passes.canonical.movement import MOVEMENT
from tessera_build.ir.graph.sweep import Rule, Site, rewrite


@dataclass(frozen=True, slots=True)
class Canonicalise:
    """Apply the rules in sweeps; more than `sweeps_limit` of them means that two rules undo each other."""

    sweeps_limit: int = 100

    def run(self, module: Module) -> Module:
        """The module in canonical form."""
        fired: list[str] = []
        for _ in range(self.sweeps_limit):
            fired = []
            module = rewrite(module, lambda log=fired: _logged_rule(log))
            if not fired:
                return module
        raise TesseraError("INTERNAL", "canonicalise does not end", found=", ".join(sorted(set(fired))))


def _logged_rule(log: list[str]) -> Rule:
    def apply(site: Site) -> Sequence[int] | None:
        for rule in (*ARITHMETIC, *MOVEMENT):
            values = rule(site)
            if values is not None:
                log.append(rule.__name__)
                return values
        return None

    return apply
