"""Turn convolution regions from channels-first to channels-last.

Takes a module with NCHW convolutions; gives it with NHWC ones, transposed once where a region begins and, if needed,
where it ends; regions of depthwise convolutions alone may stay as they are (`layout/planes.py`). Invariant: every value
is the same tensor with its axes in another order; what is not in a region keeps its order. Why channels-last:
docs/adr/0004-channels-last.md.

    before:  %1 = "tgraph.conv"(%x, %w) <{layout = "NCHW"}>
             %2 = "tgraph.add"(%1, %bias)
             %3 = "tgraph.reduce"(%2) <{axes = [2, 3]}>
             return %3
    after:   %1 = "tgraph.transpose"(%x) <{perm = [0, 2, 3, 1]}>
             %2 = "tgraph.conv"(%1, %w) <{layout = "NHWC"}>
             %3 = "tgraph.transpose"(%bias) <{perm = [0, 2, 3, 1]}>
             %4 = "tgraph.add"(%2, %3)
             %5 = "tgraph.reduce"(%4) <{axes = [1, 2]}>
             return %5
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.passes.layout.moved import Moved
from tessera_build.ir.graph.passes.layout.planes import planes_of
from tessera_build.ir.graph.passes.layout.rules import layout_rule
from tessera_build.ir.graph.sweep import Rule, Site, rewrite


@dataclass(frozen=True, slots=True)
class LayoutChannelsLast:
    """Give every conv the layout NHWC and let the order of axes flow through the ops that can carry it."""

    def run(self, module: Module) -> Module:
        """The module with channels-last regions."""
        return rewrite(module, _rule)


def _rule() -> Rule:
    moved = Moved()
    stays: frozenset[int] | None = None

    def place(site: Site) -> Sequence[int] | None:
        nonlocal stays
        stays = planes_of(site.old) if stays is None else stays
        rule = layout_rule(site.node.op)
        return None if rule is None or not stays.isdisjoint(site.node.outputs) else rule(site, moved)

    return place
