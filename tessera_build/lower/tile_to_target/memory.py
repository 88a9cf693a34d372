"""Loads and stores of tiles through views: addresses, masks at ragged edges, gathers.

Takes views and register tiles; gives Target loads and stores. Invariant: no element outside a view's domain is
touched, and a domain that loop bounds already prove costs nothing.
"""

from __future__ import annotations

from tessera_build.ir.core.dims import Extent, Range, bounds
from tessera_build.ir.core.types import BOOL, I32, I64, Type, scalar, tile
from tessera_build.ir.target import kernel as k
from tessera_build.lower.tile_to_target.builder import TargetBuilder
from tessera_build.lower.tile_to_target.values import Key, TileValue, ViewValue, positions, vector_lanes

INDEX_OUT_OF_RANGE = 1


class Memory:
    """Emits memory accesses; `ranges` holds the bounds of the loop indices that are in scope."""

    def __init__(self, builder: TargetBuilder, machine_lanes: int) -> None:
        self._b = builder
        self._machine_lanes = machine_lanes
        self.ranges: dict[str, Range] = {}

    def load(self, view: ViewValue, pad: float) -> TileValue:
        """The tile a view shows, `pad` outside its domain."""
        lanes = vector_lanes(view.shape[-1], self._machine_lanes) if view.shape[-1] > 1 else 1
        broadcast = view.step(len(view.shape) - 1) == 0 and view.indices is None
        registers: dict[Key, int] = {}
        for key in positions(view.shape, lanes):
            if broadcast and not view.axes[-1].checked:
                first = (*key[:-1], 0)
                if key != first:
                    registers[key] = registers[first]
                    continue
                registers[key] = self._b.splat(self.element(view, key[:-1], 0, pad), lanes)
            else:
                registers[key] = self._load_register(view, key, lanes, pad)
        return TileValue(view.shape, view.buffer.dtype, lanes, registers)

    def element(self, view: ViewValue, outer: Key, last: int, pad: float) -> int:
        """One element of a view as a scalar."""
        condition = self._condition(view, (*outer, last))
        index = self._index(view, (*outer, last))
        if condition is not None:
            index = self._b.op("select", condition, index, self._b.const(0, I64))
        value = self._emit_load(view, index, 1, None, None)
        if condition is None:
            return value
        return self._b.op("select", condition, value, self._b.const(_typed(pad, view), view.buffer.dtype))

    def vector(self, view: ViewValue, outer: Key, vector: int, lanes: int, pad: float) -> int:
        """One register of a view."""
        return self._load_register(view, (*outer, vector), lanes, pad)

    def store(self, view: ViewValue, value: TileValue) -> None:
        """Write a tile through a view, inside its domain."""
        lanes = vector_lanes(view.shape[-1], self._machine_lanes) if view.shape[-1] > 1 else 1
        for key in positions(view.shape, lanes):
            register = self._b.splat(value.register(key), lanes)
            first = (*key[:-1], key[-1] * lanes)
            mask = self._mask(view, key, lanes)
            if lanes > 1 and view.step(len(view.shape) - 1) != 1:
                self._scatter(view, first, register, lanes, mask)
                continue
            index = self._index(view, first)
            if lanes == 1 and mask is not None:
                self._guarded_store(view, index, register, mask)
            else:
                self._b.emit(k.Store(view.buffer.pointer, index, register, mask))

    def _guarded_store(self, view: ViewValue, index: int, register: int, condition: int) -> None:
        with self._b.region() as nodes:
            self._b.emit(k.Store(view.buffer.pointer, index, register))
            body = list(nodes)
        self._b.emit(k.Branch((), condition, k.Region((), tuple(body)), k.Region((), ())))

    # -- registers --------------------------------------------------------------------------------------------------

    def _load_register(self, view: ViewValue, key: Key, lanes: int, pad: float) -> int:
        if lanes == 1:
            return self.element(view, key[:-1], key[-1], pad)
        first = (*key[:-1], key[-1] * lanes)
        mask = self._mask(view, key, lanes)
        other = None if mask is None else self._b.const(_typed(pad, view), view.buffer.dtype, lanes)
        if view.step(len(view.shape) - 1) == 1 and not self._vector_indices(view):
            return self._emit_load(view, self._index(view, first), lanes, mask, other)
        indices = self._lane_indices(view, first, lanes)
        full = self._b.const(1, BOOL, lanes)
        result = self._b.fresh(tile(view.buffer.dtype, lanes))
        filler = self._b.const(_typed(pad, view), view.buffer.dtype, lanes) if other is None else other
        self._b.emit(k.Gather(result, view.buffer.pointer, indices, full if mask is None else mask, filler))
        return result

    def _emit_load(self, view: ViewValue, index: int, lanes: int, mask: int | None, other: int | None) -> int:
        dtype = view.buffer.dtype
        value_type: Type = scalar(dtype) if lanes == 1 else tile(dtype, lanes)
        result = self._b.fresh(value_type)
        self._b.emit(k.Load(result, view.buffer.pointer, index, mask, other))
        return result

    def _scatter(self, view: ViewValue, first: Key, register: int, lanes: int, mask: int | None) -> None:
        indices = self._lane_indices(view, first, lanes)
        full = self._b.const(1, BOOL, lanes) if mask is None else mask
        self._b.emit(k.Scatter(view.buffer.pointer, indices, register, full))

    # -- addresses --------------------------------------------------------------------------------------------------

    def _vector_indices(self, view: ViewValue) -> bool:
        return view.indices is not None and view.indices.shape[-1] > 1

    def _index(self, view: ViewValue, element: Key) -> int:
        """Element index of one element (its gather index, if scalar, included)."""
        distance: Extent = 0
        for tile_axis, position in enumerate(element):
            distance = distance + view.step(tile_axis) * position
        value, constant = self._b.address(view.base + distance)
        index = self._b.op("add", value, self._b.const(constant, I64))
        if view.indices is None or self._vector_indices(view):
            return index
        stride = self._b.extent(view.buffer.strides[view.gather_axis])
        chosen = self._checked_index(view, view.indices.register((*element[:-1], 0)))
        return self._b.op("add", index, self._b.op("mul", chosen, stride))

    def _checked_index(self, view: ViewValue, raw: int) -> int:
        """A gather index as i64, which must be inside the axis."""
        b = self._b
        index = raw if b.type(raw).dtype == I64 else b.op("cast", raw, dtype=I64)
        lanes = b.lanes(index)
        extent = b.splat(b.extent(view.buffer.shape[view.gather_axis]), lanes)
        zero = b.const(0, I64, lanes)
        inside = b.op("and", b.op("ge", index, zero), b.op("lt", index, extent))
        for lane in range(lanes):
            b.emit(k.Check(b.extract(inside, lane), INDEX_OUT_OF_RANGE))
        return index

    def _lane_indices(self, view: ViewValue, first: Key, lanes: int) -> int:
        b = self._b
        start = b.splat(self._index(view, first), lanes)
        step = b.splat(b.extent(view.step(len(view.shape) - 1)), lanes)
        indices = b.op("add", start, b.op("mul", b.lane_index(I64, lanes), step))
        if view.indices is None or not self._vector_indices(view):
            return indices
        raw = view.indices.register((*first[:-1], first[-1] // lanes))
        stride = b.splat(b.extent(view.buffer.strides[view.gather_axis]), lanes)
        return b.op("add", indices, b.op("mul", self._checked_index(view, raw), stride))

    # -- domains ----------------------------------------------------------------------------------------------------

    def _mask(self, view: ViewValue, key: Key, lanes: int) -> int | None:
        """Which lanes of a register lie in the domain; None when all do."""
        b = self._b
        condition = self._condition(view, (*key[:-1], None))
        mask = None if condition is None else b.splat(condition, lanes)
        start = key[-1] * lanes
        if lanes > 1 and start + lanes > view.shape[-1]:
            mask = self._and(mask, self._lanes_below(b.const(view.shape[-1] - start, I64), lanes))
        walk = view.axes[-1]
        if not walk.checked or walk.axis < 0 or view.stored:
            return mask
        low = view.offsets[walk.axis] + start * walk.step
        extent = view.buffer.shape[walk.axis]
        last = min(lanes, view.shape[-1] - start) - 1
        if not self._never_negative(extent - 1 - low - last * walk.step):
            room = b.extent(extent - low)
            mask = self._and(mask, self._lanes_below(_ceil_div(b, room, walk.step), lanes))
        if not self._never_negative(low):
            missing = b.op("sub", b.const(0, I64), b.extent(low))
            below = self._lanes_below(_ceil_div(b, missing, walk.step), lanes)
            mask = self._and(mask, b.op("xor", below, b.const(1, BOOL, lanes)))
        return mask

    def _lanes_below(self, count: int, lanes: int) -> int:
        b = self._b
        limit = b.op("min", b.op("max", count, b.const(0, I64)), b.const(lanes, I64))
        if lanes == 1:
            return b.op("gt", limit, b.const(0, I64))
        narrow = b.splat(b.op("cast", limit, dtype=I32), lanes)
        return b.op("lt", b.lane_index(I32, lanes), narrow)

    def _and(self, left: int | None, right: int) -> int:
        return right if left is None else self._b.op("and", left, right)

    def _condition(self, view: ViewValue, element: tuple[int | None, ...]) -> int | None:
        """Scalar condition that the coordinates given (None: not this axis) are in the domain; None when proved."""
        b, condition = self._b, None
        if view.stored:
            return None
        for tile_axis, position in enumerate(element):
            walk = view.axes[tile_axis]
            if position is None or not walk.checked or walk.axis < 0:
                continue
            coordinate = view.offsets[walk.axis] + position * walk.step
            extent = view.buffer.shape[walk.axis]
            if not self._never_negative(coordinate):
                condition = self._and(condition, b.op("ge", b.extent(coordinate), b.const(0, I64)))
            if not self._never_negative(extent - 1 - coordinate):
                condition = self._and(condition, b.op("lt", b.extent(coordinate), b.extent(extent)))
        return condition

    def _never_negative(self, expression: Extent) -> bool:
        low, _ = bounds(expression, self.ranges)
        return low is not None and low >= 0


def _ceil_div(b: TargetBuilder, value: int, step: int) -> int:
    if step == 1:
        return value
    # Round towards zero from a non-negative numerator; negative counts clamp to zero afterwards.
    raised = b.op("max", b.op("add", value, b.const(step - 1, I64)), b.const(0, I64))
    return b.op("div", raised, b.const(step, I64))


def _typed(pad: float, view: ViewValue) -> float | int:
    return float(pad) if view.buffer.dtype.is_float else int(pad)
