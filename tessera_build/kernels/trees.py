"""Ensembles of decision trees: every row of features walks all trees, a vector of trees at once.

Takes x[N, F], the nodes' tables (feature, split and left child of every node), roots and the leaves' entries; gives
one aggregate for each target. A node sends a row to the child `left + 1` where its condition holds, else to `left`; a
leaf is its own left child and its condition never holds, so that all trees are walked as many steps as the deepest
one has. Invariant: roots come in whole vectors; what fills the last one is a leaf that counts for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tessera.kernel import kernel
from tessera.tile import Carry, TileBuilder
from tessera.values import Buffer, Tile
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.types import I32, DType, int_extent
from tessera_build.kernels.subject import KernelSubject

OPERANDS = ("x", "feature", "split", "left", "roots", "first", "count", "target", "weight")
WIDTH = 16  # trees that are walked together; the number of roots is a multiple of it
_COMBINED: Mapping[str, tuple[str, float]] = {
    "sum": ("add", 0.0),
    "min": ("min", float("inf")),
    "max": ("max", float("-inf")),
}


def tree_ensemble(subject: KernelSubject) -> Function:
    """out[n, t] = the sum (or least, or largest) of the weights for target t at the leaves that row n comes to."""
    more = [name for name in ("equal", "missing") if subject.flag(name)]
    buffers = {name: subject.buffer(position) for position, name in enumerate((*OPERANDS, *more))}
    operation, identity = _COMBINED[subject.word("aggregate")]
    targets, depth = int_extent(subject.results[0].shape[1]), subject.integer("depth")
    dtype = subject.results[0].dtype

    @kernel(**buffers, out=subject.target(0))
    def tree_ensemble(tile: TileBuilder, out: Buffer, **tables: Buffer) -> None:
        forest = _Forest(tile, tables, depth)
        for row in tile.range(tables["x"].shape[0]):
            if subject.flag("single"):
                total = forest.single(row, operation, identity, dtype)
                tile.put(_or_zero(tile, total, identity), out, row, 0)
                continue
            sums = tile.alloc(dtype, targets)
            for t in tile.range(targets):
                tile.put(tile.constant(identity, dtype), sums, t)
            forest.several(row, operation, sums)
            for t in tile.range(targets):
                tile.put(_or_zero(tile, tile.element(sums, t), identity), out, row, t)

    return tree_ensemble


def _or_zero(tile: TileBuilder, total: Tile, identity: float) -> Tile:
    """A target that no leaf speaks of is zero."""
    if identity == 0.0:
        return total
    untouched = tile.map("eq", total, tile.constant(identity, total.dtype))
    return tile.where(untouched, tile.constant(0.0, total.dtype), total)


@dataclass(frozen=True, slots=True)
class _Forest:
    tile: TileBuilder
    tables: Mapping[str, Buffer]
    depth: int

    def leaves(self, row: Extent, trees: Extent) -> Tile:
        """The leaves that a row comes to in `WIDTH` trees."""
        state = Carry(at=self.tile.load(self.tables["roots"][trees : trees + WIDTH]))
        for _ in self.tile.range(self.depth, carry=state):
            holds = self._holds(row, state.at)
            state.at = self.tile.load(self.tables["left"][state.at]) + self.tile.cast(holds, I32)
        return state.at

    def _holds(self, row: Extent, at: Tile) -> Tile:
        tile, tables = self.tile, self.tables
        value = tile.load(tables["x"][row, tile.load(tables["feature"][at])])
        split = tile.load(tables["split"][at])
        holds = value <= split
        if "equal" in tables:
            wants_equal = tile.load(tables["equal"][at]) > 0
            holds = tile.where(wants_equal, tile.map("eq", value, split), holds)
        if "missing" in tables:
            tracked = tile.load(tables["missing"][at]) > 0
            holds = tile.map("or", holds, tile.map("and", tile.map("isnan", value), tracked))
        return holds

    def single(self, row: Extent, operation: str, identity: float, dtype: DType) -> Tile:
        """The aggregate of the only target, where entry i is that of node i."""
        tile = self.tile
        state = Carry(total=tile.full((WIDTH,), identity, dtype))
        for trees in tile.range(self.tables["roots"].shape[0], WIDTH, carry=state):
            weights = tile.load(self.tables["weight"][self.leaves(row, trees)])
            state.total = tile.map(operation, state.total, weights)
        combine = ScalarBuilder((dtype, dtype))
        program = combine.finish(combine.op(operation, 0, 1))
        (total,) = tile.reduce((state.total,), (0,), program, (identity,), f"tree({WIDTH})")
        return total

    def several(self, row: Extent, operation: str, sums: Buffer) -> None:
        """Combine every entry of every leaf with the aggregate of its target."""
        tile, tables = self.tile, self.tables
        entries = tables["target"].shape[0]
        for trees in tile.range(tables["roots"].shape[0], WIDTH):
            kept = tile.alloc(I32, WIDTH)
            tile.store(kept[:], self.leaves(row, trees))
            for tree in tile.range(WIDTH):
                leaf = tile.index(tile.element(kept, tree), tables["left"].shape[0])
                first = tile.index(tile.element(tables["first"], leaf), entries + 1)
                count = tile.index(tile.element(tables["count"], leaf), entries + 1)
                for step in tile.range(count):
                    target = tile.index(tile.element(tables["target"], first + step), sums.shape[0])
                    weight = tile.element(tables["weight"], first + step)
                    tile.put(tile.map(operation, tile.element(sums, target), weight), sums, target)
