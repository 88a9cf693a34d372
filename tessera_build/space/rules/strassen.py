"""The rule for Strassen's algorithm: seven products of quarters in place of eight, a panel of both halves at a time.

Condition: the workload allows the rewriting (`space.strassen` says to what it applies and which pieces of depth are
exact enough). Decisions: rows and columns of the register tile, the piece of half the depth that is summed at a time.
Invariant: a legal vector keeps its accumulators in registers and what a panel holds in the second-level cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.trace import Bind, Pack, Prefetch, Rewrite, Split, Tensorise
from tessera_build.space.features import complete, idle_share, share_again
from tessera_build.space.nest import Integers, full_bytes, weight_bytes
from tessera_build.space.panels import cycles_lost_to_conflicts, prefetch_pays
from tessera_build.space.rules.rule import Features, Flags, Rule
from tessera_build.space.sketch import Decision, Filled, Hole, Part, Sketch, Values
from tessera_build.space.strassen import (
    HALVES,
    LEAST_ROWS,
    MADE,
    QUARTERS,
    STORED,
    STRASSEN,
    SUMS,
    block_of_any,
    blocks_of,
)
from tessera_build.space.winograd_plan import most_scratch
from tessera_build.space.workload import Workload

_PRODUCTS = 7
# Products that read the first operand where it lies; the sums have rows that share few sets of a cache.
_IN_PLACE = 3
_FLOAT_BYTES = 4
# With four, 5 x 4 registers of 784 x 512 x 256 take 1.03 of the direct sum's time, 12 x 2 take 0.95.
_MOST_VECTORS = 3
# A register tile of a matrix product, near enough to say how often a panel is used.
_USUAL_ROWS, _USUAL_VECTORS = 8, 3
# Steps of a contraction that are emitted. Ten stand in the code, and four steps are 3 % slower than two.
_STEPS = 2
# Loads and stores of a register tile beside its products, as instructions: what is shared, and what waits for the next
# piece; a store of 64 bytes counts twice.
_RESULTS, _WAITING = 19.0, 16.0
# Cycles for a register of a sum of weights that multiply-adds do not hide: 196 x 1024 x 256 in four groups of rows,
# which make each sum four times, takes 5 % more than in one.
_MADE_CYCLES = 3.5
# Cycles for a register of stored weights that was asked for ahead and has left the second-level cache when it is read:
# where more than this share of that cache passes through in between. 128 x 768 x 768 in pieces of 384, 192, 128 and 96
# took 4.30, 4.21, 4.15 and 4.13 ms; 128 x 768 x 3072 and back in 384 and 512, 192, 128, 96 14.7, 14.4, 14.1 and 14.3.
_LOST_CYCLES, _LEFT_BY = 5.0, 9 / 16
# The share of panels' bytes, read again by every register tile, that counts: 13 x 2 registers, which read them 5 times,
# take 1.03 of the time of 8 x 2, which read them 8 times, on halves of 64 rows, and 0.99 on halves of 98.
_READ_AGAIN = 0.5
# Loads and stores for every register of the first operand's sums, of four quarters.
_SUMMED = 12.0
# Workers that are counted on, and register tiles of rows that are worth sums of weights of their own.
_WORKERS = 8.0
_LEAST_GROUP = 3
# What another algorithm must gain: its error is larger, and it takes a launch more.
_MARGIN = 1.02


@dataclass(frozen=True, slots=True)
class Quarters:
    """A workload's extents in halves: rows of a block, depth, columns; the axes of the first two; what else there is.

    `paired`: the axes of the rows, of which the last one has the register tile. `divisible`: rows may go to several
    threads, because no row is in both halves. `around`: blocks, and what other axes come to together. `most`, `least`:
    rows of a half that there may be, where their number is not known.
    """

    rows: int
    depth: int
    columns: int
    paired: tuple[str, ...]
    inner: str
    pieces: tuple[int, ...]
    divisible: bool
    around: int
    most: int
    least: int

    @classmethod
    def of(cls, work: Workload) -> Quarters | None:
        """Those of a workload that may be rewritten."""
        found = work.rewriting(STRASSEN)
        if found is None:
            return None
        *paired, inner = found.axes
        extents = work.extents
        rows = math.prod(extents[axis] for axis in paired)
        block = rows // blocks_of(rows, extents[inner])
        around = work.points // max(1, block * work.vector.extent)
        halves = (-(-block // HALVES), extents[inner] // HALVES, work.vector.extent // HALVES)
        dynamic = any(span.dynamic for span in work.domain if span.name in paired)
        most = -(-block_of_any(extents[inner]) // HALVES) if dynamic else halves[0]
        least = LEAST_ROWS if dynamic else halves[0]
        divisible = block % HALVES == 0 and not dynamic
        return cls(*halves, tuple(paired), inner, found.sizes, divisible, around, most, least)


def strassen_sketch(work: Workload, machine: CpuMachine) -> Sketch | None:
    """The sketch, where a policy allows some piece and whole registers fill a half of the columns."""
    parts = Quarters.of(work)
    if parts is None or parts.depth % machine.lanes or parts.rows < LEAST_ROWS:
        return None
    widths = [n * machine.lanes for n in range(1, _MOST_VECTORS + 1)]
    whole = tuple(width for width in widths if parts.columns % width == 0)
    rows, depth = parts.paired[-1], parts.inner
    if not whole or not _fits(parts, machine):
        return None
    vector, uses = work.vector.name, -(-HALVES * parts.rows // _USUAL_ROWS)
    ahead = prefetch_pays(uses, _USUAL_VECTORS * machine.lanes, int(weight_bytes(work)), machine)
    steps: tuple[Part, ...] = (
        Filled(Rewrite(HALVES, 1, algorithm=STRASSEN), (("block", ("piece",)), ("panels", ("group",)))),
        Hole(Split(rows, 1), "rows"),
        Hole(Split(vector, 1), "columns"),
        Hole(Pack(1, 1), "columns"),
        Split(depth, _STEPS),
        Tensorise(depth),
        *((Prefetch(1),) if ahead else ()),
        *(Bind(span.name, "parallel") for span in work.domain if span.name not in parts.paired),
    )
    decisions = (
        Decision("rows", tuple(range(1, min(parts.least, machine.registers) + 1))),
        Decision("columns", whole),
        Decision("piece", parts.pieces),
        Decision("group", (0, *range(_LEAST_GROUP, -(-parts.rows // _LEAST_GROUP)))),
    )
    return Sketch(STRASSEN, steps, decisions)


def _known(work: Workload) -> Quarters:
    parts = Quarters.of(work)
    assert parts is not None, "the rule has a sketch"
    return parts


def _private_bytes(parts: Quarters, values: Values) -> Integers:
    """What a panel holds beside the weights: their sums, tiles of results, those of all rows where they wait."""
    rows, columns, piece = values["rows"], values["columns"], values["piece"]
    tiles = np.where(piece < parts.depth, _group(parts, values), 1)
    return (MADE * piece + (tiles * QUARTERS + HALVES) * rows) * columns * _FLOAT_BYTES


def _passing(parts: Quarters, values: Values) -> Integers:
    """Bytes that a piece of a panel reads, and asks for: all rows, stored weights and their sums, the next ones."""
    columns, piece = values["columns"], values["piece"]
    return (_PRODUCTS * parts.rows + (2 * STORED + MADE) * columns) * piece * _FLOAT_BYTES


def _group(parts: Quarters, values: Values) -> Integers:
    """Register tiles of rows that share sums of weights."""
    return np.where(values["group"] > 0, values["group"], -(-parts.most // values["rows"]))


def _fits(parts: Quarters, machine: CpuMachine) -> bool:
    """Whether the vector that the derivation starts from is legal."""
    first = {"rows": 1, "columns": machine.lanes, "piece": parts.pieces[-1], "group": 0}
    held = _private_bytes(parts, {name: np.asarray([value], np.int64) for name, value in first.items()})
    return bool(held[0] <= most_scratch(machine))


def strassen_legal(work: Workload, machine: CpuMachine, values: Values) -> Flags:
    """Registers suffice, also where two vectors make one of the weights' sums, and the scratch memory of a panel.

    Groups of rows serve threads that find no panel.

    Tiles of 14 x 2 registers spill there: 196 x 256 x 1024 takes as long as the direct sum, with tiles of 11 x 2 7 %
    less.
    """
    rows, vectors = values["rows"], values["columns"] // machine.lanes
    private = _private_bytes(_known(work), values)
    fits = ((rows + 2) * vectors < machine.registers) & (private <= most_scratch(machine))
    parts, group = _known(work), values["group"]
    panels, tiles = parts.columns // values["columns"], -(-parts.rows // rows)
    grouped = (group < tiles) & (panels < _WORKERS) & parts.divisible
    return np.asarray(fits & ((group == 0) | grouped), np.bool_)


def strassen_features(work: Workload, machine: CpuMachine, _sketch: Sketch, values: Values) -> Features:
    """The features of a batch."""
    parts, rows, vectors = _known(work), values["rows"], values["columns"] // machine.lanes
    panels, tiles = parts.columns // values["columns"], -(-parts.rows // rows)
    pieces, held = parts.depth // values["piece"], np.asarray(rows * vectors, np.float64)
    steps = parts.around * panels * tiles * _PRODUCTS * float(parts.depth)
    loads = rows + vectors
    slowest = np.maximum(held / machine.multiply_adds_per_cycle, loads / machine.loads_per_cycle)
    groups = -(-tiles // _group(parts, values))
    made = parts.around * panels * groups * MADE * float(parts.depth)
    apart = dict(work.main[0].apart).get(parts.paired[-1], 0)
    slowest = slowest + cycles_lost_to_conflicts([(rows, apart)], machine) * _IN_PLACE / _PRODUCTS
    busy = steps * np.maximum(slowest, machine.multiply_add_latency) + made * vectors * _MADE_CYCLES
    stored = parts.around * panels * groups * STORED * float(parts.depth)
    busy = busy + np.where(_passing(parts, values) > machine.l2_bytes * _LEFT_BY, stored * vectors * _LOST_CYCLES, 0.0)
    results = parts.around * panels * tiles * held * (pieces * _RESULTS + (pieces - 1) * _WAITING)
    summed = parts.around * parts.rows * parts.depth / machine.lanes * _SUMMED
    calls = parts.around * np.asarray(panels * groups, np.float64)
    others = work.points / machine.lanes * (work.operations + len(work.others)) + results + summed
    sums = np.asarray(parts.around * panels * tiles * pieces * _PRODUCTS, np.float64)
    count = len(rows)
    found: Features = {
        "flops": np.full(count, 2.0 * work.points * work.reduction[0].extent),
        "multiply_adds": np.asarray(steps * held, np.float64),
        "loads": np.asarray(steps * loads, np.float64),
        "chained": np.where(held < machine.multiply_add_latency * machine.multiply_adds_per_cycle, steps, 0.0),
        "busy": np.asarray(busy, np.float64),
        "others": np.asarray(others, np.float64),
        "registers": held + vectors + 1,
        **_moved(work, machine, parts, values),
        "tiles": sums,
        "turns": sums,  # more of them hide behind multiply-adds
        "waste": np.asarray(tiles * rows / parts.rows - 1.0, np.float64),
        "calls": calls + float(parts.around * parts.rows),
        "idle": idle_share(calls, _WORKERS),
        "code": held * _STEPS * (_PRODUCTS + MADE),
    }
    return complete(found, count)


def _moved(work: Workload, machine: CpuMachine, parts: Quarters, values: Values) -> Features:
    """Bytes by level of cache: every register tile reads its panels again; the first operand comes with every panel."""
    panels, tiles = parts.columns // values["columns"], -(-parts.rows // values["rows"])
    block = float(_FLOAT_BYTES) * parts.rows * parts.depth
    right = float(_FLOAT_BYTES) * parts.depth * values["columns"] * _PRODUCTS
    again = share_again(np.asarray(block * _PRODUCTS + right, np.float64), machine) * (panels - 1)
    left = parts.around * block
    return {
        "l1_bytes": parts.around * panels * tiles * right * _READ_AGAIN + panels * left * _PRODUCTS,
        "l2_bytes": full_bytes(work) + left * SUMS + left * _PRODUCTS * again,
        "memory_bytes": np.full(len(panels), full_bytes(work) + left * SUMS),
        "weight_bytes": np.full(len(panels), weight_bytes(work)),
    }


def strassen_start(work: Workload, machine: CpuMachine) -> dict[str, int]:
    """One row and the largest piece, after which fewest results wait."""
    return {"rows": 1, "columns": machine.lanes, "piece": _known(work).pieces[-1]}


def _blocks(_sketch: Sketch) -> tuple[tuple[str, ...], ...]:
    return ("rows", "columns", "piece"), ("rows", "columns", "group")


STRASSEN_RULE = Rule(
    STRASSEN, strassen_sketch, strassen_legal, strassen_features, strassen_start, _blocks, margin=_MARGIN
)
