"""Eliminations as ONNX operators: determinants, and linear equations by Gauss and Jordan's steps in a Loop.

Takes batches of square matrices; gives what was asked for. Invariant: the pivot of a column is its largest element, the
first of equal ones, as in Graph IR, so that both exchange the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.frontends.onnx.errors import unsupported
from tessera_build.frontends.onnx.export.elementwise import scalar
from tessera_build.frontends.onnx.export.movement import counted, expanded
from tessera_build.frontends.onnx.export.reductions import reduced
from tessera_build.frontends.onnx.export.site import Site, WriteNode
from tessera_build.frontends.onnx.export.writer import Block, Operand, Port
from tessera_build.ir.core.types import BOOL, I64, tensor


def _unread(site: Site) -> None:
    if site.used[0]:
        raise unsupported("the rows that an elimination leaves have no form in ONNX")


def _determinant(site: Site) -> tuple[Operand, ...]:
    _unread(site)
    found = site.writer.run("Det", site.inputs[0])
    return found, found


def _solve(site: Site) -> tuple[Operand, ...]:
    """A step for each column, then each row divided by what stands on the diagonal."""
    _unread(site)
    writer, extent = site.writer, site.types[0].shape[1]
    body, dtype = _body(site), site.inputs[0].dtype
    operands = (site.extents.scalar(extent), writer.number(True, BOOL), *site.inputs)
    matrix, right = writer.node("Loop", operands, (dtype, dtype), graphs={"body": body})
    diagonal = scalar(writer, "eq", [counted(site, (extent, 1), 0), counted(site, (1, extent), 1)])
    kept = writer.where(diagonal, matrix, writer.number(0, dtype))
    found = scalar(writer, "div", [right, reduced(site, kept, "sum", (2,), keepdims=True)])
    return matrix, found


def _body(site: Site) -> Block:
    writer, dtype = site.writer, site.inputs[0].dtype
    with writer.block("elimination") as block:
        column, going = Operand(writer.fresh("column"), I64), Operand(writer.fresh("going"), BOOL)
        carried = [Operand(writer.fresh("rows"), dtype) for _ in range(2)]
        block.inputs += [Port(column.name, tensor(I64)), Port(going.name, tensor(BOOL))]
        block.inputs += [Port(c.name, t) for c, t in zip(carried, site.types, strict=True)]
        changed = _step(site, writer.reshaped(column, 1), carried)
        for value, type_ in zip((going, *changed), (tensor(BOOL), *site.types), strict=True):
            own = writer.emit("Identity", value, dtype=value.dtype)
            block.outputs.append(Port(own.name, type_))
    return block


def _step(site: Site, column: Operand, rows: list[Operand]) -> list[Operand]:
    """Bring the pivot of a column to its row, and leave nothing of the column in the others."""
    writer, extent = site.writer, site.types[0].shape[1]
    numbers = counted(site, (1, extent), 1)
    here = scalar(writer, "eq", [numbers, column])
    sizes = scalar(writer, "abs", [_squeezed(site, writer.run_on("Gather", rows[0], column, axis=2))])
    above = scalar(writer, "lt", [numbers, column])
    sizes = writer.where(above, writer.number(-1, sizes.dtype), sizes)
    pivot = writer.emit("ArgMax", sizes, dtype=I64, axis=1, keepdims=1)
    order = writer.where(scalar(writer, "eq", [numbers, pivot]), column, numbers)
    order = writer.emit("Unsqueeze", writer.where(here, pivot, order), writer.integers(2), dtype=I64)
    moved = [
        writer.run_on("GatherElements", r, expanded(site, order, t.shape), axis=1)
        for r, t in zip(rows, site.types, strict=True)
    ]
    heads = [writer.run_on("Gather", m, column, axis=1) for m in moved]
    factors = scalar(
        writer,
        "div",
        [writer.run_on("Gather", moved[0], column, axis=2), writer.run_on("Gather", heads[0], column, axis=2)],
    )
    own = writer.emit("Unsqueeze", here, writer.integers(2), dtype=BOOL)
    factors = writer.where(own, writer.number(0, factors.dtype), factors)
    return [scalar(writer, "sub", [m, scalar(writer, "mul", [factors, h])]) for m, h in zip(moved, heads, strict=True)]


def _squeezed(site: Site, x: Operand) -> Operand:
    return site.writer.emit("Squeeze", x, site.writer.integers(2), dtype=x.dtype)


MATRIX_WRITERS: Mapping[str, WriteNode] = {"determinant": _determinant, "solve": _solve}
