"""Images that become larger or smaller: transposed convolutions, resizing.

Takes x[N, C, *image]; gives images of other extents. Invariant: every element of a result is a sum of exactly the
elements that reach it; nothing is multiplied by zeros that were put in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tessera.errors import LanguageError
from tessera.model.arguments import Count, door
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, constant_of, described, emit, emit_all
from tessera.model.trace import Trace, needed
from tessera.op.axes import Shape, extents_of_shape
from tessera.op.convolution import Sizes, sizes_of, spatial_axes
from tessera.op.creation import arange, dimension, ones
from tessera.op.elementwise import cast, maximum, minimum
from tessera.op.movement import stack
from tessera_build.ir.core.dims import Extent, floordiv
from tessera_build.ir.core.types import F32, F64, DType, Type
from tessera_build.ir.graph.autodiff.emit import Emit
from tessera_build.ir.graph.autodiff.phases import transposed_convolution
from tessera_build.ir.graph.nodes import Array, Attribute


@door
def conv_transpose(  # noqa: PLR0913  every option is a keyword
    x: Value,
    weight: Value,
    bias: Value | None = None,
    *,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: Count = 1,
) -> Tensor:
    """What `conv` with weights [C, O / groups, *kernel] gives back to its image: [N, O, *image].

    The image has (extent - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1 + output_padding elements an axis.
    """
    axes = spatial_axes(x)
    strides, dilations = sizes_of(stride, axes, "stride"), sizes_of(dilation, axes, "dilation")
    pads, more = sizes_of(padding, axes, "padding", 0), sizes_of(output_padding, axes, "output_padding", 0)
    kernel = _kernel(x, weight, groups)
    rows = zip(x.shape[2:], kernel, strides, dilations, pads, more, strict=True)
    extents = [(n - 1) * s - 2 * p + d * (k - 1) + 1 + m for n, k, s, d, p, m in rows]
    if any(m >= max(s, d) for m, s, d in zip(more, strides, dilations, strict=True)) or any(
        isinstance(extent, int) and extent < 1 for extent in extents
    ):
        raise LanguageError(
            "BAD_ARGUMENT",
            "a transposed convolution has no such image",
            site=here(),
            expected="extents of 1 or more, output_padding below the stride or the dilation",
            found=f"extents {', '.join(map(str, extents))}, output_padding {more}",
        )
    trace = needed()
    how = {"groups": groups, "strides": strides, "low": pads, "dilations": dilations}
    spatial = [trace.extent(extent) for extent in extents]
    for extent in spatial:
        trace.require(extent, ">=", 1, "a transposed convolution has no such image")
    value = transposed_convolution(Emit(_Written(trace)), x.value_in(trace), weight.value_in(trace), how, spatial)
    result = Tensor(trace, value)
    return result if bias is None else emit("add", result, emit("reshape", bias, shape=(*bias.shape, *(1,) * axes)))


def _kernel(x: Value, weight: Value, groups: int) -> tuple[int, ...]:
    """The extents of the weights' taps; raises where the weights do not fit the image."""
    known = [extent for extent in weight.shape if isinstance(extent, int)]
    if len(known) == weight.ndim == x.ndim and known[0] == x.shape[1] and known[0] % groups == 0:
        return tuple(known[2:])
    raise LanguageError(
        "TYPE_MISMATCH",
        "a transposed convolution's weights do not fit its image",
        site=here(),
        expected=f"[C, O / {groups}, *kernel], all known, for x[N, C, *image] with C a multiple of {groups}",
        found=f"{described(weight)} for {described(x)}",
    )


@dataclass(frozen=True, slots=True)
class _Written:
    """Where nodes go that are written at the author's place, under the policies of what they take."""

    trace: Trace

    def type(self, value: int) -> Type:
        """The type of a value."""
        return self.trace.builder.type(value)

    def constant(self, array: ArrayLike) -> int:
        """The value of a constant."""
        return constant_of(self.trace, np.asarray(array), here())

    def array(self, value: int) -> Array | None:
        """The array of a constant value; None for any other value."""
        return self.trace.builder.array(value)

    def is_number(self, value: int) -> bool:
        """Whether a value is what the model's text states, and no weight."""
        return self.trace.builder.is_number(value)

    def node(self, op: str, inputs: tuple[int, ...], attributes: Mapping[str, Attribute]) -> tuple[int, ...]:
        """Append a node; gives its results."""
        results = emit_all(op, [Tensor(self.trace, value) for value in inputs], attributes)
        return tuple(result.value for result in results)


@door
def resize(x: Value, size: Shape, *, mode: str = "nearest") -> Tensor:
    """The image with `size` elements along its axes, which may be symbolic: of the nearest ones, or linear between
    them, with the centres of the outermost pixels half a pixel inside, as torch's and ONNX's "half_pixel".
    """
    axes, trace = spatial_axes(x), needed()
    extents = extents_of_shape(trace, size, low=1)
    if len(extents) != axes or mode not in ("nearest", "linear"):
        raise LanguageError(
            "BAD_ARGUMENT",
            "resize does not fit the image",
            site=here(),
            expected=f'{axes} extents, mode "nearest" or "linear"',
            found=f"{', '.join(map(str, extents))}, {mode!r}",
        )
    pairs = list(zip(x.shape[2:], extents, strict=True))
    for extent in (*x.shape[2:], *extents):
        trace.require(extent, ">=", 1, "resize takes and gives images of 1 or more elements an axis")
    factors = [floordiv(new, old) for old, new in pairs]
    if mode == "nearest" and all(_times(*pair) for pair in pairs):
        return emit("repeat", x, factors=(1, 1, *factors))
    result = Tensor(trace, x.value_in(trace))
    for axis, (old, new) in enumerate(pairs, 2):
        if old != new:
            places, weights = (
                _nearest(old, new) if mode == "nearest" else _linear(old, new, F64 if x.dtype == F64 else F32)
            )
            result = emit("resample", result, places, cast(weights, x.dtype), axis=axis)
    return result


def _times(old: Extent, new: Extent) -> bool:
    """Whether each element is there a number of times that is known."""
    factor = floordiv(new, old)
    return isinstance(factor, int) and factor > 0 and old * factor == new


def _nearest(old: Extent, new: Extent) -> tuple[Tensor, Tensor]:
    """For each new place the old one that it lies in, in whole numbers, and its weight."""
    places = emit("reshape", arange(new) * old // new, shape=(1, new))
    return places, ones((1, new))


def _linear(old: Extent, new: Extent, wide: DType) -> tuple[Tensor, Tensor]:
    """The two old places around each new one, and their weights: i + 1/2 new pixels are that times old / new old ones,
    counted in halves of new ones, so that places are whole numbers.
    """
    halves = maximum((2 * arange(new) + 1) * old - new, 0)
    first = halves // (2 * new)
    part = cast(halves - first * (2 * new), wide) / dimension(2 * new, wide)
    return stack([first, minimum(first + 1, old - 1)]), stack([1.0 - part, part])
