"""Winograd's convolution as a schedule: where it is possible, and where it is faster than the direct sum of products.

Takes a sum of products, its domain and a machine; gives a `Schedule` with a `Rewrite` step, or none. Invariant: what
is looked at is how indices move with axes; that the node once was called a convolution is nowhere known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from tessera_build.ir.core.dims import Extent, symbol, symbols_of
from tessera_build.ir.core.scalar import Array
from tessera_build.ir.core.types import F32
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.nodes import Axis, Compute
from tessera_build.ir.schedule.trace import Bind, Pack, Rewrite, Schedule, Split, Tensorise
from tessera_build.space.contraction import is_product, known
from tessera_build.space.toom_cook import TAPS, TILES
from tessera_build.space.winograd_error import transform_error
from tessera_build.space.winograd_plan import Plan, Sizes, cheapest_plan, direct_cycles

# Multiply-adds that one emitted contraction has: they compile in 0.1 s and stay in the cache of decoded instructions.
_MULTIPLY_ADDS_EMITTED = 448
# What another algorithm, and the step to larger tiles, must gain: weights grow by (tile + 2)^2 / 9.
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
    sizes, weights = _sizes(sums[0], window), constants[sums[0].reads[1]]
    least, chosen = direct_cycles(sizes, machine), None
    for tile in TILES:
        found = cheapest_plan(sizes, tile, machine)
        if found is None or found[0] * _GAIN >= least:
            continue
        if transform_error(weights, window.weight, tile) <= max_error:
            least, chosen = found
    return _schedule(sums[0], window, chosen, machine) if chosen else None


def _sizes(node: Compute, window: Window) -> Sizes:
    extents = {axis.name: known(axis.extent) for axis in (*node.axes, *node.reduction)}
    rows, columns, outputs = (extents[a] for a in (window.rows, window.columns, node.axes[-1].name))
    images = prod(extents[axis.name] for axis in node.axes) // (rows * columns * outputs)
    return Sizes(images, rows, columns, extents[window.channels.name], outputs)


def _schedule(node: Compute, window: Window, plan: Plan, machine: CpuMachine) -> Schedule:
    vector, width = node.axes[-1].name, plan.vectors * machine.lanes
    chunk = max(1, min(known(window.channels.extent), _MULTIPLY_ADDS_EMITTED // (plan.block * plan.vectors)))
    return Schedule(
        (
            Rewrite(plan.tile, plan.block, plan.panels),
            Split(window.rows, plan.rows * plan.tile),
            Split(window.columns, plan.columns * plan.tile),
            Split(vector, width),
            Pack(1, width),
            Split(window.channels.name, chunk),
            Tensorise(window.channels.name),
            *(Bind(axis.name, "parallel") for axis in (node.axes if plan.panels else node.axes[:-1])),
        )
    )
