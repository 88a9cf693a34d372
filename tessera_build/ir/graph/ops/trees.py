"""`tree_ensemble`: rows of features walk decision trees; the weights of the leaves are aggregated for each target.

Takes x[N, F] and tables of nodes, roots and leaves; gives [N, T]. A feature from `columns` on is one of the first
`columns` once more, with the lowest number in the place of NaN; `masks` add the conditions as `kernels/tree_masks.py`
reads them. Invariant: node i sends a row to left[i] + 1 where its condition holds and to left[i] where not; a leaf is
its own left child and its condition never holds; group g of eight roots is no deeper than depths[8 * g].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.types import I32, U32, U64, Type, tensor
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import (
    Attributes,
    DimValues,
    Op,
    expect_count,
    expect_float,
    flag_of,
    int_of,
    mismatch,
    texts,
    word_of,
)

AGGREGATES = ("sum", "min", "max")
_TABLES = 10  # x, feature, split, left, roots, depths, first, count, target, weight
_MASKS = 5  # tested, bound, keeps, starts, exits
_START = {"sum": 0.0, "min": np.inf, "max": -np.inf}
_GROUP = 8


def _infer(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    equal, masks = flag_of(attributes, "equal"), flag_of(attributes, "masks")
    expect_count("tree_ensemble", types, _TABLES + equal + _MASKS * masks)
    x, feature, split, left, roots, depths, first, count, target, weight = types[:_TABLES]
    expect_float("tree_ensemble", x)
    word_of(attributes, "aggregate", AGGREGATES)
    tables = (feature, left, first, count, *types[_TABLES : _TABLES + equal])
    integers = all(t.dtype == I32 for t in (*tables, roots, depths, target))
    shaped = all(t.shape == split.shape for t in tables) and target.shape == weight.shape
    numbers = split.dtype == weight.dtype == x.dtype
    if x.rank != 2 or split.rank != 1 or roots.rank != 1 or not (integers and shaped and numbers):
        raise mismatch("tree_ensemble's operands do not fit", "x[N, F], tables of nodes and of entries", texts(types))
    if not isinstance(roots.shape[0], int) or roots.shape[0] % _GROUP or depths.shape != roots.shape:
        raise mismatch("tree_ensemble's roots do not fill groups", f"a multiple of {_GROUP}, each with a depth", roots)
    if masks:
        _expect_masks(types[_TABLES + equal :], roots.shape[0], x)
    return (tensor(x.dtype, x.shape[0], int_of(attributes, "targets")),)


def _expect_masks(types: Sequence[Type], roots: int, x: Type) -> None:
    tested, bound, keeps, starts, exits = types
    words = keeps.dtype in (U32, U64) and exits.shape == (roots, keeps.dtype.bits) and starts.shape == (roots + 1,)
    conditions = tested.dtype == starts.dtype == I32 and bound.dtype == x.dtype and exits.dtype in (I32, x.dtype)
    if not (words and conditions and tested.shape == bound.shape == keeps.shape):
        raise mismatch(
            "tree_ensemble's masks do not fit", "a word for each condition, a slot a bit for each root", texts(types)
        )


def _walk(x: Array, arrays: Sequence[Array], attributes: Attributes) -> NDArray[np.int64]:
    """The leaf of every row in every tree [N, R]."""
    feature, split, left, roots = (a for a in arrays[1:5])
    equal = arrays[_TABLES] if flag_of(attributes, "equal") else np.zeros_like(feature)
    columns = int_of(attributes, "columns")
    used = x[:, :columns]
    with np.errstate(invalid="ignore"):
        lowest = np.where(np.isnan(used), np.asarray(-np.inf, x.dtype), used)
    values = np.concatenate([used, lowest], axis=1)
    at = np.broadcast_to(roots.astype(np.int64), (x.shape[0], roots.shape[0])).copy()
    features = feature.astype(np.int64)
    for _ in range(int_of(attributes, "depth")):
        value, bound = np.take_along_axis(values, features[at], 1), split[at]
        same = (value == bound) | (np.isnan(value) & np.greater(equal[at], 1))
        holds = np.where(np.greater(equal[at], 0), same, np.less_equal(value, bound))
        at = left[at].astype(np.int64) + holds
    return at


def _evaluate(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    x, (first, count, target, weight) = arrays[0], arrays[6:_TABLES]
    aggregate, targets = str(attributes["aggregate"]), int_of(attributes, "targets")
    combine = {"sum": np.add, "min": np.minimum, "max": np.maximum}[aggregate]
    total = np.full((x.shape[0], targets), _START[aggregate], np.float64)
    for row, leaves in enumerate(_walk(x, arrays, attributes)):
        for leaf in leaves:
            start, stop = int(first[leaf]), int(first[leaf]) + int(count[leaf])
            for entry in range(start, stop):
                place = (row, int(target[entry]))
                total[place] = combine(total[place], float(weight[entry]))
    unseen = total == _START[aggregate]
    return (np.where(unseen, 0.0, total).astype(x.dtype),)


TREES: tuple[Op, ...] = (
    Op(
        "tree_ensemble",
        "(x[N, F], feature, split, left, roots, depths, first, count, target, weight, equal?, masks[5]?) "
        "<{targets, depth, columns, aggregate, single, equal, missing, masks}> -> [N, targets]",
        _infer,
        _evaluate,
        ("targets", "depth", "columns", "aggregate", "single", "equal", "missing", "masks"),
        ordered=True,
    ),
)
