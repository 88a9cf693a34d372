"""Operators along one axis and for signals: cumulative sums and products, Hardmax, windows, mel weights.

Takes tensors and sizes, which data may tell; gives core ops. Invariant: windows and weights are computed in f64 and
rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tessera_build.frontends.onnx.call import Call, Translator, normalise_axis
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.load import element_type
from tessera_build.frontends.onnx.reductions import flattened
from tessera_build.ir.core.dims import Extent, floordiv
from tessera_build.ir.core.types import BF16, F16, F32, F64, I64


def _cumulative(kind: str) -> Translator:
    def translate(c: Context, n: Call) -> Tensor:
        x, axis = n.input(0), n.input(1)
        exclusive, reverse = bool(n.integer("exclusive", 0)), bool(n.integer("reverse", 0))

        def along(place: int) -> Tensor:
            lines = c.reshape(c.cast(x, F32) if x.dtype in (F16, BF16) else x, _around(x, place))
            result = c.op("cumulate", lines, kind=kind, exclusive=exclusive, reverse=reverse)
            return c.cast(c.reshape(result, x.shape), x.dtype)

        if axis.content is not None:
            return along(normalise_axis(int(c.known_number(axis, "the axis")), x.rank))
        chosen = along(0)
        for place in range(1, x.rank):
            number = c.op("mod", c.reshape(axis, ()), c.scalar(x.rank, axis.dtype))
            chosen = c.op("select", c.op("eq", number, c.scalar(place, axis.dtype)), along(place), chosen)
        return chosen

    return translate


def _around(x: Tensor, axis: int) -> tuple[Extent, Extent, Extent]:
    """The shape with the axes before `axis` as one, and those after it."""
    outer: Extent = 1
    inner: Extent = 1
    for extent in x.shape[:axis]:
        outer = outer * extent
    for extent in x.shape[axis + 1 :]:
        inner = inner * extent
    return outer, x.shape[axis], inner


def _hardmax(c: Context, n: Call) -> Tensor:
    """1 where the first largest element of a line stands, 0 elsewhere."""
    x = n.input(0)
    axis = n.axis(x.rank, 1 if n.opset < 13 else -1)
    if n.opset < 13:
        return c.reshape(_first_largest(c, flattened(c, x, axis), 1), x.shape)
    return _first_largest(c, x, axis)


def _first_largest(c: Context, x: Tensor, axis: int) -> Tensor:
    place = c.op("iota", shape=tuple(e if i == axis else 1 for i, e in enumerate(x.shape)), axis=axis, dtype=I64)
    first = _place_of_first_largest(c, x, axis, place)
    return c.cast(c.op("eq", place, first), x.dtype)


def _place_of_first_largest(c: Context, x: Tensor, axis: int, place: Tensor) -> Tensor:
    """Where along `axis` the first largest element of each line stands; `place` counts along it."""
    largest = c.op("eq", x, c.reduce("max", x, (axis,), keepdims=True))
    beyond = c.number(x.shape[axis], I64)
    return c.reduce("min", c.op("select", largest, place, beyond), (axis,), keepdims=True)


# -- windows ----------------------------------------------------------------------------------------------------------


def _window(*amplitudes: float) -> Translator:
    """a0 - a1 cos(2 pi n / N) + a2 cos(4 pi n / N) - ..., N the size, or one less where it is symmetric."""

    def translate(c: Context, n: Call) -> Tensor:
        dtype = element_type(n.integer("output_datatype", 1), f"{n.op}'s result")
        (size,) = c.extents_of(n.input(0))
        turn = c.number(size if n.integer("periodic", 1) else size - 1, F64)
        place = c.op("iota", shape=(size,), axis=0, dtype=F64)
        angle = c.op("div", c.op("mul", place, c.scalar(2 * math.pi, F64)), turn)
        total = c.scalar(amplitudes[0], F64)
        for order, amplitude in enumerate(amplitudes[1:], 1):
            wave = c.op("cos", c.op("mul", angle, c.scalar(order, F64)))
            total = c.op("add", total, c.op("mul", wave, c.scalar((-1) ** order * amplitude, F64)))
        return c.cast(total, dtype)

    return translate


# -- mel weights ------------------------------------------------------------------------------------------------------


def _mel_weights(c: Context, n: Call) -> Tensor:
    """Triangles that are equally wide on the mel scale, over the bins of a Fourier transform."""
    (bins,), (length,) = c.extents_of(n.input(0)), c.extents_of(n.input(1))
    dtype = element_type(n.integer("output_datatype", 1), "MelWeightMatrix's result")
    edges = _mel_edges(c, n, bins, length)
    left, top, right = (c.slice(edges, (i,), (bins + i,)) for i in range(3))
    place = c.op("iota", shape=(floordiv(length, 2) + 1, 1), axis=0, dtype=F64)
    nothing = c.scalar(0, F64)
    rise = c.op("div", c.op("sub", place, left), c.op("sub", top, left))
    on_rise = c.op("and", c.op("ge", place, left), c.op("le", place, top))
    weights = c.op("select", on_rise, rise, nothing)
    # A triangle without a rise is 1 at its top, unless its fall begins there.
    at_top = c.cast(c.op("eq", place, top), F64)
    weights = c.op("select", c.op("lt", left, top), weights, at_top)
    fall = c.op("div", c.op("sub", right, place), c.op("sub", right, top))
    on_fall = c.op("and", c.op("ge", place, top), c.op("lt", place, right))
    return c.cast(c.op("select", on_fall, fall, weights), dtype)


def _mel_edges(c: Context, n: Call, bins: Extent, length: Extent) -> Tensor:
    """The bins of the transform at which triangles begin and end, equally spaced in mel."""
    rate, *hertz = (c.cast(c.reshape(n.input(i), ()), F64) for i in (2, 3, 4))

    def number(value: float) -> Tensor:
        return c.scalar(value, F64)

    def mel(edge: Tensor) -> Tensor:
        logarithm = c.op("log", c.op("add", c.op("div", edge, number(700)), number(1)))
        return c.op("mul", logarithm, number(2595 / math.log(10)))

    low, high = (mel(edge) for edge in hertz)
    step = c.op("div", c.op("sub", high, low), c.number(bins + 2, F64))
    mels = c.op("add", c.op("mul", c.op("iota", shape=(bins + 2,), axis=0, dtype=F64), step), low)
    power = c.op("exp", c.op("mul", mels, number(math.log(10) / 2595)))
    frequency = c.op("mul", c.op("sub", power, number(1)), number(700))
    return c.op("floor", c.op("div", c.op("mul", frequency, c.number(length + 1, F64)), rate))


SIGNAL_OPERATORS: Mapping[str, Translator] = {
    "CumSum": _cumulative("sum"),
    "CumProd": _cumulative("prod"),
    "Hardmax": _hardmax,
    "HannWindow": _window(0.5, 0.5),
    "HammingWindow": _window(25 / 46, 21 / 46),
    "BlackmanWindow": _window(0.42, 0.5, 0.08),
    "MelWeightMatrix": _mel_weights,
}
