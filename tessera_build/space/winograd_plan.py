"""What Winograd's convolution costs in strips of a size, and the cheapest size that the scratch allows.

Takes extents of a convolution and a machine; gives a `Plan` and cycles, beside those of the direct sum. Invariant: a
strip's scratch stays below `most_scratch`, whatever the sizes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.space.toom_cook import TAPS, ToomCook

# Scratch lies on the stack of the thread that computes a strip: of a kernel at most, and of one that is derived.
STACK_BYTES: Final = 512 << 10
_STRIP_BYTES: Final = 320 << 10
# Tiles of a strip beyond which nothing is gained: each value of the weights is then used as often by one thread.
_ENOUGH_TILES: Final = 28
# Share of the multiply-add rate that direct convolutions and products of strips reach (measured with AVX-512).
_REACHED: Final = 0.88
# What one core draws a cycle from memory, where weights are in no cache, and from the last-level cache.
_MEMORY_BYTES, _CACHE_BYTES = 8.0, 16.0
_FLOAT_BYTES: Final = 4
# Rows a multiple of 1 KiB apart share few cache sets.
_ALIASING: Final = 256
# Workers that are counted on: of more, some wait.
_WORKERS: Final = 8


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
    """One way to compute it: tiles of `tile` outputs, strips of `rows` by `columns` tiles, register tiles.

    `panels` of output channels make a group, which transforms the inputs for itself; 0: all of them.
    """

    tile: int
    rows: int
    columns: int
    block: int
    vectors: int
    panels: int = 0


def pitch(channels: int, lanes: int) -> int:
    """Floats from one tile's channels to the next's: whole registers, one more where rows would share cache sets."""
    whole = -(-channels // lanes) * lanes
    return whole + lanes if whole % _ALIASING == 0 else whole


def scratch_bytes(plan: Plan, channels: int, lanes: int) -> int:
    """What a strip keeps: its inputs and one panel of its sums at all points, and a square of registers."""
    size = ToomCook(plan.tile).size
    row = plan.rows * plan.columns * (pitch(channels, lanes) + plan.vectors * lanes) + lanes
    return size * size * row * _FLOAT_BYTES


def most_scratch(machine: CpuMachine) -> int:
    """Scratch that is left in the second-level cache beside a panel of weights."""
    return min(_STRIP_BYTES, machine.l2_bytes * 3 // 4)


def cheapest_plan(sizes: Sizes, tile: int, machine: CpuMachine) -> tuple[float, Plan] | None:
    """Cycles and plan for tiles of this extent; None where the scratch does not hold one."""
    found = [(cycles(sizes, plan, machine), plan) for plan in _plans(sizes, tile, machine)]
    return min(found, key=lambda entry: entry[0], default=None)


def _plans(sizes: Sizes, tile: int, machine: CpuMachine) -> Iterator[Plan]:
    """Strips of one or more rows of tiles, each cut into as few equal pieces as the scratch asks for."""
    down, along = -(-sizes.rows // tile), -(-sizes.columns // tile)
    registers = max(1, -(-sizes.outputs // machine.lanes))
    for vectors in range(min(2, registers), min(4, registers) + 1):  # with one, loads are as many as multiply-adds
        most = _most_tiles(Plan(tile, 1, 1, 1, vectors), sizes, machine)
        if most < 1:
            continue
        columns = -(-along // -(-along // most))
        for rows in range(1, min(down, most // columns) + 1):
            block = _block(_strips(sizes, tile, rows, columns), vectors, machine)
            for panels in _group_sizes(sizes, vectors, machine):
                yield Plan(tile, rows, columns, block, vectors, panels)


def _panels(sizes: Sizes, vectors: int, machine: CpuMachine) -> int:
    return -(-sizes.outputs // (vectors * machine.lanes))


def _group_sizes(sizes: Sizes, vectors: int, machine: CpuMachine) -> list[int]:
    """All panels (0), or equal groups of them."""
    panels = _panels(sizes, vectors, machine)
    return [0, *(size for size in range(1, panels) if panels % size == 0)]


def _most_tiles(one: Plan, sizes: Sizes, machine: CpuMachine) -> int:
    fixed = scratch_bytes(Plan(one.tile, 0, 0, 1, one.vectors), sizes.channels, machine.lanes)
    each = scratch_bytes(one, sizes.channels, machine.lanes) - fixed
    return min(_ENOUGH_TILES, (most_scratch(machine) - fixed) // each)


def _block(strips: Counter[int], vectors: int, machine: CpuMachine) -> int:
    """Tiles in a register tile: as many as the registers hold, or fewer that leave less of the last one unused."""
    most = max(1, min(max(strips), (machine.registers - 1) // vectors - 1))
    return min(range(most, 0, -1), key=lambda block: _blocks(strips, block) * _step(block, vectors, machine))


def _blocks(strips: Counter[int], block: int) -> int:
    return sum(-(-tiles // block) * count for tiles, count in strips.items())


def _strips(sizes: Sizes, tile: int, rows: int, columns: int) -> Counter[int]:
    """How many strips of one image have so many tiles."""
    down, along = -(-sizes.rows // tile), -(-sizes.columns // tile)
    found = Counter[int]()
    for height, above in ((rows, down // rows), (down % rows, 1)):
        for width, before in ((columns, along // columns), (along % columns, 1)):
            if height * width:
                found[height * width] += above * before
    return found


def _step(block: int, vectors: int, machine: CpuMachine) -> float:
    """Cycles of one channel in one register tile; a panel of weights comes from the second-level cache."""
    slowest = max(
        block * vectors / machine.multiply_adds_per_cycle,
        (block + vectors) / machine.loads_per_cycle,
        machine.multiply_add_latency,
    )
    return slowest + 0.5 * vectors


def direct_cycles(sizes: Sizes, machine: CpuMachine) -> float:
    """Cycles of the sum of products as it stands, its weights read once from memory."""
    registers = TAPS * TAPS * sizes.channels * -(-sizes.outputs // machine.lanes)
    products = sizes.images * sizes.rows * sizes.columns * registers / machine.multiply_adds_per_cycle
    weights = TAPS * TAPS * sizes.channels * sizes.outputs * _FLOAT_BYTES
    return products / _REACHED + weights / _MEMORY_BYTES


def cycles(sizes: Sizes, plan: Plan, machine: CpuMachine) -> float:
    """Cycles with transforms, with a share of what the workers of several would wait for the last strip."""
    each = _strips(sizes, plan.tile, plan.rows, plan.columns)
    tiles, strips = sum(t * n for t, n in each.items()), sizes.images * each.total()
    calls = strips * _groups(sizes, plan, machine)
    idle = -(-calls // _WORKERS) * _WORKERS / calls - 1
    core = sizes.images * (_products(sizes, plan, each, machine) + _maps(sizes, plan, tiles, machine))
    return (core + _weights(sizes, plan, strips, machine)) * (1 + machine.costs.idle * idle)


def _groups(sizes: Sizes, plan: Plan, machine: CpuMachine) -> int:
    return _panels(sizes, plan.vectors, machine) // plan.panels if plan.panels else 1


def _products(sizes: Sizes, plan: Plan, strips: Counter[int], machine: CpuMachine) -> float:
    """The products at the points: blocks beyond a strip's tiles are computed in vain."""
    panels = _panels(sizes, plan.vectors, machine)
    steps = ToomCook(plan.tile).size ** 2 * _blocks(strips, plan.block) * panels * sizes.channels
    return steps * _step(plan.block, plan.vectors, machine)


def _maps(sizes: Sizes, plan: Plan, tiles: int, machine: CpuMachine) -> float:
    """Both transforms. One pass over a column: as many loads and stores as points, and half `tile` times as many sums.

    Outputs are transformed for all registers of a panel, those beyond the last output too.
    """
    size, lanes = ToomCook(plan.tile).size, machine.lanes
    column = (2 + plan.tile // 2) * size
    outputs = _panels(sizes, plan.vectors, machine) * plan.vectors
    inputs = -(-sizes.channels // lanes) * _groups(sizes, plan, machine)
    passes = inputs * 2 * size + outputs * (size + plan.tile)
    return tiles * column * passes / machine.loads_per_cycle


def _weights(sizes: Sizes, plan: Plan, strips: int, machine: CpuMachine) -> float:
    """Weights at the points: from memory once; for every further strip from the cache that holds them.

    Beside the products a core waits for half of what the last-level cache sends: the rest comes ahead of its use.
    """
    size = ToomCook(plan.tile).size
    total = size * size * sizes.channels * sizes.outputs * _FLOAT_BYTES
    again = (strips - 1) * total if total > machine.l2_bytes // 2 else 0
    return total / _MEMORY_BYTES + again / _CACHE_BYTES / 2
