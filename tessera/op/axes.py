"""Axes and shapes as people write them: negative axes count from the end, one or several, or all.

Takes axes and a rank, or a shape; gives axes from 0 on, or extents. Invariant: an axis that a tensor does not have, and
an extent that is none, is refused at the author's place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, cast

import numpy as np

from tessera.errors import LanguageError
from tessera.model.arguments import Inside, found_text
from tessera.model.site import here
from tessera.model.tensor import Value, described
from tessera.model.trace import Trace
from tessera_build.ir.core.dims import Dim, Extent

Axis = Annotated[int, Inside()]
Axes = int | Sequence[int] | None
Shape = Annotated[Sequence[Extent], Inside()]


def axis_of(axis: int, tensor: Value, extra: int = 0) -> int:
    """One axis of a tensor that gets `extra` more axes."""
    rank = tensor.ndim + extra
    if isinstance(axis, np.integer):
        axis = int(cast(int, axis))
    if isinstance(axis, bool) or not isinstance(axis, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise LanguageError("BAD_AXIS", "an axis is none", site=here(), expected="a number", found=found_text(axis))
    if not -rank <= axis < rank:
        raise LanguageError(
            "BAD_AXIS",
            f"axis {axis} is out of range",
            site=here(),
            expected=f"an axis from {-rank} to {rank - 1}" if rank else "no axis: the tensor is a scalar",
            found=described(tensor),
        )
    return axis % rank


def extents_of_shape(trace: Trace, shape: Sequence[Extent], *, low: int = 0) -> tuple[Extent, ...]:
    """A shape as its author writes it: numbers from `low` on and extents of other tensors' shapes."""
    if not isinstance(shape, list | tuple):
        raise LanguageError(
            "BAD_EXTENT",
            "a shape is none",
            site=here(),
            expected="extents in parentheses, such as (x.shape[0], 4) or (3,)",
            found=found_text(shape),
        )
    return tuple(_extent(trace, extent, low) for extent in cast("Sequence[object]", shape))


def expect_size(trace: Trace, extent: Extent) -> Extent:
    """An extent that an author computes, which must be 0 or more in every call; with the dims that the build fixes."""
    trace.require(extent, ">=", 0, f"the extent {extent} is below zero")
    return trace.extent(extent)


def _extent(trace: Trace, extent: object, low: int) -> Extent:
    if isinstance(extent, Dim):
        return expect_size(trace, extent)
    if isinstance(extent, bool) or not isinstance(extent, int | np.integer):
        raise LanguageError(
            "BAD_EXTENT",
            "an extent of a shape is no extent",
            site=here(),
            expected="a number, or an extent of a tensor such as x.shape[0]",
            found=found_text(extent),
        )
    size = int(cast(int, extent))
    if not low <= size < 1 << 63:
        raise LanguageError(
            "BAD_EXTENT", "an extent of a shape is no size", site=here(), expected=f"{low} or more", found=str(size)
        )
    return size


def axes_of(axes: Axes, tensor: Value) -> tuple[int, ...]:
    """Several axes, in ascending order; None is all of them."""
    if axes is None:
        return tuple(range(tensor.ndim))
    chosen = ordered_axes(axes, tensor)
    if len(set(chosen)) < len(chosen):
        raise LanguageError(
            "BAD_AXIS", "an axis is named twice", site=here(), expected="distinct axes", found=str(chosen)
        )
    return tuple(sorted(chosen))


def ordered_axes(axes: int | Sequence[int], tensor: Value) -> tuple[int, ...]:
    """One or several axes in the order in which they are named."""
    several = cast("Sequence[int]", axes if isinstance(axes, list | tuple) else (axes,))
    return tuple(axis_of(axis, tensor) for axis in several)
