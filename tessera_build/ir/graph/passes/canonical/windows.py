"""Rules around windows and reductions: padding goes into the window, dropped axes go into the reduction.

Takes a site; gives the value that replaces it, or None. Invariant: every result is the same sum or maximum of the
same elements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.infer import op_named
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.graph.ops.contraction import conv_spatial_axes
from tessera_build.ir.graph.ops.op import extents_of, flag_of, ints_of, number_of, word_of
from tessera_build.ir.graph.ops.reduction import WINDOW_KINDS, identity
from tessera_build.ir.graph.sweep import Site


def pad_into_window(site: Site) -> Sequence[int] | None:
    """conv(pad(x)) and reduce_window(pad(x)) → the window's own padding, where pad's value is the window's identity."""
    node = site.node
    source = site.to.producer(site.inputs[0]) if node.op in ("conv", "reduce_window") else None
    if source is None or source.op != "pad":
        return None
    dtype, rank = site.to.type(site.inputs[0]).dtype, site.to.type(site.inputs[0]).rank
    neutral = 0 if node.op == "conv" else identity(word_of(node.attributes, "kind", WINDOW_KINDS), dtype)
    edges = [extents_of(source.attributes, name) for name in ("low", "high")]
    axes = range(rank)
    if node.op == "conv":
        axes = conv_spatial_axes(rank, word_of(node.attributes, "layout", ("NCHW", "NHWC")))
    outside = [edge[axis] for edge in edges for axis in range(rank) if axis not in axes]
    inside = [[e for axis in axes if isinstance(e := edge[axis], int)] for edge in edges]
    if number_of(source.attributes, "value") != neutral or any(e != 0 for e in outside):
        return None
    if any(len(edge) != len(axes) for edge in inside):
        return None
    padding = {
        name: tuple(own + more for own, more in zip(ints_of(node.attributes, name), edge, strict=True))
        for name, edge in zip(("low", "high"), inside, strict=True)
    }
    return [site.to.op(node.op, source.inputs[0], *site.inputs[1:], **{**node.attributes, **padding})]


def reduce_of_ones(site: Site) -> Sequence[int] | None:
    """A reduction over no axes, or only over axes of extent 1 → reshape."""
    if site.node.op != "reduce":
        return None
    shape = site.to.type(site.inputs[0]).shape
    if any(shape[axis] != 1 for axis in ints_of(site.node.attributes, "axes")):
        return None
    return [site.to.op("reshape", site.inputs[0], shape=site.old.types[site.node.output].shape)]


def reduce_and_squeeze(site: Site) -> Sequence[int] | None:
    """reshape(reduce(x) with keepdims) that drops exactly the reduced axes → reduce(x); scalars may stand between."""
    source = site.to.producer(site.inputs[0]) if site.node.op == "reshape" and site.only_use(0) else None
    if source is None:
        return None
    shape = extents_of(site.node.attributes, "shape")
    reduction = _reduction_before(site.to, source)
    if reduction is None or shape != _left(site.to, reduction):
        return None
    if reduction is source:
        return [site.to.op("reduce", source.inputs[0], **{**source.attributes, "keepdims": False})]
    wide = site.to.type(source.output)
    inputs = [site.to.op("reshape", v, shape=shape) if site.to.type(v) == wide else v for v in source.inputs]
    return [site.to.op(source.op, *inputs, **source.attributes)]


def _reduction_before(to: GraphBuilder, node: GraphNode) -> GraphNode | None:
    """The reduction with keepdims whose result this is, perhaps after elementwise ops with scalars."""
    while node.op != "reduce":
        wide = {v for v in node.inputs if to.type(v).rank}
        source = to.producer(wide.pop()) if len(wide) == 1 and op_named(node.op).elementwise else None
        if source is None:
            return None
        node = source
    return node if flag_of(node.attributes, "keepdims") else None


def _left(to: GraphBuilder, reduction: GraphNode) -> tuple[object, ...]:
    axes = ints_of(reduction.attributes, "axes")
    return tuple(e for axis, e in enumerate(to.type(reduction.inputs[0]).shape) if axis not in axes)


WINDOWS: tuple[Callable[[Site], Sequence[int] | None], ...] = (pad_into_window, reduce_of_ones, reduce_and_squeeze)
