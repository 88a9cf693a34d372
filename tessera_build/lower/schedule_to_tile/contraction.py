"""Loop nests around one accumulation: products, convolutions, pooling, with what follows them fused.

Before: result[i, j] = combine over k of program(reads), then elementwise definitions over the same axes.
After: loops over tiles of the domain; an accumulator tile in registers; loops over k whose innermost step is one
`contract` (where the schedule tensorised it) or one combining map; the elementwise rest; stores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.scalar import ScalarBuilder, ScalarProgram
from tessera_build.ir.core.types import DType, tile
from tessera_build.ir.machine.instructions import QUAD
from tessera_build.ir.schedule.nodes import Axis, Compute
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.graph_to_schedule.definitions import IDENTITY, combined
from tessera_build.lower.schedule_to_tile.byte_product import LETTERS, Chunk, contract_bytes, moving
from tessera_build.lower.schedule_to_tile.clip import turns_inside
from tessera_build.lower.schedule_to_tile.indices import quad_of
from tessera_build.lower.schedule_to_tile.nest import LoopRange, Nest
from tessera_build.lower.schedule_to_tile.pair_columns import emit_scaled_columns, has_scaled_columns, sum_of_columns
from tessera_build.lower.schedule_to_tile.pairs import sum_of_rows
from tessera_build.lower.schedule_to_tile.prefetch import ask_for_results, lines_ahead
from tessera_build.space.contraction import rest_of


def emit_contraction(nest: Nest, schedule: Schedule) -> None:
    """Append the whole nest of a contraction task."""
    if has_scaled_columns(schedule):
        emit_scaled_columns(nest, schedule, lambda: _body(nest, schedule))
    else:
        emit_tiles(nest, schedule, list(schedule.order() or nest.axes))


def emit_tiles(nest: Nest, schedule: Schedule, axes: list[str]) -> None:
    """Append loops over tiles along `axes`; on the other axes of the domain, offsets say where the tile is."""
    if not axes:
        _sized(nest, schedule)
        return
    axis, rest = axes[0], axes[1:]
    extent, step = nest.domain[axis], nest.tiles.get(axis, 1)
    if extent == step or extent == 1:
        nest.place(axis, 0)
        emit_tiles(nest, schedule, rest)
        return

    def body(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.place(axis, symbol(axis))
        emit_tiles(nest, schedule, rest)
        return ()

    nest.loop(LoopRange(axis, extent, step, schedule.scope(axis)), (), body)


def _sized(nest: Nest, schedule: Schedule) -> None:
    """One tile; the last along the vector axis has as many registers as whole tiles leave elements for."""
    vector = nest.axes[-1]
    extent, size = nest.domain[vector], nest.tiles.get(vector, 1)
    rest = rest_of(extent, size, nest.lanes)
    if not isinstance(extent, int) or not rest:
        _body(nest, schedule)
        return
    whole, ragged = extent // size * size, set(nest.ragged)
    with nest.builder.region() as all_of_it:
        nest.ragged.discard(vector)
        nest.offsets[vector] = symbol(vector)
        _body(nest, schedule)
    with nest.builder.region() as last:
        nest.tiles[vector] = rest
        nest.ragged |= {vector} if whole + rest > extent else set()
        nest.offsets[vector] = whole
        _body(nest, schedule)
    nest.tiles[vector], nest.ragged = size, ragged
    nest.builder.add(t.If((), symbol(vector) + size, "le", extent, all_of_it.region, last.region))


def _body(nest: Nest, schedule: Schedule) -> None:
    nest.memo.clear()
    reduction = next(n for n in nest.task.function.nodes if isinstance(n, Compute) and n.combine != "none")
    shape = [nest.tiles.get(axis, 1) for axis in nest.axes]
    dtype = nest.dtype(reduction.result)
    acc = nest.constant(IDENTITY[reduction.combine], dtype, shape)
    axes = _loop_order(reduction.reduction, schedule)
    ask_for_results(nest, schedule, reduction)
    if has_scaled_columns(schedule):
        total = sum_of_columns(nest, schedule)
    elif schedule.paired() is not None:
        total = sum_of_rows(nest, schedule)
    else:
        (total,) = _reduce(nest, reduction, schedule, axes, acc)
    nest.memo[reduction.result] = total
    for value in nest.task.outputs:
        nest.store(value, nest.evaluate(value))


def _loop_order(reduction: Sequence[Axis], schedule: Schedule) -> list[Axis]:
    """The tensorised axis innermost, the others as the definition has them."""
    last = schedule.tensorised()
    return [a for a in reduction if a.name != last] + [a for a in reduction if a.name == last]


def _reduce(nest: Nest, node: Compute, schedule: Schedule, axes: list[Axis], acc: int) -> tuple[int, ...]:
    if not axes:
        return (_accumulate(nest, node, acc),)
    axis, rest = axes[0], axes[1:]

    def add_stretch(stretch: _Stretch, total: int) -> int:
        if axis.name == schedule.tensorised():
            return _chunks(nest, node, schedule, stretch, total)

        def body(carried: tuple[int, ...]) -> tuple[int, ...]:
            nest.offsets[axis.name] = stretch.start + symbol(stretch.loop)
            nest.memo.clear()
            return _reduce(nest, node, schedule, rest, carried[0])

        return nest.loop(LoopRange(stretch.loop, stretch.extent, 1, schedule.scope(axis.name)), (total,), body)[0]

    if axis.name in schedule.clipped():
        return (add_stretch(_Stretch(axis, axis.name, *turns_inside(nest, node, axis)), acc),)
    return (_in_blocks(nest, node, (axis, schedule.blocked(axis.name)), acc, add_stretch),)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A part of a reduction axis that is added in sequence; `loop` is what its loop is called."""

    axis: Axis
    loop: str
    start: Extent
    extent: Extent


def _in_blocks(
    nest: Nest, node: Compute, blocked: tuple[Axis, int | None], acc: int, add: Callable[[_Stretch, int], int]
) -> int:
    """An axis as one stretch, or in blocks of so many turns, whose sums are added to what there was before."""
    axis, size = blocked
    if size is None or (isinstance(axis.extent, int) and axis.extent <= size):
        return add(_Stretch(axis, axis.name, 0, axis.extent), acc)

    def plus(total: int, stretch: _Stretch) -> int:
        kind = nest.builder.types[total]
        part = add(stretch, nest.constant(IDENTITY[node.combine], kind.dtype, kind.static_shape))
        return nest.map(kind.static_shape, (total, part), lambda s: s.op("add", 0, 1))

    loop, whole = f"{axis.name}_block", axis.extent // size * size

    def body(carried: tuple[int, ...]) -> tuple[int, ...]:
        return (plus(carried[0], _Stretch(axis, axis.name, symbol(loop), size)),)

    (total,) = nest.loop(LoopRange(loop, whole, size), (acc,), body)
    if whole != axis.extent:
        total = plus(total, _Stretch(axis, f"{axis.name}_tail", whole, axis.extent - whole))
    return total


def _chunks(nest: Nest, node: Compute, schedule: Schedule, stretch: _Stretch, acc: int) -> int:
    """Whole chunks first, what is left one by one; the last bytes of no whole quad at the end."""
    axis = stretch.axis
    unit, index, contract = 1, stretch.loop, _contract
    if schedule.instruction() == "dot4":
        unit, index, contract = QUAD, quad_of(axis.name), contract_bytes
    size = schedule.factors().get(axis.name, 1) // unit
    units: Extent = stretch.extent // unit
    whole: Extent = units // size * size

    def chunk(step: int) -> Chunk:
        return Chunk(axis, step * unit, lines_ahead(nest, schedule, node, step * unit) if step == size else None)

    for name, start, extent, step in ((index, 0, whole, size), (f"{index}_rest", whole, units - whole, 1)):
        if extent == 0:
            continue
        if extent == step:
            nest.offsets[axis.name] = stretch.start + start * unit
            acc = contract(nest, node, chunk(step), acc)
            continue

        def body(
            carried: tuple[int, ...], name: str = name, start: Extent = start, step: int = step
        ) -> tuple[int, ...]:
            nest.offsets[axis.name] = stretch.start + (symbol(name) + start) * unit
            return (contract(nest, node, chunk(step), carried[0]),)

        (acc,) = nest.loop(LoopRange(name, extent, step), (acc,), body)
    if units * unit != stretch.extent:
        nest.offsets[axis.name] = stretch.start + units * unit
        acc = contract(nest, node, Chunk(axis, unit), acc)
    return acc


def _contract(nest: Nest, node: Compute, chunk: Chunk, acc: int) -> int:
    """One register-tile product: the first read supplies scalars, the second vectors along the last domain axis."""
    axis = chunk.axis
    letters = dict(zip(nest.axes, LETTERS, strict=False))
    vector = nest.axes[-1]
    nest.tiles[axis.name] = chunk.size
    a_axes = [*nest.axes[:-1], axis.name]
    b_axes = [*moving(nest, node.reads[1], node.accesses[1], nest.axes[:-1]), axis.name, vector]
    a = nest.view(node.reads[0], node.accesses[0], a_axes)
    b = nest.view(node.reads[1], node.accesses[1], b_axes)
    letters[axis.name] = "k"
    spec = ",".join("".join(letters[x] for x in axes) for axes in (a_axes, b_axes))
    spec += "->" + "".join(letters[x] for x in nest.axes)
    kind, binding = nest.builder.types[acc], t.Binding(instruction="fma", ahead=chunk.ahead)
    return nest.builder.emit(lambda r: t.Contract(r, acc, a, b, spec, "seq", binding), kind)


def _accumulate(nest: Nest, node: Compute, acc: int) -> int:
    """acc combined with the definition's program at the current reduction indices."""
    operands = [acc]
    for read, access in zip(node.reads, node.accesses, strict=True):
        operands.append(nest.read(read, access))
    program = combining_program(node, [nest.builder.types[o].dtype for o in operands])
    kind = tile(nest.builder.types[acc].dtype, *nest.builder.types[acc].static_shape)
    return nest.builder.emit(lambda r: t.Map(r, tuple(operands), program), kind)


def combining_program(node: Compute, inputs: Sequence[DType]) -> ScalarProgram:
    """combine(first input, program(other inputs)); a sum of plain products becomes a fused multiply-add."""
    builder = ScalarBuilder(inputs)
    args = list(range(1, len(inputs)))
    single = len(node.program.ops) == 1 and node.program.ops[0].name == "mul"
    if node.combine == "sum" and single:
        return builder.finish(builder.op("fma", *args, 0))
    (value,) = builder.inline(node.program, args)
    return builder.finish(combined(builder, node.combine, 0, value))
