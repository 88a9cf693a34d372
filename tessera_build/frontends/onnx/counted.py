"""Operators whose results have as many elements as the data say: NonZero, Compress, Unique, NonMaxSuppression.

Takes tensors; gives a kernel's buffer of the largest size cut to the count that it found. Invariant: the extent of a
result is a symbol read from data once, which everything after it shares.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.content import is_symbolic
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.frontends.onnx.indexing import counting
from tessera_build.ir.core.dims import Extent, bounds, minimum
from tessera_build.ir.core.types import BOOL, F32, I8, I64
from tessera_build.ir.graph.ops.shapes import count


def _places(c: Context, x: Tensor) -> Tensor:
    """Places of the elements of a vector that are not zero."""
    found = x if x.dtype == BOOL else c.op("ne", x, c.scalar(0, x.dtype))
    places, total = c.several("non_zero", found)
    return c.counted(places, total)


def _non_zero(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    places = _places(c, c.reshape(x, (count(x.shape),)))
    rows: list[Tensor] = []
    for axis in range(x.rank):
        inner = count(x.shape[axis + 1 :])
        along = places if inner == 1 else c.op("div", places, c.number(inner, I64))
        if axis:
            along = c.op("sub", along, c.op("mul", c.op("div", along, _extent(c, x, axis)), _extent(c, x, axis)))
        rows.append(c.reshape(along, (1, *places.shape)))
    if not rows:
        return c.slice(c.reshape(places, (1, *places.shape)), (0, 0), (0, places.shape[0]))
    return rows[0] if len(rows) == 1 else c.op("concat", *rows, axis=0)


def _extent(c: Context, x: Tensor, axis: int) -> Tensor:
    return c.number(x.shape[axis], I64)


def _compress(c: Context, n: Call) -> Tensor:
    """The slices along an axis, or the elements, for which the condition holds."""
    x, condition = n.input(0), n.input(1)
    if condition.rank != 1:
        raise ill_formed("Compress takes a vector of conditions", found=str(condition.type))
    axis = n.axis(x.rank) if n.has("axis") else 0
    x = x if n.has("axis") else c.reshape(x, (count(x.shape),))
    own, extent = condition.shape[0], x.shape[axis]
    if isinstance(own, int) and isinstance(extent, int) and own > extent:  # onnxruntime reads no further
        condition = c.slice(condition, (0,), (extent,))
    return c.op("gather", x, _places(c, condition), axis=axis)


def _unique(c: Context, n: Call) -> tuple[Tensor, ...]:
    """Elements, or slices along an axis, without repetitions; where each came from, where each went, how often."""
    x, ordered = n.input(0), bool(n.integer("sorted", 1))
    axis = n.axis(x.rank) if n.has("axis") else None
    line = c.reshape(x, (count(x.shape),)) if axis is None else x
    axis = axis or 0
    heads, places = _sorted(c, line, axis)
    firsts, counts, inverse, number = c.several("groups", heads, places)
    firsts, counts = c.counted(firsts, number), c.counted(counts, number)
    if not ordered:
        firsts, counts, inverse = _by_appearance(c, firsts, counts, inverse)
    return c.op("gather", line, firsts, axis=axis), firsts, inverse, counts


def _sorted(c: Context, x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Where groups of equal slices start when the slices are sorted, and where each of them came from."""
    x = c.cast(x, I8) if x.dtype == BOOL else x
    extent, rest = x.shape[axis], [i for i in range(x.rank) if i != axis]
    if rest or (bounds(extent, c.ranges)[0] or 0) < 1:  # a line that may be empty has no first element either
        rows = c.reshape(c.transpose(x, (axis, *rest)), (extent, count([x.shape[i] for i in rest])))
        places, heads = c.several("sort_rows", rows)
        return heads, places
    values, places = c.several("top_k", c.reshape(x, (1, extent)), k=extent, largest=False)
    line = c.reshape(values, (extent,))
    changes = c.op("ne", c.slice(line, (0,), (extent - 1,)), c.slice(line, (1,), (extent,)))
    return c.op("concat", c.constant(np.ones(1, np.bool_)), changes, axis=0), c.reshape(places, (extent,))


def _by_appearance(c: Context, firsts: Tensor, counts: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Groups in the order of their first elements."""
    number = firsts.shape[0]
    _, order = c.several("top_k", c.reshape(firsts, (1, number)), k=number, largest=False)
    order = c.reshape(order, (number,))
    ranks = c.op(
        "scatter_elements",
        c.broadcast_to(c.scalar(0, I64), (number,)),
        order,
        c.cast(counting(c, 1, 0, number), I64),
        axis=0,
    )
    first, count_of = (c.op("gather", t, order, axis=0) for t in (firsts, counts))
    return first, count_of, c.op("gather", ranks, inverse, axis=0)


def _non_max_suppression(c: Context, n: Call) -> Tensor:
    boxes, scores = n.input(0), n.input(1)
    if boxes.rank != 3 or scores.rank != 3:
        raise ill_formed("NonMaxSuppression takes boxes and scores", found=f"{boxes.type}, {scores.type}")
    centred = n.integer("center_point_box", 0)
    if centred not in (0, 1):
        raise ill_formed("NonMaxSuppression's center_point_box is neither 0 nor 1", found=str(centred))
    batches = c.unify(boxes.shape[0], scores.shape[0], "boxes and scores have different batches")
    number = c.unify(boxes.shape[1], scores.shape[2], "there are not as many scores as boxes")
    c.unify(boxes.shape[2], 4, "a box has four numbers")
    given = c.retyped(boxes, (batches, number, 4)), c.retyped(scores, (batches, scores.shape[1], number))
    most, iou, least = n.optional(2), n.optional(3), n.optional(4)
    limits = (
        c.cast(c.reshape(most, ()), I64) if most is not None else c.scalar(0, I64),
        c.reshape(iou, ()) if iou is not None else c.scalar(0.0, F32),
        c.reshape(least, ()) if least is not None else c.scalar(-np.inf, F32),
    )
    chosen, counts = c.several("suppress", *given, *limits, centred=bool(centred))
    rows, total = c.several("listed", chosen, counts, most=_most(limits[0], number))
    return c.transpose(c.counted(rows, total, 1), (1, 0))


def _most(stated: Tensor, boxes: Extent) -> Extent:
    """How many boxes of a class can be chosen: all of them where the limit comes with the data."""
    if stated.content is None or is_symbolic(stated.content):
        return boxes
    return minimum(max(int(stated.content.reshape(())), 0), boxes)


COUNTED_OPERATORS: Mapping[str, Translator] = {
    "NonZero": _non_zero,
    "Compress": _compress,
    "Unique": _unique,
    "NonMaxSuppression": _non_max_suppression,
}
