"""Winograd's convolution: to which sums of products it applies, and which of its tiles are exact enough for them.

Takes a sum of products and the subject that it is of; gives its `Window`, and a `Rewriting` where one is allowed.
Invariant: what is looked at is how indices move with axes; that the node once was called a convolution is nowhere
known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

from tessera_build.ir.core.dims import Extent, substitute, symbol, symbols_of
from tessera_build.ir.core.types import F32, int_extent
from tessera_build.ir.schedule.nodes import Axis, Compute
from tessera_build.space.contraction import is_product
from tessera_build.space.toom_cook import Transform, taps_first, tiles_for
from tessera_build.space.winograd_error import transform_error
from tessera_build.space.workload import Rewriting, Subject

WINOGRAD: Final = "winograd"
_LEAST_AXES: Final = 2  # of a reduction: taps and channels


@dataclass(frozen=True, slots=True)
class Side:
    """An output axis along which tiles are cut, and the reduction axis of taps that moves with it: none has one tap.

    Taps lie `step` outputs apart, and so do the outputs of a tile; or outputs lie `stride` inputs apart.
    """

    axis: str
    tap: str = ""
    taps: int = 1
    step: int = 1
    stride: int = 1

    @property
    def phase(self) -> str:
        """The name of what goes through the outputs between two of one tile."""
        return f"{self.axis}_phase"


@dataclass(frozen=True, slots=True)
class Window:
    """Two output axes, one or both with taps, and the reduction axis over what all taps have.

    Where taps of `columns` lie `columns.step` apart, `rows` is no axis of the output but goes through as many phases:
    outputs of different phases share no input. Taps along `further` axes are kept: what they have is added up at the
    points, as channels are. `weight` says which axis of the second read is moved by the row taps, the column taps (-1
    without any), the further ones, the channels, the outputs.
    """

    rows: Side
    columns: Side
    channels: Axis
    weight: tuple[int, ...]
    further: tuple[Axis, ...] = ()

    @property
    def kept(self) -> int:
        """How many taps there are along all further axes."""
        return prod(int_extent(axis.extent) for axis in self.further)

    @property
    def sides(self) -> tuple[Side, Side]:
        """Rows and columns."""
        return self.rows, self.columns

    @property
    def taps(self) -> tuple[int, int]:
        """How many taps there are along each."""
        return self.rows.taps, self.columns.taps

    @property
    def strides(self) -> tuple[int, int]:
        """How many inputs apart outputs are along each."""
        return self.rows.stride, self.columns.stride

    def extents(self, domain: Mapping[str, Extent]) -> tuple[Extent, Extent]:
        """Outputs along rows and along columns, of all phases the most, where the domain's axes have these extents."""
        columns, step = domain[self.columns.axis], self.columns.step
        return (domain[self.rows.axis], columns) if step == 1 else (step, (columns + (step - 1)) // step)


def window_of(node: Compute) -> Window | None:
    """The window of a sum of products of f32 that Winograd's transforms apply to, if it has one."""
    if not is_product(node) or set(node.program.inputs) != {F32} or len(node.reduction) < _LEAST_AXES:
        return None
    *taps, channels = node.reduction
    if node.accesses[0].pad not in (None, 0.0) or not _reads_channels(node):
        return None
    for sides in _pairs(node, taps):
        further = tuple(tap for tap in taps if tap.name not in {side.tap for side in sides})
        kept = [axis.name for axis in further]
        weight = _places(node, (sides[0].tap, sides[1].tap, *kept, channels.name, node.axes[-1].name))
        known = all(isinstance(axis.extent, int) for axis in further)
        window = Window(*sides, channels, weight, further) if known and weight is not None else None
        if window is not None and tiles_for(window.taps, window.strides):
            return window
    return None


def _pairs(node: Compute, taps: Sequence[Axis]) -> Iterator[tuple[Side, Side]]:
    """Sides in the order of the node's axes, the best first: the last two with taps side by side; one of those, beside
    an axis that its tiles share strips with; the same where outputs are steps apart, which saves less; one with taps
    apart, beside its phases."""
    names, extents = [axis.name for axis in node.axes], {axis.name: axis.extent for axis in node.axes}
    found = [side for tap in taps if (side := _walked_with(node, tap)) is not None]
    walked = sorted(found, key=lambda side: names.index(side.axis))
    if len({side.axis for side in walked}) != len(walked):
        return
    for strided in (False, True):
        near = [side for side in walked if side.step == 1 and (side.stride > 1) is strided]
        if len(near) > 1:
            yield near[-2], near[-1]
        for side in reversed(near):
            beside = _beside(node, side.axis)
            if beside is not None:
                first, second = sorted((side, Side(beside)), key=lambda side: names.index(side.axis))
                yield first, second
    for side in reversed(walked):
        extent = extents[side.axis]
        if side.step > 1 and (not isinstance(extent, int) or side.step < extent):
            yield Side(side.phase), side


def _beside(node: Compute, walked: str) -> str | None:
    """The next output axis behind `walked`, else the one before it; rather one that is longer than one."""
    names = [axis.name for axis in node.axes[:-1]]
    place = names.index(walked)
    near = [*node.axes[place + 1 : -1], *reversed(node.axes[:place])]
    longer = [axis.name for axis in near if axis.extent != 1]
    return next(iter([*longer, *(axis.name for axis in near)]), None)


def _walked_with(node: Compute, tap: Axis) -> Side | None:
    """The output axis that one index of the first read adds to a tap, either of them in steps."""
    moved = [index for index in node.accesses[0].indices if tap.name in symbols_of(index)]
    if len(moved) != 1 or not isinstance(tap.extent, int):
        return None
    step = substitute(moved[0], {tap.name: 1}) - substitute(moved[0], {tap.name: 0})
    for axis in node.axes[:-1] if isinstance(step, int) and step > 0 else ():
        stride = substitute(moved[0], {axis.name: 1}) - substitute(moved[0], {axis.name: 0})
        together = moved[0] - step * symbol(tap.name) - stride * symbol(axis.name)
        alone = [i for i in node.accesses[0].indices if axis.name in symbols_of(i)] == moved
        one = isinstance(stride, int) and stride > 0 and 1 in (step, stride)
        if isinstance(together, int) and alone and one and isinstance(stride, int) and isinstance(step, int):
            return Side(axis.name, tap.name, tap.extent, step, stride)
    return None


def _reads_channels(node: Compute) -> bool:
    """Whether the first read has the channels side by side, and nothing else of it moves with them or the outputs."""
    *outer, last = node.accesses[0].indices
    used = {name for index in outer for name in symbols_of(index)}
    return last == symbol(node.reduction[-1].name) and not used & {node.reduction[-1].name, node.axes[-1].name}


def _places(node: Compute, names: Sequence[str]) -> tuple[int, ...] | None:
    """Where the second read has these axes, each alone and nothing besides; -1 for one without a name."""
    indices: tuple[Extent, ...] = node.accesses[1].indices
    wanted: list[Extent | None] = [symbol(name) if name else None for name in names]
    others = [index for index in indices if index not in wanted]
    if node.accesses[1].pad is not None or any(other != 0 for other in others):
        return None
    if any(w is not None and w not in indices for w in wanted):
        return None
    return tuple(-1 if w is None else indices.index(w) for w in wanted)


def winograd_rewriting(node: Compute, subject: Subject) -> Rewriting | None:
    """The tiles whose outputs err by no more than the policy allows, for these weights, over rows and columns."""
    bound, window = subject.bounds.winograd, window_of(node)
    if bound <= 0 or window is None or node.reads[1] not in subject.constants:
        return None
    weights = subject.constants[node.reads[1]]
    placed = taps_first(weights, window.weight)
    how = window.taps, window.strides
    tiles = tuple(t for t in tiles_for(*how) if transform_error(placed, Transform.of(t, *how)) <= bound)
    axes = window.rows.axis, window.columns.axis
    kept = tuple(axis.name for axis in window.further)
    return Rewriting(WINOGRAD, tiles, axes, *how, window.columns.step, kept) if tiles else None
