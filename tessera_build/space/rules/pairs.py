"""The rule for products whose terms are taken in pairs: a register tile one vector wide, loops as around any product.

Condition: the machine's adders idle while it multiplies, and the workload allows pairs (`space.pairs`). Decisions: rows
of the tile along at most two axes, which loops are outside, how many of those run in parallel. Invariant: a legal
vector keeps its accumulators, three vectors of a panel and two sums in registers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from tessera_build.ir.core.types import F32
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.trace import Pack, Pair, Split
from tessera_build.space.features import complete, nest_features
from tessera_build.space.nest import Floats, Integers, LoopNest
from tessera_build.space.pairs import PAIRS, PARTS, TURN, third_of
from tessera_build.space.rules.product import prefetch_of, row_axes
from tessera_build.space.rules.rule import Features, Flags, Rule, orders_of, outer_rows, sizes, tile_name
from tessera_build.space.sketch import Decision, Hole, Nest, Part, Sketch, Values
from tessera_build.space.workload import Operand, Rewriting, Workload

# A register tile is one vector wide: elements of rows are then operands in memory of additions and multiply-adds. Tiles
# of two vectors, which share them in registers, take 7.4 ms for 480 x 720 x 1024, and these 4.8: a Zen 4 does not read
# as many registers a cycle as an addition and a multiply-add want.
_MOST_ROWS: Final = 14
_MOST_OUTER_ROWS: Final = 4
# Fewer rows use a panel too seldom. Direct sums of 16, 24, 32, 40 and 48 rows of 768 x 768, weights from memory, take
# 0.72, 0.82, 1.04, 1.05 and 1.16 of the time of pairs; of 49 x 512 x 2048 1.27.
_LEAST_ROWS: Final = 32
# A stage of a chain uses its weights line after line.
_LEAST_IN_LINE: Final = 14
# Of the scaled elements of a line, which lie on a thread's stack beside the rows of the chain.
_MOST_LINE_BYTES: Final = 64 << 10
# Rows of a long product that are read at a time, three places of each: 128 x 3072 x 768 takes 4.25 ms in tiles of 8
# rows, 5.4 of 10 and 6.4 of 13; 128 x 768 x 768 0.99, 0.97 and 0.96.
_LONG: Final = 1536
_MOST_LONG_ROWS: Final = 8
# Cycles a register and pair: two multiply-adds, with two additions beside them. Tiles of 8 to 16 rows of a depth of
# 384, panels in the nearest cache: 164 to 170 GFLOP/s of 116 that multiply-adds alone come to.
PAIR_CYCLES: Final = 2.1
# Cycles that scale a row and add up its own pairs, and those for a register of it: 25 for 24 elements in a line of a
# chain, 60 for 144.
_ROW, _REGISTER = 18.0, 4.7
# Those that begin and end a register of results.
_ENDS: Final = 2.0
# The share of the bytes that tiles read again from the second-level cache that counts: 128 x 3072 x 768 takes 4.5 ms,
# with all of them 5.6 by the cost, with half of them 5.2; 128 x 768 x 768 takes 1.0, 1.23 and 1.13.
_READ_AGAIN: Final = 0.5
# What another algorithm must gain.
_MARGIN: Final = 1.02


def pairs_sketch(work: Workload, machine: CpuMachine) -> Sketch | None:
    """The sketch, where a policy allows pairs and they cost nothing."""
    found = rewriting_of(work, machine, 1)
    return None if found is None or _rows_of(work) < _LEAST_ROWS else _sketch(work, machine, found)


def rewriting_of(work: Workload, machine: CpuMachine, read: int) -> Rewriting | None:
    """What is known of pairs, if they cost nothing and read `read` has the weights."""
    apart = machine.adds_apart and work.product and work.main[read].constant
    return work.rewriting(PAIRS) if apart else None


def _rows_of(work: Workload) -> int:
    return work.points // max(1, work.vector.extent)


def _sketch(work: Workload, machine: CpuMachine, found: Rewriting) -> Sketch:
    rows, vector, depth = row_axes(work), work.vector.name, found.axes[-1]
    most = [_MOST_ROWS] * len(rows)
    if len(rows) == 2:
        most[0] = outer_rows(work, rows[0], _MOST_OUTER_ROWS)
    orders = orders_of([s.name for s in work.domain[:-1]], vector)
    parts: tuple[Part, ...] = (
        *(Hole(Split(s.name, 1), tile_name(s.name)) for s in rows),
        Split(vector, machine.lanes),
        Pack(1, machine.lanes),
        Pair(depth, found.sizes[0]),
        Split(depth, TURN),
        *prefetch_of(work, machine),
        Nest(orders, "order", "parallel"),
    )
    decisions = (
        *(Decision(tile_name(s.name), sizes(s, m)) for s, m in zip(rows, most, strict=True)),
        Decision("order", tuple(range(len(orders)))),
        Decision("parallel", tuple(range(len(work.domain) + 1))),
    )
    return Sketch(PAIRS, parts, decisions)


def _held(work: Workload, values: Values) -> Integers:
    """Rows of the register tile."""
    held = np.ones_like(values["order"])
    for span in row_axes(work):
        held = held * values[tile_name(span.name)]
    return held


def pairs_legal(work: Workload, _machine: CpuMachine, values: Values) -> Flags:
    """Registers suffice."""
    most = _MOST_LONG_ROWS if work.reduction[0].extent > _LONG else _MOST_ROWS
    return np.asarray(_held(work, values) <= most, np.bool_)


def pairs_features(work: Workload, machine: CpuMachine, sketch: Sketch, values: Values) -> Features:
    """The features of a batch: those of the nest, but that pairs take less time, and rows are read once before."""
    count, depth = len(values["order"]), work.reduction[0]
    tiles = {s.name: values[tile_name(s.name)] for s in row_axes(work)}
    tiles |= {work.vector.name: np.full(count, machine.lanes), depth.name: np.full(count, TURN)}
    found = nest_features(_of_rows(work), machine, LoopNest.of(sketch, values, tiles))
    pairs, held = third_of(depth.extent), np.asarray(_held(work, values), np.float64)
    left = depth.extent - PARTS * pairs
    latency = float(machine.multiply_add_latency)
    cycles = pairs * np.maximum(held * PAIR_CYCLES, 2 * latency) + left * np.maximum(held, latency)
    whole = found["tiles"] * _share_of_tiles(work, machine)
    rows = work.points / max(1, work.vector.extent)
    made = rows * (_ROW + _REGISTER * -(-depth.extent // machine.lanes))
    moved = 2.0 * work.main[0].bytes * rows * depth.extent
    return complete(
        {
            **found,
            "busy": whole * cycles / machine.multiply_adds_per_cycle,
            "others": found["others"] + made,
            "turns": found["tiles"] * (pairs / TURN + left),
            "l1_bytes": found["l1_bytes"] * _READ_AGAIN,
            "l2_bytes": found["l2_bytes"] + (moved if moved > machine.l2_bytes / 2 else 0.0),
            "memory_bytes": found["memory_bytes"] + moved,
            "registers": held + 6.0,
            "spills": np.zeros(count),
            "calls": found["calls"] + rows / 16,
        },
        count,
    )


def _of_rows(work: Workload) -> Workload:
    """The workload as its sums see it: rows are scaled first, and then lie one behind the other."""
    found = work.rewriting(PAIRS)
    assert found is not None, "the rule has a sketch"
    rows = Operand(tuple(((axis, 1),) for axis in found.axes), F32.bytes)
    return replace(work, main=(rows, work.main[1]))


def _share_of_tiles(work: Workload, machine: CpuMachine) -> Floats:
    """The last tile along the vector axis may be half a register, which takes half the time."""
    columns = work.vector.extent
    tiles, rest = -(-columns // machine.lanes), columns % machine.lanes
    halves = 0.5 if 0 < rest <= machine.lanes // 2 else 0.0
    return np.asarray((tiles - halves) / tiles, np.float64)


def pairs_start(_work: Workload, _machine: CpuMachine) -> dict[str, int]:
    """One row."""
    return {}


def _blocks(sketch: Sketch) -> tuple[tuple[str, ...], ...]:
    return tuple(d.name for d in sketch.decisions if d.name.startswith("tile")), ("order", "parallel")


def _stage_sketch(work: Workload, machine: CpuMachine) -> Sketch | None:
    """Of one line of a stage, where pairs save more than scaling its rows costs."""
    found = rewriting_of(work, machine, 1)
    if found is None or _rows_of(work) < _LEAST_IN_LINE:
        return None
    depth, vectors = work.reduction[0].extent, work.vector.extent // machine.lanes
    if F32.bytes * depth * _rows_of(work) > _MOST_LINE_BYTES:
        return None
    saved = (third_of(depth) * (PARTS - PAIR_CYCLES) - _ENDS) * vectors
    return _sketch(work, machine, found) if saved > _ROW + _REGISTER * -(-depth // machine.lanes) else None


STAGE_PAIRS: Final = Rule(PAIRS, _stage_sketch, pairs_legal, pairs_features, pairs_start, _blocks)
PAIRS_RULE = Rule(PAIRS, pairs_sketch, pairs_legal, pairs_features, pairs_start, _blocks, margin=_MARGIN)
