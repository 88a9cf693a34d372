"""Which constant operands are rearranged, and how their packed form is addressed.

Takes a nest and the panel widths that the schedule chose; gives, per constant read, its packing and the packed shape
and indices. Batch axes come first, then the group, then panels, then the reduction's axes in the order in which they
are run, and the vector axis last. Invariant: an element is read at the same place in the program wherever it lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tessera_build.ir.core.dims import Extent, symbol, symbols_of
from tessera_build.ir.core.types import int_extent
from tessera_build.ir.machine.instructions import QUAD
from tessera_build.ir.schedule.nodes import Access, Compute
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.lower.schedule_to_tile.indices import byte_of, quad_of
from tessera_build.lower.schedule_to_tile.layouts import Packing
from tessera_build.lower.schedule_to_tile.nest import Nest
from tessera_build.space.pairs import Paired, paired_of

Packed = tuple[Packing, tuple[Extent, ...], tuple[Extent, ...]]


@dataclass(frozen=True, slots=True)
class _Operand:
    """A constant operand: its indices over the domain, its shape, and which axis the vectors run along."""

    indices: tuple[Extent, ...]
    shape: tuple[int, ...]
    axis: int
    group: tuple[str, int] | None
    batch: tuple[int, ...]
    inner: tuple[int, ...]


def packings(
    nest: Nest, schedule: Schedule, constants: Mapping[int, tuple[int, ...]]
) -> dict[tuple[int, Access], Packed]:
    """Packing, packed shape and packed indices of every constant read that is worth rearranging."""
    found: dict[tuple[int, Access], Packed] = {}
    for node in nest.task.function.nodes:
        if not isinstance(node, Compute) or node.combine == "none":
            continue
        for position, (value, access) in enumerate(zip(node.reads, node.accesses, strict=True)):
            if value not in constants:
                continue
            panels = schedule.packs().get(position, 0) if schedule.paired() is not None else 0
            paired = paired_of(node, position) if panels else None
            if paired is not None:
                found[value, access] = _in_pairs(nest, paired, panels)
                continue
            operand = _operand(nest, node, access, constants[value])
            if operand is not None:
                found[value, access] = _packed(operand, nest.axes[-1], schedule.packs().get(position, 0))
            if operand is not None and position == 1 and schedule.instruction() == "dot4":
                found[value, access] = _in_quads(found[value, access], schedule.tensorised() or "")
    return found


def _in_pairs(nest: Nest, paired: Paired, width: int) -> Packed:
    """Panels with one row more."""
    outputs = nest.axes[-1] if paired.read else paired.scaled[0]
    panels = -(-int_extent(nest.domain[outputs]) // width)
    places = (symbol(f"{outputs}_panel"), symbol(paired.depth), symbol(f"{outputs}_lane"))
    return Packing(paired.weight, 0, width, paired=True), (panels, paired.extent + 1, width), places


def _in_quads(packed: Packed, axis: str) -> Packed:
    """The panels with four neighbours along the tensorised axis, which is the last before the lanes, side by side."""
    packing, shape, indices = packed
    steps = -(-int_extent(shape[-2]) // QUAD)
    return (
        replace(packing, quad=QUAD),
        (*shape[:-2], steps, shape[-1], QUAD),
        (*indices[:-2], symbol(quad_of(axis)), indices[-1], symbol(byte_of(axis))),
    )


def _operand(nest: Nest, node: Compute, access: Access, shape: tuple[int, ...]) -> _Operand | None:
    """The operand as packing sees it; None where vectors do not run along exactly one whole axis of it."""
    vector = nest.axes[-1]
    indices = tuple(nest.expressed(i) for i in access.indices)
    where = [j for j, i in enumerate(indices) if vector in symbols_of(i)]
    if len(where) != 1 or access.pad is not None:
        return None
    group = f"{vector.removesuffix('i')}g" if vector.endswith("i") else None
    grouped = group if group is not None and group in symbols_of(indices[where[0]]) else None
    size = nest.domain[vector]
    if not isinstance(size, int) or (grouped is None and indices[where[0]] != symbol(vector)):
        return None
    names = [a.name for a in node.reduction]
    others = [j for j in range(len(shape)) if j != where[0]]
    inner = [j for j in others if any(n in symbols_of(indices[j]) for n in names)]
    inner.sort(key=lambda j: next(i for i, n in enumerate(names) if n in symbols_of(indices[j])))
    batch = tuple(j for j in others if j not in inner)
    return _Operand(indices, shape, where[0], (grouped, size) if grouped else None, batch, tuple(inner))


def _packed(operand: _Operand, vector: str, width: int) -> Packed:
    shape, indices, axis, group = operand.shape, operand.indices, operand.axis, operand.group
    shift = 1 if group else 0
    moved = {j: j + (shift if j > axis else 0) for j in range(len(shape))}
    lead = [moved[j] for j in operand.batch] + ([axis] if group else [])
    order = (*lead, *(moved[j] for j in operand.inner), axis + shift)
    packing = Packing(order, len(lead), width, (axis, group[1]) if group else None)
    total = group[1] if group else shape[axis]
    outer: list[tuple[Extent, Extent]] = [(shape[j], indices[j]) for j in operand.batch]
    if group:
        outer.append((shape[axis] // group[1], symbol(group[0])))
    tail: list[tuple[Extent, Extent]] = [(shape[j], indices[j]) for j in operand.inner]
    if width:
        outer.append((-(-total // width), symbol(f"{vector}_panel")))
        tail.append((width, symbol(f"{vector}_lane")))
    else:
        tail.append((total, symbol(vector)))
    places = [*outer, *tail]
    return packing, tuple(extent for extent, _ in places), tuple(index for _, index in places)
