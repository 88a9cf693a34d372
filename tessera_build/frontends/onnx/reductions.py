"""Reductions, softmax and their relatives.

Takes one tensor and axes as attribute or operand; gives core ops. Invariant: axes are known at build time, sorted and
counted from the front.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import ml_dtypes

from tessera_build.frontends.onnx.call import Call, Translator, normalise_axes
from tessera_build.frontends.onnx.containers import Value
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import unsupported
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import F64, I64

Body = Callable[[Context, Tensor, Sequence[int], bool], Tensor]


def _axes(c: Context, n: Call, rank: int) -> tuple[int, ...] | None:
    """The axes of a reduction; None when nothing is to be reduced."""
    stated = n.optional(1)
    axes = c.known_ints(stated, "the axes") if stated is not None else n.integers("axes", ())
    if not axes:
        return None if n.integer("noop_with_empty_axes", 0) else tuple(range(rank))
    n.ignore("noop_with_empty_axes")
    return normalise_axes(axes, rank)


def _reduction(body: Body, before: Callable[[Context, Tensor], Tensor] | None = None) -> Translator:
    def translate(c: Context, n: Call) -> Tensor:
        x = n.input(0)
        axes = _axes(c, n, x.rank)
        keepdims = bool(n.integer("keepdims", 1))
        x = before(c, x) if before else x
        return body(c, x, axes or (), keepdims)

    return translate


def _simple(kind: str) -> Body:
    def body(c: Context, x: Tensor, axes: Sequence[int], keepdims: bool) -> Tensor:
        return c.reduce(kind, x, axes, keepdims)

    return body


def _mean(c: Context, x: Tensor, axes: Sequence[int], keepdims: bool) -> Tensor:
    if not axes:
        return x
    if x.dtype.is_float or x.dtype.bits >= 32:
        return c.mean(x, axes, keepdims)
    return c.cast(c.mean(c.cast(x, I64), axes, keepdims), x.dtype)  # sums of bytes soon leave their type


def _in_doubles(reduction: Translator) -> Translator:
    """A reduction whose steps have no integer form: integers are computed as f64 and cut off, as onnxruntime does."""

    def translate(c: Context, n: Call) -> Value | tuple[Value, ...]:
        x = n.input(0)
        if x.dtype.is_float:
            return reduction(c, n)
        result = reduction(c, replace(n, inputs=(c.cast(x, F64), *n.inputs[1:])))
        assert isinstance(result, Tensor)
        return c.cast(result, x.dtype)

    return translate


def _root_of_sum(c: Context, x: Tensor, axes: Sequence[int], keepdims: bool) -> Tensor:
    total = c.reduce("sum", x, axes, keepdims)
    return c.op("sqrt", total)


def _log_of_sum(c: Context, x: Tensor, axes: Sequence[int], keepdims: bool) -> Tensor:
    return c.op("log", c.reduce("sum", x, axes, keepdims))


def _log_sum_exp(c: Context, x: Tensor, axes: Sequence[int], keepdims: bool) -> Tensor:
    """max + log(sum(exp(x - max))), which cannot overflow."""
    if not x.dtype.is_float:  # onnxruntime cuts every exponential off; ONNX took integers out of the schema
        raise unsupported("ReduceLogSumExp of integers means nothing", found=str(x.type), hint="cast to float first")
    most = float(ml_dtypes.finfo(x.dtype.numpy).max)
    top = c.reduce("max", x, axes, keepdims=True)
    # Less an infinite maximum, every element would be NaN; less the largest number, -inf stays 0 and inf stays inf.
    top = c.op("max", c.op("min", top, c.scalar(most, x.dtype)), c.scalar(-most, x.dtype))
    total = c.reduce("sum", c.op("exp", c.op("sub", x, top)), axes, keepdims=True)
    result = c.op("add", top, c.op("log", total))
    return result if keepdims else c.reshape(result, [e for i, e in enumerate(x.shape) if i not in axes])


def _absolute(c: Context, x: Tensor) -> Tensor:
    return c.op("abs", x)


def square(c: Context, x: Tensor) -> Tensor:
    """x * x."""
    return c.op("mul", x, x)


def flattened(c: Context, x: Tensor, axis: int) -> Tensor:
    """The tensor as a matrix: axes before `axis` are rows, the others columns."""
    rows: Extent = 1
    columns: Extent = 1
    for i, extent in enumerate(x.shape):
        rows, columns = (rows * extent, columns) if i < axis else (rows, columns * extent)
    return c.reshape(x, (rows, columns))


def _along(n: Call, x: Tensor) -> tuple[int, bool]:
    """The axis, and whether the operator is defined on the flattened matrix (before opset 13) with an effect."""
    axis = n.axis(x.rank, 1 if n.opset < 13 else -1)
    others = [e for e in x.shape[axis + 1 :] if e != 1]
    return axis, n.opset < 13 and bool(others)


def _log_softmax(c: Context, x: Tensor, axis: int) -> Tensor:
    shifted = c.op("sub", x, c.reduce("max", x, (axis,), keepdims=True))
    total = c.reduce("sum", c.op("exp", shifted), (axis,), keepdims=True)
    return c.op("sub", shifted, c.op("log", total))


def _plain_softmax(c: Context, x: Tensor, axis: int) -> Tensor:
    return c.op("softmax", x, axis=axis)


def _softmax(body: Callable[[Context, Tensor, int], Tensor]) -> Translator:
    def translate(c: Context, n: Call) -> Tensor:
        x = n.input(0)
        axis, flat = _along(n, x)
        return c.reshape(body(c, flattened(c, x, axis), 1), x.shape) if flat else body(c, x, axis)

    return translate


REDUCTION_OPERATORS: Mapping[str, Translator] = {
    "ReduceSum": _reduction(_simple("sum")),
    "ReduceMax": _reduction(_simple("max")),
    "ReduceMin": _reduction(_simple("min")),
    "ReduceProd": _reduction(_simple("prod")),
    "ReduceMean": _reduction(_mean),
    "ReduceL1": _reduction(_simple("sum"), _absolute),
    "ReduceL2": _in_doubles(_reduction(_root_of_sum, square)),
    "ReduceSumSquare": _reduction(_simple("sum"), square),
    "ReduceLogSum": _in_doubles(_reduction(_log_of_sum)),
    "ReduceLogSumExp": _reduction(_log_sum_exp),
    "Softmax": _softmax(_plain_softmax),
    "LogSoftmax": _softmax(_log_softmax),
}
