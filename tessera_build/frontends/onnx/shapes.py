"""Operators that make or read shapes and constants: Shape, Size, Constant, ConstantOfShape, Range, Reshape, Expand, …

Takes tensors whose shapes may be symbolic; gives tensors whose contents stay known. Invariant: a target shape is
resolved to extents at build time, exactly for every value of the dims, or guarded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from tessera_build.frontends.onnx.call import Call, Translator, normalise_axes
from tessera_build.frontends.onnx.content import is_symbolic, whole_extent
from tessera_build.frontends.onnx.context import Context, Number, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.order import sign_of, solve
from tessera_build.frontends.onnx.reductions import flattened
from tessera_build.frontends.onnx.restarts import Unified
from tessera_build.frontends.onnx.targets import resolved_at_run_time
from tessera_build.ir.core.dims import Extent, floordiv, symbols_of
from tessera_build.ir.core.types import F32, F64, I64
from tessera_build.ir.graph.ops.shapes import count, shape_text

_LONGEST_RANGE = 1 << 24  # elements


def _shape(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    stop = n.integer("end", x.rank)
    return c.extents(x.shape[slice(n.integer("start", 0), stop)])


def _size(c: Context, n: Call) -> Tensor:
    return c.number(count(n.input(0).shape), I64)


def _constant(c: Context, n: Call) -> Tensor:
    for name in ("value", "sparse_value"):
        if n.has(name):
            value = n.value(name)
            if not isinstance(value, np.ndarray):
                raise ill_formed("Constant's value is no tensor")
            return c.constant(value, n.outputs[0])
    for name, dtype in (("value_float", F32), ("value_floats", F32), ("value_int", I64), ("value_ints", I64)):
        if n.has(name):
            return c.constant(np.asarray(n.value(name), dtype.numpy), n.outputs[0])
    raise unsupported("Constant of strings is not built", found=", ".join(n.attributes))


def _constant_of_shape(c: Context, n: Call) -> Tensor:
    shape = c.extents_of(n.input(0))
    value = n.value("value") if n.has("value") else np.zeros(1, np.float32)
    if not isinstance(value, np.ndarray) or value.size != 1:
        raise ill_formed("ConstantOfShape's value is not one element")
    return c.broadcast_to(c.constant(value.reshape(())), shape)


def _range(c: Context, n: Call) -> Tensor:
    """start + iota * step; the count is an extent: known, over dims, or read from data."""
    start, limit, step = (n.input(i) for i in range(3))
    if any(t.content is None for t in (start, limit, step)):
        return _counted_range(c, start, limit, step)
    if all(t.content is not None and not is_symbolic(t.content) for t in (start, limit, step)):
        low, high, by = (c.known(t, "Range's bound").item() for t in (start, limit, step))
        if by and abs(high - low) / abs(by) > _LONGEST_RANGE:  # three numbers may ask for any size
            raise unsupported("Range counts further than a constant may be long", found=f"{low} to {high} by {by}")
        return c.constant(np.arange(low, high, by).astype(start.dtype.numpy))
    low, high, by = (whole_extent(c.known(t, "Range's bound").item()) for t in (start, limit, step))
    if low is None or high is None or not isinstance(by, int):
        return _counted_range(c, start, limit, step)
    if by == 0:
        raise ill_formed("Range's step is 0")
    room = floordiv((high - low if by > 0 else low - high) + (abs(by) - 1), abs(by))
    c.require(room, ">=", 0, "Range has a negative length")
    steps = c.op("iota", shape=(room,), axis=0, dtype=start.dtype)
    scaled = steps if by == 1 else c.op("mul", steps, step)
    return scaled if low == 0 else c.op("add", scaled, start)


def _counted_range(c: Context, start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    """Range over data: the count is computed as the standard says, in double; a step of 0 makes it a refused size."""
    room = c.cast(c.op("sub", limit, start), F64)
    whole = c.op("ceil", c.op("div", room, c.cast(step, F64)))
    # Beyond any memory, and what a conversion of infinity would give is not defined.
    largest = c.op("min", c.op("max", whole, c.scalar(0.0, F64)), c.scalar(2.0**62, F64))
    stands = c.op("eq", step, c.scalar(0, step.dtype))
    number = c.op("select", stands, c.scalar(-1, I64), c.cast(largest, I64))
    count_read = c.size(c.reshape(number, ()))
    steps = c.op("iota", shape=(count_read,), axis=0, dtype=start.dtype)
    return c.op("add", c.op("mul", steps, c.reshape(step, ())), c.reshape(start, ()))


def _target_shape(c: Context, n: Call, x: Tensor) -> list[Extent]:
    """The target of a Reshape with its 0 and -1 resolved."""
    numbers = c.numbers(n.input(1))
    keep_zero = bool(n.integer("allowzero", 0))
    stated = resolved_at_run_time(c, x, numbers, keep_zero)
    target: list[Extent] = []
    for axis, extent in enumerate(stated):
        if extent == 0 and not keep_zero:
            if axis >= x.rank:
                raise ill_formed("Reshape copies an extent that its operand does not have", found=shape_text(stated))
            target.append(x.shape[axis])
        elif extent == -1:
            target.append(-1)
        else:
            c.require(extent, ">=", 0, f"Reshape to {shape_text(stated)} has a negative extent")
            target.append(extent)
    if target.count(-1) > 1:
        raise ill_formed("Reshape leaves two extents open", found=shape_text(stated))
    return target


def _reshape(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    return reshaped(c, x, _target_shape(c, n, x))


def reshaped(c: Context, x: Tensor, target: Sequence[Extent]) -> Tensor:
    """The tensor with a shape in which one extent may be -1; counts that differ in form are unified or guarded."""
    total, known = count(x.shape), count([e for e in target if e != -1])
    if -1 in target:
        rest = 0 if known == 0 else floordiv(total, known)
        target = [rest if e == -1 else e for e in target]
    wanted = count(target)
    if wanted == total:
        return c.reshape(x, target)
    message = f"Reshape from {shape_text(x.shape)} to {shape_text(target)} changes the number of elements"
    c.unify(total, wanted, message)
    # The counts are equal only by the guard: a slice of the flat tensor carries that into the types.
    return c.reshape(c.retyped(c.reshape(x, (total,)), (wanted,)), target)


def _flatten(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    axis = n.integer("axis", 1)
    return flattened(c, x, axis + x.rank if axis < 0 else axis)


def _expand(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    numbers = c.numbers(n.input(1))
    # Aligned at the last axis; a number from data may be 1 where the operand has an extent, which then stays.
    own = (*(1,) * max(len(numbers) - x.rank, 0), *x.shape)[-len(numbers) :] if numbers else ()
    target = [_expanded(c, number, extent) for number, extent in zip(numbers, own, strict=True)]
    shape = c.broadcast_shape([x.shape, target])
    return c.broadcast_to(c.fitted(x, shape), shape)


def _expanded(c: Context, number: Number, extent: Extent) -> Extent:
    if not isinstance(number, Tensor) or extent == 1:
        return c.size(number)
    one = c.op("eq", number, c.scalar(1, I64))
    return c.size(c.op("select", one, c.number(extent, I64), number))


def _axes_operand(c: Context, n: Call) -> tuple[int, ...] | None:
    if n.opset < 13:
        return n.integers("axes") if n.has("axes") else None
    stated = n.optional(1)
    return None if stated is None else c.known_ints(stated, "the axes")


def hold_to_rank(c: Context, info: onnx.ValueInfoProto, value: object) -> None:
    """Start again with a dim of 1 where an output has more axes than the model says, and Squeeze, told none, kept it.

    Such a Squeeze gives results of another rank when a dynamic dim happens to be 1; the stated rank is what it was for.
    """
    stated = info.type.tensor_type
    if not isinstance(value, Tensor) or not stated.HasField("shape") or len(stated.shape.dim) >= value.rank:
        return
    for extent in c.kept:
        for name in sorted(symbols_of(extent) - {*c.sizes, *c.indices}):
            if (solution := solve(extent - 1, name)) is not None and sign_of(solution - 1, c.ranges) == 1:
                raise Unified(name, solution)


def _squeeze(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    stated = _axes_operand(c, n)
    axes = [i for i, e in enumerate(x.shape) if e == 1] if stated is None else normalise_axes(stated, x.rank)
    c.kept += [e for e in x.shape if stated is None and not isinstance(e, int)]
    for axis in axes:
        c.unify(1, x.shape[axis], f"Squeeze removes axis {axis}, whose extent is {x.shape[axis]}")
    x = x if x.content is not None else c.retyped(x, [1 if i in axes else e for i, e in enumerate(x.shape)])
    return c.reshape(x, [e for i, e in enumerate(x.shape) if i not in axes])


def _unsqueeze(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    stated = _axes_operand(c, n)
    if stated is None:
        raise ill_formed("Unsqueeze has no axes")
    rank = x.rank + len(stated)
    axes = normalise_axes(stated, rank)
    rest = iter(x.shape)
    return c.reshape(x, [1 if i in axes else next(rest) for i in range(rank)])


SHAPE_OPERATORS: Mapping[str, Translator] = {
    "Shape": _shape,
    "Size": _size,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Expand": _expand,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}
