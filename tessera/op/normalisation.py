"""Normalisations: batch, layer, group, root mean square.

Takes a tensor and, where there are some, scales; gives a tensor of the same shape and type. Invariant: statistics of
types narrower than f32 are computed in f32, and the safe forms give no NaN and no infinity for finite rows of any size.
"""

from __future__ import annotations

from collections.abc import Callable

from tessera.errors import LanguageError
from tessera.model.arguments import Count, door
from tessera.model.filled import stop_gradient
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, described, emit, quotient
from tessera.op.axes import Axes, axes_of
from tessera.op.reduction import reduce_mean
from tessera_build.ir.core.dims import floordiv, mod
from tessera_build.ir.core.types import F32


@door
def layernorm(
    x: Value, scale: Value | None = None, bias: Value | None = None, *, axes: Axes = -1, epsilon: float = 1e-5
) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the axes."""
    normalised = _in_wide(x, lambda wide: _standard(wide, axes, epsilon))
    return _scaled(normalised, scale, bias)


@door
def rmsnorm(x: Value, scale: Value | None = None, *, axes: Axes = -1, epsilon: float = 1e-6) -> Tensor:
    """x / sqrt(mean of squares + epsilon) * scale over the axes."""
    normalised = _in_wide(x, lambda wide: wide / emit("sqrt", reduce_mean(wide * wide, axes, keepdims=True) + epsilon))
    return _scaled(normalised, scale, None)


@door
def layernorm_safe(
    x: Value, scale: Value | None = None, bias: Value | None = None, *, axes: Axes = -1, epsilon: float = 1e-5
) -> Tensor:
    """layernorm of a row divided by its largest element, where that is more than 1: its squares cannot overflow."""

    def standard(wide: Value) -> Tensor:
        factor = _shrinking(wide, axes)
        small = wide * factor
        centred = small - reduce_mean(small, axes, keepdims=True)
        spread = reduce_mean(centred * centred, axes, keepdims=True)
        return centred / emit("sqrt", spread + factor * factor * epsilon)

    return _scaled(_in_wide(x, standard), scale, bias)


@door
def rmsnorm_safe(x: Value, scale: Value | None = None, *, axes: Axes = -1, epsilon: float = 1e-6) -> Tensor:
    """rmsnorm of a row divided by its largest element, where that is more than 1: its squares cannot overflow."""

    def standard(wide: Value) -> Tensor:
        factor = _shrinking(wide, axes)
        small = wide * factor
        return small / emit("sqrt", reduce_mean(small * small, axes, keepdims=True) + factor * factor * epsilon)

    return _scaled(_in_wide(x, standard), scale, None)


@door
def batchnorm(x: Value, scale: Value, bias: Value, mean: Value, variance: Value, *, epsilon: float = 1e-5) -> Tensor:  # noqa: PLR0913  its operands
    """(x - mean) / sqrt(variance + epsilon) * scale + bias for every channel (axis 1), with statistics given."""
    factor = quotient(scale, emit("sqrt", variance + epsilon))
    shift = emit("sub", bias, mean * factor)
    return x * _per_channel(factor, x) + _per_channel(shift, x)


@door
def groupnorm(
    x: Value, groups: Count, scale: Value | None = None, bias: Value | None = None, *, epsilon: float = 1e-5
) -> Tensor:
    """Channels (axis 1) in groups, each normalised over its channels and the image."""
    if x.ndim < 2 or mod(x.shape[1], groups) != 0:
        raise LanguageError(
            "TYPE_MISMATCH",
            "the channels do not fall into groups",
            site=here(),
            expected=f"a multiple of {groups} on axis 1",
            found=described(x),
        )
    split = emit("reshape", x, shape=(x.shape[0], groups, floordiv(x.shape[1], groups), *x.shape[2:]))
    over = tuple(range(2, split.ndim))
    normalised = _in_wide(split, lambda wide: _standard(wide, over, epsilon))
    whole = emit("reshape", normalised, shape=x.shape)
    parts = [None if part is None else _per_channel(part, x) for part in (scale, bias)]
    return _scaled(whole, parts[0], parts[1])


def _standard(x: Value, axes: Axes, epsilon: float) -> Tensor:
    centred = x - reduce_mean(x, axes, keepdims=True)
    return centred / emit("sqrt", reduce_mean(centred * centred, axes, keepdims=True) + epsilon)


def _shrinking(x: Value, axes: Axes) -> Tensor:
    """1 divided by the largest magnitude of a row, or 1 where that is less.

    Results do not depend on it, so derivatives take it for a constant: through it they would get sums that cancel.
    """
    largest = emit("reduce", abs(x), kind="max", axes=axes_of(axes, x), keepdims=True)
    return stop_gradient(emit("div", 1.0, emit("max", largest, 1.0)))


def _in_wide(x: Value, compute: Callable[[Value], Tensor]) -> Tensor:
    """Compute in f32 where the type is narrower, and round once."""
    if not x.dtype.is_float:
        raise LanguageError(
            "TYPE_MISMATCH", "a normalisation takes floats", site=here(), expected="a float type", found=described(x)
        )
    if x.dtype.bits >= F32.bits:
        return compute(x)
    return emit("cast", compute(emit("cast", x, dtype=F32)), dtype=x.dtype)


def _scaled(x: Tensor, scale: Value | None, bias: Value | None) -> Tensor:
    x = x if scale is None else x * scale
    return x if bias is None else x + bias


def _per_channel(values: Value, x: Value) -> Tensor:
    return emit("reshape", values, shape=(*values.shape, *(1,) * (x.ndim - 2)))
