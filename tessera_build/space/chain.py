"""Which contractions pay as one task: products at a pixel around a window that walks rows.

Takes a chain's definitions in running order, and a machine; gives the chain's extents, and what fusing saves. How it is
computed is a sketch (`rules/chain.py`). Invariant: only index maps and extents are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tessera_build.ir.core.dims import Extent, substitute, symbol, symbols_of
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.nodes import Axis, Compute
from tessera_build.space.contraction import is_product

ROWS: Final = "_d1"
"""The axis whose rows a chain makes one after the other: images are channels-last."""
COLUMNS: Final = "_d2"
BATCH: Final = "_d0"

# Scratch memory of a launch lies on a thread's stack, of which 8 MiB are usual: 3 rows of 114 x 96 f32 are 131 KB.
MOST_SCRATCH_BYTES: Final = 320 << 10
# What the second and the third level of cache deliver, in bytes a cycle (measured: 100 and 23 GB/s at 2.8 GHz).
_L2_BYTES, _L3_BYTES = 36.0, 8.0
# Rows that blocks may make a second time, as a share of all: blocks are what threads share out. 8 instead of 4 of them
# made 96 channels from 112 x 112 to 56 x 56 5 % slower on one thread.
MOST_TWICE: Final = 0.12
_MOST_BLOCKS = 4


@dataclass(frozen=True, slots=True)
class Walk:
    """How a window moves along one axis: it reads from `stride` * i - `low` on, `taps` elements `dilation` apart."""

    stride: int
    low: int
    dilation: int
    taps: int

    @property
    def reach(self) -> int:
        """Elements from the first to the last that one result reads."""
        return (self.taps - 1) * self.dilation + 1


@dataclass(frozen=True, slots=True)
class Shape:
    """A chain's static extents: rows and columns of the window's input and output, channels of it, its walks.

    `around`: whether a product makes the window's input, and whether one takes its output; `weights` of those, bytes.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    channels: int
    walks: tuple[Walk, Walk]
    around: tuple[bool, bool]
    weights: int

    @property
    def ring(self) -> tuple[int, int]:
        """Rows and columns of the ring that holds what a window reads, zero columns beside the image included."""
        rows, columns = self.walks
        most = max(columns.low + self.source[1], (self.target[1] - 1) * columns.stride + columns.reach)
        return rows.reach, most

    @property
    def before(self) -> int:
        """Steps that only fill the ring: each step makes as many rows as the window moves by."""
        rows = self.walks[0]
        return -(-(rows.reach - rows.stride) // rows.stride) if self.around[0] else 0

    def scratch(self, lanes: int) -> int:
        """Elements of scratch memory."""
        channels = -(-self.channels // lanes) * lanes
        return channels * (math.prod(self.ring) * self.around[0] + self.target[1] * self.around[1])


def reduction_of(nodes: Sequence[object]) -> Compute | None:
    """The only definition among these that combines anything."""
    found = [n for n in nodes if isinstance(n, Compute) and n.combine != "none"]
    return found[0] if len(found) == 1 else None


def is_pixel_product(node: Compute) -> bool:
    """A sum over channels of products at one pixel: each row of the image only needs that row."""
    if not is_product(node) or len(node.axes) != 4 or len(node.reduction) != 1 or node.accesses[0].pad is not None:
        return False
    here = [0 if axis.extent == 1 else symbol(axis.name) for axis in node.axes]
    channel = symbol(node.reduction[0].name)
    return node.accesses[0].indices == (*here[:-1], channel) and not _moves(node, 1, (BATCH, ROWS, COLUMNS))


def walks_of(node: Compute) -> tuple[Walk, Walk] | None:
    """How a window without a shared operand walks rows and columns: each channel is made from the same channel."""
    if not is_product(node) or len(node.axes) != 4 or _moves(node, 1, (BATCH, ROWS, COLUMNS)):
        return None
    batch, rows, columns, channel = node.accesses[0].indices
    own = (0 if node.axes[0].extent == 1 else symbol(BATCH), symbol(node.axes[3].name))
    if (batch, channel) != own or node.accesses[0].pad not in (None, 0.0):
        return None
    found = [_walk(index, axis, node.reduction) for index, axis in ((rows, ROWS), (columns, COLUMNS))]
    used = {name for index in (rows, columns) for name in symbols_of(index)}
    if found[0] is None or found[1] is None or not {a.name for a in node.reduction} <= used:
        return None
    return found[0], found[1]


def _walk(index: Extent, axis: str, reduction: Sequence[Axis]) -> Walk | None:
    """The walk of an index stride * axis - low + dilation * tap, where windows side by side overlap or touch."""
    taps = [a for a in reduction if a.name in symbols_of(index)]
    names = [axis, *(a.name for a in taps)]
    origin = substitute(index, dict.fromkeys(names, 0))
    steps = [substitute(index, {**dict.fromkeys(names, 0), name: 1}) - origin for name in names]
    linear = origin
    for name, step in zip(names, steps, strict=True):
        linear = linear + symbol(name) * step
    numbers = _whole([*steps[:1], 0 - origin, *(steps[1:] or [1]), *([a.extent for a in taps] or [1])])
    if linear != index or len(numbers) != 4 or min(numbers[0], numbers[2], numbers[3]) < 1 or numbers[1] < 0:
        return None
    walk = Walk(*numbers)
    return walk if walk.stride <= walk.reach else None


def _whole(values: Sequence[Extent]) -> list[int]:
    return [v for v in values if isinstance(v, int)]


def _moves(node: Compute, read: int, axes: Sequence[str]) -> bool:
    return any(name in symbols_of(i) for i in node.accesses[read].indices for name in axes)


def shape_of(stages: Sequence[Compute], window: int) -> Shape | None:
    """The extents of a chain whose stage number `window` is the window; None where an image's are not known."""
    node, walks = stages[window], walks_of(stages[window])
    first = stages[0]
    target = [axis.extent for axis in node.axes]
    source = [axis.extent for axis in first.axes] if window else target
    if walks is None or not all(isinstance(extent, int) and extent > 1 for extent in (*target[1:], *source[1:])):
        return None
    weights = sum(4 * _size(s.axes[3]) * _size(s.reduction[0]) for i, s in enumerate(stages) if i != window)
    around = (window > 0, window < len(stages) - 1)
    rows, columns, channels = _whole(target[1:])
    high, wide, _ = _whole(source[1:])
    return Shape((high, wide), (rows, columns), channels, walks, around, weights)


def _size(axis: Axis) -> int:
    return axis.extent if isinstance(axis.extent, int) else 0


def saved_cycles(shape: Shape, machine: CpuMachine) -> float:
    """Cycles that one task saves over several, an estimate; what stays in the second-level cache costs nothing.

    Each value between two stages is written and read once; it falls out of the cache when it fills half of it. Against
    that: weights come again with every row where they leave the first-level cache, and blocks overlap.
    """
    if 4 * shape.scratch(machine.lanes) > min(MOST_SCRATCH_BYTES, machine.l2_bytes // 2):
        return 0.0
    between = [math.prod(extent) * shape.channels * 4 for extent in _between(shape)]
    moved = sum(2.0 * size for size in between if 2 * size > machine.l2_bytes)
    rate = _L2_BYTES if 4 * shape.weights < machine.l2_bytes else _L3_BYTES
    again = shape.weights * (shape.target[0] - 1) / rate if 2 * shape.weights > machine.l1_bytes else 0.0
    products = shape.weights / 4 * math.prod(shape.target) / (machine.lanes * machine.multiply_adds_per_cycle)
    twice = twice_made(shape, blocks_of(shape)) * products
    return moved / _L3_BYTES - again - twice


def _between(shape: Shape) -> list[tuple[int, int]]:
    return [size for size, there in zip((shape.source, shape.target), shape.around, strict=True) if there]


def blocks_of(shape: Shape) -> int:
    """Into how many blocks the output rows are cut: a power of two, so that threads get equal shares."""
    blocks = 1
    while 2 * blocks <= min(_MOST_BLOCKS, shape.target[0]) and twice_made(shape, 2 * blocks) <= MOST_TWICE:
        blocks *= 2
    return blocks


def twice_made(shape: Shape, blocks: int) -> float:
    """The share of rows that are made more than once: where windows reach over, and where the last block moves back."""
    walk, height = shape.walks[0], shape.target[0]
    rows = -(-height // blocks)
    count = -(-height // rows)
    over = (walk.reach - walk.stride) * shape.around[0]
    return ((count * rows - height) * walk.stride + (count - 1) * over) / (height * walk.stride)
