"""Winograd's convolution: to which sums of products it applies, and which of its tiles are exact enough for them.

Takes a sum of products and the subject that it is of; gives its `Window`, and a `Rewriting` where one is allowed.
Invariant: what is looked at is how indices move with axes; that the node once was called a convolution is nowhere
known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tessera_build.ir.core.dims import Extent, symbol, symbols_of
from tessera_build.ir.core.types import F32
from tessera_build.ir.schedule.nodes import Axis, Compute
from tessera_build.space.contraction import is_product
from tessera_build.space.toom_cook import TAPS, TILES
from tessera_build.space.winograd_error import transform_error
from tessera_build.space.workload import Rewriting, Subject

WINOGRAD: Final = "winograd"


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


def winograd_rewriting(node: Compute, subject: Subject) -> Rewriting | None:
    """The tiles whose outputs err by no more than the policy allows, for these weights, over rows and columns."""
    bound, window = subject.bounds.winograd, window_of(node)
    if bound <= 0 or window is None or node.reads[1] not in subject.constants:
        return None
    weights = subject.constants[node.reads[1]]
    tiles = tuple(tile for tile in TILES if transform_error(weights, window.weight, tile) <= bound)
    return Rewriting(WINOGRAD, tiles, (window.rows, window.columns)) if tiles else None
