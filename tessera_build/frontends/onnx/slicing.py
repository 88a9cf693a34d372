"""Slice, whose bounds may be constants, arithmetic over dims, or data.

Takes a tensor and bounds in any of ONNX's spellings; gives core ops. Invariant: bounds reach the graph normalised
(0 <= start <= stop <= extent), as extents; those from data are made so by ops before they are read.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.frontends.onnx.call import Call, Translator, normalise_axes
from tessera_build.frontends.onnx.context import Context, Number, Tensor
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.frontends.onnx.order import larger, sign_of, smaller
from tessera_build.ir.core.dims import Extent, floordiv
from tessera_build.ir.core.dims import bounds as range_of
from tessera_build.ir.core.types import I64

# Exporters write the largest 32- or 64-bit integer for "to the end".
BEYOND = 2**31 - 1
# Exactly these, as the end of a slice that runs backwards, mean "as far as possible" to onnxruntime.
LARGEST = (2**31 - 1, 2**63 - 1)
# Others write a round number; the guard costs nothing and keeps a minimum out of every later extent.
SURELY_BEYOND = 10**9


def _bound(c: Context, stated: Extent, extent: Extent) -> Extent:
    """A start or stop of a positive step and known sign: negative ones count from the end, then it is cut off."""
    if isinstance(stated, int) and stated >= BEYOND:
        return extent
    if isinstance(stated, int) and stated < -BEYOND:
        return 0
    if isinstance(stated, int) and stated >= SURELY_BEYOND:
        c.require(stated, ">=", extent, f"a slice ends at {stated}, which stands for the end")
        return extent
    sign = sign_of(stated, c.ranges)
    from_front = stated if sign == 1 else extent + stated
    return smaller(larger(from_front, 0, c.ranges), extent, c.ranges)


def _slice(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    starts, ends, axes, steps = _slice_operands(c, n, x.rank)
    for axis, start, end, step in sorted(zip(axes, starts, ends, steps, strict=True), key=lambda row: row[0]):
        x = _sliced(c, x, axis, (start, end, step))
    return x


def _slice_operands(
    c: Context, n: Call, rank: int
) -> tuple[tuple[Number, ...], tuple[Number, ...], tuple[int, ...], tuple[int, ...]]:
    starts: tuple[Number, ...]
    ends: tuple[Number, ...]
    if n.opset < 10:
        starts, ends = n.integers("starts"), n.integers("ends")
        axes, steps = n.integers("axes", tuple(range(len(starts)))), (1,) * len(starts)
    else:
        starts, ends = c.numbers(n.input(1)), c.numbers(n.input(2))
        axes_input, steps_input = n.optional(3), n.optional(4)
        axes = tuple(range(len(starts))) if axes_input is None else c.known_ints(axes_input, "the axes")
        steps = (1,) * len(starts) if steps_input is None else c.known_ints(steps_input, "the steps")
    return starts, ends, normalise_axes(axes, rank), steps


def _sliced(c: Context, x: Tensor, axis: int, bounds: tuple[Number, Number, int]) -> Tensor:
    start, end, step = bounds
    extent = x.shape[axis]
    if step == 0:
        raise ill_formed("Slice's step is 0")
    if not (_is_decided(c, start) and _is_decided(c, end)):
        return _reversed_by_data(c, x, axis, bounds) if step < 0 else _sliced_by_data(c, x, axis, bounds)
    start, end = c.size(start), c.size(end)
    if step < 0:
        return _reversed(c, x, axis, (start, end, step))
    first = _bound(c, start, extent)
    last = larger(_bound(c, end, extent), first, c.ranges)
    starts = [first if i == axis else 0 for i in range(x.rank)]
    stops = [last if i == axis else e for i, e in enumerate(x.shape)]
    return c.slice(x, starts, stops, [step if i == axis else 1 for i in range(x.rank)])


def _reversed(c: Context, x: Tensor, axis: int, bounds: tuple[Extent, Extent, int]) -> Tensor:
    """A negative step: gather at start, start + step, ... down to the end, exclusive."""
    start, end, step = bounds
    extent = x.shape[axis]
    first = extent - 1 if isinstance(start, int) and start >= BEYOND else _from_front(c, start, extent)
    first = larger(smaller(first, extent - 1, c.ranges), 0, c.ranges)
    last = (
        -1
        if end in LARGEST or (isinstance(end, int) and end <= -BEYOND)
        else larger(_from_front(c, end, extent), -1, c.ranges)
    )
    total = larger(floordiv(first - last + (-step - 1), -step), 0, c.ranges)
    least = range_of(extent, c.ranges)[0]
    if least is None or least < 1:  # of no elements the first one is none either
        total = smaller(total, extent, c.ranges)
    steps = c.op("iota", shape=(total,), axis=0, dtype=I64)
    offsets = c.op("mul", steps, c.scalar(step, I64))
    return c.op("gather", x, c.op("add", offsets, c.number(first, I64)), axis=axis)


def _from_front(c: Context, stated: Extent, extent: Extent) -> Extent:
    return stated if sign_of(stated, c.ranges) == 1 else extent + stated


def _is_decided(c: Context, bound: Number) -> bool:
    """Whether a bound is known at build time, its sign included."""
    return not isinstance(bound, Tensor) and sign_of(bound, c.ranges) is not None


def _sliced_by_data(c: Context, x: Tensor, axis: int, bounds: tuple[Number, Number, int]) -> Tensor:
    """A positive step: the start and the length are read, so that the stop is surely behind the start."""
    extent, zero = x.shape[axis], c.scalar(0, I64)
    end = c.number(extent, I64)
    first, last = (c.op("min", c.op("max", _counted_from_end(c, bound, extent), zero), end) for bound in bounds[:2])
    start = c.size(first, extent)
    stop = start + c.size(c.op("max", c.op("sub", last, first), zero), extent)
    starts = [start if i == axis else 0 for i in range(x.rank)]
    stops = [stop if i == axis else e for i, e in enumerate(x.shape)]
    return c.slice(x, starts, stops, [bounds[2] if i == axis else 1 for i in range(x.rank)])


def _reversed_by_data(c: Context, x: Tensor, axis: int, bounds: tuple[Number, Number, int]) -> Tensor:
    """A negative step: only the count is read, the start stays a tensor."""
    start, end, step = bounds
    extent, zero, minus = x.shape[axis], c.scalar(0, I64), c.scalar(-1, I64)
    back = c.number(extent - 1, I64)
    first = c.op("max", c.op("min", _counted_from_end(c, start, extent), back), zero)
    stated = c.as_tensor(end)
    open_end = c.op("or", *(c.op("eq", stated, c.scalar(number, I64)) for number in LARGEST))
    cut = c.op("min", c.op("max", _counted_from_end(c, end, extent), minus), back)
    last = c.op("select", open_end, minus, cut)
    room = c.op("max", c.op("add", c.op("sub", first, last), c.scalar(-step - 1, I64)), zero)
    found = c.op("min", c.op("div", room, c.scalar(-step, I64)), c.number(extent, I64))
    steps = c.op("iota", shape=(c.size(found, extent),), axis=0, dtype=I64)
    return c.op("gather", x, c.op("add", c.op("mul", steps, c.scalar(step, I64)), first), axis=axis)


def _counted_from_end(c: Context, bound: Number, extent: Extent) -> Tensor:
    stated = c.as_tensor(bound)
    return c.op("select", c.op("lt", stated, c.scalar(0, I64)), c.op("add", stated, c.number(extent, I64)), stated)


SLICE_OPERATORS: Mapping[str, Translator] = {"Slice": _slice}
