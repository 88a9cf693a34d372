"""Store the second operand of a product transposed, where it is computed and the product reads it across.

Takes a module whose transposes are flags of `matmul`; gives it with a transposition of its own for every second operand
that is not a constant. A product holds vectors of columns: columns that lie apart are collected element by element,
again for every tile of rows, while a transposition moves whole registers once. Invariant: products add up in the same
order, so bits stay.

    before:  %1 = "tgraph.matmul"(%q, %k) <{transpose_b = true}>
    after:   %1 = "tgraph.transpose"(%k) <{perm = (0, 1, 3, 2)}>
             %2 = "tgraph.matmul"(%q, %1) <{transpose_b = false}>
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.ops.op import flag_of, ints_of
from tessera_build.ir.graph.sweep import Site, rewrite


@dataclass(frozen=True, slots=True)
class StoreTransposed:
    """Transpose what products read across."""

    def run(self, module: Module) -> Module:
        """The module without `transpose_b` on computed operands. Nothing after it may make flags of transposes."""
        return rewrite(module, lambda: _store)


def _store(site: Site) -> Sequence[int] | None:
    if site.node.op != "matmul" or not flag_of(site.node.attributes, "transpose_b"):
        return None
    left, right = site.inputs
    source, rank = site.to.producer(right), site.to.type(right).rank
    if source is not None and source.op == "constant":
        return None  # is packed at build time in any order
    order = (*range(rank - 2), rank - 1, rank - 2)
    if source is not None and source.op == "transpose":
        before = ints_of(source.attributes, "perm")
        right, order = source.inputs[0], tuple(before[axis] for axis in order)
    moved = site.to.op("transpose", right, perm=order)
    return [site.to.op("matmul", left, moved, **(dict(site.node.attributes) | {"transpose_b": False}))]
