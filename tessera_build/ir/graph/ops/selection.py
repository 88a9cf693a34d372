"""Ops that choose elements by their value, `top_k` and `look_up`, and `coupled`, probabilities that agree best.

Takes tensors and tables; gives chosen elements. Invariant: the order in which elements are sorted is total: NaN counts
as larger than every number, and of equal elements the one that comes first is better.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.types import F32, I64, Type, tensor
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import (
    Attributes,
    DimValues,
    Op,
    expect_count,
    extent_of,
    flag_of,
    mismatch,
    static,
    texts,
)

# What `coupled` stops at, as libsvm and onnxruntime do.
TURNS = 100
PRECISION = 0.005


def _infer_top_k(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("top_k", types, 1)
    flag_of(attributes, "largest")
    (x,), k = types, extent_of(attributes["k"])
    if x.rank != 2 or x.dtype.kind == "bool":
        raise mismatch("top_k's operand does not fit", "numbers [R, N]", x)
    if isinstance(k, int) and isinstance(x.shape[1], int) and not 0 <= k <= x.shape[1]:
        raise mismatch("top_k cannot choose that many", f"0 <= k <= {x.shape[1]}", k)
    shape = (x.shape[0], k)
    return tensor(x.dtype, *shape), tensor(I64, *shape)


def best_first(x: Array, axis: int, *, largest: bool) -> Array:
    """The places of the elements along an axis, best first."""
    if not largest:
        return np.argsort(x, axis, kind="stable")
    # A stable sort of the reversed line, read backwards, keeps the first of equal elements first.
    turned = np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    return x.shape[axis] - 1 - turned


def _evaluate_top_k(arrays: Sequence[Array], attributes: Attributes, dims: DimValues) -> tuple[Array, ...]:
    (x,) = arrays
    (k,) = static((extent_of(attributes["k"]),), dims)
    key = x if x.dtype.kind in "iuf" else x.astype(np.float32)
    places = best_first(key, 1, largest=flag_of(attributes, "largest"))[:, :k].astype(np.int64)
    return np.take_along_axis(x, places, 1), places


def _infer_look_up(types: Sequence[Type], _: Attributes) -> tuple[Type, ...]:
    expect_count("look_up", types, 4)
    x, keys, values, default = types
    same = keys.dtype == x.dtype and default.dtype == values.dtype
    sized = isinstance(keys.shape[0], int) and keys.shape[0] > 0 if keys.rank == 1 else False
    if not same or not sized or x.rank != 1 or values.shape != keys.shape or default.rank != 0:
        raise mismatch("look_up's operands do not fit", "x[N], keys[K], values[K], default[]", texts(types))
    return (tensor(values.dtype, *x.shape),)


def _evaluate_look_up(arrays: Sequence[Array], _: Attributes, __: DimValues) -> tuple[Array, ...]:
    x, keys, values, default = arrays
    places = np.minimum(np.searchsorted(keys, x), len(keys) - 1)
    return (np.where(keys[places] == x, values[places], default),)


def _infer_coupled(types: Sequence[Type], _: Attributes) -> tuple[Type, ...]:
    expect_count("coupled", types, 1)
    (r,) = types
    if r.rank != 3 or r.dtype != F32 or r.shape[1] != r.shape[2] or not isinstance(r.shape[1], int):
        raise mismatch("coupled's operand does not fit", "f32[N, C, C] with C known", r)
    return (tensor(F32, *r.shape[:2]),)


def couple(r: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probabilities of C classes that agree best with those of pairs (Wu, Lin and Weng, second method)."""
    classes = len(r)
    q, p = -r.T * r, np.full(classes, 1.0 / classes)
    np.fill_diagonal(q, (r**2).sum(0) - np.diag(r) ** 2)
    for _ in range(TURNS):
        products = q @ p
        expected = p @ products
        if np.abs(products - expected).max() < PRECISION / classes:
            break
        for t in range(classes):
            step = (expected - products[t]) / q[t, t]
            expected = (expected + step * (step * q[t, t] + 2 * products[t])) / (1 + step) ** 2
            p[t] += step
            p, products = p / (1 + step), (products + step * q[t]) / (1 + step)
    return p


def _evaluate_coupled(arrays: Sequence[Array], _: Attributes, __: DimValues) -> tuple[Array, ...]:
    rows = [couple(r) for r in arrays[0].astype(np.float64)]
    return (np.asarray(rows, np.float32).reshape(arrays[0].shape[:2]),)


SELECTIONS: tuple[Op, ...] = (
    Op("coupled", "(r: f32[N, C, C]) -> probabilities [N, C] from those of pairs", _infer_coupled, _evaluate_coupled),
    Op(
        "look_up",
        "(x[N], keys[K], values[K], default[]) -> values[k] where keys[k] == x[n], else default; keys ascend",
        _infer_look_up,
        _evaluate_look_up,
        ordered=True,
    ),
    Op(
        "top_k",
        "(x[R, N]) <{k, largest}> -> values, places [R, k], best first",
        _infer_top_k,
        _evaluate_top_k,
        ("k", "largest"),
        ordered=True,
    ),
)
