"""Movement: other shapes and other orders of the same elements.

Takes tensors; gives tensors. Invariant: no element changes; -1 in a shape is the extent that is left, as in numpy.
"""

from __future__ import annotations

from collections.abc import Sequence

from tessera.errors import LanguageError
from tessera.model.arguments import Count, door
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, described, emit
from tessera.model.trace import needed
from tessera.op.axes import Axes, Axis, Shape, axes_of, axis_of, extents_of_shape, ordered_axes
from tessera_build.ir.core.dims import Extent, floordiv, mod
from tessera_build.ir.core.types import I64
from tessera_build.ir.graph.ops.shapes import count, shape_text


@door
def reshape(x: Value, shape: Shape) -> Tensor:
    """The same elements in row-major order under another shape."""
    trace = needed()
    wanted = list(extents_of_shape(trace, shape, low=-1))
    if wanted.count(-1) > 1:
        raise LanguageError(
            "BAD_SHAPE", "a shape leaves more than one extent open", site=here(), found=shape_text(wanted)
        )
    if -1 in wanted:
        others = count(tuple(extent for extent in wanted if extent != -1))
        left = 1 if others == 0 else mod(count(x.shape), others)
        if isinstance(left, int) and left != 0:
            raise LanguageError(
                "BAD_SHAPE",
                "no extent in place of -1 keeps the number of elements",
                site=here(),
                expected=f"{count(x.shape)} elements, of {described(x)}",
                found=shape_text(wanted),
            )
        wanted[wanted.index(-1)] = floordiv(count(x.shape), others)
    return reshaped(x, tuple(wanted))


def reshaped(x: Value, shape: tuple[Extent, ...]) -> Tensor:
    """The elements under another shape; numbers of elements that only a run can compare are a guard of the entry."""
    own, wanted = count(x.shape), count(shape)
    if own == wanted or isinstance(own - wanted, int):
        return emit("reshape", x, shape=shape)
    message = f"{shape_text(x.shape)} has other elements than {shape_text(shape)}, which it is reshaped to at {here()}"
    needed().require(own, "==", wanted, message)
    flat = emit("reshape", x, shape=(own,))
    return emit("reshape", emit("slice", flat, starts=(0,), stops=(wanted,), steps=(1,)), shape=shape)


@door
def transpose(x: Value, axes: Axes = None) -> Tensor:
    """Axis i of the result is axis axes[i] of x; without axes they are reversed."""
    order = tuple(reversed(range(x.ndim))) if axes is None else ordered_axes(axes, x)
    if sorted(order) != list(range(x.ndim)):
        raise LanguageError(
            "BAD_AXIS", "transpose takes every axis once", site=here(), expected=f"{x.ndim} axes", found=str(order)
        )
    return emit("transpose", x, perm=order)


@door
def broadcast_to(x: Value, shape: Shape) -> Tensor:
    """x repeated along axes of extent 1 and along new ones in front."""
    return emit("broadcast_to", x, shape=extents_of_shape(needed(), shape))


@door
def concat(tensors: Sequence[Value], axis: Axis = 0) -> Tensor:
    """Tensors joined along an axis."""
    if not tensors:
        raise LanguageError("BAD_ARGUMENT", "concat joins at least one tensor", site=here(), found="none")
    return emit("concat", *tensors, axis=axis_of(axis, tensors[0]))


@door
def stack(tensors: Sequence[Value], axis: Axis = 0) -> Tensor:
    """Tensors of one shape joined along a new axis."""
    if not tensors:
        raise LanguageError("BAD_ARGUMENT", "stack joins at least one tensor", site=here(), found="none")
    place = axis_of(axis, tensors[0], 1)
    return emit("concat", *(expand_dims(tensor, place) for tensor in tensors), axis=place)


@door
def split(x: Value, parts: Count, axis: Axis = -1) -> tuple[Tensor, ...]:
    """As many equal parts along an axis."""
    place = axis_of(axis, x)
    extent = x.shape[place]
    needed().require(mod(extent, parts), "==", 0, f"axis {axis} of {described(x)} has no {parts} equal parts")
    width = floordiv(extent, parts)
    key: list[object] = [slice(None)] * x.ndim
    found: list[Tensor] = []
    for part in range(parts):
        key[place] = slice(width * part, width * (part + 1))
        found.append(x[tuple(key)])
    return tuple(found)


@door
def expand_dims(x: Value, axis: Axis) -> Tensor:
    """A new axis of extent 1."""
    place = axis_of(axis, x, 1)
    return emit("reshape", x, shape=(*x.shape[:place], 1, *x.shape[place:]))


@door
def squeeze(x: Value, axes: Axes = None) -> Tensor:
    """Without axes of extent 1: those named, or all."""
    chosen = tuple(i for i, e in enumerate(x.shape) if e == 1) if axes is None else axes_of(axes, x)
    wide = [axis for axis in chosen if x.shape[axis] != 1]
    if wide:
        raise LanguageError(
            "BAD_SHAPE", "only axes of extent 1 can be left out", site=here(), expected="extent 1", found=described(x)
        )
    return emit("reshape", x, shape=tuple(e for i, e in enumerate(x.shape) if i not in chosen))


@door
def flatten(x: Value, start: Axis = 1) -> Tensor:
    """All axes from `start` on as one."""
    place = axis_of(start, x)
    return emit("reshape", x, shape=(*x.shape[:place], count(x.shape[place:])))


@door
def flip(x: Value, axis: Axis) -> Tensor:
    """An axis turned round."""
    place = axis_of(axis, x)
    extent = x.shape[place]
    last = emit("iota", shape=(extent,), axis=0, dtype=I64)
    return emit("gather", x, (extent - 1) - last if isinstance(extent, int) else _from_last(extent, last), axis=place)


def _from_last(extent: Extent, places: Tensor) -> Tensor:
    return emit("sub", emit("dimension", value=extent - 1, dtype=I64), places)


@door
def pad(x: Value, low: Sequence[int], high: Sequence[int], value: float = 0.0) -> Tensor:
    """x with a number around it, `low[i]` times before and `high[i]` times behind axis i."""
    return emit("pad", x, low=tuple(low), high=tuple(high), value=float(value))
