"""Convolutions and pools over images with channels on axis 1.

Takes x[N, C, *image] and weights [O, C / groups, *kernel]; gives [N, O, *image]. Invariant: padding never wins a
maximum, and an average counts the elements that are there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tessera.errors import LanguageError
from tessera.model.arguments import Count, Place, door, whole
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, described, emit
from tessera.model.trace import needed
from tessera.op.creation import ones
from tessera.op.reduction import reduce_mean
from tessera_build.ir.core.dims import Extent

Sizes = int | Sequence[int]


@door
def conv(  # noqa: PLR0913  every option is a keyword
    x: Value,
    weight: Value,
    bias: Value | None = None,
    *,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: Count = 1,
) -> Tensor:
    """The convolution of an image with weights [O, C / groups, *kernel], over one to three spatial axes."""
    axes = spatial_axes(x)
    pads, apart = sizes_of(padding, axes, "padding", 0), sizes_of(dilation, axes, "dilation")
    strides = sizes_of(stride, axes, "stride")
    result = emit("conv", x, weight, strides=strides, low=pads, high=pads, dilations=apart, groups=groups)
    _expect_room(x, [(size - 1) * step + 1 for size, step in zip(weight.shape[2:], apart, strict=True)], pads)
    if bias is None:
        return result
    return emit("add", result, emit("reshape", bias, shape=(*bias.shape, *(1,) * axes)))


@door
def max_pool(x: Value, window: Sizes, *, stride: Sizes | None = None, padding: Sizes = 0) -> Tensor:
    """The largest element of every window."""
    return _pool("max", x, window, (stride, padding))


@door
def avg_pool(x: Value, window: Sizes, *, stride: Sizes | None = None, padding: Sizes = 0) -> Tensor:
    """The average of every window's elements; padding does not count."""
    total = _pool("sum", x, window, (stride, padding))
    axes = spatial_axes(x)
    if not any(sizes_of(padding, axes, "padding", 0)):
        return total * (1.0 / math.prod(sizes_of(window, axes, "window")))
    return emit("div", total, _pool("sum", ones((1, 1, *x.shape[2:]), x.dtype), window, (stride, padding)))


@door
def global_avg_pool(x: Value, *, keepdims: bool = False) -> Tensor:
    """The average of every channel's image."""
    spatial_axes(x)
    return reduce_mean(x, tuple(range(2, x.ndim)), keepdims=keepdims)


def _pool(kind: str, x: Value, window: Sizes, how: tuple[Sizes | None, Sizes]) -> Tensor:
    axes = spatial_axes(x)
    sizes, pads = sizes_of(window, axes, "window"), sizes_of(how[1], axes, "padding", 0)
    strides = sizes if how[0] is None else sizes_of(how[0], axes, "stride")
    pooled = emit(
        "reduce_window",
        x,
        kind=kind,
        window=(1, 1, *sizes),
        strides=(1, 1, *strides),
        low=(0, 0, *pads),
        high=(0, 0, *pads),
        dilations=(1,) * x.ndim,
    )
    _expect_room(x, sizes, pads)
    return pooled


def _expect_room(x: Value, spans: Sequence[Extent], pads: Sequence[int]) -> None:
    """Demand that windows, which reach over so many elements, fit into the padded image."""
    for extent, span, pad in zip(x.shape[2:], spans, pads, strict=True):
        needed().require(extent + 2 * pad, ">=", span, "a window is larger than its padded image")


def spatial_axes(x: Value) -> int:
    """How many axes the image has."""
    if not 3 <= x.ndim <= 5:
        raise LanguageError(
            "TYPE_MISMATCH",
            "an image has one to three spatial axes behind batch and channels",
            site=here(),
            expected="[N, C, *image]",
            found=described(x),
        )
    return x.ndim - 2


def sizes_of(value: Sizes, axes: int, what: str, low: int = 1) -> tuple[int, ...]:
    """A number for each spatial axis; raises where there are others."""
    given = value if isinstance(value, list | tuple) else (value,) * axes
    sizes = tuple(whole(size, Place("a window over an image", what), low=low) for size in given)
    if len(sizes) != axes:
        raise LanguageError(
            "BAD_ARGUMENT", f"{what} does not fit the image", site=here(), expected=f"{axes} numbers", found=str(sizes)
        )
    return sizes
