"""Write out linear equations as iterations, and conditions that must hold as guards over data.

Takes a module; gives it without `linear_solve` and `checked`. Invariant: a condition that a run depends on becomes a
size that is read, 1 where it holds, and a guard over it, so that a run in which it does not ends with its message.

    before:  %1 = "tgraph.checked"(%x, %ok) <{message = "no fixed point"}>
             return %1
    after:   %2 = "tgraph.reshape"("tgraph.cast"(%ok))
             "tgraph.sizes"(%2) <{names = ["holds0"], uppers = [1]}>          guard holds0 == 1: no fixed point
             return %x
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.node import Function, walk
from tessera_build.ir.core.types import I64
from tessera_build.ir.graph.autodiff.replay import Replay
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.krylov import Method, solution
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.ops.equations import KINDS
from tessera_build.ir.graph.ops.op import int_of, number_of, word_of
from tessera_build.ir.graph.sizes import data_sizes
from tessera_build.ir.graph.sweep import Rule, Site, rewrite


@dataclass(frozen=True, slots=True)
class SolveEquations:
    """Replace equations by loops and checks by guards."""

    def run(self, module: Module) -> Module:
        """The module without equations.

        The iteration applies a map in more than one place, so what a map holds is written when the map has been.
        """
        while any(n.op in _RULES for function in module.entries.values() for n in graph_nodes(function)):
            taken = {*module.dims, *(name for function in module.entries.values() for name in data_sizes(function))}
            module = rewrite(module, _Writer(taken).rule)
        return module


@dataclass(frozen=True, slots=True)
class _Writer:
    """One sweep; `taken` are the names that symbols have."""

    taken: set[str]

    def rule(self) -> Rule:
        """The rule for one entry."""
        inside: list[set[int]] = []

        def write(site: Site) -> Sequence[int] | None:
            make = _RULES.get(site.node.op)
            if make is None:
                return None
            if not inside:
                inside.append(_inside_of_maps(site.old))
            return None if id(site.node) in inside[0] else make(self, site)

        return write

    def solve(self, site: Site) -> Sequence[int]:
        """The iteration."""
        (region,), to, attributes = site.regions, site.to, site.node.attributes

        def apply(x: int) -> int:
            again = Replay(to, {region.args[0]: x}, to.type, to.span_of)
            again.nodes(region.nodes)
            return again.values.get(region.results[0], region.results[0])

        limit, restart = int_of(attributes, "limit"), int_of(attributes, "restart")
        method = Method(word_of(attributes, "kind", KINDS), number_of(attributes, "tolerance"), limit, restart)
        return solution(to, site.inputs[0], apply, method)

    def check(self, site: Site) -> Sequence[int]:
        """A guard over what is read of the condition."""
        (x, condition), to = site.inputs, site.to
        name = next(f"holds{i}" for i in count() if f"holds{i}" not in self.taken)
        self.taken.add(name)
        number = to.op("reshape", to.op("cast", condition, dtype=I64), shape=(1,))
        to.node("sizes", (number,), {"names": (name,), "uppers": (1,)})
        to.guard(symbol(name), "==", 1, str(site.node.attributes["message"]))
        return (x,)


def _inside_of_maps(function: Function) -> set[int]:
    """The nodes in the regions of equations."""
    maps = (n for n in graph_nodes(function) if n.op == "linear_solve")
    return {id(inner) for node in maps for region in node.regions for inner in walk(region.nodes)}


_RULES = {"linear_solve": _Writer.solve, "checked": _Writer.check}
