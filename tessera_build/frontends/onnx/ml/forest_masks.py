"""The conditions of small trees as words of bits, as the kernel `tree_masks` reads them.

Takes the tables of nodes; gives for each tree its conditions, each with the leaves that stay where it fails, and what
is at its leaves in the order of slots. Invariant: a tree has no more leaves than its words have bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.graph.nodes import Array
from tessera_build.kernels.tree_masks import SLOTS, slot_bits

_MOST_LEAVES = 64
_MOST_COLUMNS = 256  # a vector of rows of each is kept in the nearest cache


def fits_masks(left: Array, roots: Array, columns: int) -> bool:
    """Whether no tree has more leaves than a word has bits, and the features that are looked at are few."""
    # A tree's rows lie between its root and the next one's.
    starts = np.append(np.sort(np.unique(roots)), left.size)
    leaves = np.add.reduceat(_is_leaf(left).astype(np.int64), starts[:-1])
    return columns <= _MOST_COLUMNS and int(leaves.max()) <= _MOST_LEAVES


def conditions(tables: Sequence[Array], weights: Array | None) -> list[Array]:
    """tested, bound, keeps, starts and exits: the leaves' weights, or the leaves' rows where there are none."""
    feature, split, left, roots = tables[:4]
    children = [int(v) for v in left.tolist()]
    orders = [_in_order(children, int(root)) for root in roots.tolist()]
    width = 32 if max(len(leaves) for leaves, _ in orders) <= 32 else 64
    rows = np.asarray([row for _, inner in orders for row, _, _ in inner], np.int64)
    ones = (1 << width) - 1
    keeps = [ones ^ (((1 << (stop - start)) - 1) << start) for _, inner in orders for _, start, stop in inner]
    starts = np.cumsum([0, *(len(inner) for _, inner in orders)])
    exits = np.stack([_slots(leaves, width) for leaves, _ in orders])
    at_exits = exits.astype(np.int32) if weights is None else weights[exits]
    word = np.uint32 if width == 32 else np.uint64
    return [feature[rows], split[rows], np.asarray(keeps, word), starts.astype(np.int32), at_exits]


def _is_leaf(left: Array) -> NDArray[np.bool_]:
    return np.equal(left, np.arange(left.size))


def _in_order(left: Sequence[int], root: int) -> tuple[list[int], list[tuple[int, int, int]]]:
    """The leaves of a tree, true sides first; its inner nodes, each with the numbers of the leaves on its true side."""
    leaves: list[int] = []
    inner: list[tuple[int, int, int]] = []
    waiting: list[tuple[int, int]] = [(root, -1)]
    while waiting:
        row, start = waiting.pop()
        if start >= 0:  # all leaves on the true side have been numbered
            inner.append((row, start, len(leaves)))
        elif left[row] == row:
            leaves.append(row)
        else:
            waiting += [(left[row], -1), (row, len(leaves)), (left[row] + 1, -1)]
    return leaves, inner


def _slots(leaves: Sequence[int], width: int) -> NDArray[np.int64]:
    """The rows of the leaves, each in the slot that the kernel computes from its bit; others hold the first leaf."""
    slots = np.full(width, leaves[0], np.int64)
    for number, row in enumerate(leaves):
        slots[(SLOTS[width] << number) % (1 << width) >> (width - slot_bits(width))] = row
    return slots
