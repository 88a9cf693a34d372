"""Make products of a matrix and one vector what reads the matrix along its rows.

Takes a module after layouts are chosen; gives it with products of one column, and of one row with a transposed
operand, as sums along rows, or with operands exchanged where the other one is packed or has its columns side by
side. A product holds vectors of columns: of one column it multiplies numbers, and collects rows element by element.
Of a matrix that data choose among others, sums read the one that is chosen, and no product wants a copy of it.
Invariant: each sum has the terms that it had; entries that give derivatives keep theirs, which are short sums.

    before:  %1 = "tgraph.matmul"(%a, %x)
    after:   %1 = "tgraph.reshape"(%x) <{shape = [1, 768]}>
             %2 = "tgraph.mul"(%a, %1)
             %3 = "tgraph.reduce"(%2) <{kind = "sum", axes = [1], keepdims = true}>
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tessera_build.ir.core.types import F32, F64
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.ops.op import flag_of
from tessera_build.ir.graph.sweep import Site, rewrite

# Of fewer elements a row is no more than a register, whose lanes are added up for every result.
_LEAST_DEPTH = 16


@dataclass(frozen=True, slots=True)
class MultiplyVectors:
    """Rewrite products of float32 and float64 in entries that give no derivatives."""

    def run(self, module: Module) -> Module:
        """The module with such products rewritten. Nothing after it may need one as a single node."""
        return rewrite(module, lambda: _multiply, without=module.derivatives)


def _multiply(site: Site) -> Sequence[int] | None:
    if site.node.op != "matmul" or site.old.types[site.node.output].dtype not in (F32, F64):
        return None
    shape = site.old.types[site.node.output].shape
    across_a, along_b = (flag_of(site.node.attributes, name) for name in ("transpose_a", "transpose_b"))
    a, b = site.inputs
    if shape[-1] != 1:
        row = _row_times(site, a, b, along=along_b) if shape[-2] == 1 else None
        return None if row is None else [site.to.op("reshape", row, shape=shape)]
    if shape[-2] != 1 and (across_a or _is_constant(site, a)):
        row = _row_times(site, b, a, along=not across_a)
        return [site.to.op("reshape", _exchanged(site, across_a=across_a) if row is None else row, shape=shape)]
    return [_sum(site, a, b, along=True)] if not across_a and _is_deep(site, a) else None


def _row_times(site: Site, vector: int, matrix: int, *, along: bool) -> int | None:
    """A vector times a matrix, whose rows (`along`) or columns the sums are; none where that is best a product."""
    if along:
        is_sum = not _is_constant(site, matrix) and _is_deep(site, matrix)
    else:  # a product reads columns as they lie, but of no matrix that is not stored
        source = site.to.producer(matrix)
        is_sum = source is not None and source.op == "gather"
    return _sum(site, matrix, vector, along=along) if is_sum else None


def _is_constant(site: Site, value: int) -> bool:
    return site.to.array(value) is not None


def _is_deep(site: Site, matrix: int) -> bool:
    depth = site.to.type(matrix).shape[-1]
    return not isinstance(depth, int) or depth >= _LEAST_DEPTH


def _sum(site: Site, matrix: int, vector: int, *, along: bool) -> int:
    """A matrix times a vector of either direction: of its rows (`along`), as a column, or of its columns, as a row."""
    product = site.to.op("mul", matrix, _turned(site, vector, row=along))
    axis = site.to.type(product).rank - (1 if along else 2)
    return site.to.op("reduce", product, kind="sum", axes=(axis,), keepdims=True)


def _exchanged(site: Site, *, across_a: bool) -> int:
    """The same product as one row."""
    a, b = site.inputs
    return site.to.op("matmul", _turned(site, b, row=True), a, transpose_a=False, transpose_b=not across_a)


def _turned(site: Site, vector: int, *, row: bool) -> int:
    """A column, or a row, as a row, or as a column."""
    *batch, rows, columns = site.to.type(vector).shape
    extent = columns if rows == 1 else rows
    return site.to.op("reshape", vector, shape=(*batch, *((1, extent) if row else (extent, 1))))
