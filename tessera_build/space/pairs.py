"""The rule's algebra for sums of products taken in pairs: fewer multiplications, for additions that cost nothing.

Winograd's inner product (1968): a b + c d = (a + d) (c + b) - a c - b d. Where adders are no part of multipliers, two
additions cost nothing beside two multiply-adds, and three products are made in the time of two: two in a pair, and
one as it is. A row is cut into thirds x, y, z, a column into b_x, b_y, b_z; then

    sum = sum over k of  +(x + b_y) (y + b_x)  or, every other k,  -(b_y - x) (b_x - y),  and of z b_z
        - sum of +- x y - sum of +- b_x b_y

Takes a definition; gives how it may be taken in pairs. Invariant: rows and columns of one size err as little as direct
sums, others more, so rows are scaled by powers of two, each for itself: an output depends on its own row alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from tessera_build.ir.core.dims import symbol, symbols_of
from tessera_build.ir.core.scalar import Array
from tessera_build.ir.core.types import F32
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.space.contraction import is_product
from tessera_build.space.pairs_error import pairing_error, third_of
from tessera_build.space.workload import Rewriting, Subject

PAIRS: Final = "pairs"
# Pairs that are emitted together: one of sums, one of differences.
TURN: Final = 2
PARTS: Final = 3
# Of 2, the largest power that rows may be scaled to: their own are between 2**-100 and 2**100 then.
MOST_SCALE: Final = 24
_LEAST_DEPTH: Final = PARTS * TURN


@dataclass(frozen=True, slots=True)
class Paired:
    """A product whose terms can be paired: its rows' axes, the axis that is summed, where the weights have depth and
    outputs. `third`: pairs; terms that are left after three times as many stay as they are."""

    rows: tuple[str, ...]
    depth: str
    extent: int
    weight: tuple[int, int]

    @property
    def third(self) -> int:
        """How many pairs there are."""
        return third_of(self.extent)


def scale_of(weights: Array, depth: int) -> int:
    """The power of two that the sizes of a row's elements add up to: then they are about those of the weights."""
    mean = float(np.abs(weights.astype(np.float64)).mean())
    return round(math.log2(mean * depth / math.sqrt(2))) if mean > 0 else 0


def paired_of(node: Compute) -> Paired | None:
    """The product of f32 that a definition is, if its extents are known and every axis but the last is one of rows."""
    if not is_product(node) or set(node.program.inputs) != {F32} or len(node.reduction) != 1 or len(node.axes) < 2:
        return None
    (depth,), vector, (first, second) = node.reduction, node.axes[-1], node.accesses
    *outer, last = first.indices
    used = {name for index in outer for name in symbols_of(index)}
    extents = [axis.extent for axis in (*node.axes, depth)]
    wanted = [symbol(depth.name), symbol(vector.name)]
    plain = first.pad is None and second.pad is None and last == wanted[0] and not {depth.name, vector.name} & used
    alone = all(second.indices.count(index) == 1 for index in wanted)
    alone = alone and all(index in wanted or index == 0 for index in second.indices)
    if not plain or not alone or not all(isinstance(extent, int) for extent in extents):
        return None
    if not isinstance(depth.extent, int) or depth.extent < _LEAST_DEPTH:
        return None
    rows = tuple(axis.name for axis in node.axes[:-1])
    if any(axis.extent != 1 and axis.name not in used for axis in node.axes[:-1]):
        return None
    return Paired(rows, depth.name, depth.extent, (second.indices.index(wanted[0]), second.indices.index(wanted[1])))


def pairs_rewriting(node: Compute, subject: Subject) -> Rewriting | None:
    """The scale of rows, where the error of pairs is within the policy's bound for these weights."""
    paired, bound = paired_of(node), subject.bounds.products
    if paired is None or bound <= 0 or node.reads[1] not in subject.constants or subject.short_sums:
        return None
    weights = subject.constants[node.reads[1]]
    if not np.isfinite(weights).all():
        return None
    scale = scale_of(weights, paired.extent)
    if abs(scale) > MOST_SCALE or not pairing_error(weights, paired.weight, scale) <= bound:
        return None
    return Rewriting(PAIRS, (scale,), (*paired.rows, paired.depth))
