"""Derivatives of ops that change the resolution of images.

Takes sites; gives their rows of the table. Invariant: `resample` passes back by a product with the matrix that it
stands for, so that sums have a fixed order.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.ir.core.types import I64
from tessera_build.ir.graph.autodiff.derivative import Derivative, NotDifferentiable, Site, first, linear
from tessera_build.ir.graph.autodiff.emit import Values, channels_last
from tessera_build.ir.graph.ops.op import axis_of, ints_of, static


def _repeat(site: Site, cotangents: Values) -> Values:
    e, shape, factors = site.emit, site.type(0).shape, ints_of(site.attributes, "factors")
    split = tuple(p for extent, factor in zip(shape, factors, strict=True) for p in (extent, factor))
    repeated = [2 * i + 1 for i, factor in enumerate(factors) if factor > 1]
    return [e.reshape(e.sum(e.reshape(first(cotangents), split), repeated), shape)]


def _depth_to_space(site: Site, cotangents: Values) -> Values:
    """Back to whole blocks, the places in a block to the front of the channels or behind them."""
    e, c, shape = site.emit, first(cotangents), site.type(0).shape
    last, blocks = site.attributes["layout"] == "NHWC", ints_of(site.attributes, "blocks")
    rank, number = len(shape), len(shape) - 2
    if last:
        c, shape = e.transpose(c, (0, rank - 1, *range(1, rank - 1))), (shape[0], shape[-1], *shape[1:-1])
    batch, channels = e.shape(c)[:2]
    whole = tuple(extent * b for extent, b in zip(shape[2:], blocks, strict=True))
    c = e.placed(c, (0,) * rank, (batch, channels, *whole))
    pairs = tuple(p for extent, b in zip(shape[2:], blocks, strict=True) for p in (extent, b))
    split = e.reshape(c, (batch, channels, *pairs))
    inside, outside = [3 + 2 * i for i in range(number)], [2 + 2 * i for i in range(number)]
    order = (0, *inside, 1, *outside) if site.attributes["order"] == "DCR" else (0, 1, *inside, *outside)
    back = e.reshape(e.transpose(split, order), shape)
    return [e.transpose(back, channels_last(rank)) if last else back]


def _resample_jvp(site: Site, tangents: Values) -> Values:
    x, indices, weights = site.inputs
    dx, _, dw = tangents
    found = [None if dx is None else site.again(dx, indices, weights)]
    found.append(None if dw is None else site.again(x, indices, dw))
    terms = [t for t in found if t is not None]
    return [terms[0] if len(terms) == 1 else site.emit.op("add", *terms)]


def _resample(site: Site, cotangents: Values) -> Values:
    e, c, (x, indices, weights) = site.emit, first(cotangents), site.inputs
    shape = site.type(0).shape
    axis = axis_of(site.attributes, len(shape))
    taps, result = site.type(1).shape
    last = [i for i in range(len(shape)) if i != axis] + [axis]
    lines = e.transpose(c, last)
    back = [last.index(i) for i in range(len(shape))]
    if site.linear(0):
        places = e.op("iota", shape=(taps, result, shape[axis]), axis=2, dtype=I64)
        wide = e.op("cast", indices, dtype=I64) if site.type(1).dtype != I64 else indices
        mask = e.op("eq", e.reshape(wide, (taps, result, 1)), places)
        matrix = e.sum(e.where(mask, e.broadcast(e.reshape(weights, (taps, result, 1)), e.shape(places))), (0,))
        if len(shape) == 1:
            return [e.reshape(e.op("matmul", e.reshape(lines, (1, result)), matrix), shape), None, None]
        return [e.transpose(e.op("matmul", lines, matrix), back), None, None]
    (count,) = static((taps,), {})
    rows: list[int] = []
    for tap in range(count):
        chosen = e.reshape(e.slice(indices, (tap, 0), (tap + 1, result)), (result,))
        seen = e.transpose(e.op("gather", x, chosen, axis=axis), last)
        rows.append(e.reshape(e.sum(e.op("mul", seen, lines), range(len(shape) - 1)), (1, result)))
    return [None, None, e.op("concat", *rows, axis=0) if count > 1 else rows[0]]


IMAGES: Mapping[str, Derivative | NotDifferentiable] = {
    "repeat": linear(_repeat),
    "depth_to_space": linear(_depth_to_space),
    "resample": Derivative(_resample_jvp, _resample),
}
