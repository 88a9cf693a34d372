"""Small decision trees without walks: every condition that fails takes the leaves on its true side out of a word.

Takes a block of rows and the conditions of a tree in any order; gives the leaf that each row comes to. Leaves are
numbered with the true side first, so the lowest bit that is left names the leaf, whatever the order of the conditions
(Lucchese et al., QuickScorer, 2015). Invariant: nothing depends on the path a row takes, so there is no misprediction
and a vector holds as many rows as it has lanes.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera.tile import Carry, TileBuilder
from tessera.values import Buffer, Tile
from tessera_build.ir.core.dims import Extent
from tessera_build.kernels.subject import KernelSubject

BLOCK = 16  # rows that look at a condition together
# A power of two times this number has its own number in the highest bits: the lowest bit's place without counting.
SLOTS: Mapping[int, int] = {32: 0x077CB531, 64: 0x03F79D71B4CB0A89}


def slot_bits(width: int) -> int:
    """Bits of a leaf's slot among as many as a word has bits."""
    return width.bit_length() - 1


class Masks:
    """The columns of a block of rows, and the conditions that look at them."""

    def __init__(self, tile: TileBuilder, tables: Mapping[str, Buffer], subject: KernelSubject, first: Extent) -> None:
        self._tile, self._tables, self._word = tile, tables, tables["keeps"].dtype
        columns, missing, x = subject.integer("columns"), subject.flag("missing"), tables["x"]
        self._values = tile.alloc(x.dtype, columns * (1 + missing), BLOCK)
        for column in tile.range(columns):
            values = tile.load(x[first : first + BLOCK, column])
            tile.store(self._values[column, 0:BLOCK], values)
            if missing:
                lowest = tile.full((BLOCK,), float("-inf"), x.dtype)
                number = tile.where(tile.map("isnan", values), lowest, values)
                tile.store(self._values[columns + column, 0:BLOCK], number)

    def exits(self, tree: Extent) -> Tile:
        """What the table `exits` has for the leaf of each row."""
        tile, tables, width = self._tile, self._tables, self._word.bits
        conditions = tables["tested"].shape[0]
        start = tile.index(tile.element(tables["starts"], tree), conditions + 1)
        count = tile.index(tile.element(tables["starts"], tree + 1) - tile.element(tables["starts"], tree), width)
        ones = tile.map("not", tile.full((BLOCK,), 0, self._word))
        state = Carry(left=ones)
        for number in tile.range(count, carry=state):
            at = tile.index(tile.number(start + number), conditions)
            column = tile.index(tile.element(tables["tested"], at), self._values.shape[0])
            holds = tile.load(self._values[column, 0:BLOCK]) <= tile.element(tables["bound"], at)
            state.left = tile.where(holds, state.left, tile.map("and", state.left, tile.element(tables["keeps"], at)))
        lowest = tile.map("and", state.left, tile.map("not", state.left) + 1)
        moved = lowest * tile.full((BLOCK,), SLOTS[width], self._word)
        slot = tile.map("shr", moved, tile.full((BLOCK,), width - slot_bits(width), self._word))
        return tile.load(tables["exits"][tree, slot])
