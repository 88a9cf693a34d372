"""Compute equal expressions once.

Takes a module; gives it with each (op, operands, attributes) at most once an entry. Invariant: values are not changed
at all, since every op is pure; the first of equal nodes stays and keeps its span.

    before:  %1 = "tgraph.exp"(%x)
             %2 = "tgraph.exp"(%x)
             %3 = "tgraph.add"(%1, %2)
             return %3
    after:   %1 = "tgraph.exp"(%x)
             %2 = "tgraph.add"(%1, %1)
             return %2
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from tessera_build.ir.graph.nodes import Attribute, Module
from tessera_build.ir.graph.sweep import Rule, Site, keep, rewrite


@dataclass(frozen=True, slots=True)
class EliminateCommon:
    """Merge equal nodes."""

    def run(self, module: Module) -> Module:
        """The module with equal nodes merged."""
        return rewrite(module, _merge_rule)


def _merge_rule() -> Rule:
    known: dict[Hashable, tuple[int, ...]] = {}

    def merge(site: Site) -> Sequence[int] | None:
        if site.node.regions:
            return None
        attributes = tuple(sorted((name, _exact(value)) for name, value in site.node.attributes.items()))
        key = (site.node.op, site.inputs, attributes)
        # What a region made is out of sight behind it.
        if key not in known or not all(site.to.visible(value) for value in known[key]):
            known[key] = keep(site)
        return known[key]

    return merge


def _exact(value: Attribute) -> str:
    # As text, because 1, 1.0 and True are equal in Python, and so are 0.0 and -0.0.
    return repr(value)
