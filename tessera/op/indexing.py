"""Indices from data: gathering, scattering, the best elements.

Takes tensors and integers; gives tensors. Invariant: an index outside of its axis ends the run with an error, it never
reads or writes elsewhere.
"""

from __future__ import annotations

from tessera.errors import LanguageError
from tessera.model.arguments import Count, door
from tessera.model.site import here
from tessera.model.tensor import Operand, Tensor, Value, described, emit, emit_all
from tessera.model.trace import needed
from tessera.op.axes import Axis, axis_of
from tessera.op.movement import transpose
from tessera_build.ir.graph.ops.shapes import count


@door
def gather(data: Value, indices: Operand, axis: Axis = 0) -> Tensor:
    """data[..., indices, ...] along an axis: the axis is replaced by those of the indices."""
    return emit("gather", data, indices, axis=axis_of(axis, data))


@door
def take_along(data: Value, indices: Operand, axis: Axis = -1) -> Tensor:
    """Like the indices: data at each element's own place, but at its index on the axis."""
    return emit("gather_elements", data, indices, axis=axis_of(axis, data))


@door
def scatter_elements(data: Value, indices: Value, updates: Value, axis: Axis = 0, *, add: bool = False) -> Tensor:
    """data with updates[p] at place p, but at indices[p] on the axis; `add` adds them to what is there."""
    return emit(
        "scatter_elements", data, indices, updates, axis=axis_of(axis, data), reduction="add" if add else "none"
    )


@door
def scatter(data: Value, indices: Value, updates: Value, *, add: bool = False) -> Tensor:
    """data[N, ...] with the rows that a vector of indices names replaced by those of updates, or added to."""
    if data.ndim < 1 or indices.ndim != 1 or updates.ndim != data.ndim:
        raise LanguageError(
            "TYPE_MISMATCH",
            "scatter takes rows and a vector of their places",
            site=here(),
            expected="data[N, ...], indices[M], updates[M, ...]",
            found=", ".join(described(x) for x in (data, indices, updates)),
        )
    width = count(data.shape[1:])
    rows = [emit("reshape", x, shape=(x.shape[0], width)) for x in (data, updates)]
    column = emit("reshape", indices, shape=(*indices.shape, 1))
    done = emit("scatter_nd", rows[0], column, rows[1], reduction="add" if add else "none")
    return emit("reshape", done, shape=data.shape)


@door
def top_k(x: Value, k: Count, axis: Axis = -1, *, largest: bool = True) -> tuple[Tensor, Tensor]:
    """The k largest (or smallest) elements along an axis, best first, and their places in it."""
    along = axis_of(axis, x)
    if along != x.ndim - 1:
        order = [*range(along), *range(along + 1, x.ndim), along]
        values, places = top_k(transpose(x, order), k, largest=largest)
        back = [*range(along), x.ndim - 1, *range(along, x.ndim - 1)]
        return transpose(values, back), transpose(places, back)
    rows = emit("reshape", x, shape=(count(x.shape[:-1]), x.shape[-1]))
    values, places = emit_all("top_k", (rows,), {"k": k, "largest": largest})
    needed().require(x.shape[-1], ">=", k, "top_k chooses more elements than there are")
    shape = (*x.shape[:-1], k)
    return emit("reshape", values, shape=shape), emit("reshape", places, shape=shape)
