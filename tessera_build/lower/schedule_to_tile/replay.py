"""schedule_to_tile: replay a schedule over a task.

Takes a task, its schedule, buffer layouts and which values are constants; gives a `TileProgram` (a Tile function and
what its buffer arguments are). Invariant: the program computes the task's definitions; the schedule decided only how.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent, Range, bounds, minimum, symbol, symbols_of
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.rewrite import FunctionBuilder
from tessera_build.ir.schedule.nodes import Axis, Compute
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.lower.graph_to_schedule.tasks import Task
from tessera_build.lower.schedule_to_tile.chain import StageNest, emit_chain
from tessera_build.lower.schedule_to_tile.contraction import emit_contraction
from tessera_build.lower.schedule_to_tile.crossed import crossed_tiles, emit_crossed
from tessera_build.lower.schedule_to_tile.few_rows import emit_few_rows
from tessera_build.lower.schedule_to_tile.halves import Halves
from tessera_build.lower.schedule_to_tile.layouts import DENSE, BufferLayout
from tessera_build.lower.schedule_to_tile.legality import check_groups, check_trace
from tessera_build.lower.schedule_to_tile.nest import Nest, Operand
from tessera_build.lower.schedule_to_tile.packing import packings
from tessera_build.lower.schedule_to_tile.pair_columns import has_scaled_columns
from tessera_build.lower.schedule_to_tile.pair_rows import emit_pair_rows
from tessera_build.lower.schedule_to_tile.pairs import paired_product
from tessera_build.lower.schedule_to_tile.pointwise import emit_pointwise
from tessera_build.lower.schedule_to_tile.quarter_sums import emit_quarter_sums
from tessera_build.lower.schedule_to_tile.rewrite import halved_product, rewritten_window
from tessera_build.lower.schedule_to_tile.row import emit_row
from tessera_build.lower.schedule_to_tile.strassen import emit_strassen
from tessera_build.lower.schedule_to_tile.winograd import emit_winograd
from tessera_build.space.strassen import HALVES, LEAST_ROWS, STRASSEN

# Axes of definitions (_d0, _k1, _c), what steps make of them (_d0g, _d0_rest, _d0_chunk, _k_block, _k_tail), values
# read (_r0), the loops of borders (_b0_1) and chains (_block, _step, _new, _z0), those over a transform's points and
# tiles (_p, _t, _d1_tile) and a panel's registers (_v).
_RESERVED = re.compile(
    r"_(d\d+[gi]?|k\d*|[cptv]|r\d+|b\d+_\d+|block|step|new|z\d)(_quad|_byte)?(_block|_tail)?(_phase)?(_rest|_chunk|_panel|_lane)?(_tile)?"
)


def is_reserved(name: str) -> bool:
    """Whether a symbol is one that lowering makes for itself; a dim of that name could not be told from it."""
    return _RESERVED.fullmatch(name) is not None


@dataclass(frozen=True, slots=True, eq=False)
class TileProgram:
    """A Tile function with the graph value (and packing) behind each buffer argument; dims follow in name order."""

    function: Function
    operands: tuple[Operand, ...]
    dims: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bindings:
    """What replay needs beside task and schedule: memory layouts, shapes of constants by value, vector lanes."""

    layouts: Mapping[int, BufferLayout]
    constants: Mapping[int, tuple[int, ...]]
    lanes: int


def schedule_to_tile(task: Task, schedule: Schedule, bindings: Bindings) -> TileProgram:
    """Replay `schedule`; raises `ScheduleRejectedError` where it does not fit the task."""
    if task.stages:
        return _chain_to_tile(task, schedule, bindings)
    rewrite = schedule.rewritten()
    if rewrite is not None and rewrite.algorithm == STRASSEN:
        nest, halves = _halved(task, schedule, bindings)
        emit_strassen(nest, halves)
        return _finish([nest], bindings)
    nest = _nest(task, schedule, bindings)
    if rewrite is not None:
        emit_winograd(nest, schedule, *rewritten_window(nest, schedule, rewrite, bindings.constants))
        return _finish([nest], bindings)
    domain = nest.domain
    crossed = crossed_tiles(schedule, tuple(domain)) if task.kind == "pointwise" else ()
    if crossed:
        emit_crossed(nest, schedule, crossed[0])
    else:
        {"contraction": emit_contraction, "row": emit_row}.get(task.kind, emit_pointwise)(nest, schedule)
    return _finish([nest], bindings)


def preparing_program(task: Task, schedule: Schedule, bindings: Bindings) -> TileProgram | None:
    """What has to run before a task's own program, in a launch of its own; it writes the scratch memory they share."""
    rewrite = schedule.rewritten()
    if task.stages:
        return None
    if schedule.paired() is not None and not has_scaled_columns(schedule):
        nest = _nest(task, schedule, bindings)
        emit_pair_rows(nest, *paired_product(nest, schedule))
        return _finish([nest], bindings)
    if rewrite is None or rewrite.algorithm != STRASSEN:
        return None
    nest, halves = _halved(task, schedule, bindings)
    emit_quarter_sums(nest, halves)
    return _finish([nest], bindings)


def rows_for_halves(task: Task, schedule: Schedule, bindings: Bindings, ranges: Mapping[str, Range]) -> Extent:
    """1 where a product in halves has as many rows as are worth them, 0 where dims say that it has fewer."""
    number = _halved(task, schedule, bindings)[1].product.number
    low = bounds(number, ranges)[0]
    known = isinstance(number, int) or (low is not None and low >= HALVES * LEAST_ROWS)
    return 1 if known else minimum(number // (HALVES * LEAST_ROWS), 1)


def few_rows_program(task: Task, schedule: Schedule, bindings: Bindings) -> TileProgram:
    """The direct sum of a product in halves, for fewer rows than are worth them; it reads the same weights."""
    nest, halves = _halved(task, schedule, bindings)
    emit_few_rows(nest, halves)
    return _finish([nest], bindings)


def _halved(task: Task, schedule: Schedule, bindings: Bindings) -> tuple[Nest, Halves]:
    """An empty nest, and how the schedule cuts its product into halves."""
    rewrite = schedule.rewritten()
    assert rewrite is not None, "the schedule is Strassen's"
    nest = _nest(task, schedule, bindings)
    return nest, halved_product(nest, schedule, rewrite, bindings.constants)


def _chain_to_tile(task: Task, schedule: Schedule, bindings: Bindings) -> TileProgram:
    """A chain's stages have a nest each; builder and buffers are the first one's."""
    parts = [schedule.stage(index) for index in range(len(task.stages))]
    nests = [_nest(stage, part, bindings) for stage, part in zip(task.stages, parts, strict=True)]
    for nest in nests[1:]:
        nest.builder, nest.operands, nest.buffers = nests[0].builder, nests[0].operands, nests[0].buffers
    emit_chain(task, [StageNest(nest, part) for nest, part in zip(nests, parts, strict=True)], schedule)
    return _finish(nests, bindings)


def _nest(task: Task, schedule: Schedule, bindings: Bindings) -> Nest:
    """An empty nest over a task that the schedule fits."""
    check_groups(task, schedule)
    domain, positions = grouped_domain(task, schedule)
    nest = Nest(
        task=task,
        tiles=schedule.factors(),
        layouts=bindings.layouts,
        builder=FunctionBuilder("kernel"),
        domain=domain,
        positions=positions,
        lanes=bindings.lanes,
        packed={},
    )
    check_trace(nest, schedule, bindings.constants)
    if schedule.rewritten() is None:
        nest.packed.update(packings(nest, schedule, bindings.constants))
        _mark_ragged(nest)
    return nest


def grouped_domain(task: Task, schedule: Schedule) -> tuple[dict[str, Extent], tuple[Extent, ...]]:
    """The domain's axes after `Group` steps, and where each of the definition's axes went."""
    domain: dict[str, Extent] = {}
    positions: list[Extent] = []
    for index, extent in enumerate(task.domain):
        size = schedule.groups().get(f"_d{index}")
        if size is None:
            domain[f"_d{index}"] = extent
            positions.append(symbol(f"_d{index}"))
        else:
            domain[f"_d{index}g"], domain[f"_d{index}i"] = extent // size, size
            positions.append(symbol(f"_d{index}g") * size + symbol(f"_d{index}i"))
    return domain, tuple(positions)


def axes_of_domain(domain: Mapping[str, Extent]) -> tuple[Axis, ...]:
    """Domain axes as records."""
    return tuple(Axis(name, extent) for name, extent in domain.items())


def _mark_ragged(nest: Nest) -> None:
    """Accumulation nests check the vector axis where packed panels forbid moving the last tile back."""
    if nest.task.kind != "contraction":
        return
    vector = nest.axes[-1]
    size, extent = nest.tiles.get(vector, 1), nest.domain[vector]
    exact = isinstance(extent, int) and extent % size == 0
    small = not isinstance(extent, int) or extent < size
    panels = any(p.width for p, _, _ in nest.packed.values())
    if not exact and (panels or small):
        nest.ragged.add(vector)


def _finish(nests: Sequence[Nest], bindings: Bindings) -> TileProgram:
    nest, builder = nests[0], nests[0].builder
    strides = tuple(_strides(o, bindings) for o in nest.operands)
    dims = sorted({name for each in nests for name in _free_symbols(each, strides)})
    function = builder.finish((), {"dims": tuple(dims), "strides": tuple(s or () for s in strides)})
    return TileProgram(function, tuple(nest.operands), tuple(dims))


def _strides(operand: Operand, bindings: Bindings) -> tuple[Extent, ...] | None:
    """Strides of a buffer as the program sees it; None where it is dense."""
    strides = None if operand.packing else bindings.layouts.get(operand.value, DENSE).strides
    if strides is not None and operand.merged is not None:
        return (*strides[: operand.merged], *strides[operand.merged + 1 :])
    if strides is None or operand.split is None:
        return strides
    axis, size = operand.split
    return (*strides[:axis], strides[axis] * size, strides[axis], *strides[axis + 1 :])


def _free_symbols(nest: Nest, strides: tuple[tuple[Extent, ...] | None, ...]) -> set[str]:
    """Symbolic dims that the program's extents mention; loop indices never appear in buffer shapes."""
    found: set[str] = set()
    for buffer in nest.buffers.values():
        for extent in nest.builder.types[buffer].shape:
            found |= symbols_of(extent)
    for layout in strides:
        for extent in layout or ():
            found |= symbols_of(extent)
    for extent in nest.domain.values():
        found |= symbols_of(extent)
    for node in nest.task.function.nodes:
        if isinstance(node, Compute):
            for index in (*(i for a in node.accesses for i in a.indices), *node.index_values):
                found |= symbols_of(index)
    return {name for name in found if not is_reserved(name)}
