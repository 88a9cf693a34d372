"""The rule for products of weights with columns whose terms are taken in pairs: a register of columns at a time.

Condition: as for pairs (`space.rules.pairs`), but that weights are the first read and columns lie side by side.
Decisions: rows of the tile, how many loops run in parallel. Invariant: a legal vector keeps its accumulators, three
elements of columns and two sums in registers.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tessera_build.ir.core.types import F32
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.trace import Pack, Pair, Split
from tessera_build.space.features import complete, nest_features
from tessera_build.space.nest import LoopNest
from tessera_build.space.pairs import PARTS, TURN, third_of
from tessera_build.space.rules.pairs import PAIR_CYCLES, rewriting_of
from tessera_build.space.rules.product import prefetch_of
from tessera_build.space.rules.rule import Features, Flags, Rule, tile_name
from tessera_build.space.sketch import Decision, Hole, Nest, Sketch, Values
from tessera_build.space.winograd_plan import STACK_BYTES
from tessera_build.space.workload import Workload

COLUMN_PAIRS: Final = "column pairs"
# Of tiles of 16 rows LLVM broadcasts elements into registers: 256 to 64 on 56 x 56 took 1.08 ms, of 8 rows 0.92.
_LEAST_TILE, _MOST_TILE = 4, 12
# A register of columns is scaled for so many rows.
_LEAST_ROWS: Final = 32
# Registers of columns that are scaled together. Each element of a column lies on a page of its own: on a Zen 4
# 256 to 64 channels on 56 x 56 take 0.91 to 1.02 ms by one, 0.80 by two, 0.75 by four, 0.78 by eight; direct sums 0.92.
_CHUNKS: Final = (1, 2, 4)
# Cycles an element of a register of columns: copied and scaled, and what finding its page takes.
_SCALED, _FAR = 4.0, 10.0
_MARGIN: Final = 1.02


def column_pairs_sketch(work: Workload, machine: CpuMachine) -> Sketch | None:
    """The sketch, where a policy allows pairs and they cost nothing."""
    found = rewriting_of(work, machine, 0)
    if found is None or work.vector.extent < machine.lanes or work.vector.dynamic:
        return None
    (row, depth), vector = found.axes, work.vector.name
    rows = work.extents[row]
    tiles = tuple(n for n in range(_LEAST_TILE, _MOST_TILE + 1) if rows % n == 0)
    if rows < _LEAST_ROWS or not tiles or not work.main[1].contiguous(vector):
        return None

    def fits(registers: int) -> bool:
        columns = registers * machine.lanes
        return columns <= work.vector.extent and F32.bytes * columns * work.extents[depth] * 2 <= STACK_BYTES

    if not fits(1):
        return None
    order = (*(s.name for s in work.domain[:-1] if s.name != row), vector, row)
    parts = (
        Hole(Split(row, 1), tile_name(row)),
        Split(vector, machine.lanes),
        Hole(Split(f"{vector}_chunk", machine.lanes), "chunk"),
        Hole(Pack(0, 1), tile_name(row)),
        Pair(depth, found.sizes[0]),
        Split(depth, TURN),
        *prefetch_of(work, machine),
        Nest((order,), "order", "parallel"),
    )
    decisions = (
        Decision(tile_name(row), tiles),
        Decision("chunk", tuple(machine.lanes * n for n in _CHUNKS if fits(n))),
        Decision("order", (0,)),
        Decision("parallel", tuple(range(len(work.domain)))),
    )
    return Sketch(COLUMN_PAIRS, parts, decisions)


def _legal(_work: Workload, _machine: CpuMachine, values: Values) -> Flags:
    return np.ones(len(values["order"]), np.bool_)


def _features(work: Workload, machine: CpuMachine, sketch: Sketch, values: Values) -> Features:
    """The features of a batch: those of the nest, but that pairs take less time, and columns are scaled before."""
    (row,) = (name.removeprefix("tile") for name in values if name.startswith("tile"))
    count, depth = len(values["order"]), work.reduction[0]
    tiles = {
        row: values[tile_name(row)],
        work.vector.name: np.full(count, machine.lanes),
        depth.name: np.full(count, TURN),
    }
    found = nest_features(work, machine, LoopNest.of(sketch, values, tiles))
    pairs, held = third_of(depth.extent), np.asarray(values[tile_name(row)], np.float64)
    left, latency = depth.extent - PARTS * pairs, float(machine.multiply_add_latency)
    cycles = pairs * np.maximum(held * PAIR_CYCLES, 2 * latency) + left * np.maximum(held, latency)
    registers = values["chunk"] // machine.lanes
    chunks = -(-work.vector.extent // values["chunk"])
    more = chunks * registers / -(-work.vector.extent // machine.lanes)
    columns = found["tiles"] * more * held / work.extents[row]
    return complete(
        {
            **found,
            "busy": found["tiles"] * more * cycles / machine.multiply_adds_per_cycle,
            "others": found["others"] + columns * depth.extent * (_SCALED + _FAR / registers),
            "turns": found["tiles"] * (pairs / TURN + left),
            "registers": held + 6.0,
            "spills": np.zeros(count),
        },
        count,
    )


def _start(_work: Workload, _machine: CpuMachine) -> dict[str, int]:
    """The smallest tile."""
    return {}


def _blocks(sketch: Sketch) -> tuple[tuple[str, ...], ...]:
    return tuple(d.name for d in sketch.decisions if d.name.startswith("tile")), ("chunk", "order", "parallel")


COLUMN_PAIRS_RULE = Rule(COLUMN_PAIRS, column_pairs_sketch, _legal, _features, _start, _blocks, margin=_MARGIN)
