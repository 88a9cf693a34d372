"""Schedules for accumulations: register tiles by a cost formula, loop order by reuse, chunks by code size.

Takes a task and a machine; gives a `Schedule`. The cost of a register tile is cycles per reduction step — the largest
of multiply-adds, loads and latency — times the number of tiles, overlap at the edges included. Invariant: rules look
at extents and at which operand moves with which axis, never at the operator's name.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent, symbols_of
from tessera_build.ir.core.types import I8, I32, U8
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.machine.instructions import QUAD
from tessera_build.ir.schedule.nodes import Axis, Compute
from tessera_build.ir.schedule.trace import Bind, Pack, Reorder, Schedule, Split, Step, Tensorise

# A dynamic extent counts as this many when tiles are chosen; the other size gets its own version of the kernel.
ASSUMED_EXTENT = 64
# Multiply-adds in one emitted contraction: 448 (14 x 2 registers, 16 steps) compile in 0.1 s and stay in the µop cache.
MULTIPLY_ADDS_EMITTED = 448
# Work that one parallel iteration should have at least: a hundred times the cost of handing it out.
GRAIN_FLOPS = 400_000


@dataclass(frozen=True, slots=True)
class Domain:
    """The axes that a task's loops run over, after grouping, in order; the last is the vector axis."""

    axes: tuple[Axis, ...]


def schedule_contraction(node: Compute, domain: Domain, constant_second: bool, machine: CpuMachine) -> Schedule:
    """The derived schedule of a task whose one reduction is `node`; `constant_second`: its second read is a weight."""
    vector = domain.axes[-1]
    if is_product(node) and not _moves(node, 0, vector.name) and _moves(node, 1, vector.name):
        return _product_schedule(node, domain, constant_second, machine)
    return _window_schedule(node, domain, machine)


def is_product(node: Compute) -> bool:
    """A sum of products of two reads, in their element type or, for integers, widened to another."""
    ops = node.program.ops
    product = bool(ops) and ops[-1].name == "mul" and len(set(ops[-1].args)) == 2
    widened = all(op.name == "cast" and not op.dtype.is_float for op in ops[:-1])
    return node.combine == "sum" and len(node.reads) == 2 and product and widened


def is_byte_product(node: Compute) -> bool:
    """A product of unsigned by signed bytes, added up in i32: what a machine's byte products compute."""
    return is_product(node) and node.program.inputs == (U8, I8) and node.program.ops[-1].dtype == I32


def _has_quads(node: Compute) -> bool:
    """Bytes along an innermost reduction that can be taken by fours."""
    return is_byte_product(node) and bool(node.reduction) and node.reduction[-1].extent != 1


def _moves(node: Compute, read: int, axis: str) -> bool:
    return any(axis in symbols_of(i) for i in node.accesses[read].indices)


def known(extent: Extent) -> int:
    """The extent, or what is assumed of a dynamic one."""
    return extent if isinstance(extent, int) else ASSUMED_EXTENT


def _product_schedule(node: Compute, domain: Domain, constant_second: bool, machine: CpuMachine) -> Schedule:
    rows = [a for a in domain.axes[:-1] if _moves(node, 0, a.name) and not _moves(node, 1, a.name)][-2:]
    vector = domain.axes[-1]
    quads = QUAD if constant_second and _has_quads(node) else 1
    steps_of = {a.name: known(a.extent) for a in node.reduction}
    if quads > 1:
        steps_of[node.reduction[-1].name] = -(-known(node.reduction[-1].extent) // quads)
    depth = math.prod(steps_of.values())
    tiles, vectors = _register_tile([known(a.extent) for a in rows], known(vector.extent), depth, machine)
    width = min(vectors * machine.lanes, _rounded(known(vector.extent), machine.lanes))
    steps: list[Step] = [Split(a.name, t) for a, t in zip(rows, tiles, strict=True)]
    steps.append(Split(vector.name, width))
    if constant_second:
        steps.append(Pack(1, width))
    inner = node.reduction[-1] if node.reduction else None
    if inner is not None:
        registers = math.prod(tiles) * max(1, width // machine.lanes)
        chunk = Split(inner.name, quads * _chunk(steps_of[inner.name], registers))
        steps += [chunk, Tensorise(inner.name, "dot4" if quads > 1 else "fma")]
    order = (vector.name, *(a.name for a in domain.axes[:-1]))
    sizes = {s.axis: s.factor for s in steps if isinstance(s, Split)}
    work = 2 * quads * depth * math.prod(tiles) * width
    return Schedule((*steps, Reorder(order), *_parallel(order, domain, sizes, work)))


def _register_tile(rows: list[int], columns: int, depth: int, machine: CpuMachine) -> tuple[list[int], int]:
    """Rows per axis and vectors of the cheapest register tile."""
    best: tuple[float, list[int], int] = (math.inf, [1] * len(rows), 1)
    choices = [range(1, min(extent, machine.registers) + 1) for extent in rows]
    if len(choices) == 2:
        choices[0] = range(1, min(rows[0], 4) + 1)
    for vectors in range(1, 7):
        for tiles in itertools.product(*choices):
            count = math.prod(tiles)
            if count * vectors + vectors + 1 > machine.registers:
                continue
            trips = math.prod(-(-extent // t) for extent, t in zip(rows, tiles, strict=True))
            trips *= -(-columns // (vectors * machine.lanes))
            cost = trips * _tile_cost(count, vectors, depth, machine)
            if cost < best[0]:
                best = (cost, list(tiles), vectors)
    return best[1], best[2]


def _tile_cost(rows: int, vectors: int, depth: int, machine: CpuMachine) -> float:
    """Estimated cycles of one register tile of rows x vectors over the whole reduction."""
    step = max(
        rows * vectors / machine.multiply_adds_per_cycle,
        (rows + vectors) / machine.loads_per_cycle,
        machine.multiply_add_latency,
    )
    # Streaming the vectors' panel from L2 costs about half a cycle a register and step (measured at 64 bytes a cycle).
    return depth * (step + 0.5 * vectors) + 3 * rows * vectors + 30


def _chunk(extent: int, registers: int) -> int:
    """Steps of the innermost reduction in one contraction: a divisor where a large one exists."""
    limit = max(1, min(extent, MULTIPLY_ADDS_EMITTED // max(1, registers), 64))
    divisors = [d for d in range(1, limit + 1) if extent % d == 0]
    return divisors[-1] if divisors[-1] * 2 > limit else limit


def _rounded(extent: int, lanes: int) -> int:
    return -(-extent // lanes) * lanes


def _parallel(order: tuple[str, ...], domain: Domain, sizes: dict[str, int], work: int) -> list[Step]:
    """Bind loops from the outside in, leaving inner ones serial until one iteration has work enough."""
    extents = {a.name: a.extent for a in domain.axes}
    trips = {a: -(-known(extents[a]) // sizes.get(a, 1)) for a in order}
    bound = list(order)
    while bound and work < GRAIN_FLOPS:
        last = bound[-1]
        left = math.prod(trips[a] for a in bound[:-1])
        if left < 4 and trips[last] > 1:
            break
        work *= trips[last]
        bound.pop()
    return [Bind(a, "parallel") for a in bound]


def _window_schedule(node: Compute, domain: Domain, machine: CpuMachine) -> Schedule:
    """No shared operand to keep in registers: one vector of channels, several neighbours along the axis before."""
    vector, before = domain.axes[-1], domain.axes[-2:-1]
    extent = known(vector.extent)
    width = min(extent, machine.lanes)
    steps: list[Step] = [Split(vector.name, width)]
    taps = math.prod(known(a.extent) for a in node.reduction)
    for axis in before:
        room = (machine.registers - 4) // 2
        tile = _divisor(known(axis.extent), room)
        steps.append(Split(axis.name, tile))
        if taps * tile <= 160:
            steps += [Bind(a.name, "unroll") for a in node.reduction]
    order = tuple(a.name for a in domain.axes)
    sizes = {s.axis: s.factor for s in steps if isinstance(s, Split)}
    work = 4 * taps * width * math.prod(sizes.get(a.name, 1) for a in before)
    return Schedule((*steps, Reorder(order), *_parallel(order, domain, sizes, work)))


def _divisor(extent: int, limit: int) -> int:
    """The largest tile not above `limit`, preferring one that divides."""
    top = min(extent, limit)
    exact = max(d for d in range(1, top + 1) if extent % d == 0)
    return exact if exact * 2 > top else top
