"""Ops on square matrices by elimination: `determinant` and `solve`.

Takes batches of matrices; gives what was asked for, and before it the rows that the elimination leaves, which are
memory to work in. Invariant: the pivot of a column is its largest element, the first of equal ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tessera_build.ir.core.types import F32, F64, Type, tensor
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import Attributes, DimValues, Op, expect_count, mismatch, texts


def _expect_square(op: str, a: Type) -> None:
    if a.rank != 3 or a.shape[1] != a.shape[2] or a.dtype not in (F32, F64):
        raise mismatch(f"{op} takes square matrices", "f32 or f64 [B, N, N]", a)


def _exchange(arrays: Sequence[Array], k: int) -> bool:
    """Bring the pivot of column k to row k; whether rows changed places."""
    sizes = np.abs(arrays[0][k:, k])
    place = k + (0 if sizes[0] != sizes[0] else int(np.argmax(np.where(np.isnan(sizes), -1, sizes))))
    for array in arrays:
        array[[k, place]] = array[[place, k]]
    return place != k


def _clear(arrays: Sequence[Array], k: int, others: Sequence[int]) -> None:
    """Leave nothing in column k of the other rows, columns before it aside."""
    rows = arrays[0]
    factors = np.divide(rows[others, k], rows[k, k])
    for position, array in enumerate(arrays):
        first = k if position == 0 else 0
        change = np.multiply(factors[:, None], array[k, first:])
        array[others, first:] = np.subtract(array[others, first:], change)


def _infer_determinant(types: Sequence[Type], _: Attributes) -> tuple[Type, ...]:
    expect_count("determinant", types, 1)
    _expect_square("determinant", types[0])
    return types[0], tensor(types[0].dtype, types[0].shape[0])


def _evaluate_determinant(arrays: Sequence[Array], _: Attributes, __: DimValues) -> tuple[Array, ...]:
    rows = arrays[0].copy()
    found = np.ones(len(rows), rows.dtype)
    for b, matrix in enumerate(rows):
        for k in range(len(matrix)):
            changed = _exchange((matrix,), k)
            found[b] = np.multiply(found[b], np.negative(matrix[k, k]) if changed else matrix[k, k])
            if matrix[k, k] != 0:
                _clear((matrix,), k, range(k + 1, len(matrix)))
    return rows, found


def _infer_solve(types: Sequence[Type], _: Attributes) -> tuple[Type, ...]:
    expect_count("solve", types, 2)
    a, right = types
    _expect_square("solve", a)
    if right.rank != 3 or right.dtype != a.dtype or right.shape[:2] != a.shape[:2]:
        raise mismatch("solve's right side does not fit", "a[B, N, N], right[B, N, M] of one type", texts(types))
    return a, right


def _evaluate_solve(arrays: Sequence[Array], _: Attributes, __: DimValues) -> tuple[Array, ...]:
    rows, found = arrays[0].copy(), arrays[1].copy()
    with np.errstate(all="ignore"):
        for matrix, right in zip(rows, found, strict=True):
            for k in range(len(matrix)):
                _exchange((matrix, right), k)
                _clear((matrix, right), k, [i for i in range(len(matrix)) if i != k])
            right[:] = np.divide(right, np.diagonal(matrix)[:, None])
    return rows, found


MATRICES: tuple[Op, ...] = (
    Op(
        "determinant",
        "(a[B, N, N]) -> rows[B, N, N] to work in, determinants [B]",
        _infer_determinant,
        _evaluate_determinant,
        ordered=True,
    ),
    Op(
        "solve",
        "(a[B, N, N], right[B, N, M]) -> rows[B, N, N] to work in, x[B, N, M] with a[b] x[b] = right[b]",
        _infer_solve,
        _evaluate_solve,
        ordered=True,
    ),
)
