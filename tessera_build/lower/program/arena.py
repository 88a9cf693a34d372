"""One arena for all intermediate values: offsets by liveness.

Takes, per root, its size in bytes and the first and last step that touches it; gives offsets and the arena's size.
Roots of known size are packed greedily, largest first (Pisarchyk and Lee, arXiv:2001.03288); roots whose size is
symbolic share slots of equal size behind them. Invariant: two roots that are alive at the same step never overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent

ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A root's size in bytes and the steps (inclusive) during which it must keep its content."""

    root: int
    size: Extent
    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        """Whether two roots are ever alive together."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, slots=True)
class Arena:
    """Byte offset of every root, the arena's size, and the least any plan would need (static roots only)."""

    offsets: dict[int, Extent]
    size: Extent
    lower_bound: int


def aligned(size: Extent) -> Extent:
    """`size` rounded up to the arena's alignment."""
    return (size + (ALIGNMENT - 1)) // ALIGNMENT * ALIGNMENT


def plan_arena(lifetimes: Sequence[Lifetime]) -> Arena:
    """Give every root its place."""
    static = [(item, item.size) for item in lifetimes if isinstance(item.size, int)]
    offsets: dict[int, Extent] = {}
    placed: list[tuple[Lifetime, int, int]] = []
    top = 0
    for item, size in sorted(static, key=lambda pair: (-pair[1], pair[0].first, pair[0].root)):
        width = -(-size // ALIGNMENT) * ALIGNMENT
        start = _first_gap(item, width, placed)
        placed.append((item, start, start + width))
        offsets[item.root] = start
        top = max(top, start + width)
    size = _symbolic([item for item in lifetimes if not isinstance(item.size, int)], offsets, top)
    return Arena(offsets, size, _lower_bound(static))


def _first_gap(item: Lifetime, width: int, placed: Sequence[tuple[Lifetime, int, int]]) -> int:
    """The smallest gap that fits between the roots alive at the same time, or the place after them."""
    busy = sorted((start, end) for other, start, end in placed if item.overlaps(other))
    best: tuple[int, int] | None = None
    cursor = 0
    for start, end in busy:
        if start - cursor >= width and (best is None or start - cursor < best[0]):
            best = (start - cursor, cursor)
        cursor = max(cursor, end)
    return best[1] if best is not None else cursor


def _symbolic(lifetimes: Sequence[Lifetime], offsets: dict[int, Extent], start: Extent) -> Extent:
    slots: list[tuple[Extent, Extent, int]] = []  # size, offset, last step in use
    for item in sorted(lifetimes, key=lambda x: (x.first, x.root)):
        size = aligned(item.size)
        free = [i for i, (width, _, last) in enumerate(slots) if width == size and last < item.first]
        if free:
            index = free[0]
            slots[index] = (size, slots[index][1], item.last)
        else:
            index = len(slots)
            slots.append((size, start, item.last))
            start = start + size
        offsets[item.root] = slots[index][1]
    return start


def _lower_bound(static: Sequence[tuple[Lifetime, int]]) -> int:
    steps = {step for item, _ in static for step in (item.first, item.last)}
    return max((sum(size for item, size in static if item.first <= step <= item.last) for step in steps), default=0)
