"""Shape arithmetic that several ops share: broadcasting and the extents of sliding windows.

Takes shapes whose extents may be symbolic; gives shapes. Invariant: an extent broadcasts only when it is the integer
1, so what a graph means never depends on the run-time value of a symbol.
"""

from __future__ import annotations

from collections.abc import Sequence

from tessera_build.ir.core.dims import Extent, floordiv
from tessera_build.ir.graph.ops.op import mismatch

Shape = tuple[Extent, ...]


def broadcast_shapes(op: str, shapes: Sequence[Shape]) -> Shape:
    """The shape that all shapes broadcast to, numpy's way; raises `TesseraError` when two extents differ."""
    rank = max((len(s) for s in shapes), default=0)
    padded = [(1,) * (rank - len(s)) + s for s in shapes]
    result: list[Extent] = []
    for axis in range(rank):
        extents = {s[axis] for s in padded} - {1}
        if len(extents) > 1:
            raise mismatch(
                f"{op} cannot broadcast its operands at axis {axis} of {rank}",
                "equal extents, or 1",
                " and ".join(shape_text(s) for s in shapes),
                "extents that are equal only at run time need one name in the model",
            )
        result.append(extents.pop() if extents else 1)
    return tuple(result)


def shape_text(shape: Sequence[Extent]) -> str:
    """A shape for messages."""
    return f"[{', '.join(str(e) for e in shape)}]"


def count(shape: Sequence[Extent]) -> Extent:
    """The number of elements."""
    total: Extent = 1
    for extent in shape:
        total = total * extent
    return total


def ceildiv(left: Extent, right: int) -> Extent:
    """left / right rounded up."""
    return floordiv(left + (right - 1), right)


def window_extent(op: str, extent: Extent, window: tuple[int, int, int, int, int]) -> Extent:
    """Number of positions of a window (size, stride, low pad, high pad, dilation) that slides along one axis."""
    size, stride, low, high, dilation = window
    if size < 1 or stride < 1 or dilation < 1 or low < 0 or high < 0:
        raise mismatch(
            f"{op} has an impossible window",
            "size, stride and dilation >= 1; padding >= 0",
            f"size {size}, stride {stride}, low {low}, high {high}, dilation {dilation}",
        )
    if (size, stride, low, high) == (1, 1, 0, 0):
        return extent
    span = dilation * (size - 1) + 1
    room = extent + (low + high - span)
    if isinstance(room, int) and room < 0:
        raise mismatch(f"{op}'s window is larger than its padded input", f"at least {span}", extent + (low + high))
    return floordiv(room, stride) + 1
