"""Ops that change the resolution of images: `repeat`, `depth_to_space`, `resample`.

Takes a tensor; gives one whose spatial axes are longer or shorter. Invariant: each is one index map an element, so a
schedule may compute any part of a result alone and any order of axes serves it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import Type, tensor
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.contraction import LAYOUTS, conv_spatial_axes
from tessera_build.ir.graph.ops.op import (
    Attributes,
    DimValues,
    Op,
    axis_of,
    expect_count,
    expect_float,
    expect_same_dtype,
    extents_of,
    ints_of,
    mismatch,
    static,
    texts,
    wide,
    word_of,
)

# Which is outer in the channels of depth_to_space: the place in the block (DCR), or the result's channel (CRD).
ORDERS = ("DCR", "CRD")


def _infer_repeat(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("repeat", types, 1)
    factors = ints_of(attributes, "factors")
    if len(factors) != types[0].rank or any(f < 1 for f in factors):
        raise mismatch("repeat speaks of every axis", f"{types[0].rank} factors >= 1", factors)
    return (tensor(types[0].dtype, *(e * f for e, f in zip(types[0].shape, factors, strict=True))),)


def _evaluate_repeat(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    result = arrays[0]
    for axis, factor in enumerate(ints_of(attributes, "factors")):
        result = np.repeat(result, factor, axis) if factor > 1 else result
    return (result,)


def _infer_depth_to_space(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("depth_to_space", types, 1)
    x, layout = types[0], word_of(attributes, "layout", LAYOUTS)
    blocks, extents = ints_of(attributes, "blocks"), extents_of(attributes, "extents")
    word_of(attributes, "order", ORDERS)
    axes = conv_spatial_axes(x.rank, layout)
    if not len(blocks) == len(extents) == len(axes) or any(b < 1 for b in blocks):
        raise mismatch("depth_to_space speaks of every spatial axis", f"{len(axes)} blocks >= 1", dict(attributes))
    shape = list(x.shape)
    channel = 1 if layout == "NCHW" else x.rank - 1
    depth = shape[channel]
    if not isinstance(depth, int) or depth % math.prod(blocks):
        raise mismatch("depth_to_space divides the channels", f"a multiple of {math.prod(blocks)} channels", x)
    shape[channel] = depth // math.prod(blocks)
    for axis, block, extent in zip(axes, blocks, extents, strict=True):
        room = shape[axis] * block - extent
        if isinstance(room, int) and not 0 <= room < max(block, 1):
            raise mismatch("depth_to_space cuts less than a block", f"at most {shape[axis] * block}", extent)
        shape[axis] = extent
    return (tensor(x.dtype, *shape),)


def _evaluate_depth_to_space(arrays: Sequence[Array], attributes: Attributes, dims: DimValues) -> tuple[Array, ...]:
    """[N, *blocks, C, *S] or [N, C, *blocks, *S] → [N, C, S0, block0, S1, block1, ...] → cut to the extents."""
    last = word_of(attributes, "layout", LAYOUTS) == "NHWC"
    x = np.moveaxis(arrays[0], -1, 1) if last else arrays[0]
    blocks, count = ints_of(attributes, "blocks"), x.ndim - 2
    left = x.shape[1] // math.prod(blocks)
    if word_of(attributes, "order", ORDERS) == "DCR":
        split = x.reshape(x.shape[0], *blocks, left, *x.shape[2:])
    else:
        split = np.moveaxis(x.reshape(x.shape[0], left, *blocks, *x.shape[2:]), 1, 1 + count)
    pairs = [axis for i in range(count) for axis in (2 + count + i, 1 + i)]
    moved = np.transpose(split, (0, 1 + count, *pairs))
    whole = moved.reshape(x.shape[0], -1, *(e * b for e, b in zip(x.shape[2:], blocks, strict=True)))
    kept = tuple(slice(0, e) for e in static(extents_of(attributes, "extents"), dims))
    cut = whole[(slice(None), slice(None), *kept)]
    return (np.asarray(np.moveaxis(cut, 1, -1) if last else cut, order="C"),)


def _infer_resample(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("resample", types, 3)
    x, indices, weights = types
    axis = axis_of(attributes, x.rank)
    expect_same_dtype("resample", (x, weights))
    expect_float("resample", x)
    if indices.dtype.kind != "signed" or indices.rank != 2 or indices.shape != weights.shape:
        raise mismatch("resample takes an index for each weight", "integers and floats [taps, n]", texts(types))
    if not isinstance(indices.shape[0], int) or indices.shape[0] < 1:
        raise mismatch("resample has a static number of taps", "an integer >= 1", indices)
    result: Extent = indices.shape[1]
    return (tensor(x.dtype, *x.shape[:axis], result, *x.shape[axis + 1 :]),)


def _evaluate_resample(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    x, indices, weights = arrays
    axis = axis_of(attributes, x.ndim)
    along = [-1 if i == axis else 1 for i in range(x.ndim)]
    terms = [
        wide(np.take(x, positions.astype(np.int64), axis)) * wide(factors).reshape(along)
        for positions, factors in zip(indices, weights, strict=True)
    ]
    return (np.asarray(sum(terms[1:], start=terms[0])).astype(x.dtype),)


IMAGES: tuple[Op, ...] = (
    Op(
        "repeat",
        "(x) <{factors}> -> result[i, j, ...] = x[i // factors[0], j // factors[1], ...]",
        _infer_repeat,
        _evaluate_repeat,
        ("factors",),
        ordered=True,
    ),
    Op(
        "depth_to_space",
        "(x) <{blocks, extents, layout, order}> -> result[n, c, y, z] = x[n, p * C + c, y // b0, z // b1], where "
        "p = (y % b0) * b1 + z % b1 (order CRD: channel c * b0 * b1 + p), cut to extents",
        _infer_depth_to_space,
        _evaluate_depth_to_space,
        ("blocks", "extents", "layout", "order"),
        {"layout": "NCHW", "order": "DCR"},
        ordered=True,
    ),
    Op(
        "resample",
        "(x, indices[taps, n], weights[taps, n]) <{axis}> -> result[.., i, ..] = sum over t of weights[t, i] * "
        "x[.., indices[t, i], ..]",
        _infer_resample,
        _evaluate_resample,
        ("axis",),
        ordered=True,
    ),
)
