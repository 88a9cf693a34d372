"""Sums of tiles with constant factors: what Winograd's transforms are made of.

Takes factors and as many tiles; gives one `map`. Invariant: which operations make a value depends on the factors alone,
never on where its tile lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.types import F32
from tessera_build.lower.schedule_to_tile.nest import Nest


def weighted_sum(nest: Nest, factors: Sequence[Fraction], tiles: Sequence[int]) -> int:
    """The tiles' sum with these factors, from the last term to the first, each added by a fused multiply-add."""
    terms = list(zip(factors, tiles, strict=False))
    shape = nest.builder.types[tiles[0]].static_shape

    def program(s: ScalarBuilder) -> int:
        total = _scaled(s, terms[-1][0], len(terms) - 1)
        for position in range(len(terms) - 2, -1, -1):
            total = _plus(s, terms[position][0], position, total)
        return total

    return nest.map(shape, [tile for _, tile in terms], program)


def _scaled(s: ScalarBuilder, factor: Fraction, value: int) -> int:
    return value if factor == 1 else s.op("mul", value, s.const(float(factor), F32))


def _plus(s: ScalarBuilder, factor: Fraction, value: int, total: int) -> int:
    if factor == 1:
        return s.op("add", total, value)
    if factor == -1:
        return s.op("sub", total, value)
    return s.op("fma", value, s.const(float(factor), F32), total)
