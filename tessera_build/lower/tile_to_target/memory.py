"""Loads and stores of tiles through views: addresses, masks at ragged edges, gathers.

Takes views and register tiles; gives Target loads and stores. Invariant: no element outside a view's domain is
touched, and a domain that loop bounds already prove costs nothing.
"""

from __future__ import annotations

from tessera_build.ir.core.dims import Extent, Range, bounds
from tessera_build.ir.core.types import BOOL, F16, I32, I64, DType, Type, number_in, scalar, tile
from tessera_build.ir.target import kernel as k
from tessera_build.ir.tile.nodes import Ahead
from tessera_build.lower.tile_to_target.builder import TargetBuilder
from tessera_build.lower.tile_to_target.values import BufferValue, Key, TileValue, ViewValue, positions, vector_lanes

INDEX_OUT_OF_RANGE = 1
LINE_BYTES = 64
# Distance of elements from which on a gather takes no longer than loads of everything between them.
_LONGEST_PICKED = 4


class Memory:
    """Emits memory accesses; `ranges` holds the bounds of the loop indices that are in scope."""

    def __init__(self, builder: TargetBuilder, machine_lanes: int) -> None:
        self._b = builder
        self._machine_lanes = machine_lanes
        self.ranges: dict[str, Range] = {}

    def load(self, view: ViewValue, pad: float) -> TileValue:
        """The tile a view shows, `pad` outside its domain."""
        lanes = _lanes(view, self._machine_lanes)
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
                registers[key] = self.vector(view, key[:-1], key[-1], lanes, pad)
        return TileValue(view.shape, view.buffer.dtype, lanes, registers)

    def element(self, view: ViewValue, outer: Key, last: int, pad: float) -> int:
        """One element of a view as a scalar."""
        key = (*outer, last)
        condition, chosen = self._domain(view, key, 1)
        index = self._index(view, key, chosen)
        if condition is not None:
            index = self._b.op("select", condition, index, self._b.const(0, I64))
        value = self._emit_load(view, index, 1, None, None)
        if condition is None:
            return value
        filler = self._b.const(number_in(pad, view.buffer.dtype), view.buffer.dtype)
        return self._b.op("select", condition, value, filler)

    def vector(self, view: ViewValue, outer: Key, vector: int, lanes: int, pad: float) -> int:
        """One register of a view."""
        first = (*outer, vector * lanes)
        if lanes == 1:
            return self.element(view, outer, vector, pad)
        mask, chosen = self._domain(view, first, lanes)
        other = None if mask is None else self._b.const(number_in(pad, view.buffer.dtype), view.buffer.dtype, lanes)
        if view.step(len(view.shape) - 1) == 1 and (chosen is None or self._b.lanes(chosen) == 1):
            index = self._reachable(view, first, lanes, self._index(view, first, chosen))
            return self._emit_load(view, index, lanes, mask, other)
        step = view.step(len(view.shape) - 1)
        if mask is None and chosen is None and isinstance(step, int) and _is_short(step, view.buffer.dtype):
            return self._picked(view, self._index(view, first, None), step, lanes)
        indices = self._lane_indices(view, first, lanes, chosen)
        full = self._b.const(1, BOOL, lanes)
        result = self._b.fresh(tile(view.buffer.dtype, lanes))
        filler = self._b.const(number_in(pad, view.buffer.dtype), view.buffer.dtype, lanes) if other is None else other
        self._b.emit(k.Gather(result, view.buffer.pointer, indices, full if mask is None else mask, filler))
        return result

    def _reachable(self, view: ViewValue, first: Key, lanes: int, index: int) -> int:
        """The index where what all lanes share is in the domain, else the buffer's first element.

        A load without lanes from memory that is not there takes the processor's slow path: 190 ns on Zen 4, 11 ms for
        4 rows among 7500 of zeros.
        """
        condition = self._condition(view, first, lanes)
        return index if condition is None else self._b.op("select", condition, index, self._b.const(0, I64))

    def _picked(self, view: ViewValue, first: int, step: int, lanes: int) -> int:
        """Every `step`-th element from `first` on, picked from plain loads that begin and end within them."""
        b, span = self._b, (lanes - 1) * abs(step) + 1
        start = b.op("add", first, b.const(min(0, (lanes - 1) * step), I64))
        begins = [min(lanes * part, span - lanes) for part in range(-(-span // lanes))]
        loads = [self._emit_load(view, b.op("add", start, b.const(n, I64)), lanes, None, None) for n in begins]
        wanted = [(lane if step > 0 else lanes - 1 - lane) * abs(step) for lane in range(lanes)]
        places = [next((k, p - n) for k, n in enumerate(begins) if p < n + lanes) for p in wanted]
        result = b.shuffle(loads[0], loads[0], [place if k == 0 else 0 for k, place in places])
        for part, loaded in enumerate(loads[1:], 1):
            result = b.shuffle(result, loaded, [lanes + p if k == part else at for at, (k, p) in enumerate(places)])
        return result

    def store(self, view: ViewValue, value: TileValue) -> None:
        """Write a tile through a view, inside its domain."""
        lanes = _lanes(view, self._machine_lanes)
        for key in positions(view.shape, lanes):
            register = self._b.splat(value.register(key), lanes)
            first = (*key[:-1], key[-1] * lanes)
            mask, chosen = self._domain(view, first, lanes)
            scattered = view.step(len(view.shape) - 1) != 1 or (chosen is not None and self._b.lanes(chosen) > 1)
            if lanes > 1 and scattered:
                indices = self._lane_indices(view, first, lanes, chosen)
                full = self._b.const(1, BOOL, lanes) if mask is None else mask
                self._b.emit(k.Scatter(view.buffer.pointer, indices, register, full))
                continue
            index = self._index(view, first, chosen)
            if lanes == 1 and mask is not None:
                self._guarded_store(view, index, register, mask)
            else:
                self._b.emit(k.Store(view.buffer.pointer, index, register, mask))

    def _guarded_store(self, view: ViewValue, index: int, register: int, condition: int) -> None:
        with self._b.region() as nodes:
            self._b.emit(k.Store(view.buffer.pointer, index, register))
            body = list(nodes)
        self._b.emit(k.Branch((), condition, k.Region((), tuple(body)), k.Region((), ())))

    def _emit_load(self, view: ViewValue, index: int, lanes: int, mask: int | None, other: int | None) -> int:
        dtype = view.buffer.dtype
        value_type: Type = scalar(dtype) if lanes == 1 else tile(dtype, lanes)
        result = self._b.fresh(value_type)
        self._b.emit(k.Load(result, view.buffer.pointer, index, mask, other))
        return result

    def ask(self, buffer: BufferValue, ahead: Ahead, line: int) -> None:
        """Ask for one of the cache lines, row by row, from an element on that may lie outside the buffer."""
        value, constant = self._b.address(ahead.first)
        row, place = divmod(line, ahead.lines)
        elements = constant + row * ahead.apart + place * (LINE_BYTES * 8 // buffer.dtype.bits)
        index = self._b.op("add", value, self._b.const(elements, I64))
        self._b.emit(k.Prefetch(buffer.pointer, index, ahead.level))

    # -- addresses --------------------------------------------------------------------------------------------------

    def _index(self, view: ViewValue, element: Key, chosen: int | None) -> int:
        """Element index of one element; `chosen` is its gather index, left out where it differs from lane to lane."""
        distance: Extent = 0
        for tile_axis, position in enumerate(element):
            distance = distance + view.step(tile_axis) * position
        known = isinstance(distance, int)  # added to the constant part: no new expression for each element
        value, constant = self._b.address(view.base if known else view.base + distance)
        index = self._b.op("add", value, self._b.const(constant + (distance if known else 0), I64))
        if chosen is None or self._b.lanes(chosen) > 1:
            return index
        stride = self._b.extent(view.buffer.strides[view.gather_axis])
        return self._b.op("add", index, self._b.op("mul", chosen, stride))

    def _lane_indices(self, view: ViewValue, first: Key, lanes: int, chosen: int | None) -> int:
        b = self._b
        start = b.splat(self._index(view, first, chosen), lanes)
        step = b.splat(b.extent(view.step(len(view.shape) - 1)), lanes)
        indices = b.op("add", start, b.op("mul", b.lane_index(I64, lanes), step))
        if chosen is None or b.lanes(chosen) == 1:
            return indices
        stride = b.splat(b.extent(view.buffer.strides[view.gather_axis]), lanes)
        return b.op("add", indices, b.op("mul", chosen, stride))

    # -- domains ----------------------------------------------------------------------------------------------------

    def _domain(self, view: ViewValue, first: Key, lanes: int) -> tuple[int | None, int | None]:
        """Which lanes from `first` on lie in the domain (None: all), and the gather index there (None: none).

        A gather index on an axis that is not checked must be inside: the kernel ends with a status where it is not.
        """
        b = self._b
        condition = self._condition(view, first, lanes)
        mask = None if condition is None else b.splat(condition, lanes)
        if lanes > 1:
            mask = self._along(view, first, lanes, mask)
        if view.indices is None:
            return mask, None
        key = (*first[:-1], first[-1] // lanes)
        raw = view.indices.register(key)
        chosen = raw if b.type(raw).dtype == I64 else b.op("cast", raw, dtype=I64)
        inside = self._gathers_inside(view, first, chosen, lanes)
        if view.gather_checked or view.gather_axis in self._checked_axes(view):
            return self._and(mask, b.splat(inside, lanes)), chosen
        outside = mask if b.lanes(inside) > 1 or lanes == 1 else condition
        safe = inside if outside is None else b.op("or", inside, self._not(outside))
        for lane in range(min(b.lanes(safe), view.shape[-1] - first[-1])):
            b.emit(k.Check(b.extract(safe, lane), INDEX_OUT_OF_RANGE))
        return mask, chosen

    def _gathers_inside(self, view: ViewValue, first: Key, chosen: int, lanes: int) -> int:
        """Whether the coordinates on the gather axis are in the buffer: one for all lanes where none moves on it."""
        b, axis = self._b, view.gather_axis
        moves = lanes > 1 and view.axes[-1].axis == axis
        wide = lanes if moves else b.lanes(chosen)
        coordinate = b.op("add", b.splat(chosen, wide), b.splat(b.extent(_coordinate(view, axis, first)), wide))
        if moves:
            step = b.const(view.axes[-1].step, I64, lanes)
            coordinate = b.op("add", coordinate, b.op("mul", b.lane_index(I64, lanes), step))
        extent = b.splat(b.extent(view.buffer.shape[axis]), wide)
        return b.op("and", b.op("ge", coordinate, b.const(0, I64, wide)), b.op("lt", coordinate, extent))

    def _checked_axes(self, view: ViewValue) -> list[int]:
        """Axes of the buffer whose coordinates may lie outside it."""
        found = {} if view.stored else dict.fromkeys(w.axis for w in view.axes if w.checked and w.axis >= 0)
        return list(found)

    def _condition(self, view: ViewValue, first: Key, lanes: int) -> int | None:
        """Scalar condition that the coordinates which all lanes share are in the domain; None when proved."""
        b, condition = self._b, None
        for axis in self._checked_axes(view):
            if axis == view.gather_axis or (lanes > 1 and view.axes[-1].axis == axis):
                continue
            coordinate, extent = _coordinate(view, axis, first), view.buffer.shape[axis]
            if not self._never_negative(coordinate):
                condition = self._and(condition, b.op("ge", b.extent(coordinate), b.const(0, I64)))
            if not self._never_negative(extent - 1 - coordinate):
                condition = self._and(condition, b.op("lt", b.extent(coordinate), b.extent(extent)))
        return condition

    def _along(self, view: ViewValue, first: Key, lanes: int, mask: int | None) -> int | None:
        """`mask` narrowed to the lanes whose coordinate along the last tile axis is in the domain."""
        b, start, walk = self._b, first[-1], view.axes[-1]
        if start + lanes > view.shape[-1]:
            mask = self._and(mask, self._lanes_below(b.const(view.shape[-1] - start, I64), lanes))
        if walk.axis == view.gather_axis or walk.axis not in self._checked_axes(view):
            return mask
        extent, low, step = view.buffer.shape[walk.axis], _coordinate(view, walk.axis, first), walk.step
        if step < 0:  # seen from the axis's other end, the lanes go upwards
            low, step = extent - 1 - low, -step
        last = min(lanes, view.shape[-1] - start) - 1
        if not self._never_negative(extent - 1 - low - last * step):
            room = b.extent(extent - low)
            mask = self._and(mask, self._lanes_below(_ceil_div(b, room, step), lanes))
        if not self._never_negative(low):
            missing = b.op("sub", b.const(0, I64), b.extent(low))
            mask = self._and(mask, self._not(self._lanes_below(_ceil_div(b, missing, step), lanes)))
        return mask

    def _lanes_below(self, count: int, lanes: int) -> int:
        b = self._b
        limit = b.op("min", b.op("max", count, b.const(0, I64)), b.const(lanes, I64))
        narrow = b.splat(b.op("cast", limit, dtype=I32), lanes)
        return b.op("lt", b.lane_index(I32, lanes), narrow)

    def _and(self, left: int | None, right: int) -> int:
        return right if left is None else self._b.op("and", left, right)

    def _not(self, value: int) -> int:
        return self._b.op("xor", value, self._b.const(1, BOOL, self._b.lanes(value)))

    def _never_negative(self, expression: Extent) -> bool:
        low, _ = bounds(expression, self.ranges)
        return low is not None and low >= 0


def _lanes(view: ViewValue, machine_lanes: int) -> int:
    return vector_lanes(view.shape[-1], machine_lanes) if view.shape[-1] > 1 else 1


def _is_short(step: int, dtype: DType) -> bool:
    """Whether strided elements are picked from plain loads sooner than gathered: in a few loads, in whole bytes."""
    return 0 < abs(step) <= _LONGEST_PICKED and dtype != F16 and (dtype.bits >= 8 or dtype.is_float)


def _coordinate(view: ViewValue, axis: int, element: Key) -> Extent:
    """Where an element lies on a buffer axis: several tile axes may walk along one, and their ways add up."""
    total = view.offsets[axis]
    for position, walk in zip(element, view.axes, strict=True):
        total = total + (walk.step * position if walk.axis == axis else 0)
    return total


def _ceil_div(b: TargetBuilder, value: int, step: int) -> int:
    if step == 1:
        return value
    # Round towards zero from a non-negative numerator; negative counts clamp to zero afterwards.
    raised = b.op("max", b.op("add", value, b.const(step - 1, I64)), b.const(0, I64))
    return b.op("div", raised, b.const(step, I64))
