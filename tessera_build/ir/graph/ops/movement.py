"""Ops that move elements and compute none: reshape, transpose, broadcast_to, concat, slice, pad.

Takes tensors; gives one tensor whose elements are elements of the operands (or pad's value). Invariant: row-major
order is the order of elements, and the count of elements is provably kept by `reshape` for every value of the dims.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import Type, tensor
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import (
    Attributes,
    DimValues,
    Op,
    axis_of,
    expect_count,
    expect_same_dtype,
    extents_of,
    ints_of,
    mismatch,
    number_of,
    static,
    texts,
)
from tessera_build.ir.graph.ops.shapes import broadcast_shapes, ceildiv, count, shape_text


def _infer_reshape(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("reshape", types, 1)
    shape = extents_of(attributes, "shape")
    if count(shape) != count(types[0].shape):
        raise mismatch(
            "reshape changes the number of elements",
            f"{count(types[0].shape)} elements of {types[0]}",
            f"{count(shape)} in {shape_text(shape)}",
        )
    return (tensor(types[0].dtype, *shape),)


def _evaluate_reshape(arrays: Sequence[Array], attributes: Attributes, dims: DimValues) -> tuple[Array, ...]:
    return (arrays[0].reshape(static(extents_of(attributes, "shape"), dims)),)


def _infer_transpose(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("transpose", types, 1)
    perm = ints_of(attributes, "perm")
    if sorted(perm) != list(range(types[0].rank)):
        raise mismatch("transpose's perm is no permutation", f"a permutation of {types[0].rank} axes", perm)
    return (tensor(types[0].dtype, *(types[0].shape[p] for p in perm)),)


def _evaluate_transpose(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    return (np.asarray(np.transpose(arrays[0], ints_of(attributes, "perm")), order="C"),)


def _infer_broadcast_to(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("broadcast_to", types, 1)
    shape = extents_of(attributes, "shape")
    if broadcast_shapes("broadcast_to", [types[0].shape, shape]) != shape:
        raise mismatch(
            "broadcast_to cannot shrink its operand", f"a shape that {types[0]} broadcasts to", shape_text(shape)
        )
    return (tensor(types[0].dtype, *shape),)


def _evaluate_broadcast_to(arrays: Sequence[Array], attributes: Attributes, dims: DimValues) -> tuple[Array, ...]:
    return (np.asarray(np.broadcast_to(arrays[0], static(extents_of(attributes, "shape"), dims)), order="C"),)


def _infer_concat(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    if not types:
        raise mismatch("concat joins at least one tensor", "operands", "none")
    dtype = expect_same_dtype("concat", types)
    axis = axis_of(attributes, types[0].rank)
    others = {t.shape[:axis] + t.shape[axis + 1 :] for t in types if t.rank == types[0].rank}
    if len(others) != 1 or any(t.rank != types[0].rank for t in types):
        raise mismatch(
            f"concat's operands differ outside axis {axis}", "equal extents on every other axis", texts(types)
        )
    total: Extent = 0
    for t in types:
        total = total + t.shape[axis]
    return (tensor(dtype, *types[0].shape[:axis], total, *types[0].shape[axis + 1 :]),)


def _evaluate_concat(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    return (np.concatenate(list(arrays), axis_of(attributes, arrays[0].ndim)),)


def _infer_slice(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("slice", types, 1)
    starts, stops = extents_of(attributes, "starts"), extents_of(attributes, "stops")
    steps = ints_of(attributes, "steps")
    if not len(starts) == len(stops) == len(steps) == types[0].rank:
        raise mismatch("slice speaks of every axis", f"{types[0].rank} values each", dict(attributes))
    shape: list[Extent] = []
    for start, stop, step, extent in zip(starts, stops, steps, types[0].shape, strict=True):
        if step < 1 or any(isinstance(d, int) and d < 0 for d in (start, stop - start, extent - stop)):
            raise mismatch(
                "slice leaves its operand",
                "0 <= start <= stop <= extent and step >= 1",
                f"{start}:{stop}:{step} of {extent}",
            )
        shape.append(ceildiv(stop - start, step))
    return (tensor(types[0].dtype, *shape),)


def _evaluate_slice(arrays: Sequence[Array], attributes: Attributes, dims: DimValues) -> tuple[Array, ...]:
    starts, stops = (static(extents_of(attributes, name), dims) for name in ("starts", "stops"))
    steps = ints_of(attributes, "steps")
    return (np.asarray(arrays[0][tuple(slice(*s) for s in zip(starts, stops, steps, strict=True))], order="C"),)


def _infer_pad(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("pad", types, 1)
    low, high = extents_of(attributes, "low"), extents_of(attributes, "high")
    number_of(attributes, "value")
    if not len(low) == len(high) == types[0].rank:
        raise mismatch("pad speaks of every axis", f"{types[0].rank} values each", dict(attributes))
    if any(isinstance(p, int) and p < 0 for p in low + high):
        raise mismatch("pad cannot cut", "padding >= 0", dict(attributes), "use slice to remove elements")
    return (tensor(types[0].dtype, *(a + e + b for a, e, b in zip(low, types[0].shape, high, strict=True))),)


def _evaluate_pad(arrays: Sequence[Array], attributes: Attributes, dims: DimValues) -> tuple[Array, ...]:
    low, high = (static(extents_of(attributes, name), dims) for name in ("low", "high"))
    value = np.asarray(number_of(attributes, "value")).astype(arrays[0].dtype)
    return (np.pad(arrays[0], list(zip(low, high, strict=True)), constant_values=value),)


MOVEMENTS: tuple[Op, ...] = (
    Op("reshape", "(x) <{shape}> -> x", _infer_reshape, _evaluate_reshape, ("shape",), ordered=True),
    Op(
        "transpose",
        "(x) <{perm}> -> axis i of the result is axis perm[i] of x",
        _infer_transpose,
        _evaluate_transpose,
        ("perm",),
        ordered=True,
    ),
    Op(
        "broadcast_to",
        "(x) <{shape}> -> x repeated to shape",
        _infer_broadcast_to,
        _evaluate_broadcast_to,
        ("shape",),
        ordered=True,
    ),
    Op("concat", "(x, ...) <{axis}> -> joined along axis", _infer_concat, _evaluate_concat, ("axis",), ordered=True),
    Op(
        "slice",
        "(x) <{starts, stops, steps}> -> x[start:stop:step, ...] on every axis",
        _infer_slice,
        _evaluate_slice,
        ("starts", "stops", "steps"),
        ordered=True,
    ),
    Op(
        "pad",
        "(x) <{low, high, value}> -> x with value around it",
        _infer_pad,
        _evaluate_pad,
        ("low", "high", "value"),
        {"value": 0.0},
        ordered=True,
    ),
)
