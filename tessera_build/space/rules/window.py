"""The rule for accumulations without a shared operand: depthwise convolutions, pooling, sums that are no products.

Condition: one reduction, and no product of a read that stays along the vector axis with one that moves. Decisions:
vectors of channels, neighbours along the two axes before, whether the window's loops are unrolled, parallel loops.
Invariant: a legal vector keeps accumulators and one operand each in registers.
"""

from __future__ import annotations

import math

import numpy as np

from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.trace import Bind, Split
from tessera_build.space.features import nest_features
from tessera_build.space.nest import LoopNest
from tessera_build.space.rules.rule import Features, Flags, Rule, outer_rows, sizes, tile_name, vectors_of
from tessera_build.space.sketch import Decision, Hole, Nest, Option, Part, Sketch, Values
from tessera_build.space.workload import Operand, Span, Workload

# Steps (neighbours times taps) that unrolled windows may be emitted for.
_STEPS_UNROLLED = 160
_MOST_TURNS = 256
_MOST_OUTER_ROWS = 4


def _tiled(work: Workload) -> tuple[Span, ...]:
    """The axes before the vector axis that tiles may have an extent along: the last two at most.

    None that all reads move along where one of them fills vectors with single numbers, as channels before pixels:
    neighbours share nothing, and each would keep registers of taps of its own.
    """
    even = [s for s in work.domain[:-1] if not any(s.name in o.bent for o in work.main)]
    own = [s for s in even if _spread_reads(work) and all(o.moves(s.name) for o in work.main)]
    return tuple(s for s in work.domain[-3:-1] if s in even and s not in own)


def _spread_reads(work: Workload) -> list[Operand]:
    """Reads of a reduction whose single numbers fill vectors."""
    return [o for o in work.main if work.reduction and not o.moves(work.vector.name)]


def _taps(work: Workload) -> int:
    return math.prod(span.extent for span in work.reduction)


def window_sketch(work: Workload, machine: CpuMachine) -> Sketch | None:
    """The sketch, where the workload is an accumulation but no product."""
    if work.kind != "contraction" or work.product:
        return None
    vector, tiled = work.vector, _tiled(work)
    decisions: list[Decision] = []
    parts: list[Part] = [*work.groups]
    for at, span in enumerate(tiled):
        last = at == len(tiled) - 1
        decisions.append(
            Decision(
                tile_name(span.name),
                sizes(span, machine.registers if last else outer_rows(work, span, _MOST_OUTER_ROWS)),
            )
        )
        parts.append(Hole(Split(span.name, 1), tile_name(span.name)))
    bent = any(vector.name in operand.bent for operand in work.main)
    decisions.append(Decision("columns", (1,) if bent else vectors_of(vector, machine, (1, 2, 4))))
    parts.append(Hole(Split(vector.name, 1), "columns"))
    short = all(span.extent <= _MOST_TURNS and not span.dynamic for span in work.reduction)
    decisions.append(Decision("unroll", (0, 1) if short else (0,)))
    parts.append(Option("unroll", 1, tuple(Bind(span.name, "unroll") for span in work.reduction)))
    decisions.append(Decision("order", (0,)))
    decisions.append(Decision("parallel", tuple(range(len(work.domain) + 1))))
    parts.append(Nest((tuple(span.name for span in work.domain),), "order", "parallel"))
    return Sketch("window", tuple(parts), tuple(decisions))


def window_legal(work: Workload, machine: CpuMachine, values: Values) -> Flags:
    """Registers hold the accumulators and their operands; unrolled code is small."""
    held = -(-values["columns"] // machine.lanes)
    for span in _tiled(work):
        held = held * values[tile_name(span.name)]
    fits = (2 * held + _spread(work, machine) + 4 <= machine.registers) | (held == 1)
    fits &= (values["unroll"] == 0) | (held * _taps(work) <= _STEPS_UNROLLED)
    return np.asarray(fits, np.bool_)


def _spread(work: Workload, machine: CpuMachine) -> int:
    """Registers of taps that each fill one for all of a tile: a third of all at most, others are loaded again."""
    still = [o for o in _spread_reads(work) if not any(o.moves(span.name) for span in _tiled(work))]
    return min(_taps(work), machine.registers // 3) if still else 0


def window_features(work: Workload, machine: CpuMachine, sketch: Sketch, values: Values) -> Features:
    """The features of a batch."""
    tiles = {s.name: values[tile_name(s.name)] for s in _tiled(work)} | {work.vector.name: values["columns"]}
    return nest_features(work, machine, LoopNest.of(sketch, values, tiles))


def window_start(work: Workload, machine: CpuMachine) -> dict[str, int]:
    """One vector, one element of the other axes."""
    return {"columns": min(work.vector.extent, machine.lanes)}


def _blocks(sketch: Sketch) -> tuple[tuple[str, ...], ...]:
    return (tuple(d.name for d in sketch.decisions if d.name != "parallel"), ("parallel",))


WINDOW = Rule("window", window_sketch, window_legal, window_features, window_start, _blocks)
