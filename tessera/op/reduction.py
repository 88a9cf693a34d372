"""Reductions: sums, means, extrema, softmax and its relatives, running sums, places of extrema.

Takes one tensor and axes; gives one tensor. Invariant: the order of every sum is fixed by the shape, so bits are the
same for every number of threads; `stable=True` therefore asks for what holds anyway, and `stable=False` for nothing.
"""

from __future__ import annotations

from tessera.errors import LanguageError
from tessera.model.arguments import door
from tessera.model.filled import stop_gradient
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, described, emit, quotient
from tessera.model.trace import needed
from tessera.op.axes import Axes, Axis, axes_of, axis_of
from tessera.op.creation import dimension
from tessera.op.elementwise import cast
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import F32, I64
from tessera_build.ir.graph.ops.shapes import count


def _reduced(kind: str, x: Value, axes: Axes, keepdims: bool) -> Tensor:
    return emit("reduce", x, kind=kind, axes=axes_of(axes, x), keepdims=keepdims)


@door
def reduce_sum(x: Value, axes: Axes = None, *, keepdims: bool = False, stable: bool = True) -> Tensor:
    """The sum over axes, in an order that the shape fixes."""
    del stable
    return _reduced("sum", x, axes, keepdims)


@door
def reduce_max(x: Value, axes: Axes = None, *, keepdims: bool = False) -> Tensor:
    """The largest element over axes."""
    return _reduced("max", x, axes, keepdims)


@door
def reduce_min(x: Value, axes: Axes = None, *, keepdims: bool = False) -> Tensor:
    """The smallest element over axes."""
    return _reduced("min", x, axes, keepdims)


@door
def reduce_prod(x: Value, axes: Axes = None, *, keepdims: bool = False) -> Tensor:
    """The product over axes."""
    return _reduced("prod", x, axes, keepdims)


@door
def reduce_mean(x: Value, axes: Axes = None, *, keepdims: bool = False, stable: bool = True) -> Tensor:
    """The mean over axes; half floats are added up as float32, since they hold neither sum nor count of many.

    NaN where there is nothing to take the mean of, as in numpy.
    """
    if x.dtype.is_float and x.dtype.bits < F32.bits:
        return cast(reduce_mean(cast(x, F32), axes, keepdims=keepdims, stable=stable), x.dtype)
    number = elements(x, axes)
    total = reduce_sum(x, axes, keepdims=keepdims, stable=stable)
    if isinstance(number, int):
        return quotient(total, number)
    return quotient(total, dimension(number, x.dtype))


@door
def mean(x: Value, axes: Axes = None, *, keepdims: bool = False) -> Tensor:
    """The mean over axes."""
    return reduce_mean(x, axes, keepdims=keepdims)


@door
def variance(x: Value, axes: Axes = None, *, keepdims: bool = False) -> Tensor:
    """The mean of the squared distances from the mean."""
    centred = x - reduce_mean(x, axes, keepdims=True)
    return reduce_mean(centred * centred, axes, keepdims=keepdims)


def elements(x: Value, axes: Axes) -> Extent:
    """How many elements become one."""
    return count(tuple(x.shape[axis] for axis in axes_of(axes, x)))


@door
def softmax(x: Value, axis: Axis = -1) -> Tensor:
    """exp(x) divided by its sum along an axis; the maximum is subtracted first, so that nothing overflows."""
    return emit("softmax", x, axis=axis_of(axis, x))


def _shift(x: Value, axis: int) -> Tensor:
    """The maximum along an axis, which only keeps numbers small: results do not depend on it, so nor do derivatives.

    Through it they would get sums that cancel to nothing but rounding.
    """
    return stop_gradient(emit("reduce", x, kind="max", axes=(axis,), keepdims=True))


@door
def softmax_safe(x: Value, axis: Axis = -1) -> Tensor:
    """Softmax, but zeros for a row of minus infinities, such as one that a mask covers wholly."""
    place = axis_of(axis, x)
    highest = _shift(x, place)
    alive = emit("ne", highest, float("-inf"))  # of NaN, too: a row that has one is NaN, as softmax's
    shifted = emit("exp", x - emit("select", alive, highest, 0.0))
    total = reduce_sum(shifted, place, keepdims=True)
    return emit("div", shifted, emit("select", alive, total, 1.0))


@door
def log_softmax(x: Value, axis: Axis = -1) -> Tensor:
    """The logarithm of softmax, without computing softmax."""
    place = axis_of(axis, x)
    shifted = x - _shift(x, place)
    return shifted - emit("log", reduce_sum(emit("exp", shifted), place, keepdims=True))


@door
def logsumexp(x: Value, axis: Axis = -1, *, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))) along an axis, by the maximum, so that nothing overflows."""
    place = axis_of(axis, x)
    highest = _shift(x, place)
    total = emit("log", reduce_sum(emit("exp", x - highest), place, keepdims=True)) + highest
    return total if keepdims else emit("reshape", total, shape=tuple(e for i, e in enumerate(x.shape) if i != place))


@door
def logsumexp_safe(x: Value, axis: Axis = -1, *, keepdims: bool = False) -> Tensor:
    """logsumexp, but minus infinity for a row of minus infinities and infinity where an element is."""
    place = axis_of(axis, x)
    highest = _shift(x, place)
    finite = emit("lt", emit("abs", highest), float("inf"))
    shift = emit("select", finite, highest, 0.0)
    total = emit("log", reduce_sum(emit("exp", x - shift), place, keepdims=True)) + shift
    # Where no finite number is the sum, the maximum itself is.
    total = emit("select", finite, total, highest)
    return total if keepdims else emit("reshape", total, shape=tuple(e for i, e in enumerate(x.shape) if i != place))


@door
def argmax(x: Value, axis: Axis = -1) -> Tensor:
    """The place of the first largest element along an axis; that of the first NaN where there is one."""
    return _place("max", x, axis)


@door
def argmin(x: Value, axis: Axis = -1) -> Tensor:
    """The place of the first smallest element along an axis; that of the first NaN where there is one."""
    return _place("min", x, axis)


def _place(kind: str, x: Value, axis: int) -> Tensor:
    place = axis_of(axis, x)
    if x.shape[place] == 0:
        raise LanguageError(
            "BAD_ARGUMENT", f"arg{kind} along an axis without elements", site=here(), found=described(x)
        )
    needed().require(x.shape[place], ">=", 1, f"arg{kind} along an axis without elements")
    found = emit("eq", x, emit("reduce", x, kind=kind, axes=(place,), keepdims=True))
    if x.dtype.is_float:
        found = emit("or", found, emit("isnan", x))
    shape = tuple(extent if i == place else 1 for i, extent in enumerate(x.shape))
    numbers = emit("iota", shape=shape, axis=place, dtype=I64)
    return emit("reduce", emit("select", found, numbers, (1 << 62)), kind="min", axes=(place,), keepdims=False)


@door
def cumsum(x: Value, axis: Axis = -1) -> Tensor:
    """Running sums along an axis."""
    return _running("sum", x, axis)


@door
def cumprod(x: Value, axis: Axis = -1) -> Tensor:
    """Running products along an axis."""
    return _running("prod", x, axis)


def _running(kind: str, x: Value, axis: int) -> Tensor:
    place = axis_of(axis, x)
    flat = emit("reshape", x, shape=(count(x.shape[:place]), x.shape[place], count(x.shape[place + 1 :])))
    return emit("reshape", emit("cumulate", flat, kind=kind), shape=x.shape)
