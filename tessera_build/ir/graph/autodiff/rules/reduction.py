"""Derivatives of reductions, windows, softmax and running sums.

Takes sites; gives their rows of the table. Invariant: elements that share an extremum share its derivative equally, so
that it does not depend on an order; sums are those of `reduce`, whose order is fixed.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.graph.autodiff.derivative import (
    Derivative,
    NotDifferentiable,
    Site,
    first,
)
from tessera_build.ir.graph.autodiff.emit import Emit, Values
from tessera_build.ir.graph.ops.op import axis_of, flag_of, ints_of
from tessera_build.ir.graph.ops.reduction import identity
from tessera_build.ir.graph.ops.shapes import Shape, count

WINDOW = ("window", "strides", "low", "high", "dilations")


def _kept(site: Site) -> Shape:
    """The shape of a reduction's result with its axes kept."""
    axes = ints_of(site.attributes, "axes")
    return tuple(1 if i in axes else e for i, e in enumerate(site.type(0).shape))


def _reduce_jvp(site: Site, tangents: Values) -> Values:
    kind = str(site.attributes["kind"])
    if kind == "sum":
        return [site.again(first(tangents))]
    return [_product(site, first(tangents)) if kind == "prod" else _chosen(site, first(tangents))]


def _reduce(site: Site, cotangents: Values) -> Values:
    shape = site.type(0).shape
    return [site.emit.broadcast(site.emit.reshape(first(cotangents), _kept(site)), shape)]


def _chosen(site: Site, tangent: int) -> int:
    """The mean of the tangents of the elements that are the extremum."""
    e, x, axes = site.emit, site.inputs[0], ints_of(site.attributes, "axes")
    kept = e.reshape(site.outputs[0], _kept(site))
    mask = e.op("eq", x, kept)
    keepdims = flag_of(site.attributes, "keepdims")
    number = e.sum(e.op("cast", mask, dtype=site.type(0).dtype), axes, keepdims=keepdims)
    total = e.sum(e.where(mask, tangent), axes, keepdims=keepdims)
    return e.op("div", total, number) if axes else tangent


def _product(site: Site, tangent: int) -> int:
    """Halves are multiplied with each other until one element is left: no division, so zeros are no exception. Where
    their number is not known, each element's slope is what stands before it times what stands behind it."""
    e, axes = site.emit, ints_of(site.attributes, "axes")
    shape = site.type(0).shape
    rest = [i for i in range(len(shape)) if i not in axes]
    extent = count([shape[a] for a in axes])
    lined = (*(shape[i] for i in rest), extent)
    x, dx = (e.reshape(e.transpose(v, (*rest, *axes)), lined) for v in (site.inputs[0], tangent))
    result = e.shape(site.outputs[0])
    if not isinstance(extent, int):
        middle = (count(lined[:-1]), extent, 1)
        x, dx = (e.reshape(v, middle) for v in (x, dx))
        others = [e.op("cumulate", x, kind="prod", exclusive=True, reverse=way) for way in (False, True)]
        return e.reshape(e.sum(e.op("mul", dx, e.op("mul", *others)), (1,)), result)
    if extent == 0:
        return e.zeros(e.type(site.outputs[0]))
    while extent > 1:
        if extent % 2:
            edge = [0] * len(rest)
            x, dx = (e.pad(v, [0] * len(lined), (*edge, 1), n) for v, n in ((x, 1.0), (dx, 0.0)))
        extent = (extent + 1) // 2
        (a, b), (da, db) = _halves(e, x, extent), _halves(e, dx, extent)
        x, dx = e.op("mul", a, b), e.op("add", e.op("mul", da, b), e.op("mul", a, db))
    return e.reshape(dx, result)


def _halves(e: Emit, value: int, half: int) -> tuple[int, int]:
    shape = e.shape(value)
    front, zeros = (*shape[:-1], half), (0,) * (len(shape) - 1)
    return e.slice(value, (*zeros, 0), front), e.slice(value, (*zeros, half), shape)


def _window_jvp(site: Site, tangents: Values) -> Values:
    if site.attributes["kind"] == "sum":
        return [site.again(first(tangents))]
    e, x, y, kind = site.emit, site.inputs[0], site.outputs[0], str(site.attributes["kind"])
    edge = identity(kind, site.type(0).dtype)
    masks = [e.op("eq", part, y) for part in _taps(site, x, float(edge))]
    parts = [e.where(mask, part) for mask, part in zip(masks, _taps(site, first(tangents), 0.0), strict=True)]
    number = e.total([e.op("cast", mask, dtype=site.type(0).dtype) for mask in masks])
    return [e.op("div", e.total(parts), number)]


def _taps(site: Site, value: int, edge: float) -> list[int]:
    """For each position in the window, what all windows see there."""
    e = site.emit
    sizes, strides, low, high, dilations = (ints_of(site.attributes, name) for name in WINDOW)
    padded, found = e.pad(value, low, high, edge), list[int]()
    out = e.shape(site.outputs[0])
    for position in itertools.product(*(range(size) for size in sizes)):
        starts = [p * d for p, d in zip(position, dilations, strict=True)]
        stops = [s + (n - 1) * t + 1 for s, n, t in zip(starts, out, strides, strict=True)]
        found.append(e.slice(padded, starts, stops, strides))
    return found


def _window(site: Site, cotangents: Values) -> Values:
    """Every element takes the sum over the windows that saw it."""
    e, c, shape = site.emit, first(cotangents), site.type(0).shape
    sizes, strides, low, _, dilations = (ints_of(site.attributes, name) for name in WINDOW)
    if sizes == strides and all(d == 1 for d in dilations):
        repeated = e.op("repeat", c, factors=sizes)
        return [e.placed(repeated, [-p for p in low], shape)]
    reach = [d * (k - 1) for d, k in zip(dilations, sizes, strict=True)]
    apart = e.dilated(c, strides)
    lows = [r - p for r, p in zip(reach, low, strict=True)]
    wide: list[Extent] = [n + r for n, r in zip(shape, reach, strict=True)]
    around = e.placed(apart, lows, tuple(wide))
    zeros, ones = (0,) * len(sizes), (1,) * len(sizes)
    windows = {"window": sizes, "strides": ones, "low": zeros, "high": zeros, "dilations": dilations}
    return [e.op("reduce_window", around, kind="sum", **windows)]


def _softmax_back(site: Site, value: int) -> int:
    """y (v - Σ y v): the Jacobian of softmax, which is symmetric, times v.

    With v less what it is where y is above one half, which changes nothing but rounding: beside a y of 0.9999 the
    difference would have lost four digits.
    """
    e, y = site.emit, site.outputs[0]
    axis = axis_of(site.attributes, len(e.shape(y)))
    likely = e.op("gt", y, e.scalar(0.5, y))
    there = e.sum(e.op("select", likely, value, e.scalar(0.0, value)), (axis,), keepdims=True)
    apart = e.op("sub", value, there)
    mean = e.sum(e.op("mul", y, apart), (axis,), keepdims=True)
    return e.op("mul", y, e.op("sub", apart, mean))


def _softmax(site: Site, values: Values) -> Values:
    return [_softmax_back(site, first(values))]


def _cumulate_jvp(site: Site, tangents: Values) -> Values:
    if site.attributes["kind"] == "sum":
        return [site.again(first(tangents))]
    extent, dx = site.type(0).shape[1], first(tangents)
    if isinstance(extent, int):
        return [_running_product(site, extent, dx)]
    return [_running_quotients(site, dx)]


def _running_quotients(site: Site, dx: int) -> int:
    """Where it is not known how many doublings there are: the product times the sum of relative changes; from the first
    zero on, its change times the product of all but it. Second derivatives lack those by two zeros."""
    e, x, y = site.emit, site.inputs[0], site.outputs[0]
    reverse, exclusive = (flag_of(site.attributes, name) for name in ("reverse", "exclusive"))
    zero, one = (e.scalar(n, y) for n in (0.0, 1.0))
    mask = e.op("eq", x, zero)
    seen = e.op("cumulate", e.op("cast", mask, dtype=site.type(0).dtype), kind="sum", reverse=reverse)
    leading = e.op("and", mask, e.op("eq", seen, one))
    relative = e.op("select", mask, zero, e.op("div", dx, e.op("select", mask, one, x)))
    sums = [
        e.op("cumulate", v, kind="sum", exclusive=exclusive, reverse=reverse) for v in (relative, e.where(leading, dx))
    ]
    others = site.again(e.op("select", leading, one, x))
    return e.op("add", e.op("mul", y, sums[0]), e.op("mul", others, sums[1]))


def _running_product(site: Site, extent: int, dx: int) -> int:
    """Products of 1, 2, 4, ... neighbours, each of two halves: no division, so zeros are no exception."""
    e, x = site.emit, site.inputs[0]
    reverse = flag_of(site.attributes, "reverse")
    if flag_of(site.attributes, "exclusive"):
        x, dx = _shifted(e, x, 1, reverse, 1.0), _shifted(e, dx, 1, reverse, 0.0)
    distance = 1
    while distance < extent:
        a, da = _shifted(e, x, distance, reverse, 1.0), _shifted(e, dx, distance, reverse, 0.0)
        x, dx = e.op("mul", x, a), e.op("add", e.op("mul", dx, a), e.op("mul", x, da))
        distance *= 2
    return dx


def _shifted(e: Emit, value: int, distance: int, reverse: bool, edge: float) -> int:
    """Along the middle axis, the element that lies before (behind, if reversed) by a distance; `edge` beyond."""
    first_axis, extent, last_axis = e.shape(value)
    start, stop = (distance, extent) if reverse else (0, extent - distance)
    kept = e.slice(value, (0, start, 0), (first_axis, stop, last_axis))
    low, high = (0, distance) if reverse else (distance, 0)
    return e.pad(kept, (0, low, 0), (0, high, 0), edge)


def _cumulate(site: Site, cotangents: Values) -> Values:
    exclusive, reverse = (flag_of(site.attributes, name) for name in ("exclusive", "reverse"))
    return [site.emit.op("cumulate", first(cotangents), kind="sum", exclusive=exclusive, reverse=not reverse)]


def _top_k_jvp(site: Site, tangents: Values) -> Values:
    return [site.emit.op("gather_elements", first(tangents), site.outputs[1], axis=1), None]


REDUCTION: Mapping[str, Derivative | NotDifferentiable] = {
    "reduce": Derivative(_reduce_jvp, _reduce),
    "reduce_window": Derivative(_window_jvp, _window),
    "softmax": Derivative(_softmax, vjp=_softmax),
    "cumulate": Derivative(_cumulate_jvp, _cumulate),
    "top_k": Derivative(_top_k_jvp),
}
