"""Axes as people write them: negative ones count from the end, one or several, or all.

Takes axes and a rank; gives axes from 0 on. Invariant: an axis that a tensor does not have is refused at the author's
place.
"""

from __future__ import annotations

from collections.abc import Sequence

from tessera.errors import LanguageError
from tessera.model.site import here
from tessera.model.tensor import Value, described
from tessera.model.trace import Trace
from tessera_build.ir.core.dims import Dim, Extent

Axes = int | Sequence[int] | None


def axis_of(axis: int, tensor: Value, extra: int = 0) -> int:
    """One axis of a tensor that gets `extra` more axes."""
    rank = tensor.ndim + extra
    if isinstance(axis, bool) or not isinstance(axis, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise LanguageError("BAD_AXIS", "an axis is none", site=here(), expected="a number", found=repr(axis)[:200])
    if not -rank <= axis < rank:
        raise LanguageError(
            "BAD_AXIS",
            f"axis {axis} is out of range",
            site=here(),
            expected=f"an axis from {-rank} to {rank - 1}" if rank else "no axis: the tensor is a scalar",
            found=described(tensor),
        )
    return axis % rank


def extents_of_shape(trace: Trace, shape: Sequence[Extent]) -> tuple[Extent, ...]:
    """A shape as its author writes it: numbers and extents of other tensors' shapes."""
    for extent in shape:
        if isinstance(extent, bool) or not isinstance(extent, int | Dim):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise LanguageError(
                "BAD_EXTENT",
                "an extent of a shape is no extent",
                site=here(),
                expected="a number, or an extent of a tensor such as x.shape[0]",
                found=repr(extent)[:200],
            )
    return tuple(trace.extent(extent) for extent in shape)


def axes_of(axes: Axes, tensor: Value) -> tuple[int, ...]:
    """Several axes, in ascending order; None is all of them."""
    if axes is None:
        return tuple(range(tensor.ndim))
    chosen = [axis_of(axis, tensor) for axis in ([axes] if isinstance(axes, int) else axes)]
    if len(set(chosen)) < len(chosen):
        raise LanguageError(
            "BAD_AXIS", "an axis is named twice", site=here(), expected="distinct axes", found=str(tuple(chosen))
        )
    return tuple(sorted(chosen))
