"""Register tiles over rows whose number only a run knows.

Takes a number of rows that is at least a tile's; gives a loop over whole tiles and a smaller tile for what they leave.
Invariant: every tile lies inside, so that the last ones may compute rows again, with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent, minimum, symbol
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.schedule_to_tile.nest import LoopRange, Nest

# Rows of the tile for few that are left: with tiles of 8 alone, 50 rows cost as much as 56.
SMALLER = 4


@dataclass(frozen=True, slots=True)
class RowTile:
    """Its number in the order in which tiles run, its first row, and how many it has."""

    number: Extent
    row: Extent
    rows: int


def loop_over_rows(nest: Nest, rows: Extent, index: str, block: int, make: Callable[[RowTile], None]) -> None:
    """Append tiles of `block` rows, the last moved back inside, and a smaller one where that holds what is left."""
    small = SMALLER if block > SMALLER else 0
    tiles = (rows + (block - 1 - small)) // block

    def turn(_: tuple[int, ...]) -> tuple[int, ...]:
        make(
            RowTile(symbol(index) // block, minimum(symbol(index), rows - block) if block > 1 else symbol(index), block)
        )
        return ()

    nest.loop(LoopRange(index, tiles * block, block), (), turn)
    if not small:
        return
    with nest.builder.region() as rest:
        make(RowTile(tiles, rows - small, small))
    with nest.builder.region() as nothing:
        pass
    nest.builder.add(t.If((), tiles * block, "lt", rows, rest.region, nothing.region))
