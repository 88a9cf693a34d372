"""Scatter: a copy of a tensor into which updates are put, or combined, at positions that are data.

Takes data, integer indices and updates of the types that the graph ops of the same names allow; gives the changed
copy. Invariant: updates are applied in the order in which they lie in memory, so of two that meet in one place the
later one wins, and an index outside -extent..extent-1 ends the kernel with a status.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tessera.kernel import kernel
from tessera.tile import TileBuilder
from tessera.values import Buffer, Tile
from tessera_build.ir.core.dims import Extent, mod
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import I64
from tessera_build.kernels.subject import KernelSubject

# The scalar operation that combines the old element with an update; none: the update replaces it.
COMBINED_BY = {"none": "", "add": "add", "mul": "mul", "max": "max", "min": "min"}


def scatter_elements(subject: KernelSubject) -> Function:
    """out = data; then out[.., indices[p] on `axis`, ..] takes updates[p], for every position p of the indices."""
    axis, operation = subject.integer("axis"), COMBINED_BY[subject.word("reduction")]
    extent = subject.operands[0].shape[axis]

    @kernel(data=subject.buffer(0), indices=subject.buffer(1), updates=subject.buffer(2), out=subject.target(0))
    def scatter_elements(tile: TileBuilder, data: Buffer, indices: Buffer, updates: Buffer, out: Buffer) -> None:
        copy(tile, data, out, subject.lanes)

        def update(position: Sequence[Extent]) -> None:
            place = list(position)
            place[axis] = index_of(tile, tile.element(indices, *position), extent)
            combine(tile, operation, tile.element(updates, *position), out, place)

        each(tile, indices.shape, (), update)

    return scatter_elements


def scatter_nd(subject: KernelSubject) -> Function:
    """out = data[D.., C]; then row out[indices[m, :]] takes updates[m, :], for every m of indices[M, K]."""
    data_shape, operation = subject.operands[0].shape, COMBINED_BY[subject.word("reduction")]
    width = row_width(data_shape[-1], subject.lanes)

    @kernel(data=subject.buffer(0), indices=subject.buffer(1), updates=subject.buffer(2), out=subject.target(0))
    def scatter_nd(tile: TileBuilder, data: Buffer, indices: Buffer, updates: Buffer, out: Buffer) -> None:
        copy(tile, data, out, subject.lanes)
        for m in tile.range(indices.shape[0]):
            row = [index_of(tile, tile.element(indices, m, k), extent) for k, extent in enumerate(data_shape[:-1])]
            for c in tile.range(data_shape[-1], width):
                update = tile.load(updates[m, c : c + width])
                target = out[(*row, slice(c, c + width))]
                if operation:
                    update = tile.map(operation, tile.load(target), update)
                tile.store(target, update)

    return scatter_nd


def scatter_rows(subject: KernelSubject) -> Function:
    """out = cache; then out[b, :, first[b] + t, :] takes updates[b, :, t, :], around the end where `circular`."""

    @kernel(cache=subject.buffer(0), updates=subject.buffer(1), first=subject.buffer(2), out=subject.target(0))
    def scatter_rows(tile: TileBuilder, cache: Buffer, updates: Buffer, first: Buffer, out: Buffer) -> None:
        copy(tile, cache, out, subject.lanes)
        _put_rows(tile, subject, (updates, first, out))

    return scatter_rows


def put_rows(subject: KernelSubject) -> Function:
    """What `scatter_rows` does to an `out` that holds the cache already."""

    @kernel(updates=subject.buffer(1), first=subject.buffer(2), out=subject.target(0))
    def put_rows(tile: TileBuilder, updates: Buffer, first: Buffer, out: Buffer) -> None:
        _put_rows(tile, subject, (updates, first, out))

    return put_rows


def _put_rows(tile: TileBuilder, subject: KernelSubject, buffers: tuple[Buffer, Buffer, Buffer]) -> None:
    updates, first, out = buffers
    batch, planes, extent, depth = subject.operands[0].shape
    steps, circular = subject.operands[1].shape[2], subject.flag("circular")
    width = row_width(depth, subject.lanes)
    for b in tile.range(batch):
        start = tile.cast(tile.element(first, b), I64)
        at = tile.index(start, extent if circular else extent - steps + 1)
        for p in tile.range(planes):
            for t in tile.range(steps):
                row = mod(at + t, extent) if circular else at + t
                for c in tile.range(depth, width):
                    tile.copy(updates[b, p, t, c : c + width], out[b, p, row, c : c + width])


def index_of(tile: TileBuilder, value: Tile, extent: Extent) -> Extent:
    """An element as an index below `extent`, counted from the end where it is negative."""
    wide = tile.cast(value, I64)
    if value.dtype.kind == "signed":
        wide = tile.where(wide < 0, wide + tile.number(extent), wide)
    return tile.index(wide, extent)


def combine(tile: TileBuilder, operation: str, update: Tile, out: Buffer, place: Sequence[Extent]) -> None:
    """Put an update in its place, after combining it with what is there."""
    if operation:
        update = tile.map(operation, tile.element(out, *place), update)
    tile.put(update, out, *place)


def each(
    tile: TileBuilder, shape: Sequence[Extent], outer: Sequence[Extent], body: Callable[[Sequence[Extent]], None]
) -> None:
    """Loops over all positions of a shape, the last axis innermost."""
    if len(outer) == len(shape):
        body(outer)
        return
    for i in tile.range(shape[len(outer)]):
        each(tile, shape, (*outer, i), body)


def copy(tile: TileBuilder, source: Buffer, target: Buffer, lanes: int) -> None:
    """Copy a whole buffer, rows of the last axis in vectors."""
    width = row_width(source.shape[-1], lanes)

    def row(outer: Sequence[Extent]) -> None:
        for c in tile.range(source.shape[-1], width):
            tile.copy(source[(*outer, slice(c, c + width))], target[(*outer, slice(c, c + width))])

    each(tile, source.shape[:-1], (), row)


def row_width(extent: Extent, lanes: int) -> int:
    """How much of a row one tile holds: no more than four registers, nor than there is."""
    return min(4 * lanes, extent) if isinstance(extent, int) and extent > 0 else 4 * lanes
