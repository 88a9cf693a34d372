"""Where long sums of products are cut into blocks, so that their rounding errors do not grow with the whole length.

Takes a workload; gives the axis along which its sum has blocks, and how long they are. Invariant: where the rounding of
values matters most, in entries that give derivatives, no sequence has more than `SHORT` products, taps of windows
included; elsewhere none along the axis that is contracted has more than `LONG`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from tessera_build.space.workload import Span, Workload

LONG: Final = 1024
SHORT: Final = 128
_CHUNK = 16  # the usual steps of a contraction that are emitted


@dataclass(frozen=True, slots=True)
class Blocks:
    """`size`: turns along `axis` in a block; `count`: of all blocks of an element's sum."""

    axis: str
    size: int
    count: int


def blocks_of(work: Workload) -> Blocks | None:
    """The blocks of a sum, where it is long; sums of bytes are exact.

    12544 terms: an error of 4e-7 of the largest sum in place of 3e-6, for 1 % more or less time. Numbers of terms that
    are not known count as many.
    """
    if not work.reduction or work.byte_product:
        return None
    *outer, inner = work.reduction
    longest = SHORT if work.short_sums else LONG
    if inner.dynamic or inner.extent > longest:
        size = _size(inner, longest // 2)
        return Blocks(inner.name, size, _turns(outer) * -(-inner.extent // size))
    terms = inner.extent  # of one turn
    for index in range(len(outer) - 1, -1, -1) if work.short_sums else ():
        span = outer[index]
        if terms * span.extent > longest or span.dynamic:
            size = max(1, longest // 2 // terms)
            return Blocks(span.name, size, _turns(outer[:index]) * -(-span.extent // size))
        terms *= span.extent
    return None


def _size(span: Span, about: int) -> int:
    """Whole chunks, of which the rest is not two: of a loop of two trips LLVM makes spills (`rules/product.py`)."""
    if span.dynamic:
        return about
    near = sorted(range(about - _CHUNK, about + 8 * _CHUNK, _CHUNK), key=lambda size: abs(size - about))
    return next((size for size in near if span.extent % size // _CHUNK != 2), about)


def _turns(spans: list[Span]) -> int:
    return math.prod(span.extent for span in spans)
