"""How attention walks through its keys: blocks, tiles of queries, keys as columns.

Takes extents and a schedule's numbers; gives blocks of keys, and buffers in which a register tile finds its columns.
Invariant: a block has no keys past the end, so that only tiles that are not full ask which keys there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tessera.tile import TileBuilder
from tessera.values import Buffer, View
from tessera_build.ir.core.dims import Extent, floordiv, minimum, mod
from tessera_build.ir.core.types import DType
from tessera_build.kernels.attention_shape import AttentionSchedule, AttentionShape, KeyBlock

# Transposed keys of a whole group are kept at hand up to half of a 1 MiB second-level cache, and off the stack beyond.
PANEL_BYTES = 1 << 19


def kept_keys(shape: AttentionShape, block: int, dtype: DType) -> int | None:
    """Keys in whole blocks, if their number is known and the columns of all of them are few enough to be kept."""
    if not isinstance(shape.keys, int):
        return None
    padded = -(-shape.keys // block) * block
    return padded if padded * shape.depth * dtype.bytes <= PANEL_BYTES else None


@dataclass(frozen=True, slots=True)
class Plan:
    """The kernel's numbers, and what follows from them."""

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

    @property
    def rows(self) -> int:
        """Queries that take a block of keys in turn."""
        return self.schedule.tile_m * self.schedule.tiles

    def inside(self, m: Extent) -> Extent:
        """The first row of a tile: the last one is moved back where it would reach over a known end."""
        rows, queries = self.schedule.tile_m, self.shape.queries
        if not isinstance(queries, int) or queries < rows or (queries % rows == 0 and self.schedule.tiles == 1):
            return m
        return minimum(m, queries - rows)

    def blocks(self, tile: TileBuilder, first: Extent) -> Iterator[KeyBlock]:
        """The blocks of keys that concern the tiles of queries that begin at `first`.

        What is left of a known number is a block of its own.
        """
        reach, keys = self.shape.reach, self.shape.keys
        seen = keys if reach is None or self.one_block else minimum(keys, self.inside(first) + (self.rows + reach))
        rest = mod(seen, self.block)
        if not isinstance(seen, int) or not isinstance(rest, int):
            even = isinstance(keys, int) and keys % self.block == 0
            for n in tile.range(seen, self.block):
                yield KeyBlock(n, self.block if even else minimum(self.block, keys - n))
            return
        if seen > rest:
            yield from (KeyBlock(n, self.block) for n in tile.range(seen - rest, self.block))
        if rest:
            yield KeyBlock(seen - rest, rest)

    @property
    def panel_keys(self) -> int | None:
        """Padded number of keys when they can be transposed once for all queries of a group."""
        if self.schedule.transposed_keys or self.schedule.keys_at_once:
            return None
        return kept_keys(self.shape, self.block, self.dtype)

    def transpose_keys(self, tile: TileBuilder, k: Buffer, group: Extent) -> Buffer | None:
        """All keys of a group as columns, when their number is known."""
        if self.panel_keys is None:
            return None
        panels = self._panels(tile, self.panel_keys)
        assert isinstance(self.shape.keys, int), "their columns have a place each"
        self._transpose(tile, Keys(k, group, 0), panels, KeyBlock(0, self.shape.keys))
        return panels

    def _panels(self, tile: TileBuilder, keys: int) -> Buffer:
        """Memory for so many keys as columns, those of one register tile side by side: a product reads one stretch."""
        return tile.alloc(self.dtype, keys // self.schedule.tile_n, self.shape.depth, self.schedule.tile_n)

    def _transpose(self, tile: TileBuilder, source: Keys, panels: Buffer, block: KeyBlock) -> None:
        _, depth, width = panels.shape
        side = min(16, self.schedule.tile_n)
        for part in block.parts(self.schedule.tile_n):
            for column in tile.range(part.count, self.schedule.tile_n):
                start = part.first + column
                for n in range(0, self.schedule.tile_n, side):
                    for d in tile.range(depth, side):
                        first = source.first + start + n
                        window = source.buffer[source.group, first : first + side, d : d + side]
                        panel = floordiv(start, width)
                        tile.copy(window.permute(1, 0), panels[panel, d : d + side, n : n + side])

    def key_view(self, tile: TileBuilder, k: Buffer, panel: Buffer | None, group: Extent, block: KeyBlock) -> Keys:
        """Where the columns of this block's keys are; transposes the block first when nothing else has."""
        if self.schedule.transposed_keys or self.schedule.keys_at_once:
            return Keys(k, group, block.first)
        if panel is not None:
            return Keys(panel, 0, block.first, panel=True)
        columns = self._panels(tile, self.block)
        self._transpose(tile, Keys(k, group, block.first), columns, block)
        return Keys(columns, 0, 0, panel=True)


@dataclass(frozen=True, slots=True)
class Keys:
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
