"""What a tile, a view and a buffer are while one kernel is being lowered for a CPU.

A tile lies in registers row by row: its last axis in vectors of `lanes`, every other axis one register (group) each.
Invariant: `registers` has a key for every outer position and every vector of the last axis, and a tile whose last
extent is 1 holds scalars.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import DType
from tessera_build.ir.tile.nodes import Binding, ViewAxis

Key = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TileValue:
    """A tile in registers."""

    shape: tuple[int, ...]
    dtype: DType
    lanes: int
    registers: dict[Key, int]

    def register(self, key: Key) -> int:
        """The register at a position of a tile that this one broadcasts to."""
        pad = len(key) - len(self.shape)
        own = tuple(0 if extent == 1 else index for extent, index in zip(self.shape, key[pad:], strict=True))
        return self.registers[own]


@dataclass(frozen=True, slots=True)
class BufferValue:
    """Memory: a pointer, logical extents and the distance in elements between neighbours along each axis."""

    pointer: int
    dtype: DType
    shape: tuple[Extent, ...]
    strides: tuple[Extent, ...]


@dataclass(frozen=True, slots=True)
class ViewValue:
    """A window into a buffer; see `tile.nodes.View`.

    `base` is the element index of the window's first element, `steps` the distance in elements between neighbours
    along each tile axis: made once, because every element of an unrolled loop asks for them.
    """

    buffer: BufferValue
    shape: tuple[int, ...]
    offsets: tuple[Extent, ...]
    axes: tuple[ViewAxis, ...]
    indices: TileValue | None
    gather_axis: int
    gather_checked: bool
    stored: bool
    base: Extent = field(init=False)
    steps: tuple[Extent, ...] = field(init=False)

    def __post_init__(self) -> None:
        total: Extent = 0
        for offset, stride in zip(self.offsets, self.buffer.strides, strict=True):
            total = total + offset * stride
        steps = (0 if walk.axis < 0 else self.buffer.strides[walk.axis] * walk.step for walk in self.axes)
        object.__setattr__(self, "base", total)
        object.__setattr__(self, "steps", tuple(steps))

    def step(self, tile_axis: int) -> Extent:
        """Distance in elements between neighbours along a tile axis."""
        return self.steps[tile_axis]


# Elements along both axes from which on exchanging them in registers takes less than collecting them one by one.
_FEWEST_EXCHANGED = 4


def neighbours(view: ViewValue) -> int | None:
    """The tile axis along which elements are neighbours in memory, where that is another one than the last."""
    last = len(view.shape) - 1
    if view.indices is not None or view.axes[last].axis < 0 or view.step(last) == 1:
        return None
    found = (axis for axis in range(last) if view.step(axis) == 1 and view.axes[axis].axis >= 0)
    axis = next(found, None)
    return None if axis is None or min(view.shape[axis], view.shape[last]) < _FEWEST_EXCHANGED else axis


def exchanged(view: ViewValue, axis: int) -> tuple[ViewValue, tuple[int, ...]]:
    """The view with a tile axis and the last one in each other's place, and the permutation that undoes it."""
    order = list(range(len(view.shape)))
    order[axis], order[-1] = order[-1], order[axis]
    shape, axes = tuple(view.shape[i] for i in order), tuple(view.axes[i] for i in order)
    return replace(view, shape=shape, axes=axes), tuple(order)


def vector_lanes(last_extent: int, machine_lanes: int) -> int:
    """Lanes for a tile's last axis: a full register, or the power of two that just holds a short axis."""
    return min(machine_lanes, 1 << (last_extent - 1).bit_length())


def positions(shape: tuple[int, ...], lanes: int) -> Iterator[Key]:
    """Keys of all registers of a tile, in row-major order."""
    vectors = -(-shape[-1] // lanes)
    yield from itertools.product(*(range(extent) for extent in shape[:-1]), range(vectors))


def row_major(shape: tuple[Extent, ...]) -> tuple[Extent, ...]:
    """Strides, in elements, of a dense buffer."""
    strides: list[Extent] = []
    step: Extent = 1
    for extent in reversed(shape):
        strides.insert(0, step)
        step = step * extent
    return tuple(strides)


def checked(binding: Binding | None) -> bool:
    """Whether a view's domain must be checked: not where the memory around it holds the pad value."""
    return not (binding is not None and binding.stored)
