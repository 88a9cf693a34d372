"""Derivatives of matrix products and convolutions.

Takes sites; gives their rows of the table. Invariant: nothing is multiplied by zeros that a stride would insert: the
input's cotangent is a small convolution for each phase of the stride, the weights' a matrix product for each tap.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from tessera_build.ir.graph.autodiff.derivative import Derivative, NotDifferentiable, Site, first
from tessera_build.ir.graph.autodiff.emit import Values, channels_last
from tessera_build.ir.graph.autodiff.phases import transposed_convolution
from tessera_build.ir.graph.ops.op import flag_of, int_of, ints_of
from tessera_build.ir.graph.ops.shapes import count


def _bilinear(site: Site, tangents: Values) -> Values:
    (a, b), (da, db) = site.inputs, tangents
    terms = [None if da is None else site.again(da, b), None if db is None else site.again(a, db)]
    found = [t for t in terms if t is not None]
    return [found[0] if len(found) == 1 else site.emit.op("add", found[0], found[1])]


def _matmul(site: Site, cotangents: Values) -> Values:
    e, c, (a, b) = site.emit, first(cotangents), site.inputs
    ta, tb = flag_of(site.attributes, "transpose_a"), flag_of(site.attributes, "transpose_b")
    if site.linear(0):
        if ta:
            left = e.op("matmul", b, c, transpose_a=tb, transpose_b=True)
        else:
            left = e.op("matmul", c, b, transpose_a=False, transpose_b=not tb)
        return [e.unbroadcast(left, site.type(0).shape), None]
    return [None, _right(site, (a, c), ta, tb)]


def _right(site: Site, operands: tuple[int, int], ta: bool, tb: bool) -> int:
    """The cotangent of b; where all rows of a batch meet one b, they are the rows of one product."""
    e, (a, c), shape = site.emit, operands, site.type(1).shape
    if len(shape) == 2 and not ta and len(e.shape(a)) > 2 and len(e.shape(a)) == len(e.shape(c)):
        rows = count(e.shape(c)[:-1])
        a, c = (e.reshape(v, (rows, e.shape(v)[-1])) for v in (a, c))
    if tb:
        right = e.op("matmul", c, a, transpose_a=True, transpose_b=ta)
    else:
        right = e.op("matmul", a, c, transpose_a=not ta, transpose_b=False)
    return e.unbroadcast(right, shape)


def _conv(site: Site, cotangents: Values) -> Values:
    e, c, rank = site.emit, first(cotangents), len(site.type(0).shape)
    last = site.attributes["layout"] == "NHWC"
    to_last = channels_last(rank)
    from_last = (0, rank - 1, *range(1, rank - 1))
    if not site.linear(0):
        x, c = (v if last else e.transpose(v, to_last) for v in (site.inputs[0], c))
        return [None, _weights(site, x, c)]
    c = e.transpose(c, from_last) if last else c
    shape = site.type(0).shape
    spatial = shape[1:-1] if last else shape[2:]
    back = transposed_convolution(e, c, site.inputs[1], site.attributes, spatial)
    return [e.transpose(back, to_last) if last else back, None]


def _weights(site: Site, x: int, c: int) -> int:
    """[O, I/groups, *kernel] from images with their channels last: for each tap, what it saw times what came back."""
    e, groups = site.emit, int_of(site.attributes, "groups")
    strides, low, high, dilations = (ints_of(site.attributes, name) for name in ("strides", "low", "high", "dilations"))
    outputs, inner, *kernel = site.type(1).static_shape
    padded = e.pad(x, (0, *low, 0), (0, *high, 0))
    batch, *out, _ = e.shape(c)
    channels = inner * groups
    taps: list[int] = []
    for position in itertools.product(*(range(size) for size in kernel)):
        starts = [p * d for p, d in zip(position, dilations, strict=True)]
        stops = [s + (n - 1) * t + 1 for s, n, t in zip(starts, out, strides, strict=True)]
        seen = e.slice(padded, (0, *starts, 0), (batch, *stops, channels), (1, *strides, 1))
        taps.append(_tap(site, seen, c, (groups, outputs, inner)))
    joined = e.op("concat", *taps, axis=2) if len(taps) > 1 else taps[0]
    return e.reshape(joined, (outputs, inner, *kernel))


def _tap(site: Site, seen: int, back: int, sizes: tuple[int, int, int]) -> int:
    """[O, I/groups, 1]: sums over all places of the image."""
    e, (groups, outputs, inner) = site.emit, sizes
    places = e.shape(back)[:-1]
    if inner == 1 and outputs == groups:
        return e.reshape(e.sum(e.op("mul", seen, back), range(len(places))), (outputs, 1, 1))
    rows = count(places)
    seen, back = e.reshape(seen, (rows, inner * groups)), e.reshape(back, (rows, outputs))
    if groups == 1:
        return e.reshape(e.op("matmul", back, seen, transpose_a=True), (outputs, inner, 1))
    parts = [
        e.transpose(e.reshape(v, (rows, groups, n)), (1, 0, 2)) for v, n in ((back, outputs // groups), (seen, inner))
    ]
    return e.reshape(e.op("matmul", *parts, transpose_a=True), (outputs, inner, 1))


CONTRACTION: Mapping[str, Derivative | NotDifferentiable] = {
    "matmul": Derivative(_bilinear, _matmul),
    "conv": Derivative(_bilinear, _conv),
}
