"""Gathers, scatters, look-ups and the choice of the best as ONNX operators.

Takes data and integers; gives what they choose. Invariant: an index out of range is onnxruntime's to refuse, as it is
an error of a bundle's run.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.frontends.onnx.export.elementwise import reread, scalar
from tessera_build.frontends.onnx.export.kernels import carrier
from tessera_build.frontends.onnx.export.movement import counted, expanded
from tessera_build.frontends.onnx.export.site import Site, WriteNode
from tessera_build.frontends.onnx.export.writer import Operand, Writer
from tessera_build.ir.core.types import BOOL, I32, I64, U64, int_extent
from tessera_build.ir.graph.ops.op import axis_of, extent_of, flag_of, word_of
from tessera_build.ir.graph.ops.scatter import REDUCTIONS

_TOP = 1 << 63


def places(writer: Writer, indices: Operand) -> Operand:
    """Indices in a type that ONNX takes."""
    return indices if indices.dtype in (I32, I64) else writer.cast(indices, I64)


def _gather(site: Site) -> Operand:
    data, indices = site.inputs
    axis = axis_of(site.attributes, site.types[0].rank)
    return site.writer.run_on("Gather", data, places(site.writer, indices), axis=axis)


def _gather_elements(site: Site) -> Operand:
    data, indices = site.inputs
    axis = axis_of(site.attributes, site.types[0].rank)
    return site.writer.run_on("GatherElements", data, places(site.writer, indices), axis=axis)


def scattered(site: Site, op: str, operands: tuple[Operand, Operand, Operand], **attributes: int | str) -> Operand:
    """Updates put into data by one of ONNX's operators."""
    data, indices, updates = operands
    combines = attributes.get("reduction", "none") != "none"
    writer, through = site.writer, carrier("ScatterCombined" if combines else op, data.dtype)
    values = (writer.cast(data, through), writer.cast(indices, I64), writer.cast(updates, through))
    return writer.cast(writer.emit(op, *values, dtype=through, **attributes), data.dtype)


def _scatter_elements(site: Site) -> Operand:
    data, indices, updates = site.inputs
    axis = axis_of(site.attributes, site.types[0].rank)
    reduction = word_of(site.attributes, "reduction", REDUCTIONS)
    return scattered(site, "ScatterElements", (data, indices, updates), axis=axis, reduction=reduction)


def _scatter_nd(site: Site) -> Operand:
    data, indices, updates = site.inputs
    reduction = word_of(site.attributes, "reduction", REDUCTIONS)
    return scattered(site, "ScatterND", (data, indices, updates), reduction=reduction)


def _scatter_rows(site: Site) -> Operand:
    """Row t of the updates to row first[b] + t, which starts again at 0 in a ring."""
    (cache, updates, first), writer = site.inputs, site.writer
    steps, rows = site.types[1].shape[2], site.types[0].shape[2]
    start = writer.reshaped(writer.cast(first, I64), -1, 1, 1, 1)
    row = scalar(writer, "add", [start, counted(site, (1, 1, steps, 1), 2)])
    if flag_of(site.attributes, "circular"):
        row = writer.emit("Mod", row, site.extents.vector(rows), dtype=I64)
    indices = expanded(site, row, site.types[1].shape)
    return scattered(site, "ScatterElements", (cache, indices, updates), axis=2)


def best(site: Site, x: Operand, k: Operand, *, largest: bool) -> tuple[Operand, Operand]:
    """Values and places of the k best of each row; the order of u64 is that of i64 with the highest bit turned."""
    writer = site.writer
    if x.dtype == U64:
        top = writer.number(_TOP, U64)
        turned = reread(writer, writer.emit("BitwiseXor", x, top, dtype=U64), I64)
        values, chosen = best(site, turned, k, largest=largest)
        return writer.emit("BitwiseXor", reread(writer, values, U64), top, dtype=U64), chosen
    through = carrier("TopK", x.dtype)
    attributes = {"axis": -1, "largest": int(largest), "sorted": 1}
    values, chosen = writer.node("TopK", (writer.cast(x, through), k), (through, I64), attributes)
    return writer.cast(values, x.dtype), chosen


def _top_k(site: Site) -> tuple[Operand, ...]:
    k = site.extents.vector(extent_of(site.attributes["k"]))
    return best(site, site.inputs[0], k, largest=flag_of(site.attributes, "largest"))


def _look_up(site: Site) -> Operand:
    """A binary search without branches: the last place whose key is not above x, a power of two at a time."""
    (x, keys, values, default), writer = site.inputs, site.writer
    number = int_extent(site.types[1].shape[0])
    last = writer.number(number - 1, I64)
    place = expanded(site, writer.number(0, I64), site.types[0].shape)
    for step in (1 << i for i in reversed(range((number - 1).bit_length()))):
        candidate = scalar(writer, "add", [place, writer.number(step, I64)])
        inside = scalar(writer, "min", [candidate, last])
        low = scalar(writer, "le", [writer.run_on("Gather", keys, inside, axis=0), x])
        kept = writer.emit("And", low, scalar(writer, "le", [candidate, last]), dtype=BOOL)
        place = writer.where(kept, candidate, place)
    same = scalar(writer, "eq", [writer.run_on("Gather", keys, place, axis=0), x])
    return writer.where(same, writer.run_on("Gather", values, place, axis=0), default)


INDEXING_WRITERS: Mapping[str, WriteNode] = {
    "gather": _gather,
    "gather_elements": _gather_elements,
    "scatter_elements": _scatter_elements,
    "scatter_nd": _scatter_nd,
    "scatter_rows": _scatter_rows,
    "top_k": _top_k,
    "look_up": _look_up,
}
