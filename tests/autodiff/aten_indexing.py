"""Rows of the table of torch's operators that read and write at positions, or order elements.

Takes a writer and the operands of a traced call; gives values. Invariant: what cannot be written raises `Unmapped`.
"""

# ruff: noqa: ANN401  values of traced programs are anything

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tessera_build.ir.core.types import BOOL, I64
from tests.autodiff.aten_writer import Row, Unmapped, Value, Writer


def _row_of(w: Writer, indices: Sequence[Value], extents: Sequence[int], shape: Sequence[int]) -> int:
    """The place that positions along several axes mean, counted through all of them."""
    total: int | None = None
    for index, extent in zip(indices, extents, strict=True):
        place = w.cast(index.id, I64)
        size = w.b.scalar(extent, I64)
        place = w.b.op("select", w.b.op("lt", place, w.b.scalar(0, I64)), w.b.op("add", place, size), place)
        place = w.b.op("broadcast_to", place, shape=tuple(shape))
        total = place if total is None else w.b.op("add", w.b.op("mul", total, size), place)
    assert total is not None
    return total


class _Indexed:
    """Which axes positions speak of, and where their own axes stand in the result."""

    def __init__(self, w: Writer, x: Value, indices: Sequence[Any]) -> None:
        own = w.shape(x.id)
        self.axes = [axis for axis, index in enumerate(indices) if index is not None]
        self.given = [indices[axis] for axis in self.axes]
        if not self.axes or any(w.type(i.id).dtype == BOOL for i in self.given):
            raise Unmapped("positions of truth values")
        self.rest = [axis for axis in range(len(own)) if axis not in self.axes]
        self.extents = [own[a] for a in self.axes]
        self.others = [own[a] for a in self.rest]
        self.shape = np.broadcast_shapes(*(w.shape(i.id) for i in self.given))
        together = self.axes == list(range(self.axes[0], self.axes[-1] + 1))
        first = self.axes[0] if together else 0
        count = len(self.shape)
        # The axes of positions, then the others, as they stand in the result.
        self.order = [*range(first, first + count)]
        self.order += [i for i in range(count + len(self.rest)) if i not in self.order]
        if math.prod(self.extents) == 0:
            raise Unmapped("positions in nothing")

    def rows(self, w: Writer, x: Value) -> int:
        """The operand as a table with one row for each place."""
        front = w.b.op("transpose", x.id, perm=(*self.axes, *self.rest)) if len(w.shape(x.id)) > 1 else x.id
        return w.reshape(front, (math.prod(self.extents), math.prod(self.others)))

    def places(self, w: Writer) -> int:
        """The rows, in one vector."""
        return w.reshape(_row_of(w, self.given, self.extents, self.shape), (math.prod(self.shape),))


def _index(w: Writer, x: Value, indices: Sequence[Any]) -> int:
    at = _Indexed(w, x, indices)
    found = w.b.op("gather", at.rows(w, x), at.places(w), axis=0)
    back = tuple(int(i) for i in np.argsort(at.order))
    whole = w.reshape(found, (*at.shape, *at.others))
    return w.b.op("transpose", whole, perm=back) if back else whole


def _index_put(w: Writer, x: Value, indices: Sequence[Any], values: Value, accumulate: bool = False) -> int:
    shape = w.shape(x.id)
    masks = [i for i in indices if i is not None]
    if len(masks) == 1 and w.type(masks[0].id).dtype == BOOL:
        return _where_put(w, x, masks[0], values, accumulate)
    at = _Indexed(w, x, indices)
    result = (*at.shape, *at.others)
    given = tuple(result[at.order.index(i)] for i in range(len(result)))
    updates = w.b.op("broadcast_to", w.cast(values.id, w.type(x.id).dtype), shape=given)
    if at.order:
        updates = w.b.op("transpose", updates, perm=tuple(at.order))
    updates = w.reshape(updates, (math.prod(at.shape), math.prod(at.others)))
    places = w.reshape(at.places(w), (math.prod(at.shape), 1))
    table = w.b.op("scatter_nd", at.rows(w, x), places, updates, reduction="add" if accumulate else "none")
    whole = w.reshape(table, (*at.extents, *at.others))
    order = [*at.axes, *at.rest]
    return w.b.op("transpose", whole, perm=tuple(order.index(i) for i in range(len(shape)))) if order else whole


def _where_put(w: Writer, x: Value, mask: Value, values: Value, accumulate: bool) -> int:
    shape, own = w.shape(x.id), w.shape(mask.id)
    if math.prod(w.shape(values.id)) != 1 or own != shape[: len(own)]:
        raise Unmapped("as many values as there are truths")
    there = w.reshape(mask.id, (*own, *(1,) * (len(shape) - len(own))))
    number = w.reshape(w.cast(values.id, w.type(x.id).dtype), ())
    return w.b.op("select", there, w.b.op("add", x.id, number) if accumulate else number, x.id)


def _diagonal(w: Writer, x: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> int:
    places, others = _diagonal_places(w.shape(x.id), offset, dim1, dim2)
    flat = w.reshape(x.id, (math.prod(w.shape(x.id)),))
    found = w.b.op("gather", flat, w.b.constant(places.reshape(-1).copy()), axis=0)
    return w.reshape(found, (*others, places.shape[-1]))


def _diagonal_places(shape: Sequence[int], offset: int, dim1: int, dim2: int) -> tuple[Any, tuple[int, ...]]:
    numbers = np.arange(math.prod(shape)).reshape(shape)
    found = np.diagonal(numbers, offset, dim1 % len(shape), dim2 % len(shape))
    return found, found.shape[:-1]


def _diagonal_scatter(w: Writer, x: Value, source: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> int:
    shape = w.shape(x.id)
    places, _ = _diagonal_places(shape, offset, dim1, dim2)
    return _put_flat(w, x, source, places)


def _put_flat(w: Writer, x: Value, source: Value, places: Any) -> int:
    shape = w.shape(x.id)
    flat = w.reshape(x.id, (math.prod(shape),))
    where = w.b.constant(places.reshape(-1).copy())
    updates = w.reshape(source.id, (places.size,))
    return w.reshape(w.b.op("scatter_elements", flat, where, updates, axis=0, reduction="none"), shape)


def _sorted(w: Writer, x: Value, dim: int) -> tuple[int, int, list[int]]:
    """Values and places in ascending order along the last axis [..., N], and the permutation that put it there."""
    shape = w.shape(x.id)
    if not shape or 0 in shape:
        raise Unmapped("an order of nothing")
    perm = [i for i in range(len(shape)) if i != dim % len(shape)] + [dim % len(shape)]
    extent = shape[perm[-1]]
    lined = w.reshape(w.b.op("transpose", x.id, perm=tuple(perm)), (math.prod(shape) // extent, extent))
    values, places = w.b.node("top_k", (lined,), {"k": extent, "largest": False})
    whole = [shape[i] for i in perm]
    return w.reshape(values, whole), w.reshape(places, whole), perm


def _kth(w: Writer, x: Value, place: int, dim: int, keepdim: bool) -> tuple[int, int]:
    """The element of one place in ascending order, and where it was."""
    values, places, perm = _sorted(w, x, dim)
    shape, found = w.shape(values), list[int]()
    for whole in (values, places):
        cut = w.b.op(
            "slice",
            whole,
            starts=(*(0,) * (len(shape) - 1), place),
            stops=(*shape[:-1], place + 1),
            steps=(1,) * len(shape),
        )
        back = w.b.op("transpose", cut, perm=tuple(perm.index(i) for i in range(len(perm))))
        own = w.shape(back)
        axis = perm[-1]
        found.append(back if keepdim else w.reshape(back, own[:axis] + own[axis + 1 :]))
    return found[0], found[1]


def _median(w: Writer, x: Value, dim: Any = None, keepdim: bool = False) -> Any:
    shape = w.shape(x.id)
    if dim is None:
        flat = Value(w.reshape(x.id, (math.prod(shape),)))
        return _kth(w, flat, (math.prod(shape) - 1) // 2, 0, False)[0]
    return _kth(w, x, (shape[dim] - 1) // 2, dim, keepdim)


def _median_of_numbers(w: Writer, x: Value, dim: Any = None, keepdim: bool = False) -> Any:
    """Of what is a number; none where nothing is."""
    shape = w.shape(x.id)
    if dim is None:
        flat = Value(w.reshape(x.id, (math.prod(shape),)))
        return _median_of_numbers(w, flat, 0)[0]
    missing = w.b.op("isnan", x.id)
    values, places, perm = _sorted(w, Value(w.b.op("select", missing, w.value(math.inf), x.id)), dim)
    there = w.b.op("transpose", w.cast(w.b.op("not", missing), I64), perm=tuple(perm))
    number = w.b.op("reduce", there, kind="sum", axes=(len(shape) - 1,), keepdims=True)
    middle = w.b.op("max", w.b.op("sub", number, w.b.scalar(1, I64)), w.b.scalar(0, I64))
    middle = w.b.op("shr", middle, w.b.scalar(1, I64))
    none = w.b.op("eq", number, w.b.scalar(0, I64))
    found = [w.b.op("gather_elements", v, middle, axis=len(shape) - 1) for v in (values, places)]
    found[0] = w.b.op("select", none, w.value(math.nan), found[0])
    back, axis = tuple(perm.index(i) for i in range(len(perm))), perm[-1]
    kept = [w.b.op("transpose", v, perm=back) for v in found]
    own = w.shape(kept[0])
    return [v if keepdim else w.reshape(v, own[:axis] + own[axis + 1 :]) for v in kept]


def _kthvalue(w: Writer, x: Value, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    return _kth(w, x, k - 1, dim, keepdim)


def _extremum(kind: str) -> Row:
    """Along an axis: the first of several that are equal, as torch's derivative has it."""

    def row(w: Writer, x: Value, dim: Any = None, keepdim: bool = False) -> Any:
        shape = w.shape(x.id)
        if dim is None:
            return w.reduce(x.id, kind, None, False)
        perm = [i for i in range(len(shape)) if i != dim % len(shape)] + [dim % len(shape)]
        lined = w.reshape(w.b.op("transpose", x.id, perm=tuple(perm)), (math.prod(shape) // shape[dim], shape[dim]))
        results = w.b.node("top_k", (lined,), {"k": 1, "largest": kind == "max"})
        own = [1 if i == dim % len(shape) else e for i, e in enumerate(shape)]
        kept = own if keepdim else [e for i, e in enumerate(own) if i != dim % len(shape)]
        first, second = (w.reshape(r, kept) for r in results)
        return first, second

    return row


def _strided(w: Writer, x: Value, size: Sequence[int], stride: Sequence[int], offset: Any = None) -> int:
    """Of tensors that lie row by row, as samples do that no view was taken of."""
    places = _strided_places(w, x, size, stride, offset)
    flat = w.reshape(x.id, (math.prod(w.shape(x.id)),))
    return w.reshape(w.b.op("gather", flat, w.b.constant(places.reshape(-1).copy()), axis=0), size)


def _strided_places(w: Writer, x: Value, size: Sequence[int], stride: Sequence[int], offset: Any) -> Any:
    if not x.plain:
        raise Unmapped("strides of a view")
    steps = [np.arange(n) * s for n, s in zip(size, stride, strict=True)]
    places = sum(np.meshgrid(*steps, indexing="ij"), start=np.zeros(tuple(size), np.int64)) + (offset or 0)
    if places.size == 0 or places.max() >= math.prod(w.shape(x.id)):
        raise Unmapped("strides beyond a tensor")
    return places.astype(np.int64)


def _strided_scatter(
    w: Writer, x: Value, source: Value, size: Sequence[int], stride: Sequence[int], offset: Any = None
) -> int:
    return _put_flat(w, x, source, _strided_places(w, x, size, stride, offset))


def _index_reduce(
    w: Writer, x: Value, dim: int, index: Value, source: Value, reduce: str, *, include_self: bool = True
) -> int:
    """Slices combined with those at their places."""
    kinds = {"prod": "mul", "amax": "max", "amin": "min"}
    shape = w.shape(x.id)
    if reduce not in kinds or not include_self or not shape:
        raise Unmapped("a mean, or without what stands there")
    dim %= len(shape)
    own = [1] * len(shape)
    own[dim] = w.shape(source.id)[dim]
    places = w.b.op("broadcast_to", w.reshape(index.id, own), shape=w.shape(source.id))
    return w.b.op("scatter_elements", x.id, places, source.id, axis=dim, reduction=kinds[reduce])


def _argument(kind: str) -> Row:
    def row(w: Writer, x: Value, dim: Any = None, keepdim: bool = False) -> int:
        if dim is None:
            flat = Value(w.reshape(x.id, (math.prod(w.shape(x.id)),)))
            return _extremum(kind)(w, flat, 0)[1]
        return _extremum(kind)(w, x, dim, keepdim)[1]

    return row


def _put(w: Writer, x: Value, index: Value, source: Value, accumulate: bool = False) -> int:
    """Positions that are counted through all axes."""
    shape = w.shape(x.id)
    flat = Value(w.reshape(x.id, (math.prod(shape),)))
    return w.reshape(_index_put(w, flat, [index], source, accumulate), shape)


INDEXED: dict[str, Row] = {
    "put": _put,
    "index": _index,
    "_unsafe_index": _index,
    "index_put": _index_put,
    "_unsafe_index_put": _index_put,
    "diagonal": _diagonal,
    "diagonal_copy": _diagonal,
    "diagonal_scatter": _diagonal_scatter,
    "as_strided": _strided,
    "as_strided_copy": _strided,
    "as_strided_scatter": _strided_scatter,
    "median": _median,
    "nanmedian": _median_of_numbers,
    "index_reduce": _index_reduce,
    "kthvalue": _kthvalue,
    "max": _extremum("max"),
    "min": _extremum("min"),
    "argmax": _argument("max"),
    "argmin": _argument("min"),
}
