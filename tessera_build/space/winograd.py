"""Winograd's convolution as a schedule: where it is possible, and where it is faster than the direct sum of products.

Takes a sum of products, its domain and a machine; gives a `Schedule` with a `Rewrite` step, or none. Invariant: what
is looked at is how indices move with axes; that the node once was called a convolution is nowhere known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent, symbol, symbols_of
from tessera_build.ir.core.scalar import Array
from tessera_build.ir.core.types import F32
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.nodes import Axis, Compute
from tessera_build.ir.schedule.trace import Bind, Pack, Rewrite, Schedule, Split, Tensorise
from tessera_build.space.contraction import is_product, known
from tessera_build.space.toom_cook import TAPS, TILES, ToomCook
from tessera_build.space.winograd_error import transform_error

# What a strip's transforms may take of the stack of the thread that computes it.
STRIP_BYTES = 224 << 10
# Multiply-adds that one emitted contraction has: they compile in 0.1 s and stay in the cache of decoded instructions.
_MULTIPLY_ADDS_EMITTED = 448
# Tiles beyond which a strip's products use the weights often enough, and strips that several threads can share.
_ENOUGH_TILES, _ENOUGH_STRIPS = 28, 8
# Share of the multiply-add rate that direct convolutions and products of the strips reach (measured, AVX-512).
_REACHED = 0.88
# What one core draws from memory a cycle where weights are in no cache, and from the last-level cache.
_MEMORY_BYTES, _CACHE_BYTES = 8.0, 16.0
_FLOAT_BYTES = 4
# Rows a multiple of 1 KiB apart share few cache sets.
_ALIASING = 256
# What another algorithm, and every step to larger tiles, must gain: weights grow by (tile + 2)^2 / 9.
_GAIN = 1.1


@dataclass(frozen=True, slots=True)
class Window:
    """Two reduction axes of three taps that move along two output axes, and the one over what all taps have.

    `weight` says which axis of the second read is moved by the row taps, the column taps, the channels, the outputs.
    """

    rows: str
    columns: str
    taps: tuple[str, str]
    channels: Axis
    weight: tuple[int, int, int, int]


def window_of(node: Compute) -> Window | None:
    """The window of a sum of products of f32 that Winograd's transforms apply to, if it has one."""
    if not is_product(node) or set(node.program.inputs) != {F32} or len(node.reduction) != TAPS:
        return None
    *taps, channels = node.reduction
    if any(axis.extent != TAPS for axis in taps) or node.accesses[0].pad not in (None, 0.0):
        return None
    walked = [_walked_with(node, axis) for axis in taps]
    weight = _places(node, (taps[0].name, taps[1].name, channels.name, node.axes[-1].name))
    rows, columns = walked
    if rows is None or columns is None or rows == columns or weight is None or not _reads_channels(node):
        return None
    return Window(rows, columns, (taps[0].name, taps[1].name), channels, weight)


def _walked_with(node: Compute, tap: Axis) -> str | None:
    """The output axis that one index of the first read adds to a tap, both with steps of one."""
    moved = [index for index in node.accesses[0].indices if tap.name in symbols_of(index)]
    for axis in node.axes[:-1] if len(moved) == 1 else ():
        together = moved[0] - symbol(tap.name) - symbol(axis.name)
        alone = [i for i in node.accesses[0].indices if axis.name in symbols_of(i)] == moved
        if isinstance(together, int) and alone:
            return axis.name
    return None


def _reads_channels(node: Compute) -> bool:
    """Whether the first read has the channels side by side, and nothing else of it moves with them or the outputs."""
    *outer, last = node.accesses[0].indices
    used = {name for index in outer for name in symbols_of(index)}
    return last == symbol(node.reduction[-1].name) and not used & {node.reduction[-1].name, node.axes[-1].name}


def _places(node: Compute, names: tuple[str, str, str, str]) -> tuple[int, int, int, int] | None:
    """Where the second read has these axes, each alone and nothing besides."""
    indices: tuple[Extent, ...] = node.accesses[1].indices
    wanted: list[Extent] = [symbol(name) for name in names]
    if node.accesses[1].pad is not None or len(indices) != len(names) or any(w not in indices for w in wanted):
        return None
    rows, columns, channels, outputs = (indices.index(w) for w in wanted)
    return rows, columns, channels, outputs


@dataclass(frozen=True, slots=True)
class Sizes:
    """Extents of a convolution, as far as they are known: images, outputs along both axes, channels in and out."""

    images: int
    rows: int
    columns: int
    channels: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to compute it: tiles of `tile` outputs, strips of `rows` by `columns` tiles, register tiles."""

    tile: int
    rows: int
    columns: int
    block: int
    vectors: int


def winograd_schedule(
    definitions: Sequence[Compute], constants: Mapping[int, Array], machine: CpuMachine, max_error: float
) -> Schedule | None:
    """The schedule that rewrites a task's sum of products; None where that is impossible, slower or not exact enough.

    `max_error` bounds the error of the outputs relative to their deviation, for these weights; 0 allows none.
    """
    sums = [node for node in definitions if node.combine != "none"]
    window = window_of(sums[0]) if len(sums) == 1 and max_error > 0 else None
    if window is None or sums[0].reads[1] not in constants:
        return None
    sizes = _sizes(sums[0], window)
    weights = constants[sums[0].reads[1]]
    best, chosen = direct_cycles(sizes, machine), None
    for tile in TILES:
        plan = _plan(sizes, tile, machine)
        cost = cycles(sizes, plan, machine) * _GAIN if plan else math.inf
        if plan and cost < best and transform_error(weights, window.weight, tile) <= max_error:
            best, chosen = cost / _GAIN, plan
    return _schedule(sums[0], window, chosen, sizes, machine) if chosen else None


def _sizes(node: Compute, window: Window) -> Sizes:
    extents = {axis.name: known(axis.extent) for axis in (*node.axes, *node.reduction)}
    rows, columns, outputs = (extents[a] for a in (window.rows, window.columns, node.axes[-1].name))
    images = math.prod(extents[axis.name] for axis in node.axes) // (rows * columns * outputs)
    return Sizes(images, rows, columns, extents[window.channels.name], outputs)


def _schedule(node: Compute, window: Window, plan: Plan, sizes: Sizes, machine: CpuMachine) -> Schedule:
    vector, width = node.axes[-1].name, plan.vectors * machine.lanes
    chunk = max(1, min(sizes.channels, _MULTIPLY_ADDS_EMITTED // (plan.block * plan.vectors)))
    return Schedule(
        (
            Rewrite(plan.tile, plan.block),
            Split(window.rows, plan.rows * plan.tile),
            Split(window.columns, plan.columns * plan.tile),
            Split(vector, width),
            Pack(1, width),
            Split(window.channels.name, chunk),
            Tensorise(window.channels.name),
            *(Bind(axis.name, "parallel") for axis in node.axes[:-1]),
        )
    )


def _plan(sizes: Sizes, tile: int, machine: CpuMachine) -> Plan | None:
    """Strips that fit the stack, of whole rows of tiles where they are short enough; None where not one tile fits."""
    down, along = -(-sizes.rows // tile), -(-sizes.columns // tile)
    vectors = max(1, min(2, -(-sizes.outputs // machine.lanes)))
    size = ToomCook(tile).size
    room = STRIP_BYTES - size * size * machine.lanes * _FLOAT_BYTES
    one = size * size * (pitch(sizes.channels, machine.lanes) + machine.lanes * vectors) * _FLOAT_BYTES
    most = min(_ENOUGH_TILES, room // one)
    if most < 1:
        return None
    columns = -(-along // -(-along // most))
    strips = sizes.images * -(-along // columns)
    rows = max(
        (r for r in range(1, down + 1) if r * columns <= most and -(-down // r) * strips >= _ENOUGH_STRIPS), default=1
    )
    return Plan(tile, rows, columns, _block(rows * columns, vectors, machine), vectors)


def _block(tiles: int, vectors: int, machine: CpuMachine) -> int:
    """Tiles in a register tile: as many as the registers hold, or fewer that leave less of the last one unused."""

    def cost(block: int) -> float:
        step = max(
            block * vectors / machine.multiply_adds_per_cycle,
            (block + vectors) / machine.loads_per_cycle,
            machine.multiply_add_latency,
        )
        return -(-tiles // block) * (step + 0.5 * vectors)

    most = max(1, min(tiles, (machine.registers - 1) // vectors - 1))
    return min(range(most, 0, -1), key=cost)


def pitch(channels: int, lanes: int) -> int:
    """Floats from one tile's channels to the next's: whole registers, one more where rows would share cache sets."""
    whole = -(-channels // lanes) * lanes
    return whole + lanes if whole % _ALIASING == 0 else whole


def direct_cycles(sizes: Sizes, machine: CpuMachine) -> float:
    """Cycles of the sum of products as it stands, its weights read once from memory."""
    registers = TAPS * TAPS * sizes.channels * -(-sizes.outputs // machine.lanes)
    products = sizes.images * sizes.rows * sizes.columns * registers / machine.multiply_adds_per_cycle
    weights = TAPS * TAPS * sizes.channels * sizes.outputs * _FLOAT_BYTES
    return products / _REACHED + weights / _MEMORY_BYTES


def cycles(sizes: Sizes, plan: Plan, machine: CpuMachine) -> float:
    """Cycles with transforms: products at the points, both transforms, weights from memory once and cache again."""
    down, along = -(-sizes.rows // plan.tile), -(-sizes.columns // plan.tile)
    size, count = ToomCook(plan.tile).size, sizes.images * down * along
    inputs, outputs = (-(-extent // machine.lanes) for extent in (sizes.channels, sizes.outputs))
    strips = sizes.images * -(-down // plan.rows) * -(-along // plan.columns)
    held = plan.rows * plan.columns
    used = count * (-(-held // plan.block) * plan.block / held)
    products = used * size * size * sizes.channels * outputs / machine.multiply_adds_per_cycle
    # One pass over a column: as many loads and stores as points, twice that many operations for tiles of 4.
    column = (2 + plan.tile // 2) * size
    maps = count * column * (inputs * 2 * size + outputs * (size + plan.tile)) / machine.loads_per_cycle
    weights = size * size * sizes.channels * sizes.outputs * _FLOAT_BYTES
    again = (strips - 1) * weights if weights > machine.l2_bytes // 2 else 0
    # Beside the products the core waits for about half of what the cache sends: the rest comes ahead of its use.
    return products / _REACHED + maps + weights / _MEMORY_BYTES + again / _CACHE_BYTES / 2
