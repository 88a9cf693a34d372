"""Winograd convolution in strips of output tiles, with what follows the convolution fused.

Before: result[i, j] = sum over taps and channels of x[i + k, j + l, c] * w[k, l, c], then elementwise definitions.
After: for each strip, the inputs of every output tile at the transform's points (`points`, in scratch); for each panel
of output channels the product with the weights at every point (`sums`, in scratch); then the outputs of every tile
from its sums, the elementwise rest, and stores. Inputs outside the buffer are zero; outputs outside it are not stored.

Invariant: the bits of an output depend on its place in its tile and on its inputs, never on strips or threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tessera_build.ir.core.dims import Extent, maximum, minimum, symbol
from tessera_build.ir.core.types import F32, int_extent, memref, tile
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.schedule_to_tile.layouts import Packing
from tessera_build.lower.schedule_to_tile.nest import LoopRange, Nest, Operand
from tessera_build.lower.schedule_to_tile.point_maps import weighted_sum
from tessera_build.space.toom_cook import ToomCook, from_points, to_points
from tessera_build.space.winograd import Window
from tessera_build.space.winograd_plan import pitch


@dataclass(frozen=True, slots=True)
class Strip:
    """What a strip is made of: extents in tiles, the register tile of the products, scratch buffers by value id."""

    node: Compute
    window: Window
    transform: ToomCook
    lanes: int
    rows: int
    columns: int
    block: int
    width: int
    chunk: int
    panels: int
    points: int = -1
    sums: int = -1
    square: int = -1  # of registers, which a tile passes between its two axes

    @property
    def channels(self) -> int:
        """How many channels are added up."""
        return int_extent(self.window.channels.extent)

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of `points` and `sums`: points, tiles, channels in or those of a panel out."""
        size, tiles = self.transform.size, self.rows * self.columns
        return (
            (size * size, tiles, pitch(self.channels, self.lanes)),
            (size * size, tiles, self.width),
        )

    @property
    def square_shape(self) -> tuple[int, int, int]:
        """Rows and columns of points, lanes."""
        return self.transform.size, self.transform.size, self.lanes


def emit_winograd(nest: Nest, schedule: Schedule, node: Compute, window: Window) -> None:
    """Append the whole nest of a task whose schedule rewrites `node`."""
    rewrite, factors = schedule.rewritten(), schedule.factors()
    if rewrite is None:
        raise ValueError("the schedule keeps the algorithm")
    tile_ = rewrite.tile
    strip = Strip(
        node, window, ToomCook(tile_), nest.lanes,
        factors[window.rows] // tile_, factors[window.columns] // tile_, rewrite.block,
        factors[nest.axes[-1]], factors.get(window.channels.name, 1), rewrite.panels,
    )  # fmt: skip
    _mark_ragged(nest, strip)
    _groups(nest, schedule, strip)


def _groups(nest: Nest, schedule: Schedule, strip: Strip) -> None:
    """The outermost loop, over groups of panels: what follows each other reads the same weights."""
    vector = nest.axes[-1]
    order = [axis for axis in schedule.order() or nest.axes if axis != vector]
    extent, step = int_extent(nest.domain[vector]), strip.panels * strip.width
    nest.offsets[vector] = 0
    if step == 0 or extent <= step:
        _outer_loops(nest, schedule, order, strip)
        return

    def body(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.offsets[vector] = symbol(f"{vector}_chunk")
        _outer_loops(nest, schedule, order, strip)
        return ()

    nest.loop(LoopRange(f"{vector}_chunk", extent, step, schedule.scope(vector)), (), body)


def _mark_ragged(nest: Nest, strip: Strip) -> None:
    """Axes along which tiles reach over the end, or strips of which the last has fewer: bounds do not follow that."""
    tile_ = strip.transform.tile
    whole = {strip.window.rows: strip.rows * tile_, strip.window.columns: strip.columns * tile_}
    for axis, size in (whole | {nest.axes[-1]: strip.width}).items():
        extent = nest.domain[axis]
        if not isinstance(extent, int) or extent % size:
            nest.ragged.add(axis)
    if strip.channels % strip.lanes:
        nest.ragged.add(strip.window.channels.name)


def _outer_loops(nest: Nest, schedule: Schedule, axes: Sequence[str], strip: Strip) -> None:
    if not axes:
        _strip(nest, strip)
        return
    axis, rest = axes[0], axes[1:]
    extent, tile_ = nest.domain[axis], strip.transform.tile
    sizes = {strip.window.rows: strip.rows * tile_, strip.window.columns: strip.columns * tile_}
    step = sizes.get(axis, 1)
    if isinstance(extent, int) and extent <= step:
        nest.offsets[axis] = 0
        _outer_loops(nest, schedule, rest, strip)
        return

    def body(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.offsets[axis] = symbol(axis)
        _outer_loops(nest, schedule, rest, strip)
        return ()

    nest.loop(LoopRange(axis, extent, step, schedule.scope(axis)), (), body)


def _strip(nest: Nest, strip: Strip) -> None:
    points, sums = (nest.builder.emit(lambda r: t.Alloc(r), memref(F32, *shape)) for shape in strip.shapes)
    made = replace(strip, points=points, sums=sums)
    rows, columns = (_count(nest, axis, size, strip) for axis, size in _sides(strip))
    start = {axis: nest.offsets[axis] for axis, _ in _sides(strip)}
    _each_tile(nest, made, (rows, columns), start, partial(_inputs_to_points, nest))
    vector = nest.axes[-1]
    first, outputs = nest.offsets[vector], nest.domain[vector]

    def panel(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.offsets[vector] = first + symbol(vector)
        _products(nest, made, rows * columns)
        _each_tile(nest, made, (rows, columns), start, partial(_sums_to_outputs, nest))
        return ()

    nest.loop(LoopRange(vector, strip.panels * strip.width or outputs, strip.width), (), panel)


def _sides(strip: Strip) -> tuple[tuple[str, int], tuple[str, int]]:
    return (strip.window.rows, strip.rows), (strip.window.columns, strip.columns)


def _count(nest: Nest, axis: str, most: int, strip: Strip) -> Extent:
    """How many tiles of this strip begin inside the output along an axis."""
    extent, tile_ = nest.domain[axis], strip.transform.tile
    if isinstance(extent, int) and -(-extent // tile_) % most == 0:
        return most
    return minimum((extent - nest.offsets[axis] + (tile_ - 1)) // tile_, most)


def _each_tile(
    nest: Nest,
    strip: Strip,
    counts: tuple[Extent, Extent],
    start: dict[str, Extent],
    make: Callable[[Strip, Extent], None],
) -> None:
    """Loops over the tiles of a strip; `make` gets the tile's number in it, the offsets say where it begins.

    Tiles are independent, and bound as such: a square each. A proof by interpretation may look at the first alone.
    """
    (rows, _), (columns, _), tile_ = *_sides(strip), strip.transform.tile

    def row(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.offsets[rows] = start[rows] + symbol(f"{rows}_tile") * tile_
        nest.loop(LoopRange(f"{columns}_tile", counts[1], 1, "parallel"), (), column)
        return ()

    def column(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.offsets[columns] = start[columns] + symbol(f"{columns}_tile") * tile_
        square = nest.builder.emit(lambda r: t.Alloc(r), memref(F32, *strip.square_shape))
        make(replace(strip, square=square), symbol(f"{rows}_tile") * counts[1] + symbol(f"{columns}_tile"))
        return ()

    nest.loop(LoopRange(f"{rows}_tile", counts[0], 1, "parallel"), (), row)


# -- the three stages -------------------------------------------------------------------------------------------------


def _inputs_to_points(nest: Nest, strip: Strip, place: Extent) -> None:
    """One tile: columns of its inputs to points into the square, then the square's rows into `points`."""
    size, channel, total = strip.transform.size, strip.window.channels.name, partial(weighted_sum, nest)
    nest.tiles = {channel: strip.lanes}
    row_tap, column_tap = strip.window.taps
    axes = [*nest.axes[:-1], channel]

    def inputs(column: Extent) -> list[int]:
        nest.offsets[column_tap] = column
        found: list[int] = []
        for row in range(size):
            nest.offsets[row_tap] = row
            view = nest.view(strip.node.reads[0], strip.node.accesses[0], axes)
            shape = nest.builder.types[view].static_shape
            found.append(nest.builder.emit(lambda r, view=view: t.Load(r, view), tile(F32, *shape)))
        return to_points(strip.transform, found, total)

    def vector(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.offsets[channel] = symbol(channel)
        _through_square(nest, strip, size, inputs)

        def row(index: Extent) -> None:
            for column, value in enumerate(to_points(strip.transform, _square_row(nest, strip, index), total)):
                _put(nest, strip, strip.points, (index * size + column, place, symbol(channel)), value)

        _loop_over(nest, "_p", size, row)
        return ()

    nest.loop(LoopRange(channel, strip.channels, strip.lanes), (), vector)


def _products(nest: Nest, strip: Strip, tiles: Extent) -> None:
    """For every point: sums over the channels of the tiles' values by the weights', a register tile at a time."""
    size, vector = strip.transform.size, nest.axes[-1]
    packing = Packing(strip.window.weight, 0, strip.width, winograd=strip.transform.tile)
    panels = -(-int_extent(nest.domain[vector]) // strip.width)
    shape = (panels, size * size, strip.channels, strip.width)
    weights = nest.buffer(Operand(strip.node.reads[1], packing), shape)

    def point(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.loop(LoopRange("_t", tiles, strip.block), (), block)
        return ()

    def block(_: tuple[int, ...]) -> tuple[int, ...]:
        _product(nest, strip, weights, _block_start(tiles, strip.block))
        return ()

    nest.loop(LoopRange("_p", size * size), (), point)


def _block_start(tiles: Extent, block: int) -> Extent:
    """The last block is moved back inside; behind the tiles of a strip that has fewer than a block lies no input."""
    if isinstance(tiles, int) and tiles % block == 0:
        return symbol("_t")
    return maximum(minimum(symbol("_t"), tiles - block), 0)


def _product(nest: Nest, strip: Strip, weights: int, first: Extent) -> None:
    """One register tile: the sums of `strip.block` tiles from `first` on at the point `_p`."""
    emit, point, fma = nest.builder.emit, symbol("_p"), t.Binding(instruction="fma")
    channel, chunk = strip.window.channels.name, strip.chunk
    panel, kind = nest.offsets[nest.axes[-1]] // strip.width, tile(F32, strip.block, strip.width)

    def step(start: Extent, length: int, acc: int) -> int:
        a, b = (t.ViewAxis(1), t.ViewAxis(2)), (t.ViewAxis(2), t.ViewAxis(3))
        values = emit(lambda r: t.View(r, strip.points, (point, first, start), a), memref(F32, strip.block, length))
        factors = emit(lambda r: t.View(r, weights, (panel, point, start, 0), b), memref(F32, length, strip.width))
        return emit(lambda r: t.Contract(r, acc, values, factors, "ak,kb->ab", "seq", fma), kind)

    def body(carried: tuple[int, ...]) -> tuple[int, ...]:
        return (step(symbol(channel), chunk, carried[0]),)

    acc = nest.constant(0.0, F32, (strip.block, strip.width))
    whole = strip.channels // chunk * chunk
    if whole > chunk:
        (acc,) = nest.loop(LoopRange(channel, whole, chunk), (acc,), body)
    elif whole:
        acc = step(0, whole, acc)
    if strip.channels > whole:
        acc = step(whole, strip.channels - whole, acc)
    axes = (t.ViewAxis(1), t.ViewAxis(2))
    view = emit(lambda r: t.View(r, strip.sums, (point, first, 0), axes), memref(F32, strip.block, strip.width))
    nest.builder.add(t.Store(view, acc))


def _sums_to_outputs(nest: Nest, strip: Strip, place: Extent) -> None:
    """One tile: its sums to outputs along columns into the square, then along rows, the elementwise rest, stores."""
    size, tile_, vector = strip.transform.size, strip.transform.tile, nest.axes[-1]
    total = partial(weighted_sum, nest)
    nest.tiles = {vector: strip.lanes}
    start, (rows, _), (columns, _) = dict(nest.offsets), *_sides(strip)

    def sums(column: Extent) -> list[int]:
        lane = symbol("_v")
        found = [_get(nest, strip, strip.sums, (column + row * size, place, lane)) for row in range(size)]
        return from_points(strip.transform, found, total)

    def register(_: tuple[int, ...]) -> tuple[int, ...]:
        _through_square(nest, strip, size, sums)

        def row(index: Extent) -> None:
            found = from_points(strip.transform, _square_row(nest, strip, index), total)
            for column, value in enumerate(found):
                nest.offsets[rows], nest.offsets[columns] = start[rows] + index, start[columns] + column
                nest.offsets[vector] = start[vector] + symbol("_v")
                nest.memo.clear()
                nest.memo[strip.node.result] = value
                for output in nest.task.outputs:
                    nest.store(output, nest.evaluate(output))

        _loop_over(nest, "_p", tile_, row)
        nest.offsets.update(start)
        return ()

    nest.loop(LoopRange("_v", strip.width, strip.lanes), (), register)


# -- scratch ----------------------------------------------------------------------------------------------------------


def _loop_over(nest: Nest, index: str, extent: int, body: Callable[[Extent], None]) -> None:
    def once(_: tuple[int, ...]) -> tuple[int, ...]:
        body(symbol(index))
        return ()

    nest.loop(LoopRange(index, extent), (), once)


def _through_square(nest: Nest, strip: Strip, count: int, column: Callable[[Extent], list[int]]) -> None:
    """Column by column, what `column` gives into the square."""

    def fill(index: Extent) -> None:
        for row, value in enumerate(column(index)):
            _put(nest, strip, strip.square, (row, index, 0), value)

    _loop_over(nest, "_p", count, fill)


def _square_row(nest: Nest, strip: Strip, row: Extent) -> list[int]:
    return [_get(nest, strip, strip.square, (row, column, 0)) for column in range(strip.transform.size)]


def _window(nest: Nest, strip: Strip, buffer: int, offsets: tuple[Extent, ...]) -> int:
    """A view of one register, with as many axes as the domain has."""
    still = (t.ViewAxis(-1),) * (len(nest.axes) - 1)
    kind = memref(F32, *(1 for _ in still), strip.lanes)
    return nest.builder.emit(lambda r: t.View(r, buffer, offsets, (*still, t.ViewAxis(2))), kind)


def _get(nest: Nest, strip: Strip, buffer: int, offsets: tuple[Extent, ...]) -> int:
    view = _window(nest, strip, buffer, offsets)
    return nest.builder.emit(lambda r: t.Load(r, view), tile(F32, *nest.builder.types[view].static_shape))


def _put(nest: Nest, strip: Strip, buffer: int, offsets: tuple[Extent, ...], value: int) -> None:
    nest.builder.add(t.Store(_window(nest, strip, buffer, offsets), value))
