"""Memory of a group: elements of views, scratch that lanes share, and the barriers that both need.

Takes views and coordinates; gives Target loads and stores of single elements, and puts a `Barrier` wherever one lane
may read or overwrite what another wrote or reads. Invariant: between two accesses of one buffer of which at least one
is a write there is a barrier, unless both are in one operation on one tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tessera_build.ir.core.dims import Range, bounds
from tessera_build.ir.core.node import Node
from tessera_build.ir.core.types import I64, DType, memref, scalar
from tessera_build.ir.target import group as g
from tessera_build.ir.target import kernel as k
from tessera_build.lower.tile_to_target.builder import TargetBuilder
from tessera_build.lower.tile_to_target.simt_layouts import Layout, Place
from tessera_build.lower.tile_to_target.values import BufferValue, ViewValue, row_major


@dataclass(frozen=True, slots=True, eq=False)
class GroupTile:
    """A tile in the registers of a group's lanes."""

    layout: Layout
    dtype: DType
    registers: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of all axes."""
        return self.layout.shape


@dataclass(slots=True)
class GroupMemory:
    """Emits memory accesses for one kernel; `constant` holds the buffers that the kernel never writes."""

    b: TargetBuilder
    lane: int
    lanes: int
    constant: frozenset[int] = frozenset()
    ranges: dict[str, Range] = field(default_factory=dict[str, Range])
    allocations: list[Node] = field(default_factory=list[Node])
    _free: dict[tuple[DType, int], list[int]] = field(default_factory=dict[tuple[DType, int], list[int]])
    _read: set[int] = field(default_factory=set[int])
    _written: set[int] = field(default_factory=set[int])

    # -- barriers -----------------------------------------------------------------------------------------------------

    def reads(self, pointer: int) -> None:
        """Called before lanes read a buffer."""
        if pointer in self._written:
            self.fence()
        if pointer not in self.constant:
            self._read.add(pointer)

    def writes(self, pointer: int) -> None:
        """Called before lanes write a buffer."""
        if pointer in self._written or pointer in self._read:
            self.fence()
        self._written.add(pointer)

    def fence(self) -> None:
        """A barrier, if anything was read or written since the last one; loops begin and end with one."""
        if self._read or self._written:
            self.b.emit(g.Barrier())
            self._read.clear()
            self._written.clear()

    # -- scratch ------------------------------------------------------------------------------------------------------

    def shared(self, dtype: DType, shape: tuple[int, ...]) -> BufferValue:
        """New memory that the group shares."""
        elements = math.prod(shape)
        pointer = self.b.fresh(memref(dtype, elements))
        self.allocations.append(g.SharedAlloc(pointer, elements))
        return BufferValue(pointer, dtype, shape, row_major(shape))

    def borrow(self, dtype: DType, shape: tuple[int, ...]) -> BufferValue:
        """Shared memory until `give_back`; memory given back earlier is used again."""
        waiting = self._free.get((dtype, math.prod(shape)))
        if waiting:
            return BufferValue(waiting.pop(), dtype, shape, row_major(shape))
        return self.shared(dtype, shape)

    def give_back(self, buffer: BufferValue) -> None:
        """End of `borrow`."""
        size = math.prod(e for e in buffer.shape if isinstance(e, int))
        self._free.setdefault((buffer.dtype, size), []).append(buffer.pointer)

    def spill(self, tile: GroupTile) -> BufferValue:
        """The tile in borrowed shared memory, row by row."""
        buffer = self.borrow(tile.dtype, tile.shape)
        self.writes(buffer.pointer)
        for number, register in enumerate(tile.registers):
            place = tile.layout.place(self.b, self.lane, number)
            self.b.emit(k.Store(buffer.pointer, self._dense(buffer, place.coordinates), register, place.guard))
        return buffer

    def element(self, buffer: BufferValue, coordinates: Sequence[int]) -> int:
        """One element of dense shared memory; `reads` was called before."""
        result = self.b.fresh(scalar(buffer.dtype))
        self.b.emit(k.Load(result, buffer.pointer, self._dense(buffer, coordinates)))
        return result

    def put(self, buffer: BufferValue, place: Place, value: int) -> None:
        """Store one element of dense shared memory; `writes` was called before."""
        self.b.emit(k.Store(buffer.pointer, self._dense(buffer, place.coordinates), value, place.guard))

    def _dense(self, buffer: BufferValue, coordinates: Sequence[int]) -> int:
        index = self.b.const(0, I64)
        for coordinate, extent, stride in zip(coordinates, buffer.shape, buffer.strides, strict=True):
            if extent != 1:
                index = self.b.op("add", index, self.b.op("mul", coordinate, self.b.extent(stride)))
        return index

    # -- views --------------------------------------------------------------------------------------------------------

    def load(self, view: ViewValue, place: Place, pad: float) -> int:
        """The element that a view shows at a place, `pad` outside its domain; `reads` was called before."""
        dtype = view.buffer.dtype
        result = self.b.fresh(scalar(dtype))
        inside = self.inside(view, place.coordinates)
        other = None if inside is None else self.b.const(float(pad) if dtype.is_float else int(pad), dtype)
        index = self.index(view, place.coordinates)
        self.b.emit(k.Load(result, view.buffer.pointer, index, inside, other))
        return result

    def store(self, view: ViewValue, place: Place, value: int) -> None:
        """Write one element inside the view's domain; `writes` was called before."""
        inside = self.inside(view, place.coordinates)
        mask = self._and(inside, place.guard)
        self.b.emit(k.Store(view.buffer.pointer, self.index(view, place.coordinates), value, mask))

    def index(self, view: ViewValue, coordinates: Sequence[int]) -> int:
        """Element index in the buffer."""
        b = self.b
        index = b.extent(view.base)
        for tile_axis, coordinate in enumerate(coordinates):
            if view.shape[tile_axis] > 1:
                index = b.op("add", index, b.op("mul", coordinate, b.extent(view.step(tile_axis))))
        return index

    def inside(self, view: ViewValue, coordinates: Sequence[int]) -> int | None:
        """The condition that an element is in the view's domain; None when every element is."""
        if view.stored:
            return None
        condition: int | None = None
        for axis in sorted({walk.axis for walk in view.axes if walk.checked and walk.axis >= 0}):
            condition = self._and(condition, self._axis_inside(view, axis, coordinates))
        return condition

    def _axis_inside(self, view: ViewValue, axis: int, coordinates: Sequence[int]) -> int:
        b, offset = self.b, view.offsets[axis]
        total = b.extent(offset)
        for walk, coordinate in zip(view.axes, coordinates, strict=True):
            if walk.axis == axis:
                total = b.op("add", total, b.op("mul", coordinate, b.const(walk.step, I64)))
        below = b.op("lt", total, b.extent(view.buffer.shape[axis]))
        low, _ = bounds(offset, self.ranges)
        if low is not None and low >= 0:
            return below
        return b.op("and", b.op("ge", total, b.const(0, I64)), below)

    def _and(self, left: int | None, right: int | None) -> int | None:
        if left is None or right is None:
            return right if left is None else left
        return self.b.op("and", left, right)
