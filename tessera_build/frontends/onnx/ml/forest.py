"""Decision trees as tables: what the three tree operators of ai.onnx.ml state, laid out for `tree_ensemble`.

Takes nodes with their children and leaves with their weights; gives arrays. Every condition becomes `x <= split` or
`x == split`, where need be with the children exchanged, so that a walk takes the same steps at every node; where NaN
goes to the true child of `x <= split`, x is read from a copy with the lowest number in NaN's place. Trees come in order
of their depth, so that those walked together are about as deep. Invariant: a value of NaN goes where the specification
sends it, whatever a condition became.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.ml.forest_masks import conditions, fits_masks
from tessera_build.ir.graph.nodes import Array

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER")
LEAF = "LEAF"
# Conditions whose children change places: not (x <= split) is x > split, but for NaN.
_EXCHANGED = {"BRANCH_GTE": "BRANCH_LT", "BRANCH_GT": "BRANCH_LEQ", "BRANCH_NEQ": "BRANCH_EQ"}
_GROUP = 8
_MOST_TARGETS = 4096  # their sums are kept on the stack
_DEEPEST = 4096
_MOST_ROWS = 1 << 22  # a node with several parents is laid out once for each


@dataclass(frozen=True, slots=True)
class Branch:
    """A condition on one feature; `missing`: NaN goes to the true child. Children are places in the list of nodes."""

    feature: int
    mode: str
    split: float
    true: int
    false: int
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Leaf:
    """The weights of a leaf: pairs of target and weight."""

    weights: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Forest:
    """The tables of `tree_ensemble` in the order of its operands after x, and its attributes."""

    tables: tuple[Array, ...]
    attributes: Mapping[str, int | str | bool]


@dataclass(slots=True)
class _Tables:
    """Rows of nodes and of leaf entries while trees are laid out."""

    dtype: np.dtype[np.generic]
    columns: int
    feature: list[int] = field(default_factory=list[int])
    split: list[float] = field(default_factory=list[float])
    left: list[int] = field(default_factory=list[int])
    equal: list[int] = field(default_factory=list[int])
    leaf: list[Leaf | None] = field(default_factory=list["Leaf | None"])

    def reserve(self, count: int) -> int:
        """Rows for nodes that are filled later; a row that stays as it is is a leaf without weights."""
        start = len(self.feature)
        self.feature += [0] * count
        self.split += [np.nan] * count
        self.left += range(start, start + count)
        self.equal += [0] * count
        self.leaf += [None] * count
        return start

    def branch(self, row: int, node: Branch) -> tuple[int, int]:
        """Fill a row; gives the children's nodes, the one for a condition that fails first."""
        mode, split, missing = node.mode, node.split, node.missing
        false, true = node.false, node.true
        if mode in _EXCHANGED:
            false, true = true, false
            mode = _EXCHANGED[mode]
            # NaN fails every condition but x != split, which it meets: where it went, it must still go.
            missing = not missing if node.mode != "BRANCH_NEQ" else False
        if mode == "BRANCH_LT":
            mode, split = "BRANCH_LEQ", _next_below(split, self.dtype)
        if mode == "BRANCH_EQ":
            self.feature[row], self.split[row], self.equal[row] = node.feature, split, 2 if missing else 1
            return false, true
        if missing and np.isnan(split):  # only NaN goes to the true child: every number is <= inf, and NaN is not
            self.feature[row], self.split[row] = node.feature, np.inf
            return true, false
        self.feature[row], self.split[row] = node.feature + (self.columns if missing else 0), split
        return false, true


def _next_below(split: float, dtype: np.dtype[np.generic]) -> float:
    """The largest number below: x < split is x <= that, and no number is below the lowest."""
    number = np.asarray(split, np.float64).astype(dtype)
    return float(np.nextafter(number, np.asarray(-np.inf).astype(dtype))) if float(number) > -np.inf else np.nan


def forest(
    nodes: Sequence[Branch | Leaf], roots: Sequence[int], targets: int, aggregate: str, dtype: np.dtype[np.generic]
) -> Forest:
    """Lay the trees out, level by level, the children of a node side by side."""
    if not 0 < targets <= _MOST_TARGETS:
        raise unsupported("an ensemble with this number of targets is not built", found=str(targets))
    columns = max((node.feature + 1 for node in nodes if isinstance(node, Branch)), default=1)
    tables = _Tables(dtype, columns)
    laid = sorted((_lay(tables, nodes, root) for root in roots), key=lambda tree: tree[0])
    nothing = tables.reserve(1)
    laid += [(0, nothing)] * (-len(laid) % _GROUP)
    depths = [max(depth for depth, _ in laid[g - g % _GROUP :][:_GROUP]) for g in range(len(laid))]
    rows = [row for _, row in laid]
    single = targets == 1 and all(leaf is None or len(leaf.weights) <= 1 for leaf in tables.leaf)
    identity = {"sum": 0.0, "min": np.inf, "max": -np.inf}[aggregate]
    first, count, target, weight = _entries(tables.leaf, identity, single=single)
    if any(not 0 <= t < targets for t in target):
        raise ill_formed("a leaf speaks of a target that there is not", expected=f"0 to {targets - 1}")
    integers = (tables.feature, tables.left, rows, depths, first, count, target)
    feature, left, root_rows, deep, firsts, counts, target_ids = (np.asarray(v, np.int32) for v in integers)
    split, weights = np.asarray(tables.split).astype(dtype), np.asarray(weight, np.float64).astype(dtype)
    arrays = [feature, split, left, root_rows, deep, firsts, counts, target_ids, weights]
    equal, missing = any(tables.equal), bool((feature >= columns).any())
    masks = not equal and fits_masks(left, root_rows, columns * (1 + missing))
    if masks:
        arrays += conditions(arrays, weights if single else None)
    arrays += [np.asarray(tables.equal, np.int32)] if equal else []
    used: dict[str, int | str | bool] = {"equal": equal, "missing": missing, "masks": masks}
    used |= {"targets": targets, "depth": max(depths, default=0), "aggregate": aggregate, "single": single}
    return Forest(tuple(arrays), used | {"columns": columns})


def _lay(tables: _Tables, nodes: Sequence[Branch | Leaf], root: int) -> tuple[int, int]:
    """Rows for one tree; gives its depth and the row of its root."""
    start = tables.reserve(1)
    level, depth = [(root, start)], -1
    while level:
        following: list[tuple[int, int]] = []
        for position, row in level:
            if not 0 <= position < len(nodes):
                raise ill_formed("a tree's node names a child that there is not", found=str(position))
            node = nodes[position]
            if isinstance(node, Leaf):
                tables.leaf[row] = node
                continue
            tables.left[row] = tables.reserve(2)
            following += zip(tables.branch(row, node), (tables.left[row], tables.left[row] + 1), strict=True)
        level, depth = following, depth + 1
        if depth > _DEEPEST or len(tables.feature) > _MOST_ROWS:
            raise unsupported("a tree is deeper than Tessera builds, or its nodes form a circle", found=str(depth))
    return depth, start


def _entries(
    leaves: Sequence[Leaf | None], identity: float, *, single: bool
) -> tuple[list[int], list[int], list[int], list[float]]:
    """First entry, number of entries, targets and weights: one entry a node where there is a single target."""
    first: list[int] = []
    count: list[int] = []
    target: list[int] = []
    weight: list[float] = []
    for leaf in leaves:
        pairs = leaf.weights if leaf is not None else ()
        first.append(len(target))
        count.append(len(pairs))
        target += [t for t, _ in pairs]
        weight += [w for _, w in pairs]
        if single and not pairs:
            target.append(0)
            weight.append(identity)
    return first, count, target, weight


def members(mode: Sequence[str], values: NDArray[np.float64]) -> list[tuple[float, ...]]:
    """The sets of a v5 ensemble, one for each node of mode MEMBER: runs of values that NaN separates."""
    sets: list[tuple[float, ...]] = []
    run: list[float] = []
    for value in [*values.tolist(), np.nan]:
        if value == value:
            run.append(value)
        elif run or len(sets) < mode.count("BRANCH_MEMBER"):
            sets.append(tuple(run))
            run = []
    if len(sets) != mode.count("BRANCH_MEMBER"):
        raise ill_formed("the sets of membership_values are not one for each node of mode MEMBER", found=str(len(sets)))
    return sets
