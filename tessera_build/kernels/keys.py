"""Elements of up to 32 bits and their places as one 64-bit key each, and a network that sorts keys.

Takes values and places; gives integers of which the smaller one is the better element, with ties already broken.
Invariant: equal keys are the same element, so that any algorithm sorts them the same way. The network is Batcher's
merge exchange (Knuth, The Art of Computer Programming 3, algorithm 5.2.2M): what it compares does not depend on data,
so it compares whole vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tessera.tile import Carry, TileBuilder
from tessera.values import Buffer, Tile
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import F32, I32, I64, DType
from tessera_build.kernels.ordering import LEVELS, Heap, Item, levels_of

PLACE_BITS = 32
Stage = Callable[[Extent], None]


def fits_key(dtype: DType) -> bool:
    """Whether an element fits into a key beside its place."""
    return dtype.bits <= PLACE_BITS


def key_of(tile: TileBuilder, value: Tile, place: Tile, *, largest: bool) -> Tile:
    """Keys of values with places (i64): ascending keys are best first, and of equal values the first place first."""
    if value.dtype.is_float:
        wide = tile.cast(value, F32) + 0.0  # one zero: -0 is no smaller than 0
        bits = tile.bitcast(wide, I32)
        highest = _like(tile, bits, 0x7FFFFFFF)
        flipped = tile.map("and", tile.map("shr", bits, _like(tile, bits, 31)), highest)
        number = tile.map("eq", wide, wide)
        rank = tile.cast(tile.where(number, tile.map("xor", bits, flipped), highest), I64)
    else:
        rank = tile.cast(value, I64)
        if value.dtype.kind == "unsigned":
            rank = rank - (1 << 31)
    rank = tile.map("not", rank) if largest else rank
    return tile.map("or", tile.map("shl", rank, _like(tile, rank, PLACE_BITS)), place)


def place_of(tile: TileBuilder, key: Tile) -> Tile:
    """The places in keys."""
    return tile.map("and", key, _like(tile, key, (1 << PLACE_BITS) - 1))


def _like(tile: TileBuilder, other: Tile, value: int) -> Tile:
    return tile.full(other.shape, value, other.dtype)


def heap_of_keys(tile: TileBuilder, size: Extent, keys: Buffer, row: Extent) -> Heap:
    """A heap with the worst key, the largest, first, in a row of a buffer."""

    def get(i: Extent) -> Item:
        return (tile.load(keys[row, i : i + 1]),)

    def put(i: Extent, item: Item) -> None:
        tile.store(keys[row, i : i + 1], item[0])

    return Heap(tile, size, get, put, lambda a, b: a[0] < b[0], levels_of(tile, size))


@dataclass(frozen=True, slots=True)
class Network:
    """Sorts the first `size` keys of a row, ascending, `lanes` (a power of two) at a time."""

    tile: TileBuilder
    keys: Buffer
    row: Extent
    size: Extent
    lanes: int

    def sort(self) -> None:
        """Levels of distance 2^(levels - 1) down to 1; each compares at that distance, then merges."""
        tile = self.tile
        if self.size == 1:
            return
        levels = self._levels()
        small = self.lanes.bit_length() - 1  # levels whose distances lie inside a vector
        power = Carry(half=tile.constant(1, I64))
        for _ in tile.range(levels - 1, carry=power):
            power.half = power.half * 2
        state = Carry(distance=power.half)
        for level in tile.range(levels - small, carry=state):
            distance = tile.index(state.distance, self.size)
            self._wide(distance, 0, distance)
            self._merge(power.half, level, distance, lambda far, p=distance: self._wide(p, p, far))
            state.distance = tile.map("div", state.distance, tile.constant(2, I64))
        for bit in reversed(range(small)):
            p = 1 << bit
            self._narrow(p, 0, p)
            self._merge(power.half, levels - 1 - bit, p, lambda far, p=p: self._narrow(p, p, far))

    def _levels(self) -> Extent:
        """The binary logarithm of the size, rounded up."""
        if isinstance(self.size, int):
            return (self.size - 1).bit_length()
        tile = self.tile
        state = Carry(levels=tile.constant(0, I64), power=tile.constant(1, I64))
        for _ in tile.range(LEVELS, carry=state):
            state.levels = state.levels + tile.cast(state.power < tile.number(self.size), I64)
            state.power = state.power * 2
        return tile.index(state.levels, LEVELS + 1)

    def _merge(self, half: Tile, turns: Extent, distance: Extent, stage: Stage) -> None:
        """Compare at the distances half - p, half / 2 - p, ..., 2p - p."""
        tile = self.tile
        state = Carry(reach=half)
        for _ in tile.range(turns, carry=state):
            stage(tile.index(state.reach - tile.number(distance), self.size))
            state.reach = tile.map("div", state.reach, tile.constant(2, I64))

    def _wide(self, p: Extent, r: Extent, far: Extent) -> None:
        """Exchange i and i + far where bit p of i is that of r, for p of at least a vector."""
        tile = self.tile
        tile = self.tile
        wide = tile.number(p * 2)
        room = tile.map("max", tile.number(self.size - far - r), tile.constant(0, I64)) + wide - 1
        pairs = tile.index(tile.map("div", room, wide), self.size + 1)
        for block in tile.range(pairs):
            for inside in tile.range(p, self.lanes):
                low = block * p * 2 + r + inside
                a, b = self._load(low), self._load(low + far)
                self._store(low, tile.map("min", a, b))
                self._store(low + far, tile.map("max", a, b))

    def _narrow(self, p: int, r: int, far: Extent) -> None:
        """The same for p inside a vector: lanes whose bit is another keep what they hold."""
        tile = self.tile
        lane = tile.iota((self.lanes,), 0, 0, I64)
        mine = tile.map("eq", tile.map("and", lane, _like(tile, lane, p)), _like(tile, lane, r))
        for low in tile.range(self.size - far, self.lanes):
            a, b = self._load(low), self._load(low + far)
            self._store(low, tile.where(mine, tile.map("min", a, b), a))
            # The two windows may share elements, so what the first store left is read again.
            self._store(low + far, tile.where(mine, tile.map("max", a, b), self._load(low + far)))

    def _load(self, first: Extent) -> Tile:
        """Keys from `first` on; behind the end are keys larger than all others, which stay there."""
        return self.tile.load(self.keys[self.row, first : first + self.lanes], pad=float("inf"))

    def _store(self, first: Extent, keys: Tile) -> None:
        self.tile.store(self.keys[self.row, first : first + self.lanes], keys)
