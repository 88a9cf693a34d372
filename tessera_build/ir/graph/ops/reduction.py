"""Reductions: `reduce` over axes, `reduce_window` over sliding windows, `softmax` along one axis.

Takes one tensor; gives one tensor. Invariant: sums are accumulated in float64 (int64 for integers) and rounded once;
the elements that padding adds to a window are the identity of its kind, so they never change a result.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from tessera_build.ir.core.types import DType, Type, dtype_of, tensor
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import (
    Attributes,
    DimValues,
    Op,
    axis_of,
    expect_count,
    expect_float,
    expect_numbers,
    flag_of,
    ints_of,
    mismatch,
    wide,
    word_of,
)
from tessera_build.ir.graph.ops.shapes import window_extent

KINDS = ("sum", "max", "min", "prod")
WINDOW_KINDS = ("max", "sum", "min")
_ARITHMETIC = frozenset({"sum", "prod"})
_WINDOW_ATTRIBUTES = ("window", "strides", "low", "high", "dilations")
_COMBINE: dict[str, Callable[[Array, Array], Array]] = {"sum": np.add, "max": np.maximum, "min": np.minimum}


def _reduced_axes(types: Sequence[Type], attributes: Attributes) -> tuple[int, ...]:
    axes = ints_of(attributes, "axes")
    if len(set(axes)) != len(axes) or any(not 0 <= a < types[0].rank for a in axes):
        raise mismatch("reduce has impossible axes", f"distinct axes below {types[0].rank}", axes)
    return axes


def _infer_reduce(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("reduce", types, 1)
    if word_of(attributes, "kind", KINDS) in _ARITHMETIC:
        expect_numbers("reduce", types[0])
    axes = _reduced_axes(types, attributes)
    if flag_of(attributes, "keepdims"):
        shape = tuple(1 if i in axes else e for i, e in enumerate(types[0].shape))
    else:
        shape = tuple(e for i, e in enumerate(types[0].shape) if i not in axes)
    return (tensor(types[0].dtype, *shape),)


def _evaluate_reduce(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    x, kind = arrays[0], word_of(attributes, "kind", KINDS)
    axes, keepdims = ints_of(attributes, "axes"), flag_of(attributes, "keepdims")
    if kind in ("max", "min"):
        reducer = np.maximum if kind == "max" else np.minimum
        initial = np.asarray(identity(kind, dtype_of(x.dtype))).astype(x.dtype)
        return (np.asarray(reducer.reduce(x, axis=axes, keepdims=keepdims, initial=initial)).astype(x.dtype),)
    # numpy adds pairwise, in an order that depends on the shape alone and not on the instruction set.
    total = np.sum(wide(x), axis=axes, keepdims=keepdims) if kind == "sum" else None
    result = np.prod(wide(x), axis=axes, keepdims=keepdims) if total is None else total
    return (np.asarray(result).astype(x.dtype),)


def identity(kind: str, dtype: DType) -> float | int | bool:
    """The element that does not change a reduction of `kind`."""
    if kind in ("sum", "prod"):
        return int(kind == "prod")
    if dtype.is_float:
        return -math.inf if kind == "max" else math.inf
    bits = dtype.bits - (dtype.kind == "signed")
    if kind == "min":
        return 2**bits - 1
    return -(2**bits) if dtype.kind == "signed" else 0


def _infer_reduce_window(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("reduce_window", types, 1)
    if word_of(attributes, "kind", WINDOW_KINDS) in _ARITHMETIC:
        expect_numbers("reduce_window", types[0])
    windows = [ints_of(attributes, name) for name in _WINDOW_ATTRIBUTES]
    if any(len(w) != types[0].rank for w in windows):
        raise mismatch("reduce_window speaks of every axis", f"{types[0].rank} values each", dict(attributes))
    shape = [
        window_extent("reduce_window", extent, (size, stride, low, high, dilation))
        for extent, size, stride, low, high, dilation in zip(types[0].shape, *windows, strict=True)
    ]
    return (tensor(types[0].dtype, *shape),)


def _evaluate_reduce_window(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    """Combine one strided slice for each position of the window, in the order of the positions."""
    x, kind = arrays[0], word_of(attributes, "kind", WINDOW_KINDS)
    sizes, strides, low, high, dilations = (ints_of(attributes, name) for name in _WINDOW_ATTRIBUTES)
    work = wide(x) if kind == "sum" else x
    neutral = np.asarray(identity(kind, dtype_of(work.dtype))).astype(work.dtype)
    padded = np.pad(work, list(zip(low, high, strict=True)), constant_values=neutral) if any(low + high) else work
    out = [(n - d * (k - 1) - 1) // s + 1 for n, d, k, s in zip(padded.shape, dilations, sizes, strides, strict=True)]
    total = np.full(out, neutral)
    for position in itertools.product(*(range(size) for size in sizes)):
        window = tuple(
            slice(p * d, p * d + (n - 1) * s + 1 if n else p * d, s)
            for p, d, n, s in zip(position, dilations, out, strides, strict=True)
        )
        total = _COMBINE[kind](total, padded[window])
    return (total.astype(x.dtype),)


def _infer_softmax(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("softmax", types, 1)
    expect_float("softmax", types[0])
    axis_of(attributes, types[0].rank)
    return (types[0],)


def _evaluate_softmax(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    return (softmax(wide(arrays[0]), axis_of(attributes, arrays[0].ndim)).astype(arrays[0].dtype),)


def softmax(x: Array, axis: int) -> Array:
    """exp(x - max) divided by its sum; a row of minus infinities gives NaN, as the formula does."""
    shifted = np.exp(x - np.max(x, axis=axis, keepdims=True, initial=-np.inf))
    return shifted / np.sum(shifted, axis=axis, keepdims=True)


REDUCTIONS: tuple[Op, ...] = (
    Op(
        "reduce",
        "(x) <{kind: sum|max|min|prod, axes, keepdims}> -> x reduced over axes",
        _infer_reduce,
        _evaluate_reduce,
        ("kind", "axes", "keepdims"),
        {"keepdims": False},
        ordered=True,
    ),
    Op(
        "reduce_window",
        "(x) <{kind: max|sum|min, window, strides, low, high, dilations}> -> x reduced over windows of all its axes",
        _infer_reduce_window,
        _evaluate_reduce_window,
        ("kind", *_WINDOW_ATTRIBUTES),
        ordered=True,
    ),
    Op(
        "softmax",
        "(x) <{axis}> -> exp(x - max(x)) / sum(exp(x - max(x))) along axis",
        _infer_softmax,
        _evaluate_softmax,
        ("axis",),
    ),
)
