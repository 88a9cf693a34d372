"""Winograd convolution in strips of output tiles, with what follows the convolution fused.

Before: result[i, j] = sum over taps and channels of x[i + k, j + l, c] * w[k, l, c], then elementwise definitions;
there may be taps along one axis alone. Taps along further axes are added up as channels are.
After: for each strip, the inputs of every output tile at the transform's points (`points`, in scratch); for each panel
of output channels the product with the weights at every point (`sums`, in scratch); then the outputs of every tile
from its sums, the elementwise rest, and stores. Inputs outside the buffer are zero; outputs outside it are not stored.

Invariant: the bits of an output depend on its place in its tile and on its inputs, never on strips or threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from tessera_build.ir.core.dims import Extent, minimum, symbol
from tessera_build.ir.core.types import F32, int_extent, memref, tile
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.schedule_to_tile.clip import turns_inside
from tessera_build.lower.schedule_to_tile.nest import Body, LoopRange, Nest
from tessera_build.lower.schedule_to_tile.point_maps import weighted_sum
from tessera_build.lower.schedule_to_tile.winograd_products import products_at_points
from tessera_build.lower.schedule_to_tile.winograd_strip import Strip
from tessera_build.space.toom_cook import Transform, from_points, to_points
from tessera_build.space.winograd import Window


def emit_winograd(nest: Nest, schedule: Schedule, node: Compute, window: Window) -> None:
    """Append the whole nest of a task whose schedule rewrites `node`."""
    rewrite, factors = schedule.rewritten(), schedule.factors()
    if rewrite is None:
        raise ValueError("the schedule keeps the algorithm")
    transform = Transform.of(rewrite.tile, window.taps, window.strides)
    strip = Strip(
        node, window, transform, nest.lanes,
        factors.get(window.rows.axis, 1) // transform.rows.tile,
        factors.get(window.columns.axis, 1) // transform.columns.tile, rewrite.block,
        factors[nest.axes[-1]], factors.get(window.channels.name, 1), rewrite.panels,
        schedule.prefetched() is not None, bool(schedule.clipped()),
    )  # fmt: skip
    _mark_ragged(nest, strip)
    _groups(nest, schedule, strip)


def _groups(nest: Nest, schedule: Schedule, strip: Strip) -> None:
    """The outermost loop, over groups of panels: what follows each other reads the same weights."""
    vector = nest.axes[-1]
    columns = strip.window.columns
    apart = [columns.phase, strip.sides[1][0]] if columns.step > 1 else [columns.axis]
    order = [i for axis in schedule.order() or nest.axes if axis != vector for i in _cut(axis, columns.axis, apart)]
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


def _cut(axis: str, columns: str, indices: Sequence[str]) -> Sequence[str]:
    return indices if axis == columns else (axis,)


def _mark_ragged(nest: Nest, strip: Strip) -> None:
    """Axes along which tiles reach over the end, or strips of which the last has fewer: bounds do not follow that."""
    domain, columns = strip.domain(nest), strip.window.columns
    whole = strip.extents | {nest.axes[-1]: strip.width, columns.axis: columns.step}
    whole |= strip.extents
    for index, size in whole.items():
        extent = domain[index]
        if not isinstance(extent, int) or extent % size:
            nest.ragged.add(columns.axis if index == strip.sides[1][0] else index)
    if strip.channels % strip.lanes:
        nest.ragged.add(strip.window.channels.name)


def _outer_loops(nest: Nest, schedule: Schedule, axes: Sequence[str], strip: Strip) -> None:
    if not axes:
        _strip(nest, strip)
        return
    axis, rest = axes[0], axes[1:]
    extent, step = strip.domain(nest)[axis], strip.extents.get(axis, 1)
    bound = strip.window.columns.axis if axis not in nest.domain else axis
    if isinstance(extent, int) and extent <= step:
        nest.offsets[axis] = 0
        _outer_loops(nest, schedule, rest, strip)
        return

    def body(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.offsets[axis] = symbol(axis)
        _outer_loops(nest, schedule, rest, strip)
        return ()

    nest.loop(LoopRange(axis, extent, step, schedule.scope(bound)), (), body)


def _strip(nest: Nest, strip: Strip) -> None:
    points, sums = (nest.builder.emit(lambda r: t.Alloc(r), memref(F32, *shape)) for shape in strip.shapes)
    made = replace(strip, points=points, sums=sums, turns=_turns(nest, strip))
    rows, columns = (_count(nest, strip, *side) for side in strip.sides)
    start = {axis: nest.offsets[axis] for axis, _, _ in strip.sides}
    _each_tile(nest, made, (rows, columns), start, partial(_inputs_to_points, nest))
    vector = nest.axes[-1]
    first, outputs = nest.offsets[vector], nest.domain[vector]

    def panel(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.offsets[vector] = first + symbol(vector)
        products_at_points(nest, made, rows * columns)
        _each_tile(nest, made, (rows, columns), start, partial(_sums_to_outputs, nest))
        return ()

    nest.loop(LoopRange(vector, strip.panels * strip.width or outputs, strip.width), (), panel)


def _turns(nest: Nest, strip: Strip) -> tuple[Extent, Extent] | None:
    """Of the first tap that is kept, where some are padding for a whole strip."""
    if not strip.clips:
        return None
    axis = strip.window.further[0]
    first, count = turns_inside(nest, strip.node, axis)
    return None if (first, count) == (0, axis.extent) else (first, count)


def _count(nest: Nest, strip: Strip, index: str, most: int, size: int) -> Extent:
    """How many tiles of `size` outputs, of a strip's `most`, begin inside the output along an index."""
    extent = strip.domain(nest)[index]
    if isinstance(extent, int) and -(-extent // size) % most == 0:
        return most
    return minimum((extent - nest.offsets[index] + (size - 1)) // size, most)


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
    (rows, _, height), (columns, _, width) = strip.sides

    def row(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.offsets[rows] = start[rows] + symbol(f"{rows}_tile") * height
        nest.loop(LoopRange(f"{columns}_tile", counts[1], 1, "parallel"), (), column)
        return ()

    def column(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.offsets[columns] = start[columns] + symbol(f"{columns}_tile") * width
        strip.place(nest)
        make(_with_square(nest, strip), symbol(f"{rows}_tile") * counts[1] + symbol(f"{columns}_tile"))
        return ()

    nest.loop(LoopRange(f"{rows}_tile", counts[0], 1, "parallel"), (), row)


def _with_square(nest: Nest, strip: Strip) -> Strip:
    """With registers for what passes from one transform to the other, where there are two."""
    if 1 in strip.square_shape[:2]:
        return strip
    return replace(strip, square=nest.builder.emit(lambda r: t.Alloc(r), memref(F32, *strip.square_shape)))


# -- the three stages -------------------------------------------------------------------------------------------------


def _inputs_to_points(nest: Nest, strip: Strip, place: Extent) -> None:
    """One tile: columns of its inputs to points into the square, then the square's rows into `points`."""
    channel, total = strip.window.channels.name, partial(weighted_sum, nest)
    nest.tiles = {channel: strip.lanes}
    height, width, _ = strip.square_shape

    def column(index: Extent) -> list[int]:
        return to_points(strip.transform.rows, [_input(nest, strip, row, index) for row in range(height)], total)

    def store(row: Extent, values: Sequence[int]) -> None:
        for index, value in enumerate(to_points(strip.transform.columns, values, total)):
            _put(nest, strip, strip.points, (row * width + index, place, strip.first(nest) + symbol(channel)), value)

    def vector(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.offsets[channel] = symbol(channel)
        if height == 1:
            store(0, [_input(nest, strip, 0, index) for index in range(width)])
        elif width == 1:
            for row, value in enumerate(column(0)):
                store(row, [value])
        else:
            _through_square(nest, strip, width, column)
            _loop_over(nest, "_p", height, lambda row: store(row, _square_row(nest, strip, row)))
        return ()

    def tap(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.loop(LoopRange(channel, strip.channels, strip.lanes), (), vector)
        return ()

    _each_kept(nest, strip.kept(), strip.turns[0] if strip.turns else 0, tap)


def _each_kept(nest: Nest, loops: Sequence[LoopRange], first: Extent, body: Body) -> None:
    """Loops over the taps that are kept, in their order: the registers that one stores last may reach into the next."""
    if not loops:
        body(())
        return
    loop, *rest = loops

    def turn(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.offsets[loop.index] = first + symbol(loop.index)
        _each_kept(nest, rest, 0, body)
        return ()

    nest.loop(loop, (), turn)


def _input(nest: Nest, strip: Strip, row: Extent, column: Extent) -> int:
    """A register of channels of the input that these taps have for the tile's first output."""
    for side, index in zip(strip.window.sides, (row, column), strict=True):
        if side.tap:
            nest.offsets[side.tap] = index
    axes = [*nest.axes[:-1], strip.window.channels.name]
    view = nest.view(strip.node.reads[0], strip.node.accesses[0], axes)
    return nest.builder.emit(lambda r: t.Load(r, view), tile(F32, *nest.builder.types[view].static_shape))


def _sums_to_outputs(nest: Nest, strip: Strip, place: Extent) -> None:
    """One tile: its sums to outputs along columns into the square, then along rows, the elementwise rest, stores."""
    vector, total, lane = nest.axes[-1], partial(weighted_sum, nest), symbol("_v")
    nest.tiles = {vector: strip.lanes}
    start, (height, width, _) = dict(nest.offsets), strip.square_shape

    def loaded(row: Extent, column: Extent) -> int:
        return _get(nest, strip, strip.sums, (column + row * width, place, lane))

    def column(index: Extent) -> list[int]:
        return from_points(strip.transform.rows, [loaded(row, index) for row in range(height)], total)

    def store(row: Extent, values: Sequence[int]) -> None:
        for index, value in enumerate(from_points(strip.transform.columns, values, total)):
            _store_output(nest, strip, start, (row, index), value)

    def register(_: tuple[int, ...]) -> tuple[int, ...]:
        if height == 1:
            store(0, [loaded(0, index) for index in range(width)])
        elif width == 1:
            for row, value in enumerate(column(0)):
                store(row, [value])
        else:
            _through_square(nest, strip, width, column)
            tile_ = strip.transform.rows.tile
            _loop_over(nest, "_p", tile_, lambda row: store(row, _square_row(nest, strip, row)))
        nest.offsets.update(start)
        return ()

    nest.loop(LoopRange("_v", strip.width, strip.lanes), (), register)


def _store_output(nest: Nest, strip: Strip, start: dict[str, Extent], place: tuple[Extent, int], value: int) -> None:
    """The elementwise rest of one register of outputs, and its stores; `place`: row and column in the tile."""
    vector, ((rows, _, _), (columns, _, _)) = nest.axes[-1], strip.sides
    nest.offsets[rows], nest.offsets[columns] = start[rows] + place[0], start[columns] + place[1]
    strip.place(nest)
    nest.offsets[vector] = start[vector] + symbol("_v")
    nest.memo.clear()
    nest.memo[strip.node.result] = value
    for output in nest.task.outputs:
        nest.store(output, nest.evaluate(output))


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
    return [_get(nest, strip, strip.square, (row, column, 0)) for column in range(strip.transform.columns.size)]


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
