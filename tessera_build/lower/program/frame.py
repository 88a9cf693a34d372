"""What a block is told about its surroundings.

Takes nothing; gives the records in which blocks and what contains them speak to each other. Invariant: what a block
shares with its surroundings lies in dense memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tessera_build.ir.core.dims import Extent, Range, symbol
from tessera_build.ir.core.node import Node
from tessera_build.ir.graph.sizes import upper_bound
from tessera_build.ir.target.host import Buffer, Space
from tessera_build.lower.program.records import LaunchRecord


@dataclass(frozen=True, slots=True)
class Home:
    """Dense memory outside a block that holds one of its values; `offset` in bytes."""

    space: Space
    index: int = 0
    offset: Extent = 0

    @property
    def buffer(self) -> Buffer:
        """The place as the host program names it."""
        return Buffer(self.space, self.index, self.offset)


@dataclass(frozen=True, slots=True)
class Frame:
    """What a block needs to know to be planned: digests of the constants and ids of the values it has from outside.

    `ranges` bounds every symbol that the block's extents may mention, `sizes` has the upper bounds of those that are
    read from data; `depth` counts the regions around it. `updated`: results that may lie where their state lies;
    `mixed`: dims along which the entry combines elements, so that they tell no requests apart; `derivative`: the
    entry gives derivatives, which add up what values are off by.
    """

    digests: Mapping[int, str]
    arguments: frozenset[int]
    ranges: Mapping[str, Range]
    depth: int = 0
    sizes: Mapping[str, Extent] = field(default_factory=dict[str, Extent])
    updated: frozenset[int] = frozenset()
    mixed: frozenset[str] = frozenset()
    derivative: bool = False

    @property
    def unbounded(self) -> frozenset[str]:
        """Symbols of which nothing is known before the program runs."""
        return frozenset(name for name in self.sizes if self.most(symbol(name)) is None)

    def most(self, size: Extent) -> Extent | None:
        """The most that a size can be, over dims alone; None where that is not known."""
        return upper_bound(size, self.sizes, self.ranges)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a block needs to know to be written: where its part of the arena starts, and the homes of what it shares."""

    base: Extent
    arguments: Mapping[int, Home]
    results: Sequence[Home]


class PlannedBlock(Protocol):
    """A block as what contains it sees it; `records` is filled by `emit`."""

    arena_bytes: Extent
    records: list[LaunchRecord]

    def emit(self, surroundings: Surroundings) -> list[Node]:
        """The block's host nodes."""
        ...


@dataclass(slots=True)
class Slots:
    """Carried slots of one module, each used by one loop only."""

    next: int = field(default=0)

    def take(self, count: int) -> int:
        """The first of `count` slots."""
        self.next += count
        return self.next - count
