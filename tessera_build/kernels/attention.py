"""Attention as one kernel: softmax(q kᵀ · scale + mask) v, a block of keys at a time, never the whole score matrix.

Takes extents, numbers of a schedule and buffers q[G, M, D], k[G, N, D] (or kᵀ[G, D, N]), v[G, N, E], an optional
additive mask and out[G, M, E], where G is batch × heads (k and v may have a group for several of q's); gives an unbound
Tile IR function. Invariant: scores, sums and the result are accumulated in f32 whatever the storage type, and a row of
the result depends on its own query row, the keys, the values and the mask only. Blocks of keys that the mask is known
to hide from every query of a tile are not read: they would add zeros.

The running maximum and sum over blocks are Milakov and Gimelshein's online softmax (arXiv:1805.02867), used for
attention as in FlashAttention (arXiv:2205.14135).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce

from tessera.kernel import kernel
from tessera.tile import LOWEST, Carry, TileBuilder
from tessera.values import Buffer, Tile, View
from tessera_build.ir.core.dims import Extent, floordiv, minimum, mod
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import F32, DType, int_extent, memref
from tessera_build.ir.tile.contraction import tree_width
from tessera_build.kernels.attention_plan import Keys, Plan
from tessera_build.kernels.attention_shape import AttentionSchedule, AttentionShape, Columns, KeyBlock

# Weights of one row that are computed side by side; of more, registers would be spilled.
MOST_AT_ONCE = 256


def attention(dtype: DType, shape: AttentionShape, schedule: AttentionSchedule, scale: float) -> Function:
    """The kernel for one set of extents; symbolic extents become its `dims`."""
    plan = Plan(dtype, shape, schedule, scale)
    keys = (shape.depth, shape.keys) if schedule.transposed_keys else (shape.keys, shape.depth)
    buffers = {
        "q": memref(dtype, shape.groups, shape.queries, shape.depth),
        "k": memref(dtype, shape.key_groups, *keys),
        "v": memref(dtype, shape.key_groups, shape.keys, shape.value_depth),
    }
    if shape.mask is not None:
        buffers["mask"] = memref(dtype, *shape.mask)
    buffers["out"] = memref(dtype, shape.groups, shape.queries, shape.value_depth)

    @kernel(**buffers)
    def attention(tile: TileBuilder, q: Buffer, k: Buffer, v: Buffer, **more: Buffer) -> None:
        for group in tile.range(shape.groups):
            panel = plan.transpose_keys(tile, k, shape.key_group(group))
            for first in tile.range(shape.queries, plan.rows):
                scratch = _Scratch.of(tile, plan)
                for step in _steps(plan, tile, group, first, scratch):
                    step.clear()
                for block in plan.blocks(tile, first):
                    keys = plan.key_view(tile, k, panel, shape.key_group(group), block)
                    for step in _steps(plan, tile, group, first, scratch):
                        step.scores(q, k, keys, block)
                        step.softmax(more.get("mask"), block)
                        step.values(v, block)
                for step in _steps(plan, tile, group, first, scratch):
                    step.finish(v, more["out"])

    return attention


@dataclass(frozen=True, slots=True)
class _Scratch:
    """Scores of one tile of queries against one block of keys, and what an online softmax remembers of all rows."""

    scores: Buffer
    total: Buffer
    largest: Buffer
    shrink: Buffer | None = None
    result: Buffer | None = None

    @staticmethod
    def of(tile: TileBuilder, plan: Plan) -> _Scratch:
        rows, all_rows = plan.schedule.tile_m, plan.rows
        scores, total, largest = (tile.alloc(F32, n, w) for n, w in ((rows, plan.block), (all_rows, 1), (all_rows, 1)))
        if plan.one_block:
            return _Scratch(scores, total, largest)
        wide = -(-plan.shape.value_depth // plan.schedule.tile_e) * plan.schedule.tile_e
        return _Scratch(scores, total, largest, tile.alloc(F32, rows, 1), tile.alloc(F32, all_rows, wide))


def _steps(plan: Plan, tile: TileBuilder, group: Extent, first: Extent, scratch: _Scratch) -> Iterator[_Step]:
    """The tiles of queries from `first` on that take a block of keys in turn."""
    if plan.schedule.tiles == 1:
        yield _Step(plan, tile, group, plan.inside(first), 0, scratch)
        return
    rows = plan.schedule.tile_m
    left = floordiv(plan.shape.queries - first + (rows - 1), rows)
    for number in tile.range(minimum(left, plan.schedule.tiles)):
        row = number * rows
        yield _Step(plan, tile, group, plan.inside(first + row), row, scratch)


@dataclass(frozen=True, slots=True)
class _Step:
    """A tile of queries from `m` on, which is remembered from `row` on."""

    plan: Plan
    tile: TileBuilder
    group: Extent
    m: Extent
    row: Extent
    scratch: _Scratch

    def _remembered(self, buffer: Buffer, columns: slice = slice(None), rows: slice | None = None) -> View:
        """What `buffer` has of the tile's rows, or some of them."""
        start, stop = (0, self.plan.schedule.tile_m) if rows is None else (rows.start, rows.stop)
        return buffer[self.row + start : self.row + stop, columns]

    def clear(self) -> None:
        """Nothing seen yet: sums are zero and the largest score is the lowest number."""
        kept, rows = self.scratch, self.plan.schedule.tile_m
        if kept.result is None:
            return
        self.tile.store(self._remembered(kept.total), self._first_total(rows))
        self.tile.store(self._remembered(kept.largest), self.tile.full((rows, 1), LOWEST, F32))
        for e in self.tile.range(self.plan.shape.value_depth, self.plan.schedule.tile_e):
            view = self._remembered(kept.result, slice(e, e + self.plan.schedule.tile_e))
            self.tile.store(view, self.tile.zeros(view.shape, F32))

    def _first_total(self, rows: int) -> Tile:
        """Zero; one where there are no keys at all, so that a sum of no values is zero, not zero by zero."""
        keys, zeros = self.plan.shape.keys, self.tile.zeros((rows, 1), F32)
        if isinstance(keys, int):
            return zeros
        return self.tile.where(self.tile.iota((rows, 1), 1, keys) < 1, self.tile.full((rows, 1), 1.0, F32), zeros)

    def scores(self, q: Buffer, k: Buffer, keys: Keys, block: KeyBlock) -> None:
        """scratch = q kᵀ · scale."""
        if self.plan.schedule.keys_at_once:
            self._scores_along_depth(q, k, block)
            return
        rows, width = self.plan.schedule.tile_m, self.plan.schedule.tile_n
        depth, step = self.plan.shape.depth, self.plan.schedule.tile_k
        queries = self._queries(q)
        for n in self.tile.range(block.padded(width), width):
            state = Carry(total=self.tile.zeros((rows, width), F32))
            for d in self.tile.range(depth, step, carry=state):
                state.total = self.tile.dot(state.total, queries(d, step), keys.view(d, step, n, width), "md,dn->mn")
            self.tile.store(self.scratch.scores[:, n : n + width], state.total * self.plan.scale)

    def _queries(self, q: Buffer) -> Callable[[Extent, int], View]:
        """Columns of the tile's rows; where some may be missing, of a copy, so that nothing is asked in each step."""
        last = self.m + self.plan.schedule.tile_m
        if isinstance(self.plan.shape.queries, int):
            return lambda d, step: q[self.group, self.m : last, d : d + step]
        copied = self.tile.alloc(q.dtype, self.plan.schedule.tile_m, self.plan.shape.depth)
        self.tile.copy(q[self.group, self.m : last, 0 : self.plan.shape.depth], copied[:, :])
        return lambda d, step: copied[:, d : d + step]

    def _scores_along_depth(self, q: Buffer, k: Buffer, block: KeyBlock) -> None:
        """scratch = q kᵀ · scale, from keys as they lie: each product is a sum along the depth."""
        depth, group = self.plan.shape.depth, self.plan.shape.key_group(self.group)
        for start, count, several in block.pieces(self.plan.schedule.keys_at_once):
            for n in self.tile.range(count, several):
                at = n + start
                first = block.first + at
                keys = self.tile.cast(self.tile.load(k[group, first : first + several, 0:depth]), F32)
                for row in range(self.plan.schedule.tile_m):
                    query = self.tile.load(q[self.group, self.m + row : self.m + row + 1, 0:depth])
                    sums = self.tile.sum(keys * self.tile.cast(query, F32), 1, self.plan.schedule.order)
                    view = self.scratch.scores[row : row + 1, at : at + several]
                    self.tile.store(view.permute(1, 0), sums * self.plan.scale)

    def softmax(self, mask: Buffer | None, block: KeyBlock) -> None:
        """scratch = exp(scratch + mask - largest), and the sum of each row; keys past the end count for nothing.

        The largest of all rows come first: a row's exponentials would wait for its lanes to be combined.
        """
        for r, rows in self._rows():
            self._keep_largest(r, rows, self._largest(r, rows, mask, block))
        for r, rows in self._rows():
            self._add_total(r, rows, self.tile.sum(self._weights(r, rows, block), 1, self.plan.schedule.order))

    def _largest(self, r: Extent, rows: int, mask: Buffer | None, block: KeyBlock) -> Tile:
        """The largest score of each row, after the mask."""
        width, order = self.plan.schedule.tile_n, self.plan.schedule.order
        if isinstance(block.count, int):
            columns = Columns(0, block.padded(width), there=True)
            self._add_mask(r, rows, mask, block, columns)
            found = [self._seen_scores(r, rows, block, part) for part in block.parts(width)]
            return reduce(self.tile.maximum, (self.tile.largest(scores, 1, order) for scores in found))
        state = Carry(most=self.tile.full((rows, width), LOWEST, F32))
        for part in block.parts(width):
            for n in self.tile.range(part.count, width, carry=state):
                columns = Columns(part.first + n, width, part.there)
                self._add_mask(r, rows, mask, block, columns)
                scores = self._seen_scores(r, rows, block, columns)
                state.most = self.tile.where(scores > state.most, scores, state.most)
        return self.tile.largest(state.most, 1, order)

    def _add_mask(self, r: Extent, rows: int, mask: Buffer | None, block: KeyBlock, columns: Columns) -> None:
        if mask is not None:
            view = self._scores_of(r, rows, columns)
            self.tile.store(view, self.tile.load(view) + self._mask(mask, (r, rows), block, columns))

    def _weights(self, r: Extent, rows: int, block: KeyBlock) -> Tile:
        """scratch = exp(scratch - largest); of many keys the sums side by side in `order`, else the weights."""
        largest = self.tile.load(self._remembered(self.scratch.largest, rows=slice(r, r + rows)))
        step, lanes = self.plan.schedule.tile_n, tree_width(self.plan.schedule.order)
        padded = block.padded(step)
        if isinstance(padded, int) and (padded <= MOST_AT_ONCE or lanes is None or step % lanes):
            return self._weigh(r, rows, block, Columns(0, padded, block.count == padded), largest)
        lanes = lanes if lanes and step % lanes == 0 else step
        state = Carry(total=self.tile.zeros((rows, lanes), F32))
        for part in block.parts(step):
            for n in self.tile.range(part.count, step, carry=state):
                for at in range(0, step, lanes):
                    columns = Columns(part.first + n + at, lanes, part.there)
                    state.total = state.total + self._weigh(r, rows, block, columns, largest)
        return state.total

    def _weigh(self, r: Extent, rows: int, block: KeyBlock, columns: Columns, largest: Tile) -> Tile:
        weights = self.tile.exp(self._seen_scores(r, rows, block, columns) - largest)
        self.tile.store(self._scores_of(r, rows, columns), weights)
        return weights

    def _scores_of(self, r: Extent, rows: int, columns: Columns) -> View:
        return self.scratch.scores[r : r + rows, columns.first : columns.first + columns.count]

    def _rows(self) -> Iterator[tuple[Extent, int]]:
        """(first, how many) of the loops over a tile's rows."""
        most, several = self.plan.schedule.tile_m, self.plan.schedule.rows
        whole = most // several * several
        yield from ((r, several) for r in self.tile.range(whole, several))
        if whole < most:
            yield whole, most - whole

    def _mask(self, mask: Buffer, at: tuple[Extent, int], block: KeyBlock, columns: Columns) -> Tile:
        batch, head, query, _ = mask.shape
        heads = self.plan.shape.heads
        index = (0 if batch == 1 else floordiv(self.group, heads), 0 if head == 1 else mod(self.group, heads))
        row, first = self.m + at[0], block.first + columns.first
        rows = slice(0, 1) if query == 1 else slice(row, row + at[1])
        loaded = self.tile.load(mask[index[0], index[1], rows, first : first + columns.count])
        return self.tile.cast(loaded, F32)

    def _seen_scores(self, r: Extent, rows: int, block: KeyBlock, columns: Columns) -> Tile:
        """Scores of `columns`; the lowest number for keys past the end."""
        scores = self.tile.load(self._scores_of(r, rows, columns))
        if columns.there:
            return scores
        shape = (1, int_extent(columns.count))
        distance = self.tile.iota(shape, 1, block.first + columns.first - self.plan.shape.keys)
        lowest = self.tile.full(shape, float("-inf"), F32)
        return self.tile.where(distance < 0, scores, lowest)

    def _keep_largest(self, r: Extent, rows: int, new: Tile) -> None:
        view = self._remembered(self.scratch.largest, rows=slice(r, r + rows))
        if self.scratch.shrink is not None:
            old = self.tile.load(view)
            new = self.tile.maximum(old, new)
            self.tile.store(self.scratch.shrink[r : r + rows, :], self.tile.exp(old - new))
        self.tile.store(view, new)

    def _add_total(self, r: Extent, rows: int, new: Tile) -> None:
        view = self._remembered(self.scratch.total, rows=slice(r, r + rows))
        if self.scratch.shrink is not None:
            new = self.tile.load(view) * self.tile.load(self.scratch.shrink[r : r + rows, :]) + new
        self.tile.store(view, new)

    def values(self, v: Buffer, block: KeyBlock) -> None:
        """result = result · shrink + weights v; with one block there is nothing to keep, and `finish` does it all."""
        if self.scratch.result is None or self.scratch.shrink is None:
            return
        width = self.plan.schedule.tile_e
        for e in self.tile.range(self.plan.shape.value_depth, width):
            view = self._remembered(self.scratch.result, slice(e, e + width))
            before = self.tile.load(view) * self.tile.load(self.scratch.shrink[:, :])
            self.tile.store(view, self._weighted(before, v, block, e))

    def _weighted(self, before: Tile, v: Buffer, block: KeyBlock, e: Extent) -> Tile:
        width, step = self.plan.schedule.tile_e, self.plan.schedule.tile_k
        state = Carry(total=before)
        for start, count, several in block.pieces(step):
            for n in self.tile.range(count, several, carry=state):
                at = n + start
                weights = self.scratch.scores[:, at : at + several]
                first = block.first + at
                rows = v[self.plan.shape.key_group(self.group), first : first + several, e : e + width]
                state.total = self.tile.dot(state.total, weights, rows, "mn,ne->me")
        return state.total

    def finish(self, v: Buffer, out: Buffer) -> None:
        """out = result / sum of the row's weights."""
        rows, width = self.plan.schedule.tile_m, self.plan.schedule.tile_e
        # One division a row: of whole vectors they took 3 % of 12 heads of 128 queries and keys.
        total = self._remembered(self.scratch.total)
        self.tile.store(total, self.tile.full((rows, 1), 1.0, F32) / self.tile.load(total))
        for e in self.tile.range(self.plan.shape.value_depth, width):
            if self.scratch.result is None:
                all_keys = KeyBlock(0, self.plan.shape.keys)
                result = self._weighted(self.tile.zeros((rows, width), F32), v, all_keys, e)
            else:
                result = self.tile.load(self._remembered(self.scratch.result, slice(e, e + width)))
            quotient = result * self.tile.load(total)
            target = out[self.group, self.m : self.m + rows, e : e + width]
            self.tile.store(target, self.tile.cast(quotient, self.plan.dtype))
