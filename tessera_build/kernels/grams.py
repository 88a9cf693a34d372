"""Sequences of tokens counted by what a trie says of them.

Takes tokens x[N, C] and a trie; gives totals[N, V]. The trie is a double array (Aoe, 1989): from node p, token t leads
to node base[p] + t if its parent is p. Invariant: node 0 has no children and the root is node 1; base[p] + t is a node
for every p and t.
"""

from __future__ import annotations

from dataclasses import dataclass

from tessera.kernel import kernel
from tessera.tile import Carry, TileBuilder
from tessera.values import Buffer, Tile
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import I64
from tessera_build.kernels.scatter import row_width
from tessera_build.kernels.subject import KernelSubject


def count_grams(subject: KernelSubject) -> Function:
    """totals[n, targets[p]] takes weights[p] for each sequence in x[n] that leads to p; a target of -1: nothing.

    Sequences begin anywhere and take up to `longest` tokens that are 1, 2, ... `strides` apart; those of one token
    count once. With `last`, a total is the last weight that it took, else their sum.
    """
    rows, length = subject.operands[0].shape
    names = ("x", "base", "parents", "targets", "weights")
    operands = {name: subject.buffer(position) for position, name in enumerate(names)}
    width = row_width(subject.results[0].shape[1], subject.lanes)

    @kernel(**operands, totals=subject.target(0))
    def count_grams(tile: TileBuilder, totals: Buffer, **given: Buffer) -> None:
        for row in tile.range(rows):
            for v in tile.range(totals.shape[1], width):
                tile.store(totals[row, v : v + width], tile.full((width,), 0.0, totals.dtype))
            walk = _Walk(tile, given, totals, row, last=subject.flag("last"))
            for gap in tile.range(subject.integer("strides")):
                for start in tile.range(length):
                    state = Carry(node=tile.constant(1, I64))
                    for depth in tile.range(subject.integer("longest"), carry=state):
                        with tile.when(start + depth * (gap + 1), "lt", length, carry=state):
                            walk.step(state, start, gap, depth)

    return count_grams


@dataclass(frozen=True, slots=True)
class _Walk:
    tile: TileBuilder
    given: dict[str, Buffer]
    totals: Buffer
    row: Extent
    last: bool

    def step(self, state: Carry, start: Extent, gap: Extent, depth: Extent) -> None:
        """One token further, unless the sequence has left the trie."""
        tile, nodes = self.tile, self.given["base"].shape[0]
        node = tile.index(state.node, nodes)
        with tile.when(0, "lt", node, carry=state):
            token = tile.element(self.given["x"], self.row, start + depth * (gap + 1))
            place = tile.index(tile.cast(tile.element(self.given["base"], node) + token, I64), nodes)
            known = tile.map("eq", self._at("parents", place), tile.number(node))
            state.node = tile.where(known, tile.number(place), tile.constant(0, I64))
            # A single token is the same sequence at every distance.
            again = tile.map("and", tile.number(gap) > 0, tile.number(depth) < 1)
            counted = tile.map("and", known, tile.map("not", again))
            target = tile.where(counted, self._at("targets", place) + 1, tile.constant(0, I64))
            self._take(tile.index(target, self.totals.shape[1] + 1), place)

    def _take(self, target: Extent, place: Extent) -> None:
        tile = self.tile
        with tile.when(0, "lt", target):
            weight: Tile = tile.element(self.given["weights"], place)
            if not self.last:
                weight = tile.element(self.totals, self.row, target - 1) + weight
            tile.put(weight, self.totals, self.row, target - 1)

    def _at(self, name: str, place: Extent) -> Tile:
        return self.tile.cast(self.tile.element(self.given[name], place), I64)
