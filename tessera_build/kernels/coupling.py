"""Probabilities of classes from those of pairs: the second method of Wu, Lin and Weng (JMLR 5, 2004).

Takes r[N, C, C], r[n, i, j] being the probability of class i against class j, and gives p[N, C]. A row is improved
until no class is further off than 0.005 / C, or a hundred times. Invariant: a row that is good stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from tessera.kernel import kernel
from tessera.tile import Carry, TileBuilder
from tessera.values import Buffer, Tile
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import F32, I64, int_extent
from tessera_build.kernels.subject import KernelSubject

TURNS = 100
PRECISION = 0.005


def coupled(subject: KernelSubject) -> Function:
    """out[n] minimises the disagreement with the pairs of r[n]."""
    classes = int_extent(subject.results[0].shape[1])

    @kernel(r=subject.buffer(0), out=subject.target(0))
    def coupled(tile: TileBuilder, r: Buffer, out: Buffer) -> None:
        for row in tile.range(out.shape[0]):
            one = _Row(tile, out, row, tile.alloc(F32, classes, classes), tile.alloc(F32, classes))
            one.prepare(r)
            state = Carry(good=tile.constant(0, I64))
            for _ in tile.range(TURNS, carry=state):
                with tile.when(tile.index(state.good, 2), "lt", 1, carry=state):
                    expected = one.measure()
                    state.good = one.is_good(expected)
                    with tile.when(tile.index(state.good, 2), "lt", 1):
                        one.improve(expected)

    return coupled


@dataclass(frozen=True, slots=True)
class _Row:
    tile: TileBuilder
    out: Buffer
    row: Extent
    q: Buffer
    products: Buffer

    @property
    def classes(self) -> int:
        return int_extent(self.out.shape[1])

    def prepare(self, r: Buffer) -> None:
        """Q, and equal probabilities to start with."""
        tile = self.tile
        for t in tile.range(self.classes):
            tile.put(tile.constant(1.0 / self.classes, F32), self.out, self.row, t)
            state = Carry(total=tile.constant(0.0, F32))
            for j in tile.range(self.classes, carry=state):
                with tile.when(j, "ne", t, carry=state):
                    other = tile.element(r, self.row, j, t)
                    state.total = state.total + other * other
                    tile.put(-other * tile.element(r, self.row, t, j), self.q, t, j)
            tile.put(state.total, self.q, t, t)

    def measure(self) -> Tile:
        """Q p, and what p Q p is expected to be everywhere."""
        tile = self.tile
        state = Carry(expected=tile.constant(0.0, F32))
        for t in tile.range(self.classes, carry=state):
            inner = Carry(product=tile.constant(0.0, F32))
            for j in tile.range(self.classes, carry=inner):
                inner.product = inner.product + tile.element(self.q, t, j) * tile.element(self.out, self.row, j)
            tile.put(inner.product, self.products, t)
            state.expected = state.expected + tile.element(self.out, self.row, t) * inner.product
        return state.expected

    def is_good(self, expected: Tile) -> Tile:
        """1 where no class is too far off, else 0."""
        tile = self.tile
        state = Carry(worst=tile.constant(0.0, F32))
        for t in tile.range(self.classes, carry=state):
            off = tile.map("abs", tile.element(self.products, t) - expected)
            state.worst = tile.map("max", state.worst, off)
        return tile.cast(state.worst < PRECISION / self.classes, I64)

    def improve(self, expected: Tile) -> None:
        """One class after the other."""
        tile = self.tile
        state = Carry(expected=expected)
        for t in tile.range(self.classes, carry=state):
            own, product = tile.element(self.q, t, t), tile.element(self.products, t)
            step = (state.expected - product) / own
            grown = step + 1.0
            tile.put(tile.element(self.out, self.row, t) + step, self.out, self.row, t)
            state.expected = (state.expected + step * (step * own + product * 2.0)) / grown / grown
            for j in tile.range(self.classes):
                moved = tile.element(self.products, j) + step * tile.element(self.q, t, j)
                tile.put(moved / grown, self.products, j)
                tile.put(tile.element(self.out, self.row, j) / grown, self.out, self.row, j)
