"""Ops that read elements at computed positions: `gather` takes slices, `gather_elements` single elements.

Takes data and integer indices; gives what they choose. Invariant: an index outside -extent..extent-1 is an error at
run time, never a read of other memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bundle_format.errors import TesseraError
from tessera_build.ir.core.types import Type, tensor
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import Attributes, DimValues, Op, axis_of, expect_count, mismatch, texts


def _infer_gather(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("gather", types, 2)
    data, indices = types
    axis = axis_of(attributes, data.rank)
    if indices.dtype.kind not in ("signed", "unsigned"):
        raise mismatch("gather's indices are not integers", "an integer element type", indices)
    return (tensor(data.dtype, *data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]),)


def _positions(indices: Array, extent: int) -> NDArray[np.int64]:
    """Indices as numpy takes them; raises `TesseraError` for one outside the axis."""
    positions = indices.astype(np.int64)
    if positions.size and not (-extent <= positions.min() and positions.max() < extent):
        raise TesseraError(
            "INDEX_OUT_OF_RANGE",
            "gather reads outside its data",
            expected=f"indices from {-extent} to {extent - 1}",
            found=f"{positions.min()} to {positions.max()}",
        )
    return positions


def _evaluate_gather(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    data, indices = arrays
    axis = axis_of(attributes, data.ndim)
    return (np.take(data, _positions(indices, data.shape[axis]), axis),)


def _infer_gather_elements(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("gather_elements", types, 2)
    data, indices = types
    axis = axis_of(attributes, data.rank)
    if indices.dtype.kind not in ("signed", "unsigned"):
        raise mismatch("gather_elements' indices are not integers", "an integer element type", indices)
    fits = indices.rank == data.rank and all(
        own == whole or (isinstance(own, int) and isinstance(whole, int) and own <= whole)
        for i, (own, whole) in enumerate(zip(indices.shape, data.shape, strict=True))
        if i != axis
    )
    if not fits:
        raise mismatch(
            "gather_elements' indices do not fit its data",
            f"indices of the data's rank, no longer than the data on axes other than {axis}",
            texts(types),
        )
    return (tensor(data.dtype, *indices.shape),)


def _evaluate_gather_elements(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    data, indices = arrays
    axis = axis_of(attributes, data.ndim)
    part = data[tuple(slice(None if i == axis else n) for i, n in enumerate(indices.shape))]
    return (np.take_along_axis(part, _positions(indices, data.shape[axis]), axis),)


INDEXING: tuple[Op, ...] = (
    Op(
        "gather",
        "(data, indices) <{axis}> -> data.shape[:axis] + indices.shape + data.shape[axis+1:]",
        _infer_gather,
        _evaluate_gather,
        ("axis",),
        ordered=True,
    ),
    Op(
        "gather_elements",
        "(data, indices) <{axis}> -> like indices: data at each element's own place, but at its index on axis",
        _infer_gather_elements,
        _evaluate_gather_elements,
        ("axis",),
        ordered=True,
    ),
)
