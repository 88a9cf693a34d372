"""Kernels that find how many there are: places of true elements, and groups of equal neighbours.

Takes lines of truth values; gives buffers of the largest size, filled from the front, and the count. Invariant: what
lies behind the last element found is zero, so that results do not depend on what memory held before.
"""

from __future__ import annotations

from tessera.kernel import kernel
from tessera.tile import Carry, TileBuilder
from tessera.values import Buffer, Tile
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import I64
from tessera_build.kernels.subject import KernelSubject


def non_zero(subject: KernelSubject) -> Function:
    """places[0 .. count - 1] = the places of true elements of found[N], ascending."""
    (extent,) = subject.operands[0].shape

    @kernel(found=subject.buffer(0), places=subject.target(0), count=subject.target(1))
    def non_zero(tile: TileBuilder, found: Buffer, places: Buffer, count: Buffer) -> None:
        _clear(tile, places, subject.lanes)
        state = Carry(total=tile.constant(0, I64))
        for i in tile.range(extent, carry=state):
            # Written wherever the next one belongs: a place that does not count is overwritten, or cleared at the end.
            hit = tile.cast(tile.element(found, i), I64)
            tile.put(hit * tile.number(i), places, tile.index(state.total, extent))
            state.total = state.total + hit
        tile.put(state.total, count)

    return non_zero


def groups(subject: KernelSubject) -> Function:
    """Groups of a sorted line: heads[N] says where one starts, places[N] where each element came from.

    firsts and counts: the place of each group's first element, and its size; inverse: each place's group; number.
    """
    (extent,) = subject.operands[0].shape
    names = ("firsts", "counts", "inverse", "number")
    results = {name: subject.target(position) for position, name in enumerate(names)}

    @kernel(heads=subject.buffer(0), places=subject.buffer(1), **results)
    def groups(tile: TileBuilder, heads: Buffer, places: Buffer, **out: Buffer) -> None:
        _clear(tile, out["firsts"], subject.lanes)
        _clear(tile, out["counts"], subject.lanes)
        state = Carry(group=tile.constant(-1, I64))
        for i in tile.range(extent, carry=state):
            head = tile.element(heads, i)
            place = tile.element(places, i)
            state.group = state.group + tile.cast(head, I64)
            group = tile.index(state.group, extent)
            first = tile.where(head, place, tile.element(out["firsts"], group))
            tile.put(first, out["firsts"], group)
            tile.put(tile.element(out["counts"], group) + 1, out["counts"], group)
            tile.put(state.group, out["inverse"], tile.index(place, extent))
        tile.put(state.group + 1, out["number"])

    return groups


def _clear(tile: TileBuilder, buffer: Buffer, lanes: int) -> None:
    zeros: Tile = tile.full((lanes,), 0, I64)
    for i in tile.range(buffer.shape[0], lanes):
        tile.store(buffer[i : i + lanes], zeros)
