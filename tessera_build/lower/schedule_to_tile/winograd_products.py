"""The products of a Winograd strip: for each point, sums over channels of the tiles' values by the weights'.

Takes a nest and a strip whose `points` are filled; fills its `sums` for one panel of output channels. Weights at the
points are several times those of the taps, and more than a cache holds: products ask for them some way ahead.
"""

from __future__ import annotations

from collections.abc import Callable

from tessera_build.ir.core.dims import Extent, maximum, minimum, symbol
from tessera_build.ir.core.types import F32, int_extent, memref, tile
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.schedule_to_tile.layouts import Packing
from tessera_build.lower.schedule_to_tile.nest import LoopRange, Nest, Operand
from tessera_build.lower.schedule_to_tile.prefetch import ahead_of
from tessera_build.lower.schedule_to_tile.winograd_strip import Strip

# From where on, how many products, and onto what: gives the sum.
Step = Callable[[Extent, int, int], int]


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
    panel, kind = nest.offsets[nest.axes[-1]] // strip.width, tile(F32, strip.block, strip.width)

    def step(start: Extent, length: int, acc: int) -> int:
        a, b = (t.ViewAxis(1), t.ViewAxis(2)), (t.ViewAxis(2), t.ViewAxis(3))
        values = emit(lambda r: t.View(r, strip.points, (point, first, start), a), memref(F32, strip.block, length))
        factors = emit(lambda r: t.View(r, weights, (panel, point, start, 0), b), memref(F32, length, strip.width))
        binding = t.Binding(instruction="fma", ahead=_ahead(strip, panel, start, length))
        return emit(lambda r: t.Contract(r, acc, values, factors, "ak,kb->ab", "seq", binding), kind)

    acc = _over_taps(nest, strip, step, nest.constant(0.0, F32, (strip.block, strip.width)))
    axes = (t.ViewAxis(1), t.ViewAxis(2))
    view = emit(lambda r: t.View(r, strip.sums, (point, first, 0), axes), memref(F32, strip.block, strip.width))
    nest.builder.add(t.Store(view, acc))


def _over_taps(nest: Nest, strip: Strip, step: Step, acc: int) -> int:
    """All that is summed in sequence, or turn by turn over the first kept tap where only some are taken."""
    if strip.turns is None:
        return _in_chunks(nest, strip, step, (0, strip.summed), acc)
    first, length = strip.turns[0], strip.summed // int_extent(strip.window.further[0].extent)
    loop, *_ = strip.kept()

    def turn(carried: tuple[int, ...]) -> tuple[int, ...]:
        return (_in_chunks(nest, strip, step, ((first + symbol(loop.index)) * length, length), carried[0]),)

    return nest.loop(loop, (acc,), turn)[0]


def _in_chunks(nest: Nest, strip: Strip, step: Step, stretch: tuple[Extent, int], acc: int) -> int:
    """`stretch`: where it begins among all that is summed, and how much it is."""
    (begin, length), channel, chunk = stretch, strip.window.channels.name, strip.chunk
    whole = length // chunk * chunk

    def body(carried: tuple[int, ...]) -> tuple[int, ...]:
        return (step(begin + symbol(channel), chunk, carried[0]),)

    if whole > chunk:
        (acc,) = nest.loop(LoopRange(channel, whole, chunk), (acc,), body)
    elif whole:
        acc = step(begin, whole, acc)
    return step(begin + whole, length - whole, acc) if length > whole else acc


def _ahead(strip: Strip, panel: Extent, start: Extent, length: int) -> t.Ahead | None:
    """Weights further on; what follows a panel's last point is the next panel."""
    if not strip.ahead:
        return None
    read = ((panel * strip.transform.size + symbol("_p")) * strip.summed + start) * strip.width
    return ahead_of(read, length * strip.width)
