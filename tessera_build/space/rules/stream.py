"""The rules for tasks that pass over their domain: rows with reductions along them, elementwise and movement tasks.

Condition: no accumulation over a window. Decisions: elements of the vector axis in a tile, chunks of an axis that alone
is work for several, how many outer loops run in parallel. Invariant: the vector axis is the domain's last one; a task
that exchanges two axes has tiles on both (`crossed`).
"""

from __future__ import annotations

import math

import numpy as np

from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.trace import Interleave, Split, Stagger
from tessera_build.space.features import stream_features
from tessera_build.space.rules.rule import Features, Flags, Rule, vectors_of
from tessera_build.space.sketch import Decision, Hole, Nest, Part, Sketch, Values
from tessera_build.space.workload import Span, Workload

# Elements that one parallel iteration should touch at least (64 KiB of f32: some microseconds).
GRAIN_ELEMENTS = 16384
_COUNTS = (1, 2, 3, 4, 6, 8)
_MOST_VECTORS_TWICE = 8
_MOST_STAGGERED = 4
_FEWEST_ROWS = 8
_LONGEST_ROW = 4096


def _columns(work: Workload, machine: CpuMachine) -> Decision:
    """Tile sizes of the vector axis; a dynamic one has a single register, since any extent may come."""
    if work.stuck:
        return Decision("columns", (1,))
    return Decision("columns", vectors_of(work.vector, machine, (1,) if work.vector.dynamic else _COUNTS))


# -- rows -------------------------------------------------------------------------------------------------------------


def row_sketch(work: Workload, machine: CpuMachine) -> Sketch | None:
    """Rows in parallel, the last axis in vectors whether it is reduced or not."""
    if work.kind != "row":
        return None
    kept = [span.name for i, span in enumerate(work.domain) if i not in work.reduced]
    across, vector = len(work.domain) - 1 in work.reduced, work.vector.name
    split = Split(vector, 1, "order-changing" if across else "bit-preserving")
    parts: list[Part] = [Hole(split, "columns")]
    if across:
        parts.append(Interleave(vector, machine.lanes))
    staggered, several = _staggered(work, kept), _several_rows(work, machine)
    if several and work.passes == 1:  # reading the row again costs what turns gain
        staggered = []
    parts += staggered or several
    order = (*kept, *(span.name for i, span in enumerate(work.domain) if i in work.reduced))
    rows = [name for name in kept if name != vector]
    at_most = next((i for i, name in enumerate(kept) if name == vector), len(rows))
    decisions = (
        _staggered_columns(work, machine) if staggered else _columns(work, machine),
        Decision("order", (0,)),
        Decision("parallel", tuple(range(at_most + 1))),
    )
    return Sketch("row", (*parts, Nest((order,), "order", "parallel")), decisions)


def _staggered(work: Workload, kept: list[str]) -> list[Part]:
    """Passes over different rows in one loop, where rows are many and several of them fit in the first-level cache."""
    rows = next((span for span in reversed(work.domain) if span.name in kept), None)
    length = math.prod(span.extent for i, span in enumerate(work.domain) if i in work.reduced)
    across = len(work.domain) - 1 in work.reduced
    if rows is None or not across or work.stuck or not work.passes or length > _LONGEST_ROW:
        return []
    count = max(_FEWEST_ROWS, GRAIN_ELEMENTS // max(1, length))
    if not rows.dynamic:
        if rows.extent < _FEWEST_ROWS:
            return []
        count = -(-rows.extent // max(1, rows.extent // count))
    return [Stagger(rows.name), Split(f"{rows.name}_chunk", count)]


def _staggered_columns(work: Workload, machine: CpuMachine) -> Decision:
    """A whole row, or so few vectors that every pass has its accumulators in registers."""
    whole = not work.vector.dynamic and work.vector.extent <= _MOST_VECTORS_TWICE * machine.lanes
    counts = (1,) if work.vector.dynamic else _COUNTS if whole else _COUNTS[:_MOST_STAGGERED]
    return Decision("columns", vectors_of(work.vector, machine, counts))


def _several_rows(work: Workload, machine: CpuMachine) -> list[Part]:
    """Two rows in one tile, where a row fits in registers twice: one's combined lanes wait while the other computes.

    Measured, softmax: 1536 rows of 128 in 75 us instead of 87, of 64 in 42 instead of 54; longer rows gain nothing.
    Where there are rows to take turns on, two reductions take 9 to 14 % less still (3072 rows of 16 to 128).
    """
    rows, vector = work.domain[-2:-1], work.vector
    only = work.reduced == frozenset({len(work.domain) - 1})
    if not only or not rows or vector.dynamic or vector.extent > _MOST_VECTORS_TWICE * machine.lanes:
        return []
    names = {name for o in (*work.main, *work.others) for steps in o.steps for name, _ in steps}
    even = not any(name.startswith("_r") for name in names) and not any(o.bent for o in (*work.main, *work.others))
    along = all(o.contiguous(vector.name) or not o.moves(vector.name) for o in work.main)
    whole = not rows[0].dynamic and rows[0].extent % 2 == 0
    return [Split(rows[0].name, 2)] if even and along and whole and not work.stuck else []


# -- elementwise ------------------------------------------------------------------------------------------------------


def pointwise_sketch(work: Workload, machine: CpuMachine) -> Sketch | None:
    """Loops over all axes but the last, vectors along that one."""
    if work.kind != "pointwise" or work.crossed:
        return None
    outer = tuple(span.name for span in work.domain[:-1])
    decisions = [_columns(work, machine), Decision("order", (0,)), Decision("parallel", tuple(range(len(outer) + 1)))]
    parts: list[Part] = [Hole(Split(work.vector.name, 1), "columns")]
    if all(span.extent == 1 for span in work.domain[:-1]):
        decisions.append(Decision("chunk", _chunks(work.vector)))
        parts.append(Hole(Split(f"{work.vector.name}_chunk", 1), "chunk"))
    parts.append(Nest(((*outer, work.vector.name),), "order", "parallel"))
    return Sketch("pointwise", tuple(parts), tuple(decisions))


def _chunks(span: Span) -> tuple[int, ...]:
    """0: the whole axis at once; a dynamic one is always cut, as is one that is work for several."""
    sizes = tuple(GRAIN_ELEMENTS * n for n in (1, 2, 4) if span.dynamic or span.extent > GRAIN_ELEMENTS * n)
    return sizes if span.dynamic else (0, *sizes)


# -- exchanged axes ---------------------------------------------------------------------------------------------------


def crossed_sketch(work: Workload, _machine: CpuMachine) -> Sketch | None:
    """Tiles along the last axis and along the one that a read follows, in blocks where they are work for several.

    Square blocks touch the fewest pages.
    """
    if work.kind != "pointwise" or not work.crossed:
        return None
    vector, crossed = work.vector, next(s for s in work.domain if s.name == work.crossed)
    parts: list[Part] = [Split(crossed.name, work.tile[0])]
    decisions = [Decision("columns", (work.tile[1],))]
    parts.append(Hole(Split(vector.name, 1), "columns"))
    for span, other, size in ((crossed, vector, work.tile[0]), (vector, crossed, work.tile[1])):
        decisions.append(Decision(f"chunk{span.name}", _blocks_along(span, other, size)))
        parts.append(Hole(Split(f"{span.name}_chunk", 1), f"chunk{span.name}"))
    outer = tuple(span.name for span in work.domain[:-1] if span is not crossed)
    decisions += [Decision("order", (0,)), Decision("parallel", tuple(range(len(outer) + 1)))]
    parts.append(Nest(((*outer, crossed.name, vector.name),), "order", "parallel"))
    return Sketch("crossed", tuple(parts), tuple(decisions))


def _blocks_along(span: Span, other: Span, tile: int) -> tuple[int, ...]:
    """Block sizes, whole tiles; 0 where the axis is not cut."""
    if not (span.dynamic or other.dynamic) and span.extent * other.extent <= 2 * GRAIN_ELEMENTS:
        return (0,)
    side = math.isqrt(GRAIN_ELEMENTS)
    room = side if other.dynamic else max(side, GRAIN_ELEMENTS // max(1, other.extent))
    found = [-(-size // tile) * tile for size in (room, 2 * room)]
    sizes = tuple(dict.fromkeys(size for size in found if span.dynamic or span.extent > size))
    return sizes if span.dynamic else (0, *sizes)


# -- all of them ------------------------------------------------------------------------------------------------------


def stream_legal(work: Workload, _machine: CpuMachine, values: Values) -> Flags:
    """Chunks hold whole tiles, and what is cut in chunks has all loops around it in parallel."""
    outer = len(work.domain) - (2 if work.crossed else 1)
    fits = np.ones(len(values["columns"]), np.bool_)
    for name in values:
        if not name.startswith("chunk"):
            continue
        size = values[name]
        fits &= (size == 0) | (values["parallel"] == outer)
        fits &= (size % values["columns"] == 0) | (name != "chunk")
    return fits


def stream(work: Workload, machine: CpuMachine, sketch: Sketch, values: Values) -> Features:
    """The features of a batch."""
    (nest,) = [part for part in sketch.parts if isinstance(part, Nest)]
    calls = np.ones(len(values["columns"]))
    for depth, axis in enumerate(nest.orders[0]):
        calls = np.where(values["parallel"] > depth, calls * work.extents[axis], calls)
    for span in work.domain:
        size = values.get("chunk" if span is work.vector and "chunk" in values else f"chunk{span.name}")
        if size is not None:
            calls = np.where(size > 0, calls * -(-span.extent // np.maximum(1, size)), calls)
    return stream_features(work, machine, values["columns"], calls)


def stream_start(work: Workload, machine: CpuMachine) -> dict[str, int]:
    """One register; everything outside in parallel."""
    return {"columns": machine.lanes, "parallel": len(work.domain)}


def _blocks(sketch: Sketch) -> tuple[tuple[str, ...], ...]:
    return (tuple(d.name for d in sketch.decisions),)


ROW = Rule("row", row_sketch, stream_legal, stream, stream_start, _blocks)
POINTWISE = Rule("pointwise", pointwise_sketch, stream_legal, stream, stream_start, _blocks)
CROSSED = Rule("crossed", crossed_sketch, stream_legal, stream, stream_start, _blocks)
