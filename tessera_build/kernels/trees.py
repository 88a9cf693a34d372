"""Ensembles of decision trees: every row of features goes through all trees; the leaves' weights are aggregated.

Takes x[N, F] and the tables of `tree_ensemble`; gives one aggregate for each target. A few rows walk from node to
node, eight trees at a time so that no step waits for memory; where no tree has more leaves than a word has bits, more
rows look at every condition instead, a vector of rows at once (see `tree_masks`). Invariant: both ways combine weights
in one order, so that a row's result does not depend on how many rows there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tessera.kernel import kernel
from tessera.tile import Carry, TileBuilder
from tessera.values import Buffer, Tile
from tessera_build.ir.core.dims import Extent, minimum, mod
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import I32, int_extent
from tessera_build.kernels.subject import KernelSubject
from tessera_build.kernels.tree_masks import BLOCK, Masks

OPERANDS = ("x", "feature", "split", "left", "roots", "depths", "first", "count", "target", "weight")
MASKS = ("tested", "bound", "keeps", "starts", "exits")
GROUP = 8  # trees that are walked together; the number of roots is a multiple of it
_FEW = 6  # rows of a block for which walks are faster than looking at all conditions (355 trees of 31 leaves)
_MOST_SUMS = 4096  # aggregates on the stack
_MOST_COPIED = 512  # columns of a row on the stack
_COMBINED: Mapping[str, tuple[str, float]] = {
    "sum": ("add", 0.0),
    "min": ("min", float("inf")),
    "max": ("max", float("-inf")),
}


def tree_ensemble(subject: KernelSubject) -> Function:
    """out[n, t] = the sum (or least, or largest) of the weights for target t at the leaves that row n comes to."""
    more = [*(("equal",) if subject.flag("equal") else ()), *(MASKS if subject.flag("masks") else ())]
    buffers = {name: subject.buffer(position) for position, name in enumerate((*OPERANDS, *more))}
    rows, step = subject.operands[0].shape[0], _rows_together(subject)

    @kernel(**buffers, out=subject.target(0))
    def tree_ensemble(tile: TileBuilder, out: Buffer, **tables: Buffer) -> None:
        for first in tile.range(rows, step):
            block = _Block(tile, tables, subject, first, minimum(step, rows - first))
            if subject.flag("masks") and step == BLOCK:
                with tile.when(_FEW, "le", rows - first):
                    block.look(out)
                with tile.when(rows - first, "lt", _FEW):
                    block.walk(out)
            else:
                block.walk(out)

    return tree_ensemble


def _rows_together(subject: KernelSubject) -> int:
    """A block of rows goes through a group of trees before the next one does: the nodes stay in the nearest cache."""
    return BLOCK if BLOCK * int_extent(subject.results[0].shape[1]) <= _MOST_SUMS else 1


@dataclass(frozen=True, slots=True)
class _Block:
    """`rows` rows from `first` on."""

    tile: TileBuilder
    tables: Mapping[str, Buffer]
    subject: KernelSubject
    first: Extent
    rows: Extent

    @property
    def targets(self) -> int:
        """Aggregates of a row."""
        return int_extent(self.subject.results[0].shape[1])

    @property
    def combined(self) -> tuple[str, float]:
        """The operation that aggregates, and the number that changes nothing."""
        return _COMBINED[self.subject.word("aggregate")]

    def walk(self, out: Buffer) -> None:
        """All rows walk the trees of a group from their roots to the leaves, then those of the next."""
        tile, single = self.tile, self.subject.flag("single")
        sums, values = self._start(out), _Values(tile, self.tables["x"], self.subject, self.first, self.rows)
        for trees in tile.range(self.tables["roots"].shape[0], GROUP):
            depth = tile.index(tile.element(self.tables["depths"], trees), self.subject.integer("depth") + 1)
            for row in tile.range(self.rows):
                leaves = _descend(tile, self.tables, (trees, depth), values, row)
                if single:
                    weights = [tile.element(self.tables["weight"], leaf) for leaf in self._indices(leaves)]
                    total = tile.map(self.combined[0], tile.element(sums, row, 0), self.paired(weights))
                    tile.put(total, sums, row, 0)
                else:
                    for leaf in leaves:
                        self.enter(leaf, sums, row)
        self._finish(sums, out)

    def look(self, out: Buffer) -> None:
        """All rows look at the conditions of all trees, a tree at a time."""
        tile, identity = self.tile, self.combined[1]
        masks = Masks(tile, self.tables, self.subject, self.first)
        trees = self.tables["roots"].shape[0]
        if self.subject.flag("single"):
            state = Carry(total=tile.full((BLOCK,), identity, out.dtype))
            for group in tile.range(trees, GROUP, carry=state):
                weights = [masks.exits(group + place) for place in range(GROUP)]
                state.total = tile.map(self.combined[0], state.total, self.paired(weights))
            tile.store(out[self.first : self.first + BLOCK, 0], self._or_zero(state.total))
            return
        sums, kept = self._start(out), tile.alloc(I32, BLOCK)
        for tree in tile.range(trees):
            tile.store(kept[:], masks.exits(tree))
            for row in tile.range(self.rows):
                self.enter(tile.element(kept, row), sums, row)
        self._finish(sums, out)

    def paired(self, weights: Sequence[Tile]) -> Tile:
        """Weights of a group of trees combined in pairs."""
        level = list(weights)
        while len(level) > 1:
            pairs = zip(level[::2], level[1::2], strict=True)
            level = [self.tile.map(self.combined[0], a, b) for a, b in pairs]
        return level[0]

    def enter(self, leaf: Tile, sums: Buffer, row: Extent) -> None:
        """Combine every entry of a leaf with the aggregate of its target."""
        tile, tables = self.tile, self.tables
        entries, place = tables["target"].shape[0], tile.index(leaf, tables["left"].shape[0])
        first = tile.index(tile.element(tables["first"], place), entries + 1)
        count = tile.index(tile.element(tables["count"], place), entries + 1)
        for step in tile.range(count):
            target = tile.index(tile.element(tables["target"], first + step), self.targets)
            weight = tile.element(tables["weight"], first + step)
            tile.put(tile.map(self.combined[0], tile.element(sums, row, target), weight), sums, row, target)

    def _indices(self, leaves: Sequence[Tile]) -> list[Extent]:
        return [self.tile.index(leaf, self.tables["weight"].shape[0]) for leaf in leaves]

    def _start(self, out: Buffer) -> Buffer:
        tile, targets = self.tile, self.targets
        sums = tile.alloc(out.dtype, _rows_together(self.subject), targets)
        for row in tile.range(self.rows):
            for target in tile.range(targets):
                tile.put(tile.constant(self.combined[1], out.dtype), sums, row, target)
        return sums

    def _finish(self, sums: Buffer, out: Buffer) -> None:
        tile = self.tile
        for row in tile.range(self.rows):
            for target in tile.range(self.targets):
                place = self.first + row
                tile.store(out[place : place + 1, target], self._or_zero(tile.element(sums, row, target)))

    def _or_zero(self, total: Tile) -> Tile:
        """A target that no leaf speaks of is zero."""
        tile, identity = self.tile, self.combined[1]
        if identity == 0.0:
            return total
        untouched = tile.map("eq", total, tile.full(total.shape, identity, total.dtype))
        return tile.where(untouched, tile.full(total.shape, 0.0, total.dtype), total)


def _descend(
    tile: TileBuilder, tables: Mapping[str, Buffer], group: tuple[Extent, Extent], values: _Values, row: Extent
) -> list[Tile]:
    """The leaves that a row comes to in a group of trees, given by its first tree and its depth."""
    trees, depth = group
    names = [f"tree{place}" for place in range(GROUP)]
    state = Carry(**{name: tile.element(tables["roots"], trees + place) for place, name in enumerate(names)})
    for _ in tile.range(depth, carry=state):
        for name in names:
            at = tile.index(getattr(state, name), tables["left"].shape[0])
            holds = _holds(tile, tables, at, values.at(row, at, tables))
            setattr(state, name, tile.element(tables["left"], at) + tile.cast(holds, I32))
    return [getattr(state, name) for name in names]


def _holds(tile: TileBuilder, tables: Mapping[str, Buffer], at: Extent, value: Tile) -> Tile:
    split = tile.element(tables["split"], at)
    holds = value <= split
    if "equal" not in tables:
        return holds
    wanted = tile.element(tables["equal"], at)
    same = tile.map("or", tile.map("eq", value, split), tile.map("and", tile.map("isnan", value), wanted > 1))
    return tile.where(wanted > 0, same, holds)


class _Values:
    """The features of a block's rows; those from `columns` on once more, with the lowest number in NaN's place."""

    def __init__(self, tile: TileBuilder, x: Buffer, subject: KernelSubject, first: Extent, rows: Extent) -> None:
        self._tile, self._x, self._first = tile, x, first
        self._columns, self._missing = subject.integer("columns"), subject.flag("missing")
        self._copied = self._copy(subject.lanes, rows) if self._columns <= _MOST_COPIED else None

    def _copy(self, lanes: int, rows: Extent) -> Buffer:
        tile, columns = self._tile, self._columns
        copied = tile.alloc(self._x.dtype, BLOCK, columns * (1 + self._missing))
        for row in tile.range(rows):
            source = self._first + row
            # The second turn writes over what the first one wrote behind its columns.
            for start in (0, columns) if self._missing else (0,):
                for at in tile.range(columns, lanes):
                    values = tile.load(self._x[source : source + 1, at : at + lanes])
                    values = lowest_for_missing(tile, values) if start else values
                    tile.store(copied[row : row + 1, start + at : start + at + lanes], values)
        return copied

    def at(self, row: Extent, node: Extent, tables: Mapping[str, Buffer]) -> Tile:
        """The feature that a node looks at."""
        tile, columns = self._tile, self._columns
        feature = tile.element(tables["feature"], node)
        column = tile.index(feature, columns * (1 + self._missing))
        if self._copied is not None:
            return tile.element(self._copied, row, column)
        source = self._first + row
        value = tile.load(self._x[source : source + 1, mod(column, columns)])
        return tile.where(feature > columns - 1, lowest_for_missing(tile, value), value) if self._missing else value


def lowest_for_missing(tile: TileBuilder, values: Tile) -> Tile:
    """Numbers as they are, and one that every condition `<=` holds for in NaN's place."""
    lowest = tile.full(values.shape, float("-inf"), values.dtype)
    return tile.where(tile.map("isnan", values), lowest, values)
