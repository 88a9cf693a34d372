"""Ops that put updates at computed positions: `scatter_elements`, `scatter_nd` and `scatter_rows`.

Takes data, integer indices and updates; gives a changed copy of the data. Invariant: updates apply in row-major
order, one after the other, and an index outside -extent..extent-1 is an error at run time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import (
    Attributes,
    DimValues,
    Op,
    axis_of,
    expect_count,
    flag_of,
    mismatch,
    texts,
    word_of,
)

REDUCTIONS = ("none", "add", "mul", "max", "min")
_COMBINED: dict[str, np.ufunc] = {
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


def _expect_update(op: str, types: Sequence[Type], attributes: Attributes) -> None:
    data, indices, updates = types
    if indices.dtype.kind not in ("signed", "unsigned"):
        raise mismatch(f"{op}'s indices are not integers", "an integer element type", indices)
    if updates.dtype != data.dtype:
        raise mismatch(f"{op} mixes element types", "updates of the data's element type", texts(types))
    reduction = word_of(attributes, "reduction", REDUCTIONS)
    if reduction in ("add", "mul") and data.dtype.kind == "bool":
        raise mismatch(f"{op} cannot {reduction} truth values", "a numeric element type", data)


def _infer_elements(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("scatter_elements", types, 3)
    _expect_update("scatter_elements", types, attributes)
    data, indices, updates = types
    axis_of(attributes, data.rank)
    if indices.rank != data.rank or updates.shape != indices.shape:
        raise mismatch("scatter_elements's operands do not fit", "indices and updates of one shape", texts(types))
    return (data,)


def _infer_nd(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("scatter_nd", types, 3)
    _expect_update("scatter_nd", types, attributes)
    data, indices, updates = types
    wanted: tuple[Extent, ...] = (*indices.shape[:1], *data.shape[-1:])
    if data.rank < 2 or indices.rank != 2 or indices.shape[1] != data.rank - 1 or updates.shape != wanted:
        raise mismatch("scatter_nd's operands do not fit", "data[D.., C], indices[M, K], updates[M, C]", texts(types))
    return (data,)


def _infer_rows(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("scatter_rows", types, 3)
    cache, updates, first = types
    flag_of(attributes, "circular")
    fits = cache.rank == updates.rank == 4 and updates.dtype == cache.dtype and first.shape == cache.shape[:1]
    if not fits or updates.shape != (*cache.shape[:2], updates.shape[2], cache.shape[3]):
        raise mismatch("scatter_rows's operands do not fit", "[B, P, S, Q], [B, P, T, Q], [B]", texts(types))
    if first.dtype.kind != "signed":
        raise mismatch("scatter_rows's first positions are not integers", "a signed integer type", first)
    return (cache,)


def _inside(indices: NDArray[np.int64], extent: int, *, negative: bool = True) -> NDArray[np.int64]:
    """Indices counted from the front; raises where one is out of range."""
    low = -extent if negative else 0
    if indices.size and not (low <= indices.min() and indices.max() < extent):
        raise TesseraError(
            "INDEX_OUT_OF_RANGE",
            "scatter writes outside its data",
            expected=f"indices from {low} to {extent - 1}",
            found=f"{indices.min()} to {indices.max()}",
        )
    return np.where(np.less(indices, 0), indices + extent, indices)


def _put(out: Array, places: tuple[NDArray[np.int64], ...], updates: Array, reduction: str) -> None:
    """Apply updates one after the other, in their own order."""
    if reduction in _COMBINED:
        _COMBINED[reduction].at(out, places, updates)
    else:
        out[places] = updates


def _evaluate_elements(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    data, indices, updates = arrays
    axis = axis_of(attributes, data.ndim)
    out, chosen = data.copy(), _inside(indices.astype(np.int64), data.shape[axis])
    own: Sequence[NDArray[np.int64]] = np.indices(indices.shape, sparse=True)
    places = tuple(chosen if i == axis else own[i] for i in range(data.ndim))
    _put(out, places, updates, str(attributes["reduction"]))
    return (out,)


def _evaluate_nd(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    data, indices, updates = arrays
    places = tuple(_inside(indices[:, k].astype(np.int64), data.shape[k]) for k in range(indices.shape[1]))
    out = data.copy()
    _put(out, places, updates, str(attributes["reduction"]))
    return (out,)


def _evaluate_rows(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    cache, updates, first = arrays
    circular, extent, steps = flag_of(attributes, "circular"), cache.shape[2], updates.shape[2]
    starts = _inside(first.astype(np.int64), extent if circular else extent - steps + 1, negative=False)
    out = cache.copy()
    for b, start in enumerate(starts):
        for step in range(steps):
            out[b, :, (int(start) + step) % extent] = updates[b, :, step]
    return (out,)


SCATTERS: tuple[Op, ...] = (
    Op(
        "scatter_elements",
        "(data, indices, updates) <{axis, reduction}> -> data with updates[p] at p with indices[p] on axis",
        _infer_elements,
        _evaluate_elements,
        ("axis", "reduction"),
        {"reduction": "none"},
        ordered=True,
    ),
    Op(
        "scatter_nd",
        "(data[D.., C], indices[M, K], updates[M, C]) <{reduction}> -> data with updates[m] at indices[m]",
        _infer_nd,
        _evaluate_nd,
        ("reduction",),
        {"reduction": "none"},
        ordered=True,
    ),
    Op(
        "scatter_rows",
        "(cache[B, P, S, Q], updates[B, P, T, Q], first[B]) <{circular}> -> cache with updates from row first[b] on",
        _infer_rows,
        _evaluate_rows,
        ("circular",),
        ordered=True,
    ),
)
