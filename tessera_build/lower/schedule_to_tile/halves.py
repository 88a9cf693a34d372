"""A product in halves: what Strassen's rewrite says of it, and where its parts lie.

Takes a nest and a trace; gives the sizes of pieces and register tiles, and views of quarters of the first operand, of
their sums and of the weights' panels. Invariant: of all axes of the domain, only rows and columns are cut in halves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent, substitute, symbol
from tessera_build.ir.core.types import F32, memref
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.schedule_to_tile.byte_product import LETTERS
from tessera_build.lower.schedule_to_tile.layouts import DENSE, Packing
from tessera_build.lower.schedule_to_tile.nest import SCRATCH, LoopRange, Nest, Operand
from tessera_build.space.contraction import ASSUMED_EXTENT
from tessera_build.space.strassen import HALVES, MADE, QUARTERS, STORED, SUMS, Product
from tessera_build.space.winograd_plan import pitch


@dataclass(frozen=True, slots=True)
class Halves:
    """The register tile (`block` rows, `width` columns), steps emitted, the piece of depth that is summed at a time.

    `group` register tiles of rows share the sums of weights that the first of them makes.
    """

    node: Compute
    product: Product
    schedule: Schedule
    block: int
    width: int
    steps: int
    piece: int
    lanes: int
    group: int

    @property
    def extents(self) -> tuple[Extent, int, int]:
        """Rows, depth and columns of a quarter."""
        return self.product.quarter

    @property
    def around(self) -> tuple[str, ...]:
        """The index of the loop over blocks of rows, where there are several."""
        return () if self.product.blocks == 1 else (self.product.block,)

    def row(self, at: Extent, half: Extent) -> Extent:
        """The row of the task that is number `at` of the upper (0) or lower (1) half of the block."""
        return self.product.first + at + half * self.product.below

    @property
    def tiles(self) -> int:
        """Register tiles of a panel, those of all groups, at most."""
        return -(-self.product.largest[1] // self.block)

    @property
    def usual_tiles(self) -> int:
        """Register tiles in a group that share what is done for all of them."""
        return min(self.group, -(-ASSUMED_EXTENT // self.block)) if self.product.dynamic else self.group

    @property
    def pieces(self) -> int:
        """How many pieces a half of the depth has."""
        return self.extents[1] // self.piece

    @property
    def kept(self) -> int:
        """Tiles whose results wait for the next piece."""
        return self.group if self.pieces > 1 else 1

    @property
    def private_bytes(self) -> int:
        """Scratch memory that the thread of a panel needs for itself."""
        tiles = (self.kept * QUARTERS + HALVES) * self.block * self.width
        return (MADE * self.piece * self.width + tiles) * F32.bytes


def halves_of(nest: Nest, schedule: Schedule, node: Compute, product: Product) -> Halves:
    """What a trace with Strassen's rewrite says."""
    factors, step = schedule.factors(), schedule.rewritten()
    if step is None:
        raise ValueError("the schedule keeps the algorithm")
    block, width, steps = (factors.get(axis, 1) for axis in (product.rows, nest.axes[-1], product.depth))
    tiles = -(-product.largest[1] // max(1, block))
    return Halves(node, product, schedule, block, width, steps, step.block, nest.lanes, step.panels or tiles)


def axes_around(nest: Nest, halves: Halves) -> list[str]:
    """The axes of the domain beside rows and columns."""
    return [axis for axis in nest.axes[:-1] if axis not in halves.product.paired]


def loops_around(nest: Nest, halves: Halves, axes: Sequence[str], body: Callable[[], object]) -> None:
    """Loops over axes in steps of one, and over blocks of rows, around what `body` appends."""
    if not axes:
        _loop_over_blocks(nest, halves, body)
        return
    axis, rest = axes[0], axes[1:]
    if nest.domain[axis] == 1:
        nest.offsets[axis] = 0
        loops_around(nest, halves, rest, body)
        return

    def turn(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.offsets[axis] = symbol(axis)
        loops_around(nest, halves, rest, body)
        return ()

    nest.loop(LoopRange(axis, nest.domain[axis], 1, halves.schedule.scope(axis)), (), turn)


def loops_over_panels(nest: Nest, halves: Halves, body: Callable[[], object]) -> None:
    """Loops over panels of columns of both halves, inside those around; the nest's offset is a panel's first column."""
    vector, columns = nest.axes[-1], halves.extents[2]

    def panel(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.offsets[vector] = symbol(vector) if columns > halves.width else 0
        body()
        return ()

    span = LoopRange(vector, columns, halves.width, halves.schedule.scope(vector))
    loops_around(nest, halves, axes_around(nest, halves), lambda: nest.loop(span, (), panel))


def _loop_over_blocks(nest: Nest, halves: Halves, body: Callable[[], object]) -> None:
    def turn(_: tuple[int, ...]) -> tuple[int, ...]:
        body()
        return ()

    if not halves.around:
        body()
    for index in halves.around:
        nest.loop(LoopRange(index, halves.product.blocks, 1, "parallel"), (), turn)


def panels_packing(halves: Halves) -> Packing:
    """How the weights' stored matrices lie in memory."""
    return Packing(halves.product.weight, 0, halves.width, strassen=halves.piece)


def panel_shape(halves: Halves) -> tuple[int, ...]:
    """The shape of the stored matrices: [panels, pieces, matrices, piece, width]."""
    return (halves.extents[2] // halves.width, halves.pieces, STORED, halves.piece, halves.width)


def sums_buffer(nest: Nest, halves: Halves) -> int:
    """The argument for the first operand's sums: [sum, axes around the rows, rows of all blocks, depth]."""
    around = [nest.domain[axis] for axis in axes_around(nest, halves)]
    operand, depth = Operand(SCRATCH), pitch(halves.extents[1], halves.lanes)
    nest.buffers[operand] = nest.builder.arg(memref(F32, SUMS, *around, halves.product.summed, depth))
    nest.operands.append(operand)
    return nest.buffers[operand]


def sum_view(nest: Nest, halves: Halves, which: tuple[int, int], at: tuple[Extent, Extent], size: int) -> int:
    """A view of one of these sums (buffer, number) from a row and a step on: `size` steps of the rows in `nest.tiles`.

    It has an axis per axis of the domain, the depth in the place of the columns.
    """
    rows, block = halves.product.rows, nest.tiles.get(halves.product.rows, 1)
    around = [nest.offsets[axis] for axis in axes_around(nest, halves)]
    offsets = (which[1], *around, halves.product.sums_begin + at[0], at[1])
    last = len(offsets) - 1
    axes = tuple(t.ViewAxis(last - 1 if axis == rows else -1) for axis in nest.axes[:-1])
    kind = memref(F32, *(block if axis == rows else 1 for axis in nest.axes[:-1]), size)
    return nest.builder.emit(lambda r: t.View(r, which[0], offsets, (*axes, t.ViewAxis(last))), kind)


def quarter_view(nest: Nest, halves: Halves, half: tuple[int, int], at: tuple[Extent, Extent]) -> int:
    """A view of the first operand's quarter (lower rows, later depth) from a row and a step on, in `nest.tiles`."""
    (_, depth, _), product = halves.extents, halves.product
    nest.offsets[product.rows] = halves.row(at[0], half[0])
    nest.offsets[product.depth] = at[1] + half[1] * depth
    read, access = halves.node.reads[0], halves.node.accesses[0]
    if not product.over:
        return nest.view(read, access, [*nest.axes[:-1], product.depth])
    place = access.indices.index(symbol(product.over))
    kind = nest.task.function.types[read]
    shape = (*kind.shape[:place], kind.shape[place] * kind.shape[place + 1], *kind.shape[place + 2 :])
    buffer = nest.buffer(Operand(read, merged=place), shape)
    indices = [nest.expressed(i) for i in (*access.indices[:place], *access.indices[place + 1 :])]
    offsets = tuple(substitute(index, nest.offsets) for index in indices)
    axes = tuple(t.ViewAxis(place if axis == product.rows else -1) for axis in nest.axes[:-1])
    sizes = [nest.tiles.get(axis, 1) if axis == product.rows else 1 for axis in nest.axes[:-1]]
    view = memref(kind.dtype, *sizes, nest.tiles[product.depth])
    return nest.builder.emit(lambda r: t.View(r, buffer, offsets, (*axes, t.ViewAxis(len(offsets) - 1))), view)


def multiplied(nest: Nest, acc: int, factors: tuple[int, int], ahead: t.Ahead | None = None) -> int:
    """acc + rows of the first operand, or of sums of it, * steps of a panel of weights: a register tile."""
    letters, kind = LETTERS[: len(nest.axes)], nest.builder.types[acc]
    spec = f"{letters[:-1]}k,k{letters[-1]}->{letters}"
    binding = t.Binding(instruction="fma", ahead=ahead)
    return nest.builder.emit(lambda r: t.Contract(r, acc, *factors, spec, "seq", binding), kind)


def strides_of(nest: Nest, value: int) -> tuple[Extent, ...]:
    """A value's strides as it lies in memory, in elements."""
    strides = nest.layouts.get(value, DENSE).strides
    if strides is not None:
        return strides
    found: list[Extent] = [1]
    for extent in reversed(nest.task.function.types[value].shape[1:]):
        found.insert(0, found[0] * extent)
    return tuple(found)
