"""Rows of the table of torch's operators over matrices, distances, and functions of two numbers.

Takes a writer and the operands of a traced call; gives values. Invariant: what cannot be written raises `Unmapped`.
"""

# ruff: noqa: ANN401  values of traced programs are anything

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tessera_build.ir.core.types import F64, I64
from tests.autodiff.aten_writer import Row, Unmapped, Value, Writer, element_type


def _lined(w: Writer, a: int) -> tuple[int, tuple[int, ...]]:
    """Matrices [B, N, N], and the shape that they came in."""
    shape = w.shape(a)
    if 0 in shape:
        raise Unmapped("an empty matrix")
    return w.reshape(a, (math.prod(shape[:-2]), *shape[-2:])), shape


def solved(
    w: Writer, a: Value, right: Value, *, left: bool = True, check_errors: bool = False
) -> tuple[int, None, None, None]:
    """a x = right, or x a = right, for batches that broadcast; a vector has one axis less."""
    shape, other = w.shape(a.id), w.shape(right.id)
    vector = len(other) == 1 or (len(other) == len(shape) - 1 and other == shape[:-1])
    if 0 in (*shape, *other):
        raise Unmapped("an empty matrix")
    given = w.reshape(right.id, (*other, 1)) if vector else right.id
    own, batch = w.shape(given), np.broadcast_shapes(shape[:-2], w.shape(given)[:-2])
    matrix = w.b.op("broadcast_to", a.id, shape=(*batch, *shape[-2:]))
    given = w.b.op("broadcast_to", given, shape=(*batch, *own[-2:]))
    if not left:
        matrix, given = _turned(w, matrix), _turned(w, given)
    (lines, _), (sides, whole) = _lined(w, matrix), _lined(w, given)
    made = w.reshape(w.b.node("solve", (lines, sides), {})[1], whole)
    made = made if left else _turned(w, made)
    return (w.reshape(made, w.shape(made)[:-1]) if vector else made), None, None, None


def _turned(w: Writer, a: int) -> int:
    rank = len(w.shape(a))
    return w.b.op("transpose", a, perm=(*range(rank - 2), rank - 1, rank - 2))


def _inverse(w: Writer, a: Value, check_errors: bool = False) -> tuple[int, None]:
    lines, shape = _lined(w, a.id)
    unit = w.b.op("broadcast_to", w.b.constant(np.eye(shape[-1])), shape=w.shape(lines))
    return w.reshape(w.b.node("solve", (lines, unit), {})[1], shape), None


def determinant(w: Writer, a: Value) -> tuple[int, None, None]:
    """The determinants of matrices."""
    lines, shape = _lined(w, a.id)
    return w.reshape(w.b.node("determinant", (lines,), {})[1], shape[:-2]), None, None


def _signed_log(w: Writer, a: Value) -> tuple[int, int, None, None]:
    found = determinant(w, a)[0]
    return w.b.op("sign", found), w.b.op("log", w.b.op("abs", found)), None, None


def _triangular(
    w: Writer, a: Value, right: Value, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> int:
    size = w.shape(a.id)[-1]
    mask = np.tri(size, dtype=bool)
    mask = mask.T if upper else mask
    kept = w.b.op("select", w.b.constant(mask.copy()), a.id, w.value(0.0))
    if unitriangular:
        kept = w.b.op("select", w.b.constant(np.eye(size, dtype=bool)), w.value(1.0), kept)
    return solved(w, Value(kept), right, left=left)[0]


def _broadcast_in_dim(w: Writer, x: Value, shape: Sequence[int], dims: Sequence[int]) -> int:
    own = [1] * len(shape)
    for extent, dim in zip(w.shape(x.id), dims, strict=True):
        own[dim] = extent
    return w.b.op("broadcast_to", w.reshape(x.id, own), shape=tuple(shape))


def _addbmm(w: Writer, c: Value, x: Value, y: Value, beta: Any = 1, alpha: Any = 1) -> int:
    product = w.reduce(w.b.op("matmul", x.id, y.id), "sum", [0], False)
    product = w.b.op("mul", product, w.value(alpha)) if alpha != 1 else product
    return w.b.op("add", w.b.op("mul", c.id, w.value(beta)) if beta != 1 else c.id, product)


def _guarded(w: Writer, x: int, y: int, mask: int) -> int:
    """x / y where the mask holds, else zero, without a quotient by zero."""
    below = w.b.op("select", mask, y, w.value(1.0))
    return w.b.op("select", mask, w.b.op("div", x, below), w.value(0.0))


def _atan2(w: Writer, y: Any, x: Any) -> int:
    b, (up, across) = w.b, w.pair(y, x)
    wide = b.op("ge", b.op("abs", across), b.op("abs", up))
    near = b.op("atan", _guarded(w, up, across, wide))
    left = b.op("and", wide, b.op("lt", across, w.value(0.0)))
    turn = b.op("select", b.op("lt", up, w.value(0.0)), w.value(-math.pi), w.value(math.pi))
    near = b.op("add", near, b.op("select", left, turn, w.value(0.0)))
    far = b.op("atan", _guarded(w, across, up, b.op("not", wide)))
    half = b.op("mul", b.op("sign", up), w.value(math.pi / 2))
    return b.op("select", wide, near, b.op("sub", half, far))


def _hypot(w: Writer, x: Value, y: Value) -> int:
    a, b = w.pair(x, y)
    return w.b.op("sqrt", w.b.op("add", w.b.op("mul", a, a), w.b.op("mul", b, b)))


def _copysign(w: Writer, x: Value, y: Any) -> int:
    a, b = w.pair(x, y)
    size = w.b.op("abs", a)
    return w.b.op("select", w.b.op("lt", b, w.value(0.0)), w.b.op("neg", size), size)


def _running_log(w: Writer, x: Value, dim: int) -> int:
    shape = w.shape(x.id)
    if not shape or 0 in shape:
        raise Unmapped("a running sum of a number")
    dim %= len(shape)
    top = w.reduce(x.id, "max", dim, True)
    away = w.b.op("exp", w.b.op("sub", x.id, top))
    lined = w.reshape(away, (math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])))
    total = w.reshape(w.b.op("cumulate", lined, kind="sum"), shape)
    return w.b.op("add", w.b.op("log", total), top)


def _distances(w: Writer, x: int, y: int, p: float) -> int:
    """The p-norms of the differences along the last axis."""
    b = w.b
    apart = b.op("abs", b.op("sub", x, y))
    last = [len(w.shape(apart)) - 1]
    if p == 1:
        return w.reduce(apart, "sum", last, False)
    if p == math.inf:
        return w.reduce(apart, "max", last, False)
    if p == 0:
        raise Unmapped("the number of differences")
    total = w.reduce(b.op("mul", apart, apart) if p == 2 else b.op("pow", apart, w.value(p)), "sum", last, False)
    there = b.op("gt", total, w.value(0.0))
    safe = b.op("select", there, total, w.value(1.0))
    root = b.op("sqrt", safe) if p == 2 else b.op("pow", safe, w.value(1.0 / p))
    return b.op("select", there, root, w.value(0.0))


def _cdist(w: Writer, x: Value, y: Value, p: float, _: Any = None) -> int:
    (own, other) = w.shape(x.id), w.shape(y.id)
    if 0 in (*own, *other):
        raise Unmapped("no points")
    left = w.reshape(x.id, (*own[:-1], 1, own[-1]))
    right = w.reshape(y.id, (*other[:-2], 1, *other[-2:]))
    return _distances(w, left, right, p)


def _pdist(w: Writer, x: Value, p: float = 2.0) -> int:
    first, second = np.triu_indices(w.shape(x.id)[0], 1)
    left, right = (w.b.op("gather", x.id, w.b.constant(i.astype(np.int64)), axis=0) for i in (first, second))
    return _distances(w, left, right, p)


def _linear_combination(w: Writer, x: Value, y: Value, z: Value, *spread: Any) -> int:
    """The sums of products of three operands, each of which lacks some axes."""
    axes, total = spread[:3], spread[3]
    rank = max(len(w.shape(v.id)) + len(a) for v, a in zip((x, y, z), axes, strict=True))
    wide: list[int] = []
    for operand, missing in zip((x, y, z), axes, strict=True):
        shape = list(w.shape(operand.id))
        for axis in sorted(a % rank for a in missing):
            shape.insert(axis, 1)
        wide.append(w.reshape(operand.id, shape))
    product = w.b.op("mul", w.b.op("mul", wide[0], wide[1]), wide[2])
    return w.reduce(product, "sum", list(total), False)


def _rounded(w: Writer, x: Any, y: Any, rounding_mode: Any) -> int:
    a, b = w.pair(x, y)
    quotient = w.b.op("div", w.cast(a, F64), w.cast(b, F64))
    low = w.b.op("floor", quotient)
    if rounding_mode == "trunc":
        low = w.b.op("mul", w.b.op("sign", quotient), w.b.op("floor", w.b.op("abs", quotient)))
    return low if w.type(a).dtype.is_float else w.cast(low, I64)


def divided(plain: Row) -> Row:
    """A quotient, or one that is rounded."""

    def row(w: Writer, x: Any, y: Any, rounding_mode: Any = None) -> int:
        return plain(w, x, y) if rounding_mode is None else _rounded(w, x, y, rounding_mode)

    return row


def _converted(w: Writer, x: Value, dtype: Any) -> int:
    return w.cast(x.id, element_type(dtype))


def _chosen(kind: str) -> Row:
    """The larger or the smaller, of a number and none the number."""

    def row(w: Writer, x: Any, y: Any) -> int:
        a, b = w.pair(x, y)
        if not w.type(a).dtype.is_float:
            return w.b.op(kind, a, b)
        found = w.b.op("select", w.b.op("isnan", b), a, w.b.op(kind, a, b))
        return w.b.op("select", w.b.op("isnan", a), b, found)

    return row


def _gelu_by_tanh(w: Writer, x: Value) -> int:
    b = w.b
    cube = b.op("mul", b.op("mul", x.id, x.id), x.id)
    inner = b.op("add", x.id, b.op("mul", cube, w.value(0.044715)))
    bent = b.op("tanh", b.op("mul", inner, w.value(math.sqrt(2 / math.pi))))
    return b.op("mul", b.op("mul", x.id, w.value(0.5)), b.op("add", bent, w.value(1.0)))


def gelu(plain: Row) -> Row:
    """By erf or by tanh."""
    return lambda w, x, approximate="none": plain(w, x) if approximate == "none" else _gelu_by_tanh(w, x)


MATRICES: dict[str, Row] = {
    "_linalg_solve_ex": solved,
    "linalg_solve_triangular": _triangular,
    "linalg_inv_ex": _inverse,
    "_linalg_det": determinant,
    "_linalg_check_errors": lambda w, *_, **__: None,
    "_linalg_slogdet": _signed_log,
    "broadcast_in_dim": _broadcast_in_dim,
    "convert_element_type": _converted,
    "addbmm": _addbmm,
    "atan2": _atan2,
    "hypot": _hypot,
    "copysign": _copysign,
    "fmax": _chosen("max"),
    "fmin": _chosen("min"),
    "logcumsumexp": _running_log,
    "_cdist_forward": _cdist,
    "_pdist_forward": _pdist,
    "_trilinear": _linear_combination,
}
