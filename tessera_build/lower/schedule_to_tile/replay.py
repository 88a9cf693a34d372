"""schedule_to_tile: replay a schedule over a task.

Takes a task, its schedule, buffer layouts and which values are constants; gives a `TileProgram` (a Tile function and
what its buffer arguments are). Invariant: the program computes the task's definitions; the schedule decided only how.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent, symbol, symbols_of
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.rewrite import FunctionBuilder
from tessera_build.ir.schedule.nodes import Access, Axis, Compute
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.lower.graph_to_schedule.tasks import Task
from tessera_build.lower.schedule_to_tile.contraction import emit_contraction
from tessera_build.lower.schedule_to_tile.layouts import DENSE, BufferLayout, Packing
from tessera_build.lower.schedule_to_tile.nest import Nest, Operand
from tessera_build.lower.schedule_to_tile.pointwise import emit_pointwise
from tessera_build.lower.schedule_to_tile.row import emit_row


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
    """Replay `schedule`; raises `ScheduleRejected` where it does not fit the task."""
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
    nest.packed.update(_packings(nest, schedule, bindings))
    _mark_ragged(nest)
    emit = {"contraction": emit_contraction, "row": emit_row}.get(task.kind, emit_pointwise)
    emit(nest, schedule)
    return _finish(nest, bindings)


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


def _packings(
    nest: Nest, schedule: Schedule, bindings: Bindings
) -> dict[tuple[int, Access], tuple[Packing, tuple[Extent, ...], tuple[Extent, ...]]]:
    """Packing, packed shape and packed indices of every constant read that is worth rearranging."""
    found: dict[tuple[int, Access], tuple[Packing, tuple[Extent, ...], tuple[Extent, ...]]] = {}
    for node in nest.task.function.nodes:
        if not isinstance(node, Compute) or node.combine == "none":
            continue
        for position, (value, access) in enumerate(zip(node.reads, node.accesses, strict=True)):
            shape = bindings.constants.get(value)
            if shape is not None:
                packed = _pack(nest, node, access, shape, schedule.packs().get(position, 0))
                if packed is not None:
                    found[value, access] = packed
    return found


def _pack(
    nest: Nest, node: Compute, access: Access, shape: tuple[int, ...], width: int
) -> tuple[Packing, tuple[Extent, ...], tuple[Extent, ...]] | None:
    vector = nest.axes[-1]
    indices = [nest.expressed(i) for i in access.indices]
    where = [j for j, i in enumerate(indices) if vector in symbols_of(i)]
    if len(where) != 1 or access.pad is not None:
        return None
    axis = where[0]
    group = vector.removesuffix("i") + "g" if vector.endswith("i") else None
    grouped = group is not None and group in symbols_of(indices[axis])
    size = nest.domain[vector]
    if not isinstance(size, int) or (not grouped and indices[axis] != symbol(vector)):
        return None
    others = [j for j in range(len(shape)) if j != axis]
    names = [a.name for a in node.reduction]
    batch = [j for j in others if not any(n in symbols_of(indices[j]) for n in names)]
    inner = sorted((j for j in others if j not in batch), key=lambda j: _rank(indices[j], names))
    return _packing(indices, shape, axis, batch, inner, width, (str(group), size) if grouped else None, vector)


def _rank(index: Extent, names: list[str]) -> int:
    return next(i for i, n in enumerate(names) if n in symbols_of(index))


def _packing(
    indices: list[Extent],
    shape: tuple[int, ...],
    axis: int,
    batch: list[int],
    inner: list[int],
    width: int,
    group: tuple[str, int] | None,
    vector: str,
) -> tuple[Packing, tuple[Extent, ...], tuple[Extent, ...]]:
    """Order: batch axes, group index, (panels), reduction axes, the vector axis."""
    shift = 1 if group else 0
    moved = {j: j + (shift if j > axis else 0) for j in range(len(shape))}
    order = [moved[j] for j in batch] + ([axis] if group else []) + [moved[j] for j in inner] + [axis + shift]
    outer = len(batch) + shift
    packing = Packing(tuple(order), outer, width, (axis, group[1]) if group else None)
    total = group[1] if group else shape[axis]
    lead: list[Extent] = [shape[j] for j in batch]
    lead_indices: list[Extent] = [indices[j] for j in batch]
    if group:
        lead.append(shape[axis] // group[1])
        lead_indices.append(symbol(group[0]))
    tail: list[Extent] = [shape[j] for j in inner]
    tail_indices: list[Extent] = [indices[j] for j in inner]
    if not width:
        return packing, (*lead, *tail, total), (*lead_indices, *tail_indices, symbol(vector))
    panels = -(-total // width)
    panel, lane = symbol(f"{vector}_panel"), symbol(f"{vector}_lane")
    return packing, (*lead, panels, *tail, width), (*lead_indices, panel, *tail_indices, lane)


def _finish(nest: Nest, bindings: Bindings) -> TileProgram:
    builder = nest.builder
    strides = tuple(_strides(o, bindings) for o in nest.operands)
    dims = sorted(_free_symbols(nest, strides))
    function = builder.finish((), {"dims": tuple(dims), "strides": strides})
    return TileProgram(function, tuple(nest.operands), tuple(dims))


def _strides(operand: Operand, bindings: Bindings) -> tuple[Extent, ...] | None:
    """Strides of a buffer as the program sees it; None where it is dense."""
    strides = None if operand.packing else bindings.layouts.get(operand.value, DENSE).strides
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
    return {name for name in found if not name.startswith("_")}
