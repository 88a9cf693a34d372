"""Ops that find how many there are: `non_zero`, `sort_rows` and `groups`, `suppress` and `listed`.

Takes tensors; gives buffers of the largest size, filled from the front, with counts. Invariant: elements behind the
last one found are zero; the part that counts is cut out with `sizes`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.types import BOOL, F32, I64, Type, tensor
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


def _infer_non_zero(types: Sequence[Type], _: Attributes) -> tuple[Type, ...]:
    expect_count("non_zero", types, 1)
    if types[0].rank != 1 or types[0].dtype != BOOL:
        raise mismatch("non_zero's operand does not fit", "bool[N]", types[0])
    return tensor(I64, *types[0].shape), tensor(I64)


def _evaluate_non_zero(arrays: Sequence[Array], _: Attributes, __: DimValues) -> tuple[Array, ...]:
    places = np.flatnonzero(arrays[0])
    return _filled(places, len(arrays[0])), np.asarray(len(places), np.int64)


def _filled(found: Array, extent: int) -> NDArray[np.int64]:
    buffer = np.zeros((extent, *found.shape[1:]), np.int64)
    buffer[: len(found)] = found
    return buffer


def _infer_sort_rows(types: Sequence[Type], _: Attributes) -> tuple[Type, ...]:
    expect_count("sort_rows", types, 1)
    (x,) = types
    if x.rank != 2 or x.dtype == BOOL:
        raise mismatch("sort_rows's operand does not fit", "numbers [N, W]", x)
    return tensor(I64, x.shape[0]), tensor(BOOL, x.shape[0])


def _evaluate_sort_rows(arrays: Sequence[Array], _: Attributes, __: DimValues) -> tuple[Array, ...]:
    (x,) = arrays
    keys = x if x.dtype.kind in "iuf" else x.astype(np.float32)
    order = np.lexsort(keys.T[::-1]) if keys.shape[1] else np.arange(len(keys))
    arranged = keys[order]
    heads = np.ones(len(keys), np.bool_)
    heads[1:] = (arranged[1:] != arranged[:-1]).any(1)
    return order.astype(np.int64), heads


def _infer_groups(types: Sequence[Type], _: Attributes) -> tuple[Type, ...]:
    expect_count("groups", types, 2)
    heads, places = types
    if heads.rank != 1 or heads.dtype != BOOL or places != tensor(I64, *heads.shape):
        raise mismatch("groups's operands do not fit", "heads bool[N], places i64[N]", texts(types))
    return places, places, places, tensor(I64)


def _evaluate_groups(arrays: Sequence[Array], _: Attributes, __: DimValues) -> tuple[Array, ...]:
    heads, places = arrays[0].astype(np.bool_), arrays[1].astype(np.int64)
    of = np.cumsum(heads) - 1
    inverse = np.zeros(len(places), np.int64)
    inverse[places] = of
    counts = np.bincount(of, minlength=len(places)).astype(np.int64)
    return _filled(places[heads], len(places)), counts, inverse, np.asarray(heads.sum(), np.int64)


def _infer_suppress(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("suppress", types, 5)
    boxes, scores, *limits = types
    flag_of(attributes, "centred")
    wanted = [tensor(F32, *scores.shape[:1], *scores.shape[2:], 4), tensor(I64), tensor(F32), tensor(F32)]
    if scores.rank != 3 or scores.dtype != F32 or [boxes, *limits] != wanted:
        raise mismatch("suppress's operands do not fit", "boxes[B, N, 4], scores[B, C, N], limits", texts(types))
    return tensor(I64, *scores.shape), tensor(I64, *scores.shape[:2])


def _corners(boxes: NDArray[np.float32], *, centred: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Least and largest coordinates [N, 2]."""
    a, b = boxes[:, :2], boxes[:, 2:]
    if centred:
        half = (b / 2).astype(np.float32)
        return a - half, a + half
    return np.minimum(a, b), np.maximum(a, b)


def _suppressed(
    low: NDArray[np.float32], high: NDArray[np.float32], order: Array, limits: tuple[int, float]
) -> list[int]:
    kept: list[int] = []
    most, iou = limits
    area = (high - low).prod(1)
    for box in order.tolist():
        if len(kept) >= most:
            break
        sides = np.maximum(np.minimum(high[kept], high[box]) - np.maximum(low[kept], low[box]), np.float32(0))
        common = sides.prod(1)
        union = area[kept] + area[box] - common
        solid = (area[kept] > 0) & (area[box] > 0) & (union > 0)
        if not (solid & (common > np.float32(iou) * np.where(solid, union, 1))).any():
            kept.append(box)
    return kept


def _evaluate_suppress(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    boxes, scores = arrays[0].astype(np.float32), arrays[1].astype(np.float32)
    most, iou, least = (a.item() for a in arrays[2:])
    chosen, counts = np.zeros(scores.shape, np.int64), np.zeros(scores.shape[:2], np.int64)
    for b, c in np.ndindex(*scores.shape[:2]):
        own = scores[b, c]
        order = np.argsort(-own, kind="stable")
        low, high = _corners(boxes[b], centred=flag_of(attributes, "centred"))
        kept = _suppressed(low, high, order[np.greater(own[order], least)], (most, iou))
        counts[b, c] = len(kept)
        chosen[b, c, : len(kept)] = kept
    return chosen, counts


def _infer_listed(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("listed", types, 2)
    chosen, counts = types
    if chosen.rank != 3 or chosen.dtype != I64 or counts != tensor(I64, *chosen.shape[:2]):
        raise mismatch("listed's operands do not fit", "chosen i64[B, C, N], counts i64[B, C]", texts(types))
    batches, classes, _ = chosen.shape
    return tensor(I64, 3, batches * classes * extent_of(attributes["most"])), tensor(I64)


def _evaluate_listed(arrays: Sequence[Array], attributes: Attributes, dims: DimValues) -> tuple[Array, ...]:
    chosen, counts = arrays
    rows = [(b, c, int(k)) for b, c in np.ndindex(*counts.shape) for k in chosen[b, c, : int(counts[b, c])]]
    found = np.asarray(rows, np.int64).reshape(-1, 3)
    (most,) = static((extent_of(attributes["most"]),), dims)
    return _filled(found, counts.size * most).T, np.asarray(len(rows), np.int64)


COUNTING: tuple[Op, ...] = (
    Op(
        "non_zero",
        "(found: bool[N]) -> places i64[N] of true elements, then zeros; count i64[]",
        _infer_non_zero,
        _evaluate_non_zero,
        ordered=True,
    ),
    Op(
        "sort_rows",
        "(x[N, W]) -> places i64[N] of rows in lexicographic order; heads bool[N]: not as the one before",
        _infer_sort_rows,
        _evaluate_sort_rows,
        ordered=True,
    ),
    Op(
        "groups",
        "(heads: bool[N], places: i64[N]) -> firsts[N], counts[N], inverse[N], number[] of the groups that heads start",
        _infer_groups,
        _evaluate_groups,
        ordered=True,
    ),
    Op(
        "suppress",
        "(boxes[B, N, 4], scores[B, C, N], most[], iou[], least[]) <{centred}> -> chosen i64[B, C, N], counts[B, C]",
        _infer_suppress,
        _evaluate_suppress,
        ("centred",),
        {"centred": False},
        ordered=True,
    ),
    Op(
        "listed",
        "(chosen[B, C, N], counts[B, C]) <{most}> -> rows i64[3, B*C*most] of (b, c, chosen), total[]",
        _infer_listed,
        _evaluate_listed,
        ("most",),
        ordered=True,
    ),
)
