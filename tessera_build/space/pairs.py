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
from tessera_build.ir.schedule.nodes import Access, Compute
from tessera_build.space.contraction import is_product
from tessera_build.space.pairs_error import pairing_error, third_of
from tessera_build.space.workload import Rewriting, Subject

PAIRS: Final = "pairs"
# Pairs that are emitted together: one of sums, one of differences.
TURN: Final = 2
PARTS: Final = 3
# Behind the elements of a scaled row or column: what its pairs begin with, and the number that undoes the scale.
BEHIND: Final = 2
# Of 2, the largest power that rows may be scaled to: their own are between 2**-100 and 2**100 then.
MOST_SCALE: Final = 24
_LEAST_DEPTH: Final = PARTS * TURN


@dataclass(frozen=True, slots=True)
class Paired:
    """A product whose terms can be paired: the axes of what is scaled, the axis that is summed and its extent, which
    read has the weights, where these have depth and outputs. `third`: pairs; terms that are left after three times as
    many stay as they are. Weights that are read second serve rows, such that are read first columns."""

    scaled: tuple[str, ...]
    depth: str
    extent: int
    read: int
    weight: tuple[int, int]

    @property
    def third(self) -> int:
        """How many pairs there are."""
        return third_of(self.extent)


def scale_of(weights: Array, depth: int) -> int:
    """The power of two that the sizes of a row's elements add up to: then they are about those of the weights."""
    mean = float(np.abs(weights.astype(np.float64)).mean())
    return round(math.log2(mean * depth / math.sqrt(2))) if mean > 0 else 0


def paired_of(node: Compute, read: int = 1) -> Paired | None:
    """The product of f32 that a definition is, if its extents are known and read `read` may have its weights."""
    if not is_product(node) or set(node.program.inputs) != {F32} or len(node.reduction) != 1 or len(node.axes) < 2:
        return None
    extents = [axis.extent for axis in (*node.axes, *node.reduction)]
    depth = node.reduction[0].extent
    if any(access.pad is not None for access in node.accesses) or not all(isinstance(e, int) for e in extents):
        return None
    if not isinstance(depth, int) or depth < _LEAST_DEPTH:
        return None
    return _of_rows(node, depth) if read == 1 else _of_columns(node, depth)


def _of_rows(node: Compute, depth: int) -> Paired | None:
    """Every axis but the last is one of rows, whose elements lie side by side."""
    (summed,), vector, (first, second) = node.reduction, node.axes[-1], node.accesses
    *outer, last = first.indices
    used = {name for index in outer for name in symbols_of(index)}
    plain = last == symbol(summed.name) and not {summed.name, vector.name} & used
    where = _places(second, (summed.name, vector.name))
    if not plain or where is None or any(a.extent != 1 and a.name not in used for a in node.axes[:-1]):
        return None
    return Paired(tuple(axis.name for axis in node.axes[:-1]), summed.name, depth, 1, where)


def _of_columns(node: Compute, depth: int) -> Paired | None:
    """Weights serve columns that lie side by side; one axis is that of the weights' outputs."""
    (summed,), vector, (first, second) = node.reduction, node.axes[-1], node.accesses
    *outer, last = second.indices
    used = [name for index in outer for name in symbols_of(index)]
    rows = [axis.name for axis in node.axes[:-1] if any(axis.name in symbols_of(index) for index in first.indices)]
    if len(rows) != 1 or last != symbol(vector.name) or outer.count(symbol(summed.name)) != 1:
        return None
    where, others = _places(first, (summed.name, rows[0])), {axis.name for axis in node.axes[:-1]} - {rows[0]}
    even = used.count(summed.name) == 1 and not {rows[0], vector.name} & set(used)
    if where is None or not even or any(a.extent != 1 and a.name not in used for a in node.axes if a.name in others):
        return None
    return Paired((rows[0],), summed.name, depth, 0, where)


def _places(weights: Access, names: tuple[str, str]) -> tuple[int, int] | None:
    """Where weights have depth and outputs, if that is all they have."""
    wanted = [symbol(name) for name in names]
    alone = all(weights.indices.count(index) == 1 for index in wanted)
    if not alone or not all(index in wanted or index == 0 for index in weights.indices):
        return None
    return weights.indices.index(wanted[0]), weights.indices.index(wanted[1])


def pairs_rewriting(node: Compute, subject: Subject) -> Rewriting | None:
    """The scale of rows, where the error of pairs is within the policy's bound for these weights."""
    bound = subject.bounds.products
    constant = [read for read in (1, 0) if read < len(node.reads) and node.reads[read] in subject.constants]
    paired = paired_of(node, constant[0]) if constant else None
    if paired is None or bound <= 0 or subject.short_sums:
        return None
    weights = subject.constants[node.reads[paired.read]]
    if not np.isfinite(weights).all():
        return None
    scale = scale_of(weights, paired.extent)
    if abs(scale) > MOST_SCALE or not pairing_error(weights, paired.weight, scale) <= bound:
        return None
    return Rewriting(PAIRS, (scale,), (*paired.scaled, paired.depth))
