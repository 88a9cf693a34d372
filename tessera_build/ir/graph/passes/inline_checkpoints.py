"""Put the body of every checkpoint, and of every function with a stated derivative, in its place.

Takes a module; gives it without `checkpoint` and `stated`. Invariant: what is to be computed again was written by
differentiation before, in a block of its own, so nothing is lost.

    before:  %1 = "tgraph.checkpoint"(%x) ({ ^bb0(%a): %2 = "tgraph.exp"(%a); yield %2 })
             return %1
    after:   %1 = "tgraph.exp"(%x)
             return %1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tessera_build.ir.graph.autodiff.replay import Replay
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.sweep import Rule, Site, rewrite


@dataclass(frozen=True, slots=True)
class InlineCheckpoints:
    """Replace checkpoints by what they compute."""

    def run(self, module: Module) -> Module:
        """The module without checkpoints."""
        return rewrite(module, _rule)


def _rule() -> Rule:
    return _inline


def _inline(site: Site) -> Sequence[int] | None:
    if site.node.op not in ("checkpoint", "stated"):
        return None
    region, to = site.regions[0], site.to
    again = Replay(to, dict(zip(region.args, site.inputs, strict=True)), to.type, to.span_of)
    again.nodes(region.nodes)
    return [again.values.get(r, r) for r in region.results]
