"""Ops that read elements at computed positions: `gather`.

Takes data and integer indices; gives the chosen slices. Invariant: an index outside -extent..extent-1 is an error at
run time, never a read of other memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bundle_format.errors import TesseraError
from tessera_build.ir.core.types import Type, tensor
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import Attributes, DimValues, Op, axis_of, expect_count, mismatch


def _infer_gather(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("gather", types, 2)
    data, indices = types
    axis = axis_of(attributes, data.rank)
    if indices.dtype.kind not in ("signed", "unsigned"):
        raise mismatch("gather's indices are not integers", "an integer element type", indices)
    return (tensor(data.dtype, *data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]),)


def _evaluate_gather(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    data, indices = arrays
    axis = axis_of(attributes, data.ndim)
    positions = indices.astype(np.int64)
    extent = data.shape[axis]
    if positions.size and not (-extent <= positions.min() and positions.max() < extent):
        raise TesseraError(
            "INDEX_OUT_OF_RANGE",
            "gather reads outside its data",
            expected=f"indices from {-extent} to {extent - 1}",
            found=f"{positions.min()} to {positions.max()}",
        )
    return (np.take(data, positions, axis),)


INDEXING: tuple[Op, ...] = (
    Op(
        "gather",
        "(data, indices) <{axis}> -> data.shape[:axis] + indices.shape + data.shape[axis+1:]",
        _infer_gather,
        _evaluate_gather,
        ("axis",),
        ordered=True,
    ),
)
