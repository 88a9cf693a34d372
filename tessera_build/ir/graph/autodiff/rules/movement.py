"""Derivatives of ops that move elements: they are linear, and what moved there moves back.

Takes sites; gives their rows of the table. Invariant: extents may be symbolic; nothing is read from data.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.graph.autodiff.derivative import Derivative, NotDifferentiable, Site, first, linear
from tessera_build.ir.graph.autodiff.emit import Values
from tessera_build.ir.graph.ops.op import axis_of, extents_of, ints_of


def _reshape(site: Site, cotangents: Values) -> Values:
    return [site.emit.reshape(first(cotangents), site.type(0).shape)]


def _transpose(site: Site, cotangents: Values) -> Values:
    perm = ints_of(site.attributes, "perm")
    inverse = [perm.index(axis) for axis in range(len(perm))]
    return [site.emit.transpose(first(cotangents), inverse)]


def _broadcast_to(site: Site, cotangents: Values) -> Values:
    return [site.emit.unbroadcast(first(cotangents), site.type(0).shape)]


def _slice(site: Site, cotangents: Values) -> Values:
    """The elements go back to their places, zeros between and around them."""
    steps = ints_of(site.attributes, "steps")
    apart = site.emit.dilated(first(cotangents), steps)
    return [site.emit.placed(apart, extents_of(site.attributes, "starts"), site.type(0).shape)]


def _pad_jvp(site: Site, tangents: Values) -> Values:
    low, high = extents_of(site.attributes, "low"), extents_of(site.attributes, "high")
    return [site.emit.op("pad", first(tangents), low=low, high=high, value=0.0)]


def _pad(site: Site, cotangents: Values) -> Values:
    low, shape = extents_of(site.attributes, "low"), site.type(0).shape
    return [site.emit.slice(first(cotangents), low, [p + e for p, e in zip(low, shape, strict=True)])]


def _concat_jvp(site: Site, tangents: Values) -> Values:
    parts = [t if t is not None else site.emit.zeros(site.type(i)) for i, t in enumerate(tangents)]
    return [site.again(*parts)]


def _concat(site: Site, cotangents: Values) -> Values:
    whole = first(cotangents)
    shape = site.emit.shape(whole)
    axis = axis_of(site.attributes, len(shape))
    found: list[int | None] = []
    start: Extent = 0
    for operand in range(len(site.inputs)):
        stop = start + site.type(operand).shape[axis]
        starts = [start if i == axis else 0 for i in range(len(shape))]
        stops = [stop if i == axis else e for i, e in enumerate(shape)]
        found.append(site.emit.slice(whole, starts, stops) if site.linear(operand) else None)
        start = stop
    return found


MOVEMENT: Mapping[str, Derivative | NotDifferentiable] = {
    "reshape": linear(_reshape),
    "transpose": linear(_transpose),
    "broadcast_to": linear(_broadcast_to),
    "slice": linear(_slice),
    "pad": Derivative(_pad_jvp, _pad),
    "concat": Derivative(_concat_jvp, _concat),
}
