"""Features: what a schedule costs, in countable things, for a whole batch of decision vectors at once.

Takes a workload, a machine and loop nests (or tile sizes, where there is no accumulation); gives one array of floats a
feature, named and with its unit in `FEATURES`. Invariant: a feature counts over the whole task on one core, edges of
tiles included, and knows nothing of how long anything takes: times are the cost model's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.space.contraction import rest_of
from tessera_build.space.nest import LoopNest, full_bytes, weight_bytes
from tessera_build.space.panels import cycles_lost_to_conflicts
from tessera_build.space.workload import Operand, Workload

Floats = npt.NDArray[np.float64]
Features = dict[str, Floats]

# Name, unit, meaning. A learned model takes the columns in this order.
FEATURES: Mapping[str, str] = {
    "flops": "operations: useful ones, two a multiply-add",
    "multiply_adds": "instructions: vector multiply-adds or combinations, edges of tiles included",
    "loads": "instructions: vectors and broadcasts loaded by the innermost steps",
    "gathers": "elements: collected or spread one by one, because neighbours lie apart",
    "chained": "steps: reduction steps that wait for the one before",
    "busy": "cycles: the largest of multiply-adds, loads and latency, step by step",
    "others": "instructions: elementwise operations, loads and stores once an element",
    "registers": "registers: accumulators and operands held at once",
    "spills": "instructions: loads and stores of what registers cannot hold",
    "l1_bytes": "bytes: brought into the first-level cache",
    "l2_bytes": "bytes: brought into the second-level cache",
    "memory_bytes": "bytes: touched at all, each once",
    "weight_bytes": "bytes: of constants, as they lie, each once",
    "scattered_bytes": "bytes: of l2_bytes, those of short stretches in more places than are fetched ahead",
    "tiles": "tiles: how often accumulators are set up and stored",
    "turns": "turns: of the innermost loops",
    "waste": "ratio: elements computed by elements wanted, less 1",
    "calls": "iterations: handed out in parallel",
    "idle": "ratio: the longest share of four workers by an even one, half an iteration late, less 1",
    "code": "instructions: multiply-adds in the emitted code of one tile",
}
_WORKERS = 4.0
# Stretches of memory that are fetched ahead at once, and how many more it takes until none is. Cold caches, Zen 4:
# max pooling of 5 MB took 196 to 204 us with 15 and 21 stretches a tile, 285 with 25, 550 to 720 with 45 to 87.
_AHEAD, _BEYOND = 20.0, 25.0
# Turns that a single step costs: 24 -> 144 channels on 56 x 56 took 239 us in a chunk of 16 and 8 steps, 211 us in two
# chunks of 12.
_SINGLE_STEP = 4.0
_FULL = 0.75  # of a cache: what else is in it, and lines that fall on each other
# Of the second-level cache, which replaces lines that are not the oldest, too: what hardly fits comes again in part.
# 196 x 1024 by 256, 803 KB of rows that every panel reads: 0.71 ms; rows once and panels seven times 1.07 ms.
_FILLED = 0.75, 1.0, 1.5


def complete(found: Features, count: int) -> Features:
    """Every feature, 0 where a rule has none to tell, in the order of the table."""
    return {name: np.asarray(found.get(name, np.zeros(count)), np.float64) for name in FEATURES}


def share_again(used: Floats, machine: CpuMachine) -> Floats:
    """The share of so many bytes, used in turns, that the second-level cache has lost when their turn comes."""
    lost = np.sum([used > machine.l2_bytes * full for full in _FILLED], axis=0)
    return np.asarray(lost / len(_FILLED), np.float64)


def idle_share(calls: Floats, workers: float = _WORKERS) -> Floats:
    """What the slowest of the workers does beyond an even share, half an iteration's late start included."""
    some = np.maximum(calls, 1.0)  # a tensor without elements has no calls
    return np.ceil(some / workers) * workers / some - 1.0 + 0.5 * workers / some


def lanes_of(work: Workload, machine: CpuMachine) -> int:
    """Elements in a register: those of 64 bits take two lanes."""
    widest = max((o.bytes for o in (*work.main, *work.others)), default=4)
    return max(1, machine.lanes * 4 // max(4, widest))


def nest_features(work: Workload, machine: CpuMachine, nest: LoopNest) -> Features:
    """Features of accumulations."""
    lanes, vector = lanes_of(work, machine), work.vector.name
    vectors, last = -(-nest.tile(vector) // lanes), _last(work, nest, machine)
    whole, rows, covered = nest.trips(vector, work.vector.extent) - (last > 0), np.ones(nest.count), np.ones(nest.count)
    outer = np.ones(nest.count)
    for span in work.domain[:-1]:
        trips, size = nest.trips(span.name, span.extent), nest.tile(span.name)
        outer, rows, covered = outer * trips, rows * size, covered * trips * size
    held, tiles = rows * vectors, outer * (whole + (last > 0))
    steps, chunk = _steps(work, nest)
    steps = steps * _inside(work, nest)
    loads, gathers = _loads(work, nest, vectors, lanes)
    reads = held + np.minimum(vectors, 8) + 1 if work.product else held + loads
    spills = np.maximum(0.0, reads - machine.registers - (0 if work.product else held))
    each = _step_cycles(work, nest, machine, vectors)
    each = each * whole + np.where(last > 0, _step_cycles(work, nest, machine, last / lanes), 0.0)
    chained = held < machine.multiply_add_latency * machine.multiply_adds_per_cycle
    turns = np.where(nest.unrolled, 1.0, _turns(work, nest, steps, chunk))
    registers = outer * rows * (whole * vectors + last / lanes)
    calls = nest.calls(work)
    found: Features = {
        "flops": np.full(nest.count, 2.0 * work.points * math.prod(s.extent for s in work.reduction)),
        "multiply_adds": registers * steps,
        "loads": tiles * loads * steps,
        "gathers": tiles * gathers * steps,
        "chained": np.where(chained, tiles * steps, 0.0),
        "busy": outer * steps * each,
        "others": registers * (work.operations + len(work.others)),
        "registers": reads,
        "spills": spills * tiles * steps,
        **_moved(work, machine, nest),
        "tiles": tiles,
        "turns": tiles * turns,
        "waste": covered * (whole * nest.tile(vector) + last) / max(1, work.points) - 1.0,
        "calls": calls,
        "idle": idle_share(calls),
        "code": held * np.where(nest.unrolled, steps, chunk),
    }
    return complete(found, nest.count)


def _last(work: Workload, nest: LoopNest, machine: CpuMachine) -> npt.NDArray[np.int64]:
    """Size of the last tile along the vector axis where it is smaller than the others, else 0."""
    if work.vector.dynamic:
        return np.zeros(nest.count, np.int64)
    sizes = {int(size): rest_of(work.vector.extent, int(size), machine.lanes) for size in nest.tile(work.vector.name)}
    return np.asarray([sizes[int(size)] for size in nest.tile(work.vector.name)], np.int64)


def _step_cycles(
    work: Workload, nest: LoopNest, machine: CpuMachine, vectors: npt.NDArray[np.int64] | Floats
) -> Floats:
    """Cycles of a step of tiles that are so many vectors wide; two halves of one go through a unit side by side."""
    held = np.asarray(vectors, np.float64)
    for span in work.domain[:-1]:
        held = held * nest.tile(span.name)
    loads, _ = _loads(work, nest, np.maximum(1, np.ceil(vectors)).astype(np.int64), lanes_of(work, machine))
    loads = np.where(vectors < 1, loads * 0.5, loads)
    each = np.maximum(held / machine.multiply_adds_per_cycle, loads / machine.loads_per_cycle)
    return np.maximum(each + _conflicts(work, nest, machine), machine.multiply_add_latency)


def _steps(work: Workload, nest: LoopNest) -> tuple[float, npt.NDArray[np.int64]]:
    """Steps of the whole reduction, and those of its last axis that are emitted."""
    if not work.reduction:
        return 1.0, np.ones(nest.count, np.int64)
    *outer, inner = work.reduction
    last = -(-inner.extent // nest.unit)
    chunk = np.minimum(np.maximum(1, nest.tile(inner.name) // nest.unit), last)
    return float(math.prod(s.extent for s in outer) * last), chunk


def _inside(work: Workload, nest: LoopNest) -> Floats:
    """The share of steps that are taken, where those with padding alone are not."""
    found = np.ones(nest.count)
    for reach in work.reaches if work.product and not work.short_sums else ():
        sizes = nest.tile(reach.axis)
        shares = {int(size): reach.share(int(size)) for size in set(sizes.tolist())}
        found = found * np.asarray([shares[int(size)] for size in sizes])
    return found


def _turns(work: Workload, nest: LoopNest, steps: Floats, chunk: npt.NDArray[np.int64]) -> Floats:
    """Turns of the innermost loop; what whole chunks leave runs in single steps, which cost more than their count."""
    last = -(-work.reduction[-1].extent // nest.unit) if work.reduction else 1
    return (last // chunk + last % chunk * _SINGLE_STEP) * (steps / last)


def _moved(work: Workload, machine: CpuMachine, nest: LoopNest) -> Features:
    """Bytes by level of cache."""
    first, *second = nest.bytes_through(work, (machine.l1_bytes * _FULL, *(machine.l2_bytes * c for c in _FILLED)))
    brought = np.sum(second, axis=0) / len(_FILLED)
    return {
        "l1_bytes": first,
        "l2_bytes": brought,
        "memory_bytes": np.full(nest.count, full_bytes(work)),
        "weight_bytes": np.full(nest.count, weight_bytes(work)),
        "scattered_bytes": brought * _scattered(work, nest, machine),
    }


def _conflicts(work: Workload, nest: LoopNest, machine: CpuMachine) -> Floats:
    """Cycles a step that rows lose whose lines share sets of the cache; where a line serves many steps, as in sums."""
    first = work.main[0]
    along = bool(work.reduction) and first.contiguous(work.reduction[-1].name)
    rows = [(nest.tile(axis), size) for axis, size in first.apart if axis in nest.tiles and axis in _outer(work)]
    if not along or not rows:
        return np.zeros(nest.count)
    return cycles_lost_to_conflicts(rows[-2:], machine)


def _outer(work: Workload) -> tuple[str, ...]:
    return tuple(span.name for span in work.domain[:-1])


def _scattered(work: Workload, nest: LoopNest, machine: CpuMachine) -> Floats:
    """The share of what a window's tiles read from beyond the second-level cache that nothing fetches ahead.

    What just exceeds that cache comes from it for the most part: depthwise 3x3 of 576 channels on 14 x 14, 1.04 MB,
    takes 23.5 us in tiles of 36 stretches and 28.8 us in those of 20.
    """
    found = np.zeros(nest.count)
    if work.product or full_bytes(work) <= machine.l2_bytes:
        return found
    for operand in work.main:
        places = np.ones(nest.count)
        for steps in operand.steps[:-1]:
            span = np.ones(nest.count)
            for axis, step in steps:
                whole = any(axis == reduced.name for reduced in work.reduction)
                span = span + step * ((work.extents[axis] if whole else nest.tile(axis)) - 1)
            places = places * span
        if operand.contiguous(work.vector.name):
            found = np.maximum(found, np.clip((places - _AHEAD) / _BEYOND, 0.0, 1.0))
    return found * (1.0 - machine.l2_bytes / full_bytes(work))


def _loads(work: Workload, nest: LoopNest, vectors: npt.NDArray[np.int64], lanes: int) -> tuple[Floats, Floats]:
    """Loads of one reduction step, and elements that are collected one by one."""
    loads, gathers = np.zeros(nest.count), np.zeros(nest.count)
    for operand in work.main:
        along = operand.moves(work.vector.name)
        apart = along and not (operand.constant or operand.contiguous(work.vector.name))
        own = vectors.astype(np.float64) if along else np.ones(nest.count)
        own = own * _overlapping(work, nest, operand)
        loads = loads + own
        gathers = gathers + (own * lanes if apart else 0.0)
    return loads, gathers


def _overlapping(work: Workload, nest: LoopNest, operand: Operand) -> Floats:
    """Places along the other axes that one step reads; unrolled windows share what neighbours read."""
    plain, window = np.ones(nest.count), np.ones(nest.count)
    taps = {span.name: span.extent for span in work.reduction}
    for steps in operand.steps:
        span, own = np.ones(nest.count), np.ones(nest.count)
        for axis, step in steps:
            if axis in taps:
                span = span + step * (taps[axis] - 1)
            elif axis != work.vector.name:
                span = span + step * (nest.tile(axis) - 1)
                own = own * nest.tile(axis)
        plain, window = plain * own, window * np.minimum(span, own * _taps_of(steps, taps))
    return np.where(nest.unrolled, window / max(1, math.prod(taps.values())), plain)


def _taps_of(steps: tuple[tuple[str, int], ...], taps: Mapping[str, int]) -> int:
    return math.prod(taps[axis] for axis, _ in steps if axis in taps)


def stream_features(work: Workload, machine: CpuMachine, columns: npt.NDArray[np.int64], calls: Floats) -> Features:
    """Features of tasks without a register tile: one pass over the domain (a row task: one more a reduction)."""
    lanes, vector, count = lanes_of(work, machine), work.vector, len(columns)
    outer = work.points / max(1, vector.extent)
    trips = -(-vector.extent // columns)
    vectors = np.asarray(outer * trips * -(-columns // lanes), np.float64)
    apart = [o for o in work.main if o.moves(vector.name) and not o.contiguous(vector.name)]
    touched = sum(o.bytes * (work.points if o.moves(vector.name) else outer) for o in (*work.main, *work.others))
    wide = np.asarray(-(-columns // lanes) * (1.0 + len(work.main)), np.float64)
    found: Features = {
        "flops": np.full(count, float(work.points * work.operations)),
        "multiply_adds": vectors * 0.0,
        "gathers": vectors * lanes * (max(1, len(apart)) if work.stuck or (apart and not work.crossed) else 0.0),
        "others": vectors * (work.operations + len(work.main) + len(work.others)),
        "registers": wide,
        "spills": vectors * np.maximum(0.0, wide - machine.registers) / np.maximum(1.0, wide),
        "l1_bytes": np.full(count, float(touched)),
        "l2_bytes": np.full(count, float(touched if touched > machine.l2_bytes else 0)),
        "memory_bytes": np.full(count, float(touched)),
        "tiles": np.full(count, outer if work.kind == "row" else 0.0),
        "turns": np.asarray(outer * trips, np.float64),
        "waste": trips * columns / max(1, vector.extent) - 1.0,
        "calls": calls,
        "idle": idle_share(calls),
        "code": wide * max(1, work.operations),
    }
    return complete(found, count)
