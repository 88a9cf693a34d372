"""The rule for products: a register tile of rows by vectors, a chunk of the reduction, loops around it.

Condition: one reduction that sums products of a read that stays and one that moves along the vector axis, whatever the
operator: matrix products, convolutions, grouped ones. Decisions: rows of the tile along at most two axes, its columns,
steps of the reduction that are emitted, which loops are outside, how many of those run in parallel. Invariant: a legal
vector keeps its accumulators in registers.
"""

from __future__ import annotations

import math

import numpy as np

from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.machine.instructions import QUAD
from tessera_build.ir.schedule.trace import Block, Clip, Pack, Prefetch, Split, Step, Tensorise
from tessera_build.space.features import nest_features
from tessera_build.space.nest import Integers, LoopNest, weight_bytes
from tessera_build.space.panels import ALIASING_BYTES, LEAST_USES, prefetch_pays
from tessera_build.space.rules.rule import Features, Flags, Rule, orders_of, outer_rows, sizes, tile_name, vectors_of
from tessera_build.space.sketch import Decision, Hole, Nest, Part, Sketch, Values
from tessera_build.space.sums import blocks_of
from tessera_build.space.workload import Span, Workload

# Multiply-adds in one emitted contraction: 448 (14 x 2 registers, 16 steps) compile in 0.1 s and stay in the µop cache.
MULTIPLY_ADDS_EMITTED = 448
# Steps emitted inside of such blocks: of tiles of 7 x 2 registers, 20 spill nothing and 24 some hundred times.
_MOST_STEPS_IN_BLOCK = 16
_OPERATIONS_A_SUM = 3  # load, add and store of a total
_MOST_CHUNK = 64
_MOST_VECTORS = 6
_MOST_OUTER_ROWS = 4
# A register tile of a matrix product, near enough to say how often a panel is used.
_USUAL_ROWS, _USUAL_VECTORS = 8, 3
_LEAST_OF_TWO = 8
# Of so few steps LLVM loads the vectors of the next one early. Tiles of 2 x 7 pixels by 2 registers, three channels: 3
# accumulators spilt a turn, 2447 us for 7 x 7 taps to 64 channels on 112 x 112; 2201 us in tiles of 14, none spilt.
_FEW_STEPS = 3
# Tiles of an image that use a panel: on a Zen 4, with 7 (49 pixels) asking for the next one made 1x1 convolutions 3 to
# 8 % faster where weights are cold, with 25 (196 pixels) up to 1 % slower; on a Zen 5 24 of 5.3 MB together are 9 %
# faster with 25, MobileNet-V2 3 %, EfficientNet-B0 2 %, with more uses no faster. Weights may be few: those of other
# layers come between two runs.
_MOST_USES_OF_PIXELS = 26


def row_axes(work: Workload) -> tuple[Span, ...]:
    """The last two axes along which the first read moves and the second does not: rows of a register tile."""
    first, second = work.main[:2]
    found = [s for s in work.domain[:-1] if first.moves(s.name) and not second.moves(s.name)]
    even = [s for s in found if s.name not in {*first.bent, *second.bent}]
    return tuple(even[-2:])


def chunk_axis(work: Workload) -> Span | None:
    """The reduction axis that the register tile runs over."""
    return work.reduction[-1] if work.reduction else None


def quads_of(work: Workload) -> int:
    """Elements of the reduction that one instruction takes."""
    return QUAD if work.byte_product else 1


def chunk_sizes(extent: int) -> tuple[int, ...]:
    """Chunk sizes: powers of two, and divisors, which leave no rest."""
    limit = max(1, min(extent, _MOST_CHUNK))
    powers = {1 << b for b in range(7) if 1 << b <= limit}
    return tuple(sorted(powers | {d for d in range(1, limit + 1) if extent % d == 0 and d * 8 > limit}))


def _steps_along(work: Workload) -> int:
    span = chunk_axis(work)
    return 1 if span is None else -(-span.extent // quads_of(work))


def product_sketch(work: Workload, machine: CpuMachine) -> Sketch | None:
    """The sketch, where the workload is such a product."""
    if work.kind != "contraction" or not work.product:
        return None
    rows, vector, quads, inner = row_axes(work), work.vector, quads_of(work), chunk_axis(work)
    most = [machine.registers] * len(rows)
    if len(rows) == 2:
        most[0] = outer_rows(work, rows[0], _MOST_OUTER_ROWS)
    decisions = [Decision(tile_name(s.name), sizes(s, m)) for s, m in zip(rows, most, strict=True)]
    parts: list[Part] = [*work.groups, *(Hole(Split(s.name, 1), tile_name(s.name)) for s in rows)]
    decisions.append(Decision("columns", vectors_of(vector, machine, range(1, _MOST_VECTORS + 1), short=False)))
    parts.append(Hole(Split(vector.name, 1), "columns"))
    if work.main[1].constant:
        parts.append(Hole(Pack(1, 1), "columns"))
    if inner is not None:
        decisions.append(Decision("chunk", tuple(quads * c for c in chunk_sizes(_steps_along(work)))))
        tensorise: Step = Tensorise(inner.name, "dot4" if quads > 1 else "fma")
        parts += [Hole(Split(inner.name, 1), "chunk"), tensorise, *_block_of(work)]
    parts += [Clip(reach.tap) for reach in work.reaches if not work.short_sums]
    parts += prefetch_of(work, machine)
    orders = _orders(work)
    decisions.append(Decision("order", tuple(range(len(orders)))))
    decisions.append(Decision("parallel", tuple(range(len(work.domain) + 1))))
    parts.append(Nest(orders, "order", "parallel"))
    return Sketch("product", tuple(parts), tuple(decisions))


def _orders(work: Workload) -> tuple[tuple[str, ...], ...]:
    """The vector axis outermost, then ever further in; and what else moves the second read, as groups do, before all.

    Of eight 3x3, 8 groups of 64 channels on 14 x 14, each with 1.2 MB of weights that every tile of rows read again:
    5.0 to 4.5 ms; RegNet-Y, of which they are a part, 1.03 to 1.05 times as fast.
    """
    outer, vector = [s.name for s in work.domain[:-1]], work.vector.name
    moved = [s.name for s in work.domain[:-1] if work.main[1].moves(s.name)]
    still = [name for name in outer if name not in moved]
    grouped = [(*moved, *order) for order in orders_of(still, vector)] if moved else []
    return tuple(dict.fromkeys((*orders_of(outer, vector), *grouped)))


def _block_of(work: Workload) -> list[Part]:
    blocks = blocks_of(work)
    return [] if blocks is None else [Block(blocks.axis, blocks.size)]


def prefetch_of(work: Workload, machine: CpuMachine) -> list[Part]:
    """The step that asks for the next panel of a matrix of weights, or for weights of a window, where that pays."""
    rows, second = row_axes(work), work.main[1]
    if len(work.reduction) != 1:
        return [Prefetch(1)] if second.constant and weight_bytes(work) > machine.l2_bytes else []
    if not second.constant:
        return [Prefetch(1)] if _columns_are_far(work, machine) else []
    matrix_bytes = work.vector.extent * work.reduction[0].extent * second.bytes
    uses = -(-math.prod(s.extent for s in rows) // _USUAL_ROWS) if rows else 0
    if len(rows) > 1 and uses >= LEAST_USES:
        return [Prefetch(1)] if uses <= _MOST_USES_OF_PIXELS else []
    return [Prefetch(1)] if prefetch_pays(uses, _USUAL_VECTORS * machine.lanes, matrix_bytes, machine) else []


def _columns_are_far(work: Workload, machine: CpuMachine) -> bool:
    """Whether tiles read columns of a matrix that stays in no near cache, so little of each row that nothing else
    fetches it ahead: neighbours along the reduction are on other pages."""
    second, inner = work.main[1], work.reduction[0]
    static = not any(span.dynamic for span in (work.vector, inner))
    even = second.contiguous(work.vector.name) and not second.contiguous(inner.name)
    far = dict(second.apart).get(inner.name, 0) >= ALIASING_BYTES
    size = work.vector.extent * inner.extent * second.bytes
    return static and even and far and not work.groups and not second.bent and size * 4 >= machine.l2_bytes


def _accumulators(work: Workload, machine: CpuMachine, values: Values) -> tuple[Integers, Integers]:
    vectors = -(-values["columns"] // machine.lanes)
    rows = np.ones_like(vectors)
    for span in row_axes(work):
        rows = rows * values[tile_name(span.name)]
    return rows * vectors, vectors


def product_legal(work: Workload, machine: CpuMachine, values: Values) -> Flags:
    """Accumulators, one vector of the panel each and a broadcast fit the registers; the emitted code is small."""
    held, vectors = _accumulators(work, machine, values)
    fits = held + vectors + 1 <= machine.registers
    if "chunk" in values:
        steps = values["chunk"] // quads_of(work)
        fits &= (held * steps <= MULTIPLY_ADDS_EMITTED) | (steps == 1)
        fits &= ~leaves_two_trips(steps, _steps_along(work))
        fits &= ~_hoisted(work, values, steps) | (held // vectors * steps <= machine.registers)
        fits &= _runs_in_blocks(work, steps) | (held == vectors)
        early = (steps <= _FEW_STEPS) & _square(work, values)
        fits &= ~early | (held + 2 * vectors + 1 <= machine.registers)
    return np.asarray(fits, np.bool_)


def _runs_in_blocks(work: Workload, steps: Integers) -> Flags:
    """Whether tiles of several rows spill nothing where their sums are in blocks."""
    blocks, inner = blocks_of(work), chunk_axis(work)
    if blocks is None or inner is None:
        return np.ones(len(steps), np.bool_)
    fits = steps <= _MOST_STEPS_IN_BLOCK
    if blocks.axis == inner.name and not inner.dynamic:
        whole = np.maximum(blocks.size // steps * steps, 1)
        two_left = (inner.extent % whole // steps == 2) & (steps >= _LEAST_OF_TWO)
        fits &= ~leaves_two_trips(steps, whole) & ~two_left
    return np.asarray(fits, np.bool_)


def leaves_two_trips(steps: Integers, extent: Integers | int) -> Flags:
    """Of a loop of two trips LLVM makes a flag, and then loads for many steps at once: 430 spills in 448 products."""
    return (2 * steps == extent) & (steps >= _LEAST_OF_TWO)


def _square(work: Workload, values: Values) -> Flags:
    """Tiles with several rows along both axes."""
    found = np.ones(len(values["columns"]), np.bool_)
    for span in row_axes(work):
        found &= values[tile_name(span.name)] > 1
    return found & (len(row_axes(work)) > 1)


def _hoisted(work: Workload, values: Values, steps: Integers) -> Flags:
    """Where rows are read before the loop over columns, because no loop over the reduction is left inside that.

    LLVM keeps each element that they read as a vector on the stack: 14 rows of 16 channels to 96 columns took 1.3 times
    as long as with the columns outside.
    """
    trips = {s.name: np.full(len(steps), s.extent) for s in work.domain}
    trips |= {s.name: -(-s.extent // values[tile_name(s.name)]) for s in row_axes(work)}
    vector, outer = work.vector, [s.name for s in work.domain[:-1]]
    found = np.zeros(len(steps), np.bool_)
    for index, axes in enumerate(orders_of(outer, vector.name)):
        inside = values["order"] == index
        for axis in axes[axes.index(vector.name) + 1 :]:
            inside = inside & (trips[axis] == 1)
        found |= inside
    whole = (steps >= _steps_along(work)) & (len(work.reduction) == 1)
    return np.asarray(found & whole & (vector.extent > values["columns"]), np.bool_)


def product_features(work: Workload, machine: CpuMachine, sketch: Sketch, values: Values) -> Features:
    """The features of a batch."""
    tiles = {s.name: values[tile_name(s.name)] for s in row_axes(work)} | {work.vector.name: values["columns"]}
    inner = chunk_axis(work)
    if inner is not None:
        tiles[inner.name] = values["chunk"]
    found = nest_features(work, machine, LoopNest.of(sketch, values, tiles, quads_of(work)))
    blocks = blocks_of(work)
    if blocks is not None:
        held, _ = _accumulators(work, machine, values)
        found["others"] = found["others"] + found["tiles"] * held * blocks.count * _OPERATIONS_A_SUM
    return found


def product_start(work: Workload, machine: CpuMachine) -> dict[str, int]:
    """One row, one vector, sixteen steps or eight: legal for every product."""
    steps = 8 if _steps_along(work) == 32 else 16
    return {"columns": machine.lanes, "chunk": min(steps, MULTIPLY_ADDS_EMITTED) * quads_of(work)}


def _blocks(sketch: Sketch) -> tuple[tuple[str, ...], ...]:
    tiles = tuple(d.name for d in sketch.decisions if d.name.startswith("tile") or d.name == "columns")
    rest = tuple(d.name for d in sketch.decisions if d.name not in tiles)
    # Of few columns, a last tile that is smaller pays with other chunks than one that is not.
    return tiles, rest, ("columns", *rest)


PRODUCT = Rule("product", product_sketch, product_legal, product_features, product_start, _blocks)
