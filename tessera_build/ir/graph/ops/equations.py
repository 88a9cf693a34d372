"""Linear equations whose matrix is never written down, and values that hold only if a condition does.

Takes a right side and a region that applies a linear map; gives the solution and whether it is one. Invariant: a
solution whose residual is larger than the tolerance is never called one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bundle_format.errors import TesseraError
from tessera_build.ir.core.types import BOOL, F32, F64, Type, tensor
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import (
    Attributes,
    Body,
    Control,
    DimValues,
    Op,
    RegionType,
    expect_count,
    int_of,
    mismatch,
    number_of,
    texts,
    word_of,
)

KINDS = ("gmres", "cg")
_AIM = 0.1  # of the tolerance: what is asked of the iteration, so that the last rounding does not decide

Vector = NDArray[np.float64]


def _infer_linear_solve(
    types: Sequence[Type], attributes: Attributes, regions: Sequence[RegionType]
) -> tuple[Type, ...]:
    expect_count("linear_solve", types, 1)
    (right,), (body,) = types, regions
    if right.dtype not in (F32, F64):
        raise mismatch("linear_solve iterates in f32 or f64", "f32 or f64", right, "cast the right side")
    if body.args != (right,) or body.results != (right,):
        found = f"({texts(body.args)}) -> ({texts(body.results)})"
        raise mismatch("the map of linear_solve is not one of its right side's type", f"({right}) -> ({right})", found)
    word_of(attributes, "kind", KINDS)
    if number_of(attributes, "tolerance") <= 0 or int_of(attributes, "limit") < 1 or int_of(attributes, "restart") < 1:
        found = ", ".join(f"{name}={attributes[name]}" for name in ("tolerance", "limit", "restart"))
        raise mismatch("linear_solve has no end", "a tolerance above 0, and limit and restart of 1 or more", found)
    return right, tensor(BOOL)


def _run_linear_solve(
    arrays: Sequence[Array], attributes: Attributes, dims: DimValues, bodies: Sequence[Body], _: Sequence[Array]
) -> tuple[Array, ...]:
    """The iteration that `kind` names, in double precision around the map."""
    right, tolerance = arrays[0], number_of(attributes, "tolerance")

    def apply(x: Vector) -> Vector:
        (found,) = bodies[0]((x.reshape(right.shape).astype(right.dtype),), dims)
        return found.reshape(-1).astype(np.float64)

    wide = right.reshape(-1).astype(np.float64)
    size = float(np.abs(wide).max(initial=0.0))
    wide = wide / (size if size > 0 else 1.0)
    target, limit = _AIM * tolerance * float(np.linalg.norm(wide)), int_of(attributes, "limit")
    with np.errstate(all="ignore"):
        if attributes["kind"] == "cg":
            found = _conjugate(apply, wide, target, limit)
        else:
            found = _cycles(apply, wide, target, (limit, int_of(attributes, "restart")))
        solved = bool(np.linalg.norm(wide - apply(found)) <= tolerance * np.linalg.norm(wide))
    return (found * size).reshape(right.shape).astype(right.dtype), np.asarray(solved)


def _conjugate(apply: Callable[[Vector], Vector], right: Vector, target: float, limit: int) -> Vector:
    """Conjugate gradients."""
    x, rest, way = np.zeros_like(right), right, right
    for _ in range(limit):
        square = rest @ rest
        if not np.sqrt(square) > target:
            break
        image = apply(way)
        length = square / (way @ image)
        x, rest = x + length * way, rest - length * image
        way = rest + (rest @ rest) / square * way
    return x


def _cycles(apply: Callable[[Vector], Vector], right: Vector, target: float, limits: tuple[int, int]) -> Vector:
    """GMRES: cycles of at most so many directions, as long as they help."""
    left, restart = limits
    x, residual = np.zeros_like(right), right
    while left > 0 and np.linalg.norm(residual) > target:
        step, turns = _cycle(apply, residual, target, min(left, restart, len(right)))
        following = right - apply(x + step)
        left -= turns
        if not np.linalg.norm(following) < np.linalg.norm(residual):
            break
        x, residual = x + step, following
    return x


def _cycle(apply: Callable[[Vector], Vector], residual: Vector, target: float, limit: int) -> tuple[Vector, int]:
    """The best step among combinations of the residual and its images, by Arnoldi's orthogonal directions."""
    size = float(np.linalg.norm(residual))
    basis, rows = [residual / size], np.zeros((limit + 1, limit))
    weights = np.zeros(0)
    for turn in range(limit):
        image = apply(basis[turn])
        for _ in range(2):  # once more: one pass loses orthogonality to rounding
            for place, direction in enumerate(basis):
                part = float(direction @ image)
                rows[place, turn] += part
                image = image - part * direction
        rows[turn + 1, turn] = np.linalg.norm(image)
        wanted = np.zeros(turn + 2)
        wanted[0] = size
        known = rows[: turn + 2, : turn + 1]
        if not np.isfinite(known).all():
            return np.full_like(residual, np.nan), turn + 1
        weights = np.linalg.lstsq(known, wanted, rcond=None)[0]
        left, length = np.linalg.norm(known @ weights - wanted), rows[turn + 1, turn]
        if left <= target or length <= 1e-14 * abs(rows[:, turn]).max():
            break
        basis.append(image / length)
    step = sum((w * v for w, v in zip(weights, basis, strict=False)), np.zeros_like(residual))
    return step, max(len(weights), 1)


def _infer_checked(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("checked", types, 2)
    if types[1] != tensor(BOOL) or not isinstance(attributes["message"], str):
        raise mismatch("checked has no condition or no message", f"{tensor(BOOL)} and a text", texts(types))
    return (types[0],)


def _evaluate_checked(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    if not arrays[1].item():
        raise TesseraError("GUARD_FAILED", str(attributes["message"]))
    return (arrays[0],)


EQUATIONS: tuple[Op, ...] = (
    Op(
        "linear_solve",
        "(right) <{kind, tolerance, limit, restart}> ({apply}) -> x with apply(x) = right, and bool[]: whether the "
        "norm of right - apply(x) is at most `tolerance` times that of right. `apply` is linear in its argument. A "
        "pass writes the iteration, gmres or, for maps that equal their transposes and are definite, cg: at most "
        "`limit` applications, `restart` directions at a time",
        None,
        None,
        ("kind", "tolerance", "limit", "restart"),
        {"kind": "gmres", "limit": 1000, "restart": 30},
        control=Control(("apply",), _infer_linear_solve, _run_linear_solve),
    ),
    Op(
        "checked",
        "(x, condition: bool[]) <{message}> -> x; the run ends with GUARD_FAILED and the message unless the condition "
        "holds",
        _infer_checked,
        _evaluate_checked,
        ("message",),
    ),
)
