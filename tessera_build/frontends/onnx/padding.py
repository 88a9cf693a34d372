"""Pad in every mode (constant elements, the edge repeated, the tensor reflected or repeated) and CenterCropPad.

Takes a tensor and padding that may cut; gives `pad` for constants and one gather by a computed vector of positions for
each axis of the other modes. Invariant: what is cut is cut first, and positions are arithmetic over the extents, so
dynamic dims need nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tessera_build.frontends.onnx.call import Call, Translator, normalise_axes
from tessera_build.frontends.onnx.content import is_symbolic
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.frontends.onnx.order import larger, smaller
from tessera_build.ir.core.dims import Extent, floordiv
from tessera_build.ir.core.types import I64

MODES = ("constant", "edge", "reflect", "wrap")
_OPERANDS_SINCE = 11  # before, padding and its value were attributes


def _pad(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    mode = n.text("mode", "constant")
    if mode not in MODES:
        raise ill_formed("Pad's mode is unknown", expected=" | ".join(MODES), found=mode)
    low, high = _paddings(c, n, x.rank)
    cut, low, high = _cut(c, x, low, high)
    if all(e == 0 for e in (*low, *high)):
        n.ignore("value")
        return cut
    if mode == "constant":
        return _filled(c, cut, (low, high), _fill(c, n, x))
    n.ignore("value")  # exporters of opset 10 and before state it for every mode
    for axis, (before, after) in enumerate(zip(low, high, strict=True)):
        if (before, after) != (0, 0):
            cut = c.op("gather", cut, _positions(c, mode, cut.shape[axis], (before, after)), axis=axis)
    return cut


def _cut(
    c: Context, x: Tensor, low: Sequence[Extent], high: Sequence[Extent]
) -> tuple[Tensor, list[Extent], list[Extent]]:
    """The tensor without what negative padding cuts away, and the padding that is left."""
    starts = [larger(e * -1, 0, c.ranges) for e in low]
    stops = [extent - larger(e * -1, 0, c.ranges) for extent, e in zip(x.shape, high, strict=True)]
    for start, stop in zip(starts, stops, strict=True):
        c.require(stop, ">=", start, "padding cuts more than there is")
    left = [[larger(e, 0, c.ranges) for e in side] for side in (low, high)]
    return c.slice(x, starts, stops), left[0], left[1]


def _positions(c: Context, mode: str, extent: Extent, widths: tuple[Extent, Extent]) -> Tensor:
    """Which element stands at every place of the padded axis."""
    before, after = widths
    # onnxruntime reflects once only: about an end, there are extent - 1 elements.
    for width in widths if mode == "reflect" else ():
        c.require(extent - 1, ">=", width, "reflected padding is wider than what is reflected")
    c.require(extent, ">=", 1, f"there is nothing to pad with by mode={mode}")
    steps = c.op("iota", shape=(before + extent + after,), axis=0, dtype=I64)
    places = c.op("sub", steps, c.number(before, I64))
    last = c.number(extent - 1, I64)
    if mode == "edge":
        return c.op("max", c.op("min", places, last), c.scalar(0, I64))
    if mode == "wrap":
        return c.op("mod", places, c.number(extent, I64))
    period = c.op("max", c.op("mul", last, c.scalar(2, I64)), c.scalar(1, I64))
    there = c.op("mod", places, period)
    return c.op("min", there, c.op("sub", period, there))


def _fill(c: Context, n: Call, x: Tensor) -> Tensor:
    """The padding's value, a scalar."""
    if n.opset < _OPERANDS_SINCE:
        return c.scalar(n.number("value", 0.0), x.dtype)
    fill = n.optional(2)
    if fill is None:
        return c.scalar(0, x.dtype)
    if fill.dtype != x.dtype:
        raise ill_formed(
            "Pad's value has another type than what is padded", expected=str(x.dtype), found=f"{fill.dtype}"
        )
    return c.reshape(fill, ())


def _filled(c: Context, x: Tensor, padding: tuple[Sequence[Extent], Sequence[Extent]], fill: Tensor) -> Tensor:
    """The tensor with one value around it: the op's own where it holds it exactly, else written over zeros."""
    low, high = padding
    value = _as_float(fill)
    padded = c.op("pad", x, low=tuple(low), high=tuple(high), value=value or 0.0)
    if value is not None:
        return padded
    inside: Tensor | None = None
    for axis, (before, after) in enumerate(zip(low, high, strict=True)):
        if (before, after) != (0, 0):
            within = _within(c, padded, axis, (before, before + x.shape[axis]))
            inside = within if inside is None else c.op("and", inside, within)
    assert inside is not None
    return c.op("select", inside, padded, fill)


def _as_float(fill: Tensor) -> float | None:
    """A value that is known, and a double holds: integers of 64 bits may be beyond."""
    if fill.content is None or is_symbolic(fill.content):
        return None
    value = float(fill.content)
    exact = fill.content.dtype.kind not in "iu" or int(value) == int(fill.content)
    return value if exact else None


def _within(c: Context, padded: Tensor, axis: int, bounds: tuple[Extent, Extent]) -> Tensor:
    """Where along an axis the elements are the operand's own."""
    shape = tuple(e if i == axis else 1 for i, e in enumerate(padded.shape))
    places = c.op("iota", shape=shape, axis=axis, dtype=I64)
    start, stop = (c.number(bound, I64) for bound in bounds)
    return c.op("and", c.op("ge", places, start), c.op("lt", places, stop))


def _paddings(c: Context, n: Call, rank: int) -> tuple[list[Extent], list[Extent]]:
    """Padding before and after every axis."""
    if n.opset < _OPERANDS_SINCE:
        pads: tuple[Extent, ...] = n.integers("pads")
        axes = tuple(range(rank))
    else:
        # Padding from data may not cut: a run that finds it negative says so.
        pads, stated = c.extents_of(n.input(1)), n.optional(3)
        axes = tuple(range(rank)) if stated is None else normalise_axes(c.known_ints(stated, "the axes"), rank)
    if len(pads) != 2 * len(axes):
        raise ill_formed("Pad's padding does not fit its axes", expected=f"{2 * len(axes)}", found=str(len(pads)))
    low: list[Extent] = [0] * rank
    high: list[Extent] = [0] * rank
    for position, axis in enumerate(axes):
        low[axis], high[axis] = pads[position], pads[position + len(axes)]
    return low, high


def _center_crop_pad(c: Context, n: Call) -> Tensor:
    """Cut or fill both sides alike; of an odd number of elements, the end gets one more."""
    x, wanted = n.input(0), c.extents_of(n.input(1))
    axes = normalise_axes(n.integers("axes"), x.rank) if n.has("axes") else tuple(range(x.rank))
    if len(axes) != len(wanted):
        raise ill_formed("CenterCropPad's shape does not fit its axes", expected=f"{len(axes)}", found=f"{len(wanted)}")
    starts, stops = list[Extent]([0] * x.rank), list(x.shape)
    low, high = list[Extent](starts), list[Extent](starts)
    for axis, target in zip(axes, wanted, strict=True):
        extent = x.shape[axis]
        kept, more = smaller(extent, target, c.ranges), larger(target - extent, 0, c.ranges)
        starts[axis] = floordiv(extent - kept, 2)
        stops[axis] = starts[axis] + kept
        low[axis] = floordiv(more, 2)
        high[axis] = more - low[axis]
    cut = c.slice(x, starts, stops)
    return c.op("pad", cut, low=tuple(low), high=tuple(high)) if any(e != 0 for e in (*low, *high)) else cut


PADDING_OPERATORS: Mapping[str, Translator] = {"Pad": _pad, "CenterCropPad": _center_crop_pad}
