"""Ops that find how many there are as ONNX operators, whose results have exactly the elements that were found.

Takes operands; gives buffers filled up with zeros to the largest size, and counts. Invariant: what `sizes` cuts out of
a buffer is what the ONNX operator gave.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.frontends.onnx.export.elementwise import scalar
from tessera_build.frontends.onnx.export.indexing import best, scattered
from tessera_build.frontends.onnx.export.kernels import carrier
from tessera_build.frontends.onnx.export.movement import counted, cut, expanded, joined
from tessera_build.frontends.onnx.export.reductions import reduced
from tessera_build.frontends.onnx.export.site import Site, WriteNode
from tessera_build.frontends.onnx.export.writer import Operand
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import BOOL, I64
from tessera_build.ir.graph.ops.op import extent_of, flag_of


def _length(site: Site, x: Operand) -> Operand:
    """The first extent as it is at run time, a vector of one."""
    return site.writer.emit("Shape", x, dtype=I64, start=0, end=1)


def _filled(site: Site, found: Operand, extent: Extent) -> Operand:
    """A vector with zeros behind it, up to an extent."""
    writer = site.writer
    room = writer.emit("Sub", site.extents.vector(extent), _length(site, found), dtype=I64)
    sizes = writer.emit("Concat", writer.integers(0), room, dtype=I64, axis=0)
    return writer.emit("Pad", found, sizes, dtype=I64)


def _as_scalar(site: Site, x: Operand) -> Operand:
    return site.writer.emit("Squeeze", x, site.writer.integers(0), dtype=x.dtype)


def _places(site: Site, found: Operand) -> Operand:
    """The places of true elements of a vector."""
    return site.writer.reshaped(site.writer.emit("NonZero", found, dtype=I64), -1)


def _non_zero(site: Site) -> tuple[Operand, ...]:
    places = _places(site, site.inputs[0])
    return _filled(site, places, site.types[0].shape[0]), _as_scalar(site, _length(site, places))


def _sort_rows(site: Site) -> tuple[Operand, ...]:
    """Unique's number of each row, sorted: the places are the order, and where the number changes a group begins."""
    (x,), writer, rows = site.inputs, site.writer, site.types[0].shape[0]
    through = carrier("Unique", x.dtype)
    dtypes = (through, I64, I64, I64)
    attributes = {"axis": 0, "sorted": 1}
    *_, inverse, _counts = writer.node("Unique", (writer.cast(x, through),), dtypes, attributes)
    numbers, order = best(site, inverse, site.extents.vector(rows), largest=False)
    apart = scalar(writer, "ne", [cut(site, numbers, [(0, 1, rows, 1)]), cut(site, numbers, [(0, 0, rows - 1, 1)])])
    return order, joined(site, [writer.constant([True], BOOL), apart], 0)


def _groups(site: Site) -> tuple[Operand, ...]:
    (heads, places), writer, extent = site.inputs, site.writer, site.types[0].shape[0]
    ones = writer.cast(heads, I64)
    running = writer.emit("CumSum", ones, writer.number(0, I64), dtype=I64)
    of = scalar(writer, "sub", [running, writer.number(1, I64)])
    zeros = expanded(site, writer.number(0, I64), (extent,))
    inverse = scattered(site, "ScatterElements", (zeros, places, of), axis=0)
    each = expanded(site, writer.number(1, I64), (extent,))
    counts = scattered(site, "ScatterElements", (zeros, of, each), axis=0, reduction="add")
    firsts = writer.emit("Compress", places, heads, dtype=I64, axis=0)
    return _filled(site, firsts, extent), counts, inverse, reduced(site, ones, "sum", (0,))


def _suppress(site: Site) -> tuple[Operand, ...]:
    """NonMaxSuppression lists (image, class, box); each box goes to its place among those of its image and class."""
    (boxes, scores, most, iou, least), writer = site.inputs, site.writer
    batches, classes, _ = site.types[1].shape
    limits = [writer.reshaped(limit, 1) for limit in (most, iou, least)]
    listed = writer.emit(
        "NonMaxSuppression",
        boxes,
        scores,
        *limits,
        dtype=I64,
        center_point_box=int(flag_of(site.attributes, "centred")),
    )
    pairs = cut(site, listed, [(1, 0, 2, 1)])
    zeros = expanded(site, writer.number(0, I64), (batches, classes))
    each = writer.emit("Expand", writer.number(1, I64), _length(site, listed), dtype=I64)
    counts = scattered(site, "ScatterND", (zeros, pairs, each), reduction="add")
    flat = writer.reshaped(counts, -1)
    begins = writer.emit("CumSum", flat, writer.number(0, I64), dtype=I64, exclusive=1)
    begins = writer.emit("Reshape", begins, site.extents.shape((batches, classes)), dtype=I64, allowzero=1)
    numbers = writer.emit(
        "Range", writer.number(0, I64), _as_scalar(site, _length(site, listed)), writer.number(1, I64), dtype=I64
    )
    rank = scalar(writer, "sub", [numbers, writer.emit("GatherND", begins, pairs, dtype=I64)])
    at = writer.emit("Concat", pairs, writer.reshaped(rank, -1, 1), dtype=I64, axis=1)
    box = writer.emit("Gather", listed, writer.number(2, I64), dtype=I64, axis=1)
    empty = expanded(site, writer.number(0, I64), site.types[1].shape)
    return scattered(site, "ScatterND", (empty, at, box)), counts


def _listed(site: Site) -> tuple[Operand, ...]:
    (chosen, counts), writer = site.inputs, site.writer
    batches, classes, boxes = site.types[0].shape
    numbers = counted(site, (1, 1, boxes), 2)
    held = scalar(writer, "lt", [numbers, writer.emit("Unsqueeze", counts, writer.integers(2), dtype=I64)])
    at = writer.emit("NonZero", held, dtype=I64)
    found = writer.emit("GatherND", chosen, writer.run("Transpose", at, perm=(1, 0)), dtype=I64)
    rows = writer.emit("Concat", cut(site, at, [(0, 0, 2, 1)]), writer.reshaped(found, 1, -1), dtype=I64, axis=0)
    total = _length(site, found)
    room = writer.emit(
        "Sub", site.extents.vector(batches * classes * extent_of(site.attributes["most"])), total, dtype=I64
    )
    sizes = writer.emit("Concat", writer.integers(0, 0, 0), room, dtype=I64, axis=0)
    return writer.emit("Pad", rows, sizes, dtype=I64), _as_scalar(site, total)


COUNTING_WRITERS: Mapping[str, WriteNode] = {
    "non_zero": _non_zero,
    "sort_rows": _sort_rows,
    "groups": _groups,
    "suppress": _suppress,
    "listed": _listed,
}
