"""The rule for Winograd's transforms: sums at points in place of sums over taps, a strip of tiles at a time.

Condition: the workload allows the rewriting (`space.winograd` says to what it applies and which tiles are exact
enough). Decisions: the extent of a tile, rows and columns of tiles in a strip, tiles and vectors in a register tile of
the products, steps of the channels that are emitted, panels of outputs in a group. Invariant: a legal vector keeps its
accumulators in registers and a strip's scratch memory in the second-level cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.trace import Bind, Clip, Pack, Prefetch, Rewrite, Split, Tensorise
from tessera_build.space.features import complete, idle_share
from tessera_build.space.nest import Floats, Integers, full_bytes, weight_bytes
from tessera_build.space.rules.product import MULTIPLY_ADDS_EMITTED, chunk_sizes, leaves_two_trips
from tessera_build.space.rules.rule import Features, Flags, Rule
from tessera_build.space.sketch import Decision, Filled, Hole, Option, Part, Sketch, Values
from tessera_build.space.winograd import WINOGRAD
from tessera_build.space.winograd_plan import most_scratch, points_pitch
from tessera_build.space.workload import Reach, Workload

Number = TypeVar("Number", int, Integers)
_FLOAT_BYTES = 4
# Tiles of a strip beyond which nothing is gained: each value of the weights is then used as often by one thread.
_ENOUGH_TILES = 28
_MOST_VECTORS = 4
# What one core draws a cycle from memory: products wait for weights that take longer than they do.
_MEMORY_BYTES = 8.0
# The share of weights' bytes, brought in again for another strip, that products wait for: the others are asked for in
# time. On a Zen 4 by the cost with all of them, with these, and measured: 256 to 256 on 14 x 14 1.07, 1.00 and 0.92 ms,
# 512 to 512 on 7 x 7 1.77, 1.66 and 1.53, in steps of two 128 to 128 onto 28 x 28 2.00, 1.80 and 1.67; a tenth has the
# first in strips of 4 tiles, which take 1.04 ms.
_AWAITED = 0.25
# Workers that are counted on: strips are large, and of eight threads some would find none.
_WORKERS = 8.0
# What another algorithm must gain: its error is larger, and its weights are. Along one axis the transforms are a larger
# part, and machines that multiply and add twice as fast do not transform faster. Over 18 layers of 32 to 256 channels
# on a Zen 4, real gains were 0.83 to 1.13 of what the cost promises; where that was 1.31, a model of 4 rows lost 9 %,
# where it was 1.44 and more, four others gained 1 to 8 %.
_MARGIN, _MARGIN_OF_ONE = 1.1, 1.4


@dataclass(frozen=True, slots=True)
class Taps:
    """A workload's extents by what they are for: images, rows, columns, channels, outputs; the axes of some.

    `taps`: along rows and along columns; a tile has one output along an axis with one tap; `strides`: how many inputs
    apart outputs are. `beside`: whether strips may
    have several tiles along such an axis; of a dynamic one, often a batch, it is not known whether there are any.
    `kept`: how many taps there are along further axes, whose channels are summed at the points; `outer`: along the
    first of these, and how far they reach into padding.
    """

    images: int
    rows: int
    columns: int
    channels: int
    outputs: int
    axes: tuple[str, str, str]
    tiles: tuple[int, ...]
    taps: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    beside: bool = True
    kept: int = 1
    outer: int = 1
    reach: Reach | None = None

    @property
    def summed(self) -> int:
        """How many products are added up at a point."""
        return self.channels * self.kept

    @classmethod
    def of(cls, work: Workload) -> Taps | None:
        """Those of a workload that may be rewritten."""
        found = work.rewriting(WINOGRAD)
        if found is None:
            return None
        (rows, columns), (above, before), apart = found.axes, found.taps, found.apart
        extents, channels = work.extents, work.reduction[-1]
        down, along = (extents[rows], extents[columns]) if apart == 1 else (apart, -(-extents[columns] // apart))
        beside = extents[rows] if apart == 1 else 1
        images = work.points // max(1, beside * extents[columns] * work.vector.extent)
        numbers = (images, down, along, channels.extent, work.vector.extent)
        dynamic = {span.name for span in work.domain if span.dynamic}
        known = not any(taps == 1 and axis in dynamic for axis, taps in ((rows, above), (columns, before)))
        kept = [extents[name] for name in found.kept] or [1]
        reach = next((reach for reach in work.reaches if reach.tap in found.kept[:1]), None)
        axes = (rows, columns, channels.name)
        across, wide = found.strides
        shape = found.sizes, (above, before), (across, wide)
        return cls(*numbers, axes, *shape, known, math.prod(kept), kept[0], reach)

    def tiles_along(self, side: int) -> tuple[int, ...]:
        """How many tiles there are along rows (0) or columns, for each extent of a tile; as strips see it."""
        if self.taps[side] == 1 and not self.beside:
            return (1,)
        extent = (self.rows, self.columns)[side]
        return tuple(-(-extent // self.outputs_of(tile)[side]) for tile in self.tiles)

    def outputs_of(self, tile: Number) -> tuple[Number, Number]:
        """Rows and columns of a tile's outputs."""
        rows, columns = (tile if taps > 1 else tile * 0 + 1 for taps in self.taps)
        return rows, columns

    def points_of(self, tile: Number) -> tuple[Number, Number]:
        """Rows and columns of the points that a tile's inputs are taken to."""
        along = zip(self.outputs_of(tile), self.taps, self.strides, strict=True)
        rows, columns = (stride * (size - 1) + taps for size, taps, stride in along)
        return rows, columns

    def inside(self, values: Values) -> Floats:
        """The share of what is summed that is not padding for all of a strip."""
        sizes = {
            name: values[word] * size
            for name, word, size in zip(self.axes, ("rows", "strip"), self.outputs_of(values["tile"]), strict=False)
        }
        reach, count = self.reach, len(values["tile"])
        if reach is None:
            return np.ones(count)
        return np.asarray([reach.share(int(size)) for size in sizes.get(reach.axis, np.ones(count, np.int64))])

    @property
    def twice(self) -> bool:
        """Whether there are taps along both axes."""
        return min(self.taps) > 1


def winograd_sketch(work: Workload, machine: CpuMachine) -> Sketch | None:
    """The sketch for taps along two axes."""
    taps = Taps.of(work)
    return _sketch(work, machine, taps) if taps is not None and taps.twice else None


def winograd_sketch_of_one(work: Workload, machine: CpuMachine) -> Sketch | None:
    """The sketch for taps along one axis."""
    taps = Taps.of(work)
    return _sketch(work, machine, taps) if taps is not None and not taps.twice else None


def _sketch(work: Workload, machine: CpuMachine, taps: Taps) -> Sketch | None:
    """Where a policy allows some tile, and scratch memory holds one."""
    if _scratch_bytes(taps, machine, taps.tiles[0], 1, 2 * machine.lanes) > most_scratch(machine):
        return None
    rows, columns, channels = taps.axes
    registers = max(1, -(-taps.outputs // machine.lanes))
    # With one vector, loads are as many as multiply-adds.
    vectors = range(min(2, registers), min(_MOST_VECTORS, registers) + 1)
    decisions = (
        Decision("tile", taps.tiles),
        Decision("rows", _shares(taps.tiles_along(0))),
        Decision("strip", _shares(taps.tiles_along(1))),
        Decision("columns", tuple(count * machine.lanes for count in vectors)),
        Decision("block", tuple(range(1, machine.registers))),
        Decision("chunk", chunk_sizes(taps.channels)),
        Decision("panels", (0, *range(1, -(-registers // vectors[0]) // 2 + 1))),
    )
    vector = work.vector.name
    parts: tuple[Part, ...] = (
        Filled(Rewrite(1, 1), (("tile", ("tile",)), ("block", ("block",)), ("panels", ("panels",)))),
        Filled(Split(rows, 1), (("factor", ("rows", "tile")[: 1 + (taps.taps[0] > 1)]),)),
        Filled(Split(columns, 1), (("factor", ("strip", "tile")[: 1 + (taps.taps[1] > 1)]),)),
        Hole(Split(vector, 1), "columns"),
        Hole(Pack(1, 1), "columns"),
        Hole(Split(channels, 1), "chunk"),
        Tensorise(channels),
        *((Clip(taps.reach.tap),) if taps.reach else ()),
        *((Prefetch(1),) if _are_far(work, taps, machine) else ()),
        *(Bind(span.name, "parallel") for span in work.domain[:-1]),
        Option("panels", 0, (), (Bind(vector, "parallel"),)),
    )
    return Sketch(WINOGRAD, parts, decisions)


def _shares(counts: Sequence[int]) -> tuple[int, ...]:
    """Tiles of a piece where so many are cut into pieces that are as even as can be; at most what a strip has."""
    found = {-(-count // pieces) for count in counts for pieces in range(1, count + 1)}
    return tuple(sorted(size for size in found if size <= _ENOUGH_TILES))


# -- strips, for a batch ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Strips:
    """Counts of one image, one number a candidate.

    `sizes`: per kind of strip (whole, and those at the ends of rows and columns), tiles of one and how many there are.
    """

    tiles: Integers
    count: Integers
    sizes: tuple[tuple[Integers, Integers], ...]

    @classmethod
    def of(cls, taps: Taps, values: Values) -> _Strips:
        """The strips of every candidate."""
        (height, width), rows, columns = taps.outputs_of(values["tile"]), values["rows"], values["strip"]
        down, along = -(-taps.rows // height), -(-taps.columns // width)
        sizes = tuple(
            (deep * wide, above * before)
            for deep, above in ((rows, down // rows), (down % rows, np.minimum(1, down % rows)))
            for wide, before in ((columns, along // columns), (along % columns, np.minimum(1, along % columns)))
        )
        return cls(down * along, (-(-down // rows)) * (-(-along // columns)), sizes)

    def blocks(self, block: Integers) -> Floats:
        """Register tiles of a panel at one point: those beyond a strip's tiles are computed in vain."""
        total = np.zeros(len(block))
        for tiles, count in self.sizes:
            total = total + -(-tiles // block) * count
        return total


def _panels(taps: Taps, values: Values) -> Integers:
    return -(-taps.outputs // values["columns"])


def winograd_legal(work: Workload, machine: CpuMachine, values: Values) -> Flags:
    """Registers and scratch memory suffice, blocks fit into strips, groups are even, the emitted code is small."""
    taps = _known(work)
    tile, block, columns = values["tile"], values["block"], values["columns"]
    strip, vectors, panels = values["rows"] * values["strip"], columns // machine.lanes, _panels(taps, values)
    fits = _scratch_bytes(taps, machine, tile, strip, columns) <= most_scratch(machine)
    fits &= (strip <= _ENOUGH_TILES) & (block <= strip) & ((block + 1) * vectors < machine.registers)
    height, width = taps.outputs_of(tile)
    fits &= (values["rows"] <= -(-taps.rows // height)) & (values["strip"] <= -(-taps.columns // width))
    fits &= (block * vectors * values["chunk"] <= MULTIPLY_ADDS_EMITTED) | (values["chunk"] == 1)
    fits &= ~leaves_two_trips(values["chunk"], taps.summed // (taps.outer if taps.reach else 1))
    group = values["panels"]
    return np.asarray(fits & ((group == 0) | ((group < panels) & (panels % np.maximum(1, group) == 0))), np.bool_)


def _scratch_bytes(taps: Taps, machine: CpuMachine, tile: Number, strip: Number, columns: Number) -> Number:
    """What a strip of so many tiles keeps, as `winograd_plan.scratch_bytes` says of one candidate."""
    row = strip * (points_pitch(taps.channels, taps.kept, machine.lanes) + columns) + machine.lanes * taps.twice
    rows, wide = taps.points_of(tile)
    return rows * wide * row * _FLOAT_BYTES


def _known(work: Workload) -> Taps:
    taps = Taps.of(work)
    assert taps is not None, "the rule has a sketch"
    return taps


# -- features ---------------------------------------------------------------------------------------------------------


def winograd_features(work: Workload, machine: CpuMachine, _sketch: Sketch, values: Values) -> Features:
    """The features of a batch."""
    taps = _known(work)
    strips, panels, points = _Strips.of(taps, values), _panels(taps, values), math.prod(taps.points_of(values["tile"]))
    block, vectors = values["block"], values["columns"] // machine.lanes
    held = np.asarray(block * vectors, np.float64)
    tiles = taps.images * points * strips.blocks(block) * panels
    steps = tiles * taps.summed * taps.inside(values)
    slowest = np.maximum(held / machine.multiply_adds_per_cycle, (block + vectors) / machine.loads_per_cycle)
    moved = _moved(work, machine, strips, values, steps)
    products = np.maximum(
        steps * np.maximum(slowest, machine.multiply_add_latency), moved["weight_bytes"] / _MEMORY_BYTES
    )
    groups = np.where(values["panels"] > 0, panels / np.maximum(1, values["panels"]), 1.0)
    calls = np.asarray(taps.images * strips.count * groups, np.float64)
    outputs = math.prod(taps.outputs_of(values["tile"]))
    made = taps.images * strips.tiles * outputs * np.asarray(panels, np.float64)
    count = len(block)
    found: Features = {
        "flops": np.full(count, 2.0 * work.points * math.prod(s.extent for s in work.reduction)),
        "multiply_adds": steps * held,
        "loads": steps * np.asarray(block + vectors, np.float64),
        "chained": np.where(held < machine.multiply_add_latency * machine.multiply_adds_per_cycle, steps, 0.0),
        "busy": products + _maps(taps, strips, machine, values) / machine.loads_per_cycle,
        "others": made * vectors * (work.operations + len(work.others)),
        "registers": held + vectors + 1,
        **moved,
        "tiles": tiles,
        "turns": steps / values["chunk"],
        "waste": made * values["columns"] / max(1, work.points) - 1.0,
        "calls": calls,
        "idle": idle_share(calls, _WORKERS),
        "code": held * values["chunk"],
    }
    return complete(found, count)


def _maps(taps: Taps, strips: _Strips, machine: CpuMachine, values: Values) -> Floats:
    """Instructions of both transforms. A pass over a column: loads and stores of all points, half `tile` times sums.

    There is a pass for every point of the other axis, of outputs for every row of them; none along an axis with one
    tap. Outputs are transformed for all registers of a panel, those beyond the last output too; inputs once a group.
    """
    tile, panels = values["tile"], _panels(taps, values)
    (rows, columns), (height, _) = taps.points_of(tile), taps.outputs_of(tile)
    down, along = (float(n > 1) for n in taps.taps)
    groups = np.where(values["panels"] > 0, panels // np.maximum(1, values["panels"]), 1)
    inputs = (
        taps.kept * taps.inside(values) * -(-taps.channels // machine.lanes) * groups * rows * columns * (down + along)
    )
    outputs = panels * (values["columns"] // machine.lanes) * columns * (rows * down + height * along)
    return np.asarray(taps.images * strips.tiles * (2 + tile // 2) * (inputs + outputs), np.float64)


def _moved(work: Workload, machine: CpuMachine, strips: _Strips, values: Values, steps: Floats) -> Features:
    """Bytes by level of cache: a panel of weights comes from the second one for every register tile.

    All weights come into that one again with every strip, where they are more than half of it.
    """
    taps = _known(work)
    weights, rest = _weights_at_points(work, taps, values["tile"]), full_bytes(work) - weight_bytes(work)
    again = np.where(weights * 2 > machine.l2_bytes, taps.images * strips.count - 1, 0)
    return {
        "l1_bytes": steps * (values["columns"] + values["block"]) * _FLOAT_BYTES,
        "l2_bytes": rest + weights * (1 + again * _AWAITED),
        "memory_bytes": rest + weights,
        "weight_bytes": weights,
    }


def _weights_at_points(work: Workload, taps: Taps, tile: Integers) -> Floats:
    """Bytes of the weights at the points of tiles."""
    rows, columns = taps.points_of(tile)
    return np.asarray(weight_bytes(work) * (rows * columns) / math.prod(taps.taps), np.float64)


def _are_far(work: Workload, taps: Taps, machine: CpuMachine) -> bool:
    """Whether weights at the points come from beyond the second level.

    Where they do not, asking costs: four 3x3 of 64 channels on 56 x 56, 0.6 MB of them each, take 3 to 8 % longer.
    """
    return float(_weights_at_points(work, taps, np.array(taps.tiles)).max()) > machine.l2_bytes


def winograd_start(_work: Workload, _machine: CpuMachine) -> dict[str, int]:
    """The smallest tile, alone in its strip; so few steps that any number of channels leaves more than two trips."""
    return {"chunk": 4}


def _blocks(_sketch: Sketch) -> tuple[tuple[str, ...], ...]:
    return ("tile", "rows", "strip", "columns", "block"), ("columns", "block", "panels"), ("chunk",)


WINOGRAD_RULE = Rule(
    WINOGRAD, winograd_sketch, winograd_legal, winograd_features, winograd_start, _blocks, margin=_MARGIN
)
WINOGRAD_OF_ONE = replace(
    WINOGRAD_RULE, name=f"{WINOGRAD} of one axis", sketch=winograd_sketch_of_one, margin=_MARGIN_OF_ONE
)
