"""Loop nests of row tasks: softmax, normalisations, means — several passes over a row while it is in cache.

Before: reductions along the same axes with elementwise definitions between and after them. After: loops over the rows;
for each reduction in order one pass over the row that accumulates in a tile; one last pass for the full-size outputs.
A costly intermediate that two passes need is written once, into the output's own memory, and read back.
"""

from __future__ import annotations

from tessera_build.ir.core.dims import substitute, symbol
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.types import tile
from tessera_build.ir.schedule.nodes import Access, Compute
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.graph_to_schedule.definitions import IDENTITY, combined
from tessera_build.lower.schedule_to_tile.nest import LoopRange, Nest
from tessera_build.lower.schedule_to_tile.pointwise import Step, vector_axis

_COSTLY = frozenset({"exp", "log", "tanh", "erf", "sigmoid", "logistic", "pow", "sin", "cos", "div", "sqrt"})


def emit_row(nest: Nest, schedule: Schedule) -> None:
    """Append the nest of a row task."""
    reduced = [f"_d{i}" for i in sorted(nest.task.reduced)]
    kept = [a for a in (schedule.order() or nest.axes) if a not in reduced]
    _outer(nest, schedule, kept, reduced)


def _outer(nest: Nest, schedule: Schedule, kept: list[str], reduced: list[str]) -> None:
    if not kept:
        _passes(nest, schedule, reduced)
        return
    axis, rest = kept[0], kept[1:]
    extent, size = nest.domain[axis], nest.tiles.get(axis, 1)
    if size > 1 and axis == nest.axes[-1]:

        def tiles(_: tuple[int, ...]) -> tuple[int, ...]:
            _outer(nest, schedule, rest, reduced)
            return ()

        vector_axis(nest, schedule, axis, (), tiles)
        return
    if extent == size:
        nest.place(axis, 0)
        _outer(nest, schedule, rest, reduced)
        return

    def body(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.place(axis, symbol(axis))
        _outer(nest, schedule, rest, reduced)
        return ()

    nest.loop(LoopRange(axis, extent, size, schedule.scope(axis)), (), body)


def _passes(nest: Nest, schedule: Schedule, reduced: list[str]) -> None:
    nest.spilled.clear()
    done: dict[int, int] = {}
    full = _full_outputs(nest)
    reductions = [n for n in nest.task.function.nodes if isinstance(n, Compute) and n.combine != "none"]
    for node in reductions:
        done[node.result] = _reduction_pass(nest, schedule, node, reduced, done)
    for value in nest.task.outputs:
        if not _is_full(nest, value):
            for axis in reduced:
                nest.offsets[axis] = 0
            nest.memo = dict(done)
            nest.store(value, nest.evaluate(value))

    def last(_: tuple[int, ...]) -> tuple[int, ...]:
        nest.memo = dict(done)
        tiles = [nest.evaluate(value) for value in full]  # before any store: one may hold a spill that others read
        for value, computed in zip(full, tiles, strict=True):
            nest.store(value, computed)
        return ()

    if full:
        _inner(nest, schedule, reduced, (), last)


def _full_outputs(nest: Nest) -> list[int]:
    """Outputs over the whole domain, as opposed to one element a row."""
    return [v for v in nest.task.outputs if _is_full(nest, v)]


def _is_full(nest: Nest, value: int) -> bool:
    return nest.task.function.types[value].shape == nest.task.domain


def _inner(nest: Nest, schedule: Schedule, axes: list[str], carried: tuple[int, ...], step: Step) -> tuple[int, ...]:
    axis, rest = axes[0], axes[1:]
    if nest.tiles.get(axis, 1) > 1:
        if rest:
            return vector_axis(nest, schedule, axis, carried, lambda c: _inner(nest, schedule, rest, c, step))
        return vector_axis(nest, schedule, axis, carried, step)
    if nest.domain[axis] == 1:
        nest.offsets[axis] = 0
        return _inner(nest, schedule, rest, carried, step) if rest else step(carried)

    def body(inner: tuple[int, ...]) -> tuple[int, ...]:
        nest.offsets[axis] = symbol(axis)
        return _inner(nest, schedule, rest, inner, step) if rest else step(inner)

    return nest.loop(LoopRange(axis, nest.domain[axis]), carried, body)


def _reduction_pass(nest: Nest, schedule: Schedule, node: Compute, reduced: list[str], done: dict[int, int]) -> int:
    """One pass over the row; gives the reduced tile (extent 1 along the reduced axes)."""
    identity, dtype = IDENTITY[node.combine], nest.dtype(node.result)
    spill = _spill_of(nest, node)

    def step(carried: tuple[int, ...]) -> tuple[int, ...]:
        nest.memo = dict(done)
        value = nest.read(node.reads[0], _own_access(nest, node))
        if spill is not None:
            nest.store(node.reads[0], value, into=spill)
        for axis in reduced:
            if axis in nest.ragged:
                value = nest.valid(axis, value, identity)
        shape = nest.builder.types[carried[0]].static_shape
        operands = (carried[0], value)
        return (nest.map(shape, operands, lambda s: combined(s, node.combine, 0, *s.inline(node.program, [1]))),)

    shape = [nest.tiles.get(a, 1) for a in nest.axes]
    (total,) = _inner(nest, schedule, reduced, (nest.constant(identity, dtype, shape),), step)
    if spill is not None:
        nest.spilled[node.reads[0]] = spill
    return _across(nest, node, reduced, total)


def _own_access(nest: Nest, node: Compute) -> Access:
    """The reduction's read over the domain: its axis k<i> is the domain's axis d<i>."""
    names = {f"_k{i}": symbol(f"_d{i}") for i in range(len(nest.task.domain))}
    return Access(tuple(substitute(i, names) for i in node.accesses[0].indices), node.accesses[0].pad)


def _across(nest: Nest, node: Compute, reduced: list[str], total: int) -> int:
    """Combine the partial results that lie side by side in the accumulator tile."""
    shape = nest.builder.types[total].static_shape
    wide = tuple(i for i, a in enumerate(nest.axes) if a in reduced and shape[i] > 1)
    if not wide:
        return total
    dtype = nest.dtype(node.result)
    builder = ScalarBuilder((dtype, dtype))
    program = builder.finish(combined(builder, node.combine, 0, 1))
    kind = tile(dtype, *(1 if i in wide else e for i, e in enumerate(shape)))
    identity, order = (IDENTITY[node.combine],), f"tree({nest.lanes})"
    result = nest.builder.value(kind)
    nest.builder.add(t.Reduce((result,), (total,), wide, program, identity, order))
    return result


def _spill_of(nest: Nest, node: Compute) -> int | None:
    """Where to keep what this pass computes for later ones: an output of the same shape and type, if it pays."""
    source = nest.definition(node.reads[0])
    if source is None or source.combine != "none" or not _is_full(nest, source.result):
        return None
    readers = [n for n in nest.task.function.nodes if isinstance(n, Compute) and source.result in n.reads]
    costly = any(op.name in _COSTLY for op in source.program.ops)
    if len(readers) < 2 or not costly or source.result in nest.spilled:
        return None
    taken = set(nest.spilled.values())
    same = [v for v in _full_outputs(nest) if nest.dtype(v) == nest.dtype(source.result) and v not in taken]
    return same[0] if same else None
