"""Bring equal things to one form, the simplest.

Takes a module; gives it with the rules of `canonical/` applied until none fires. Invariant: a rule only ever removes a
node, replaces it by a cheaper one, or orders its operands, so the pass ends; shapes and dtypes of values are kept.

    before:  %1 = "tgraph.mul"(1, %x)
             %2 = "tgraph.transpose"(%1) <{perm = [0, 2, 1]}>
             %3 = "tgraph.transpose"(%2) <{perm = [0, 2, 1]}>
             %4 = "tgraph.pow"(%3, 2)
             return %4
    after:   %1 = "tgraph.mul"(%x, %x)
             return %1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bundle_format.errors import TesseraError
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.passes.canonical.arithmetic import ARITHMETIC, divide_by_constants
from tessera_build.ir.graph.passes.canonical.movement import MOVEMENT
from tessera_build.ir.graph.passes.canonical.nothing import NOTHING
from tessera_build.ir.graph.passes.canonical.tables import TABLES
from tessera_build.ir.graph.passes.canonical.windows import WINDOWS
from tessera_build.ir.graph.sweep import Rule, Site, rewrite


@dataclass(frozen=True, slots=True)
class Canonicalise:
    """Apply the rules in sweeps; more than `sweeps_limit` of them means that two rules undo each other.

    `reciprocals` allows division by a constant to become multiplication where that rounds once more.
    """

    sweeps_limit: int = 100
    reciprocals: bool = True

    def run(self, module: Module) -> Module:
        """The module in canonical form."""
        fired: list[str] = []
        for _ in range(self.sweeps_limit):
            fired = []
            module = rewrite(module, lambda log=fired: _logged_rule(self._rules(), log))
            if not fired:
                return module
        raise TesseraError("INTERNAL", "canonicalise does not end", found=", ".join(sorted(set(fired))))

    def _rules(self) -> tuple[Rule, ...]:
        reciprocals = (divide_by_constants(),) if self.reciprocals else ()
        return (*NOTHING, *ARITHMETIC, *MOVEMENT, *WINDOWS, *TABLES, *reciprocals)


def _logged_rule(rules: Sequence[Rule], log: list[str]) -> Rule:
    def apply(site: Site) -> Sequence[int] | None:
        for rule in rules:
            values = rule(site)
            if values is not None:
                log.append(getattr(rule, "__name__", ""))
                return values
        return None

    return apply
