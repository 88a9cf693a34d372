"""The bridge table: what every element of an operator's result is, as compute definitions.

Takes one graph node with its types; gives `Compute` nodes over the same value ids (new ids for values in between).
Invariant: a definition is exact — schedules may reorder it, but nothing about the operator is decided later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tessera_build.ir.core.dims import Extent, floordiv, mod, symbol
from tessera_build.ir.core.scalar import SCALAR_OPS, ScalarBuilder, ScalarProgram
from tessera_build.ir.core.types import F32, I64, DType, Type, dtype_of
from tessera_build.ir.graph.nodes import Array, GraphNode
from tessera_build.ir.schedule.nodes import Access, Axis, Combine, Compute
from tessera_build.lower.graph_to_schedule.defining import (
    Context,
    aligned,
    axes_of,
    extents,
    integer_of,
    integers,
    movement,
    symbols_of_axes,
)
from tessera_build.lower.graph_to_schedule.images import define_depth_to_space, define_repeat, define_resample
from tessera_build.lower.graph_to_schedule.quotients import has_parts, quotient
from tessera_build.lower.graph_to_schedule.random import define_random

# The scalar operation and the identity of every way to combine.
_COMBINING: dict[str, str] = {"sum": "add", "max": "max", "min": "min", "prod": "mul"}
IDENTITY: dict[str, float] = {"sum": 0.0, "max": -np.inf, "min": np.inf, "prod": 1.0, "largest": -np.inf}


def define(node: GraphNode, context: Context) -> tuple[Compute, ...]:
    """The compute definitions of one node; raises `KeyError` for an operator without a row here."""
    if node.op in SCALAR_OPS:
        return (_elementwise(node, context),)
    return _TABLE[node.op](node, context)


def has_definition(op: str) -> bool:
    """Whether the table has a row for an operator."""
    return op in SCALAR_OPS or op in _TABLE


def _elementwise(node: GraphNode, context: Context) -> Compute:
    shape = context.types[node.output].shape
    axes = axes_of(shape)
    reads, inputs, constants = list[int](), list[DType](), dict[int, Array]()
    for position, value in enumerate(node.inputs):
        small = context.constants.get(value)
        if small is not None and small.size == 1:
            constants[position] = small
        else:
            reads.append(value)
            inputs.append(context.types[value].dtype)
    builder = ScalarBuilder(inputs)
    given = iter(range(len(reads)))
    args = [
        builder.const(constants[p].reshape(()).item(), dtype_of(constants[p].dtype)) if p in constants else next(given)
        for p in range(len(node.inputs))
    ]
    if node.op == "cast":
        result = builder.cast(args[0], context.types[node.output].dtype)
    elif node.op == "bitcast":
        result = builder.bitcast(args[0], context.types[node.output].dtype)
    elif node.op == "div" and _divides(constants, context.types[node.output].dtype):
        result = quotient(builder, args[0], float(constants[1].reshape(()).item()))
    else:
        result = builder.op(node.op, *args)
    accesses = tuple(Access(aligned(context.types[v].shape, symbols_of_axes(axes))) for v in reads)
    return Compute(node.output, tuple(reads), accesses, axes, (), "none", builder.finish(result))


def _divides(constants: Mapping[int, Array], dtype: DType) -> bool:
    """Whether the operands at these places are a divisor alone, by which there is a cheaper quotient."""
    return list(constants) == [1] and dtype.is_float and has_parts(float(constants[1].reshape(()).item()), dtype)


def _transpose(node: GraphNode, context: Context) -> tuple[Compute, ...]:
    permutation = integers(node, "perm")
    symbols = symbols_of_axes(axes_of(context.types[node.output].shape))
    indices: list[Extent] = [0] * len(permutation)
    for position, source in enumerate(permutation):
        indices[source] = symbols[position]
    return (movement(node, context, indices),)


def _broadcast(node: GraphNode, context: Context) -> tuple[Compute, ...]:
    symbols = symbols_of_axes(axes_of(context.types[node.output].shape))
    return (movement(node, context, aligned(context.types[node.inputs[0]].shape, symbols)),)


def _slice(node: GraphNode, context: Context) -> tuple[Compute, ...]:
    symbols = symbols_of_axes(axes_of(context.types[node.output].shape))
    starts, steps = extents(node, "starts"), extents(node, "steps")
    return (movement(node, context, [s + i * t for s, i, t in zip(starts, symbols, steps, strict=True)]),)


def _pad(node: GraphNode, context: Context) -> tuple[Compute, ...]:
    symbols = symbols_of_axes(axes_of(context.types[node.output].shape))
    value = node.attributes["value"]
    fill = float(value) if isinstance(value, (int, float)) else 0.0
    return (movement(node, context, [i - low for i, low in zip(symbols, extents(node, "low"), strict=True)], fill),)


def _reshape(node: GraphNode, context: Context) -> tuple[Compute, ...]:
    target, source = context.types[node.output].shape, context.types[node.inputs[0]].shape
    linear: Extent = 0
    for index, extent in zip(symbols_of_axes(axes_of(target)), target, strict=True):
        linear = linear * extent + index
    indices: list[Extent] = []
    for extent in reversed(source):
        indices.insert(0, 0 if extent == 1 else mod(linear, extent))
        linear = floordiv(linear, extent)
    return (movement(node, context, indices),)


def _gather(node: GraphNode, context: Context) -> tuple[Compute, ...]:
    data, indices = node.inputs
    axis = integer_of(node.attributes["axis"])
    kind = context.types[node.output]
    axes = axes_of(kind.shape)
    symbols, rank = symbols_of_axes(axes), context.types[indices].rank
    chosen = Access(tuple(symbols[axis : axis + rank]))
    taken = Access((*symbols[:axis], symbol("_r0"), *symbols[axis + rank :]))
    program = ScalarBuilder((context.types[indices].dtype, kind.dtype)).finish(1)
    return (Compute(node.output, (indices, data), (chosen, taken), axes, (), "none", program),)


def _gather_elements(node: GraphNode, context: Context) -> tuple[Compute, ...]:
    data, indices = node.inputs
    axis = integer_of(node.attributes["axis"])
    kind = context.types[node.output]
    axes = axes_of(kind.shape)
    symbols = symbols_of_axes(axes)
    taken = Access((*symbols[:axis], symbol("_r0"), *symbols[axis + 1 :]))
    program = ScalarBuilder((context.types[indices].dtype, kind.dtype)).finish(1)
    return (Compute(node.output, (indices, data), (Access(tuple(symbols)), taken), axes, (), "none", program),)


def _index_value(node: GraphNode, context: Context) -> tuple[Compute, ...]:
    """`iota` and `dimension`: a number that depends on position or dims alone."""
    kind = context.types[node.output]
    axes = axes_of(kind.shape)
    if node.op == "iota":
        value: Extent = symbols_of_axes(axes)[integer_of(node.attributes["axis"])]
    else:
        given = node.attributes["value"]
        if isinstance(given, (float, str, DType, tuple)):
            raise TypeError("`dimension` needs an extent")
        value = given
    builder = ScalarBuilder((I64,))
    return (Compute(node.output, (), (), axes, (), "none", builder.finish(builder.cast(0, kind.dtype)), (value,)),)


def combined(builder: ScalarBuilder, combine: Combine, total: int, value: int) -> int:
    """One step of a reduction: what has been combined, with a further value."""
    if combine == "largest":
        # The value comes last: x86's maximum takes an operand from memory only there. Softmax takes 2 to 3 % less time.
        return builder.op("select", builder.op("gt", total, value), total, value)
    return builder.op(_COMBINING[combine], total, value)


# -- reductions -------------------------------------------------------------------------------------------------------


_Row = Callable[[GraphNode, Context], tuple[Compute, ...]]
_Sum = Callable[[GraphNode, Context, int], Compute]


def _rounded_once(define_sum: _Sum) -> _Row:
    """Sums and products of the narrow floats are made in f32 and rounded at the end, not at every step."""

    def row(node: GraphNode, context: Context) -> tuple[Compute, ...]:
        kind = context.types[node.output]
        if not kind.dtype.is_float or kind.dtype.bits >= F32.bits:
            return (define_sum(node, context, node.output),)
        total = define_sum(node, context, context.fresh(replace(kind, dtype=F32)))
        access = Access(tuple(symbols_of_axes(total.axes)))
        program = _cast_program(F32, kind.dtype)
        return total, Compute(node.output, (total.result,), (access,), total.axes, (), "none", program)

    return row


def _cast_program(source: DType, target: DType) -> ScalarProgram:
    builder = ScalarBuilder((source,))
    return builder.finish(builder.cast(0, target))


def _product(a: DType, b: DType, out: DType) -> ScalarProgram:
    builder = ScalarBuilder((a, b))
    return builder.finish(builder.op("mul", builder.cast(0, out), builder.cast(1, out)))


def _matmul(node: GraphNode, context: Context, result: int) -> Compute:
    a, b = node.inputs
    kind = context.types[result]
    axes = axes_of(kind.shape)
    symbols = symbols_of_axes(axes)
    batch, (m, n) = symbols[:-2], symbols[-2:]
    flip_a, flip_b = bool(node.attributes.get("transpose_a")), bool(node.attributes.get("transpose_b"))
    depth = context.types[a].shape[-2 if flip_a else -1]
    k = 0 if depth == 1 else symbol("_k")
    left = (*aligned(context.types[a].shape[:-2], batch), *((k, m) if flip_a else (m, k)))
    right = (*aligned(context.types[b].shape[:-2], batch), *((n, k) if flip_b else (k, n)))
    program = _product(context.types[a].dtype, context.types[b].dtype, kind.dtype)
    accesses = (Access(left), Access(right))
    return Compute(result, (a, b), accesses, axes, (Axis("_k", depth),), "sum", program)


def _conv(node: GraphNode, context: Context, result: int) -> Compute:
    x, w = node.inputs
    kind, weights = context.types[result], context.types[w].shape
    last = node.attributes["layout"] == "NHWC"
    axes = axes_of(kind.shape)
    symbols = symbols_of_axes(axes)
    channel = len(axes) - 1 if last else 1
    spatial = [symbols[i] for i in range(1, len(axes)) if i != channel]
    window = [Axis(f"_k{i}", e) for i, e in enumerate(weights[2:])]
    inner = Axis("_c", weights[1])
    taps, c = symbols_of_axes(window), symbols_of_axes([inner])[0]
    strides, low, dilations = (integers(node, n) for n in ("strides", "low", "dilations"))
    places = [s * t - p + k * d for s, t, p, k, d in zip(spatial, strides, low, taps, dilations, strict=True)]
    groups = integer_of(node.attributes["groups"])
    group = floordiv(symbols[channel], floordiv(weights[0], groups)) if groups > 1 else 0
    source = group * weights[1] + c
    indices = (symbols[0], *places, source) if last else (symbols[0], source, *places)
    ragged = any(low) or any(integers(node, "high"))
    accesses = (Access(indices, 0.0 if ragged else None), Access((symbols[channel], c, *taps)))
    program = _product(context.types[x].dtype, context.types[w].dtype, kind.dtype)
    reduction = tuple(axis for axis in (*window, inner) if axis.extent != 1)
    return Compute(result, (x, w), accesses, axes, reduction, "sum", program)


def _reduce_window(node: GraphNode, context: Context, result: int) -> Compute:
    kind = context.types[result]
    axes = axes_of(kind.shape)
    window = tuple(Axis(f"_k{i}", e) for i, e in enumerate(integers(node, "window")))
    parts = zip(
        symbols_of_axes(axes),
        symbols_of_axes(window),
        *(integers(node, n) for n in ("strides", "low", "dilations")),
        strict=True,
    )
    indices = tuple(i * s - p + k * d for i, k, s, p, d in parts)
    combine = _combine(node)
    ragged = any(integers(node, "low")) or any(integers(node, "high"))
    access = Access(indices, IDENTITY[combine] if ragged else None)
    reduction = tuple(axis for axis in window if axis.extent != 1)
    program = _cast_program(context.types[node.inputs[0]].dtype, kind.dtype)
    return Compute(result, node.inputs, (access,), axes, reduction, combine, program)


def _combine(node: GraphNode) -> Combine:
    match node.attributes["kind"]:
        case "sum":
            return "sum"
        case "max":
            return "max"
        case "min":
            return "min"
        case "prod":
            return "prod"
        case kind:
            raise ValueError(f"{node.op} of kind {kind!r}")


def _reduction_over(
    ends: tuple[int, int], axes: Sequence[int], keep: bool, combine: Combine, context: Context
) -> Compute:
    source, result = ends
    shape, kind = context.types[source].shape, context.types[result]
    # Axes are named after the source's, so that a row task can tell which of its axes a dropped one left behind.
    own = axes_of(shape if not keep else kind.shape)
    axes_left = own if keep else tuple(a for i, a in enumerate(own) if i not in axes)
    kept = iter(axes_left)
    indices: list[Extent] = []
    reduction: list[Axis] = []
    for position, extent in enumerate(shape):
        if position in axes:
            reduction.append(Axis(f"_k{position}", extent))
            indices.append(0 if extent == 1 else symbol(f"_k{position}"))
            if keep:
                next(kept)
        else:
            indices.extend(symbols_of_axes([next(kept)]))
    runs = tuple(axis for axis in reduction if axis.extent != 1)
    access = Access(tuple(indices))
    program = _cast_program(context.types[source].dtype, kind.dtype)
    return Compute(result, (source,), (access,), axes_left, runs, combine, program)


def _reduce(node: GraphNode, context: Context, result: int) -> Compute:
    keep = bool(node.attributes["keepdims"])
    return _reduction_over((node.inputs[0], result), integers(node, "axes"), keep, _combine(node), context)


def _softmax(node: GraphNode, context: Context) -> tuple[Compute, ...]:
    x, kind = node.inputs[0], context.types[node.output]
    axis = integer_of(node.attributes["axis"]) % kind.rank
    wide = kind.dtype if kind.dtype.bits >= F32.bits else F32
    small = Type("tensor", wide, tuple(1 if i == axis else e for i, e in enumerate(kind.shape)))
    top, total = context.fresh(small), context.fresh(small)
    inverse, powers = context.fresh(small), context.fresh(replace(kind, dtype=wide))
    axes = axes_of(kind.shape)
    own = symbols_of_axes(axes)
    row = Access(tuple(0 if i == axis else s for i, s in enumerate(own)))
    shifted = ScalarBuilder((kind.dtype, wide))
    scale = ScalarBuilder((wide,))
    product = ScalarBuilder((wide, wide))
    exponential = shifted.finish(shifted.op("exp", shifted.op("sub", shifted.cast(0, wide), 1)))
    reciprocal = scale.finish(scale.op("div", scale.const(1.0, wide), 0))
    scaled = product.finish(product.cast(product.op("mul", 0, 1), kind.dtype))
    identity = Access(tuple(own))
    return (
        # A NaN passed over here makes the sum one: the row is NaN, as it should be, for a quarter of the operations.
        _reduction_over((x, top), (axis,), True, "largest", context),
        Compute(powers, (x, top), (identity, row), axes, (), "none", exponential),
        _reduction_over((powers, total), (axis,), True, "sum", context),
        Compute(inverse, (total,), (row,), axes_of(small.shape), (), "none", reciprocal),
        Compute(node.output, (powers, inverse), (identity, row), axes, (), "none", scaled),
    )


_TABLE: dict[str, _Row] = {
    "transpose": _transpose,
    "broadcast_to": _broadcast,
    "slice": _slice,
    "pad": _pad,
    "reshape": _reshape,
    "gather": _gather,
    "gather_elements": _gather_elements,
    "iota": _index_value,
    "dimension": _index_value,
    "random": define_random,
    "matmul": _rounded_once(_matmul),
    "conv": _rounded_once(_conv),
    "reduce_window": _rounded_once(_reduce_window),
    "reduce": _rounded_once(_reduce),
    "softmax": _softmax,
    "repeat": define_repeat,
    "depth_to_space": define_depth_to_space,
    "resample": define_resample,
}
