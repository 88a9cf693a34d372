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

from collections.abc import Iterator
from dataclasses import dataclass

from tessera.kernel import kernel
from tessera.tile import LOWEST, Carry, TileBuilder
from tessera.values import Buffer, Tile, View
from tessera_build.ir.core.dims import Extent, floordiv, minimum, mod
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import F32, DType, memref
from tessera_build.ir.tile.contraction import tree_width

# Transposed keys of a whole group are kept at hand up to half of a 1 MiB second-level cache, and off the stack beyond.
PANEL_BYTES = 1 << 19
# Weights of one row that are computed side by side; of more, registers would be spilled.
MOST_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Extents; `groups` is batch × heads; `mask` is the mask's own shape [B or 1, H or 1, M or 1, N], if any.

    `sharing` groups of queries, side by side, read one group of keys and values. `reach`: the mask hides from query i
    all keys beyond number i + reach; None where it may show any.
    """

    groups: Extent
    queries: Extent
    keys: Extent
    depth: int
    value_depth: int
    heads: Extent = 1
    mask: tuple[Extent, Extent, Extent, Extent] | None = None
    sharing: int = 1
    reach: int | None = None

    @property
    def key_groups(self) -> Extent:
        """Batch × heads of keys and values; `heads` is a multiple of `sharing`."""
        if self.sharing == 1:
            return self.groups
        return floordiv(self.groups, self.heads) * floordiv(self.heads, self.sharing)

    def key_group(self, group: Extent) -> Extent:
        """The group of keys that a group of queries reads."""
        return group if self.sharing == 1 else floordiv(group, self.sharing)


@dataclass(frozen=True, slots=True)
class AttentionSchedule:
    """Numbers to search: the tile of queries, of keys and of value columns, and the keys that one softmax step covers.

    `tile_k` is how many products one turn of a contraction's loop adds. With `block` ≥ keys the softmax sees whole
    rows. `rows` is how many query rows one softmax step holds; `order` is the order of its sums. `transposed_keys`:
    the buffer k already is kᵀ[G, D, N]. `keys_at_once`, for few queries: so many keys as they lie, whose products with
    a query are added up along the depth in `order`, because columns of keys pay for many queries only.
    """

    tile_m: int = 12
    tile_n: int = 32
    tile_e: int = 32
    tile_k: int = 8
    block: int = 128
    rows: int = 1
    order: str = "tree(16)"
    transposed_keys: bool = False
    keys_at_once: int = 0


def attention(dtype: DType, shape: AttentionShape, schedule: AttentionSchedule, scale: float) -> Function:
    """The kernel for one set of extents; symbolic extents become its `dims`."""
    plan = _Plan(dtype, shape, schedule, scale)
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
            for m in tile.range(shape.queries, schedule.tile_m):
                step = _Step(plan, tile, group, plan.inside(m), _Scratch.of(tile, plan))
                step.clear()
                for n in tile.range(plan.keys_seen(step.m), plan.block):
                    if schedule.keys_at_once:
                        step.scores_along_depth(q, k, n)
                    else:
                        step.scores(q, plan.key_view(tile, k, panel, shape.key_group(group), n))
                    step.softmax(more.get("mask"), n)
                    step.values(v, n)
                step.finish(v, more["out"])

    return attention


@dataclass(frozen=True, slots=True)
class _Plan:
    dtype: DType
    shape: AttentionShape
    schedule: AttentionSchedule
    scale: float

    @property
    def block(self) -> int:
        """Keys in one softmax step: a multiple of `tile_n`, no more than are there."""
        tile_n, keys = self.schedule.tile_n, self.shape.keys
        wanted = min(self.schedule.block, keys) if isinstance(keys, int) else self.schedule.block
        return -(-wanted // tile_n) * tile_n

    @property
    def one_block(self) -> bool:
        """True when one softmax step sees every key."""
        return isinstance(self.shape.keys, int) and self.shape.keys <= self.block

    def inside(self, m: Extent) -> Extent:
        """The first row of a tile: the last one is moved back where it would reach over a known end."""
        rows, queries = self.schedule.tile_m, self.shape.queries
        if not isinstance(queries, int) or queries % rows == 0 or queries < rows:
            return m
        return minimum(m, queries - rows)

    def keys_seen(self, m: Extent) -> Extent:
        """So many keys concern the tile of queries that begins at m."""
        reach, keys = self.shape.reach, self.shape.keys
        return keys if reach is None or self.one_block else minimum(keys, m + (self.schedule.tile_m + reach))

    @property
    def panel_keys(self) -> int | None:
        """Padded number of keys when they can be transposed once for all queries of a group."""
        if self.schedule.transposed_keys or self.schedule.keys_at_once or not isinstance(self.shape.keys, int):
            return None
        padded = -(-self.shape.keys // self.block) * self.block
        return padded if padded * self.shape.depth * self.dtype.bytes <= PANEL_BYTES else None

    def transpose_keys(self, tile: TileBuilder, k: Buffer, group: Extent) -> Buffer | None:
        """All keys of a group as columns, when their number is known."""
        if self.panel_keys is None:
            return None
        panels = self._panels(tile, self.panel_keys)
        self._transpose(tile, _Keys(k, group, 0), panels)
        return panels

    def _panels(self, tile: TileBuilder, keys: int) -> Buffer:
        """Memory for so many keys as columns, those of one register tile side by side: a product reads one stretch."""
        return tile.alloc(self.dtype, keys // self.schedule.tile_n, self.shape.depth, self.schedule.tile_n)

    def _transpose(self, tile: TileBuilder, source: _Keys, panels: Buffer) -> None:
        count, depth, width = panels.shape
        side = min(16, self.schedule.tile_n)
        for panel in tile.range(count):
            for n in range(0, self.schedule.tile_n, side):
                for d in tile.range(depth, side):
                    start = source.first + panel * width + n
                    window = source.buffer[source.group, start : start + side, d : d + side]
                    tile.copy(window.permute(1, 0), panels[panel, d : d + side, n : n + side])

    def key_view(self, tile: TileBuilder, k: Buffer, panel: Buffer | None, group: Extent, n: Extent) -> _Keys:
        """Where the columns of this block's keys are; transposes the block first when nothing else has."""
        if self.schedule.transposed_keys:
            return _Keys(k, group, n)
        if panel is not None:
            return _Keys(panel, 0, n, panel=True)
        block = self._panels(tile, self.block)
        self._transpose(tile, _Keys(k, group, n), block)
        return _Keys(block, 0, 0, panel=True)


@dataclass(frozen=True, slots=True)
class _Keys:
    """Keys from number `first` on, in one group of a buffer of the model's or in a panel of ours (no group)."""

    buffer: Buffer
    group: Extent
    first: Extent
    panel: bool = False

    def view(self, d: Extent, height: int, n: Extent, width: int) -> View:
        """Rows d .. d + height - 1 and columns n .. n + width - 1 of kᵀ."""
        start = self.first + n
        if self.panel:
            return self.buffer[floordiv(start, width), d : d + height, 0:width]
        return self.buffer[self.group, d : d + height, start : start + width]


@dataclass(frozen=True, slots=True)
class _Scratch:
    """Scores of one tile of queries against one block of keys, and what an online softmax remembers of each row."""

    scores: Buffer
    total: Buffer
    largest: Buffer
    shrink: Buffer | None = None
    result: Buffer | None = None

    @staticmethod
    def of(tile: TileBuilder, plan: _Plan) -> _Scratch:
        rows = plan.schedule.tile_m
        scores, total, largest = (tile.alloc(F32, rows, width) for width in (plan.block, 1, 1))
        if plan.one_block:
            return _Scratch(scores, total, largest)
        wide = -(-plan.shape.value_depth // plan.schedule.tile_e) * plan.schedule.tile_e
        return _Scratch(scores, total, largest, tile.alloc(F32, rows, 1), tile.alloc(F32, rows, wide))


@dataclass(frozen=True, slots=True)
class _Step:
    plan: _Plan
    tile: TileBuilder
    group: Extent
    m: Extent
    scratch: _Scratch

    def clear(self) -> None:
        """Nothing seen yet: sums are zero and the largest score is the lowest number."""
        kept, rows = self.scratch, self.plan.schedule.tile_m
        if kept.result is None:
            return
        self.tile.store(kept.total[:, :], self.tile.zeros((rows, 1), F32))
        self.tile.store(kept.largest[:, :], self.tile.full((rows, 1), LOWEST, F32))
        for e in self.tile.range(self.plan.shape.value_depth, self.plan.schedule.tile_e):
            view = kept.result[:, e : e + self.plan.schedule.tile_e]
            self.tile.store(view, self.tile.zeros(view.shape, F32))

    def scores(self, q: Buffer, keys: _Keys) -> None:
        """scratch = q kᵀ · scale."""
        rows, width = self.plan.schedule.tile_m, self.plan.schedule.tile_n
        depth, step = self.plan.shape.depth, self.plan.schedule.tile_k
        for n in self.tile.range(self.plan.block, width):
            state = Carry(total=self.tile.zeros((rows, width), F32))
            for d in self.tile.range(depth, step, carry=state):
                queries = q[self.group, self.m : self.m + rows, d : d + step]
                state.total = self.tile.dot(state.total, queries, keys.view(d, step, n, width), "md,dn->mn")
            self.tile.store(self.scratch.scores[:, n : n + width], state.total * self.plan.scale)

    def scores_along_depth(self, q: Buffer, k: Buffer, first: Extent) -> None:
        """scratch = q kᵀ · scale, from keys as they lie: each product is a sum along the depth."""
        depth, group = self.plan.shape.depth, self.plan.shape.key_group(self.group)
        for start, count, several in self._pieces(self.plan.schedule.keys_at_once):
            for n in self.tile.range(count, several):
                at = n + start
                keys = self.tile.cast(self.tile.load(k[group, first + at : first + at + several, 0:depth]), F32)
                for row in range(self.plan.schedule.tile_m):
                    query = self.tile.load(q[self.group, self.m + row : self.m + row + 1, 0:depth])
                    sums = self.tile.sum(keys * self.tile.cast(query, F32), 1, self.plan.schedule.order)
                    view = self.scratch.scores[row : row + 1, at : at + several]
                    self.tile.store(view.permute(1, 0), sums * self.plan.scale)

    def _pieces(self, step: int) -> list[tuple[int, int, int]]:
        """(first, extent, step) of the loops over a block's keys: no more than there are, where their number is known.

        A block of several may reach over the end, and is checked.
        """
        keys = self.plan.shape.keys
        if not self.plan.one_block or not isinstance(keys, int):
            return [(0, self.plan.block, step)]
        whole = keys // step * step
        return [p for p in ((0, whole, step), (whole, keys - whole, keys - whole)) if p[1]]

    def softmax(self, mask: Buffer | None, first: Extent) -> None:
        """scratch = exp(scratch + mask - largest), and the sum of each row; keys past the end count for nothing.

        The largest of all rows come first: a row's exponentials would wait for its lanes to be combined.
        """
        for r, rows in self._rows():
            if mask is not None:
                view = self.scratch.scores[r : r + rows, :]
                self.tile.store(view, self.tile.load(view) + self._mask(mask, r, rows, first))
            self._largest(r, rows, self._seen_scores(r, rows, first, (0, self.plan.block)))
        for r, rows in self._rows():
            self._add_total(r, rows, self.tile.sum(self._weights(r, rows, first), 1, self.plan.schedule.order))

    def _weights(self, r: Extent, rows: int, first: Extent) -> Tile:
        """scratch = exp(scratch - largest); of many keys the sums side by side in `order`, else the weights."""
        largest = self.tile.load(self.scratch.largest[r : r + rows, :])
        block, step, lanes = self.plan.block, self.plan.schedule.tile_n, tree_width(self.plan.schedule.order)
        if block <= MOST_AT_ONCE or lanes is None or step % lanes:
            return self._weigh(r, rows, first, (0, block), largest)
        state = Carry(total=self.tile.zeros((rows, lanes), F32))
        for n in self.tile.range(block, step, carry=state):
            for at in range(0, step, lanes):
                state.total = state.total + self._weigh(r, rows, first, (n + at, lanes), largest)
        return state.total

    def _weigh(self, r: Extent, rows: int, first: Extent, columns: tuple[Extent, int], largest: Tile) -> Tile:
        start, count = columns
        weights = self.tile.exp(self._seen_scores(r, rows, first, columns) - largest)
        self.tile.store(self.scratch.scores[r : r + rows, start : start + count], weights)
        return weights

    def _rows(self) -> Iterator[tuple[Extent, int]]:
        """(first, how many) of the loops over a tile's rows."""
        most, several = self.plan.schedule.tile_m, self.plan.schedule.rows
        whole = most // several * several
        yield from ((r, several) for r in self.tile.range(whole, several))
        if whole < most:
            yield whole, most - whole

    def _mask(self, mask: Buffer, r: Extent, count: int, first: Extent) -> Tile:
        batch, head, query, _ = mask.shape
        heads = self.plan.shape.heads
        index = (0 if batch == 1 else floordiv(self.group, heads), 0 if head == 1 else mod(self.group, heads))
        row = self.m + r
        rows = slice(0, 1) if query == 1 else slice(row, row + count)
        loaded = self.tile.load(mask[index[0], index[1], rows, first : first + self.plan.block])
        return self.tile.cast(loaded, F32)

    def _seen_scores(self, r: Extent, rows: int, first: Extent, columns: tuple[Extent, int]) -> Tile:
        """Scores of `columns`, (first, count); the lowest number for keys past the end."""
        (start, count), keys = columns, self.plan.shape.keys
        scores = self.tile.load(self.scratch.scores[r : r + rows, start : start + count])
        if isinstance(keys, int) and keys % self.plan.block == 0:
            return scores
        distance = self.tile.iota((1, count), 1, first + start - keys)
        lowest = self.tile.full((1, count), float("-inf"), F32)
        return self.tile.where(distance < 0, scores, lowest)

    def _largest(self, r: Extent, rows: int, scores: Tile) -> None:
        new, view = self.tile.largest(scores, 1, self.plan.schedule.order), self.scratch.largest[r : r + rows, :]
        if self.scratch.shrink is not None:
            old = self.tile.load(view)
            new = self.tile.maximum(old, new)
            self.tile.store(self.scratch.shrink[r : r + rows, :], self.tile.exp(old - new))
        self.tile.store(view, new)

    def _add_total(self, r: Extent, rows: int, new: Tile) -> None:
        view = self.scratch.total[r : r + rows, :]
        if self.scratch.shrink is not None:
            new = self.tile.load(view) * self.tile.load(self.scratch.shrink[r : r + rows, :]) + new
        self.tile.store(view, new)

    def values(self, v: Buffer, first: Extent) -> None:
        """result = result · shrink + weights v; with one block there is nothing to keep, and `finish` does it all."""
        if self.scratch.result is None or self.scratch.shrink is None:
            return
        width = self.plan.schedule.tile_e
        for e in self.tile.range(self.plan.shape.value_depth, width):
            view = self.scratch.result[:, e : e + width]
            before = self.tile.load(view) * self.tile.load(self.scratch.shrink[:, :])
            self.tile.store(view, self._weighted(before, v, first, e))

    def _weighted(self, before: Tile, v: Buffer, first: Extent, e: Extent) -> Tile:
        width, step = self.plan.schedule.tile_e, self.plan.schedule.tile_k
        state = Carry(total=before)
        for start, count, several in self._pieces(step):
            for n in self.tile.range(count, several, carry=state):
                at = n + start
                weights = self.scratch.scores[:, at : at + several]
                rows = v[self.plan.shape.key_group(self.group), first + at : first + at + several, e : e + width]
                state.total = self.tile.dot(state.total, weights, rows, "mn,ne->me")
        return state.total

    def finish(self, v: Buffer, out: Buffer) -> None:
        """out = result / sum of the row's weights."""
        rows, width = self.plan.schedule.tile_m, self.plan.schedule.tile_e
        # One division a row: of whole vectors they took 3 % of 12 heads of 128 queries and keys.
        inverse = self.tile.full((rows, 1), 1.0, F32) / self.tile.load(self.scratch.total[:, :])
        self.tile.store(self.scratch.total[:, :], inverse)
        for e in self.tile.range(self.plan.shape.value_depth, width):
            if self.scratch.result is None:
                result = self._weighted(self.tile.zeros((rows, width), F32), v, 0, e)
            else:
                result = self.tile.load(self.scratch.result[:, e : e + width])
            quotient = result * self.tile.load(self.scratch.total[:, :])
            target = out[self.group, self.m : self.m + rows, e : e + width]
            self.tile.store(target, self.tile.cast(quotient, self.plan.dtype))
