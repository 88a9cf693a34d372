"""Which pointwise tasks move data across axes, and along which two: a read is contiguous on one, the write on another.

Takes a task's definitions and domain; gives the crossed axis, if there is one. Invariant: along the axis it gives,
every access of the task moves affinely and no computed index does, so that tiles may have an extent there.
"""

from __future__ import annotations

from collections.abc import Sequence

from tessera_build.ir.core.dims import Dim, Extent, symbol, symbols_of, terms_of
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.nodes import Access, Axis, Compute

_LANE_BITS = 32  # of the lanes that a machine counts


def crossed_axis(definitions: Sequence[Compute], domain: Sequence[Axis]) -> Axis | None:
    """The axis along which most reads lie contiguously while the last one, along which the task writes, strides."""
    vector, made = domain[-1].name, {node.result for node in definitions}
    reads = [a for n in definitions for v, a in zip(n.reads, n.accesses, strict=True) if v not in made]
    counts = {axis: sum(crosses(a.indices, axis.name, vector) for a in reads) for axis in domain[:-1]}
    best = max(counts, key=lambda axis: counts[axis], default=None)
    if best is None or not counts[best] or best.extent in (0, 1) or domain[-1].extent in (0, 1):
        return None
    return best if all(_free(node, best.name) for node in definitions) else None


def crossing_tile(definitions: Sequence[Compute], crossed: Axis, vector: Axis, machine: CpuMachine) -> tuple[int, int]:
    """Elements of a tile along both axes: a register each way, fewer rows where several reads are transposed at once.

    Rows of 64-bit elements fill a register at half the lanes; more of them at a time would not stay in registers.
    """
    programs = [node.program for node in definitions]
    widest = max(dtype.bits for p in programs for dtype in (*p.inputs, *(p.dtype(r) for r in p.results)))
    lanes = machine.lanes // 2 if widest > _LANE_BITS else machine.lanes
    reads = sum(crosses(a.indices, crossed.name, vector.name) for n in definitions for a in n.accesses)
    rows = max(2, lanes >> (reads - 1).bit_length())
    return _within(rows, crossed.extent), _within(lanes, vector.extent)


def _within(size: int, extent: Extent) -> int:
    return min(size, extent) if isinstance(extent, int) else size


def crosses(indices: Sequence[Extent], axis: str, vector: str) -> bool:
    """Whether neighbours along `axis` are neighbours in memory while those along `vector` are further apart."""
    if not indices or axis not in symbols_of(indices[-1]) or vector in symbols_of(indices[-1]):
        return False
    return unit_step(indices[-1], axis) and any(vector in symbols_of(index) for index in indices[:-1])


def unit_step(index: Extent, axis: str) -> bool:
    """Whether an index grows by one with an axis, wherever it is."""
    rest = index - symbol(axis)
    return isinstance(rest, int) or axis not in symbols_of(rest)


def _free(node: Compute, axis: str) -> bool:
    """Whether a definition lets tiles have an extent along an axis: no index but linear ones, none made by data."""
    used = any(axis in symbols_of(index) for index in node.index_values)
    return not used and all(_linear(access, axis) for access in node.accesses)


def _linear(access: Access, axis: str) -> bool:
    moving = [index for index in access.indices if axis in symbols_of(index)]
    gathers = any(name.startswith("_r") for index in access.indices for name in symbols_of(index))
    return not gathers and len(moving) <= 1 and all(_alone(index, axis) for index in moving)


def _alone(index: Extent, axis: str) -> bool:
    """Whether every term with an axis in it is a multiple of the axis itself."""
    for monomial, _ in terms_of(index):
        inside = Dim(((monomial, 1),)) if monomial else 0
        if axis in symbols_of(inside) and inside != symbol(axis):
            return False
    return True
