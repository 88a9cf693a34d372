"""The products of a Winograd strip: for each point, sums over channels of the tiles' values by the weights'.

Takes a nest and a strip whose `points` are filled; fills its `sums` for one panel of output channels. Weights at the
points are several times those of the taps, and more than a cache holds: products ask for them some way ahead.
"""

from __future__ import annotations

from tessera_build.ir.core.dims import Extent, maximum, minimum, symbol
from tessera_build.ir.core.types import F32, int_extent, memref, tile
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.schedule_to_tile.layouts import Packing
from tessera_build.lower.schedule_to_tile.nest import LoopRange, Nest, Operand
from tessera_build.lower.schedule_to_tile.prefetch import ahead_of
from tessera_build.lower.schedule_to_tile.winograd_strip import Strip


def products_at_points(nest: Nest, strip: Strip, tiles: Extent) -> None:
    """For every point: sums over the channels of the tiles' values by the weights', a register tile at a time."""
    size, vector = strip.transform.size, nest.axes[-1]
    packing = Packing(strip.window.weight, 0, strip.width, winograd=strip.transform)
    panels = -(-int_extent(nest.domain[vector]) // strip.width)
    shape = (panels, size, strip.summed, strip.width)
    weights = nest.buffer(Operand(strip.node.reads[1], packing), shape)

    def point(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.loop(LoopRange("_t", tiles, strip.block), (), block)
        return ()

    def block(_: tuple[int, ...]) -> tuple[int, ...]:
        _product(nest, strip, weights, _block_start(tiles, strip.block))
        return ()

    nest.loop(LoopRange("_p", size), (), point)


def _block_start(tiles: Extent, block: int) -> Extent:
    """The last block is moved back inside; behind the tiles of a strip that has fewer than a block lies no input."""
    if isinstance(tiles, int) and tiles % block == 0:
        return symbol("_t")
    return maximum(minimum(symbol("_t"), tiles - block), 0)


def _product(nest: Nest, strip: Strip, weights: int, first: Extent) -> None:
    """One register tile: the sums of `strip.block` tiles from `first` on at the point `_p`."""
    emit, point = nest.builder.emit, symbol("_p")
    channel, chunk = strip.window.channels.name, strip.chunk
    panel, kind = nest.offsets[nest.axes[-1]] // strip.width, tile(F32, strip.block, strip.width)

    def step(start: Extent, length: int, acc: int) -> int:
        a, b = (t.ViewAxis(1), t.ViewAxis(2)), (t.ViewAxis(2), t.ViewAxis(3))
        values = emit(lambda r: t.View(r, strip.points, (point, first, start), a), memref(F32, strip.block, length))
        factors = emit(lambda r: t.View(r, weights, (panel, point, start, 0), b), memref(F32, length, strip.width))
        binding = t.Binding(instruction="fma", ahead=_ahead(strip, panel, start, length))
        return emit(lambda r: t.Contract(r, acc, values, factors, "ak,kb->ab", "seq", binding), kind)

    def body(carried: tuple[int, ...]) -> tuple[int, ...]:
        return (step(symbol(channel), chunk, carried[0]),)

    acc = nest.constant(0.0, F32, (strip.block, strip.width))
    whole = strip.summed // chunk * chunk
    if whole > chunk:
        (acc,) = nest.loop(LoopRange(channel, whole, chunk), (acc,), body)
    elif whole:
        acc = step(0, whole, acc)
    if strip.summed > whole:
        acc = step(whole, strip.summed - whole, acc)
    axes = (t.ViewAxis(1), t.ViewAxis(2))
    view = emit(lambda r: t.View(r, strip.sums, (point, first, 0), axes), memref(F32, strip.block, strip.width))
    nest.builder.add(t.Store(view, acc))


def _ahead(strip: Strip, panel: Extent, start: Extent, length: int) -> t.Ahead | None:
    """Weights further on; what follows a panel's last point is the next panel."""
    if not strip.ahead:
        return None
    read = ((panel * strip.transform.size + symbol("_p")) * strip.summed + start) * strip.width
    return ahead_of(read, length * strip.width)
