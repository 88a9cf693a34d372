"""The numbers of `Contract` and `Reduce`: numpy over the axes that stay, one step at a time along those that go.

Takes tiles as arrays; gives arrays. Invariant: the order of additions is the one that the nodes declare ("hw" is
computed as "seq"), so a back end that keeps the order can be compared bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.rounding import fma
from tessera_build.ir.core.scalar import ScalarProgram, evaluate
from tessera_build.ir.core.types import DType, dtype_of, number_in
from tessera_build.ir.tile.nodes import Reduce

Array = NDArray[np.generic]
_SPEC = re.compile(r"([a-zA-Z]*),([a-zA-Z]*)->([a-zA-Z]*)")
_ORDER = re.compile(r"tree\(([1-9]\d*)\)")


def parse_spec(spec: str) -> tuple[str, str, str]:
    """Axis letters of a, b and the result of "mk,kn->mn"; raises `ValueError` for anything else.

    Within one tile a letter occurs once; every letter of the result is in a or b.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise ValueError(f"{spec!r} is not of the form 'mk,kn->mn'")
    a, b, result = match.groups()
    if any(len(set(axes)) != len(axes) for axes in (a, b, result)):
        raise ValueError(f"{spec!r} names an axis twice in one tile")
    if not set(result) <= set(a + b):
        raise ValueError(f"{spec!r} has a result axis that neither operand has")
    return a, b, result


def summed_axes(spec: str) -> str:
    """The axes that are summed, in the order of the loops that sum them: first a's, then those only in b."""
    a, b, result = parse_spec(spec)
    return "".join(dict.fromkeys(axis for axis in a + b if axis not in result))


def tree_width(order: str) -> int | None:
    """n for "tree(n)", None for "seq"; raises `ValueError` for anything else. n is a power of two."""
    if order == "seq":
        return None
    match = _ORDER.fullmatch(order)
    if match is None or int(match[1]) & (int(match[1]) - 1):
        raise ValueError(f"order {order!r} is neither 'seq' nor 'tree(n)' with n a power of two")
    return int(match[1])


def contract(spec: str, acc: Array, operands: tuple[Array, Array], dtype: DType) -> Array:
    """acc + sum of a * b along the axes that `spec` sums, ascending, one fused multiply-add an element and step."""
    a_axes, b_axes, result = parse_spec(spec)
    summed = summed_axes(spec)
    a = _aligned(operands[0].astype(dtype.numpy), a_axes, summed, result)
    b = _aligned(operands[1].astype(dtype.numpy), b_axes, summed, result)
    total = np.array(acc, dtype=dtype.numpy)
    steps = np.broadcast_shapes(a.shape[: len(summed)], b.shape[: len(summed)])
    for step in np.ndindex(*steps):
        total = fma(_at(a, step), _at(b, step), total, dtype)
    return total


def _aligned(tile: Array, axes: str, summed: str, result: str) -> Array:
    """The tile with its axes in the order `summed + result`, extent 1 for those it does not have."""
    order = [axes.index(axis) for axis in summed + result if axis in axes]
    extents = [tile.shape[axes.index(axis)] if axis in axes else 1 for axis in summed + result]
    return np.transpose(tile, order).reshape(extents)


def _at(tile: Array, step: tuple[int, ...]) -> Array:
    return np.asarray(tile[tuple(min(i, extent - 1) for i, extent in zip(step, tile.shape, strict=False))])


def combine_along(node: Reduce, operands: Sequence[Array]) -> list[Array]:
    """The results of a `Reduce`: one array an operand, with extent 1 along the axes that were combined."""
    width = tree_width(node.order)
    elements = [_flattened(operand, node.axes) for operand in operands]
    count = elements[0].shape[0]
    identity = [
        np.full(e.shape[1:], np.asarray(number_in(i, dtype_of(e.dtype))).astype(e.dtype))
        for e, i in zip(elements, node.identity, strict=True)
    ]
    partials = [identity] * (width or 1)
    for index in range(count):
        lane = index % len(partials)
        new = _combine(node.combine, partials[lane], [e[index] for e in elements])
        partials = [*partials[:lane], new, *partials[lane + 1 :]]
    while len(partials) > 1:
        half = len(partials) // 2
        pairs = zip(partials[:half], partials[half:], strict=True)
        partials = [_combine(node.combine, low, high) for low, high in pairs]
    shape = [1 if axis in node.axes else extent for axis, extent in enumerate(operands[0].shape)]
    return [result.reshape(shape) for result in partials[0]]


def _flattened(tile: Array, axes: tuple[int, ...]) -> Array:
    """The reduced axes, in the order of `axes`, as one leading axis."""
    rest = [axis for axis in range(tile.ndim) if axis not in axes]
    moved = np.transpose(tile, [*axes, *rest])
    return moved.reshape((int(np.prod([tile.shape[a] for a in axes])), *[tile.shape[r] for r in rest]))


def _combine(program: ScalarProgram, left: list[Array], right: list[Array]) -> list[Array]:
    return list(evaluate(program, [*left, *right]))
