"""One rule a kind of op: given operands that exist in another order of axes, make the op in that order.

Takes a site and the moved values so far; gives the values in the original order, or None when the op cannot carry the
order. Invariant: attributes that speak of axes are permuted together with the axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tessera_build.ir.graph.infer import op_named
from tessera_build.ir.graph.nodes import Attribute
from tessera_build.ir.graph.ops.op import Attributes, axis_of, extents_of, flag_of, ints_of
from tessera_build.ir.graph.passes.layout.moved import Moved, MovedValue, Order, inverse
from tessera_build.ir.graph.passes.layout.reshapes import flatten_into_matmul, move_reshape
from tessera_build.ir.graph.sweep import Site

LayoutRule = Callable[[Site, Moved], Sequence[int] | None]


def channels_last(rank: int) -> Order:
    """The order N, spatial axes, C of a tensor that is N, C, spatial axes."""
    return (0, *range(2, rank), 1)


def _conv(site: Site, moved: Moved) -> Sequence[int] | None:
    """A conv begins a region, or continues one."""
    if site.node.attributes["layout"] != "NCHW":
        return None
    order = channels_last(site.to.type(site.inputs[0]).rank)
    x = moved.ordered(site.to, site.inputs[0], order)
    result = site.to.op("conv", x, site.inputs[1], **{**site.node.attributes, "layout": "NHWC"})
    return [moved.original(site.to, result, order)]


def _elementwise(site: Site, moved: Moved) -> Sequence[int] | None:
    """In the order of an operand that is as large as the result; small operands follow."""
    result = site.old.types[site.node.output]
    large = [v for v in site.inputs if site.to.type(v).shape == result.shape]
    small = [v for v in site.inputs if site.to.type(v).rank == result.rank]
    known = [m for m in map(moved.of, large or small) if m is not None]
    if not known:
        return None
    order = known[0].order
    operands = [moved.ordered(site.to, v, order) for v in site.inputs]
    return [moved.original(site.to, site.to.op(site.node.op, *operands, **site.node.attributes), order)]


def _transpose(site: Site, moved: Moved) -> Sequence[int] | None:
    """A transpose of a moved value moves nothing: it only renames the axes. One back to channels-first waits."""
    known = moved.of(site.inputs[0])
    perm = ints_of(site.node.attributes, "perm")
    order = channels_last(len(perm))
    if known is None:
        # Rank 3 is left out: there the same permutation is the transposed key of an attention.
        return [moved.original(site.to, site.inputs[0], order)] if len(perm) > 3 and perm == inverse(order) else None
    return [moved.original(site.to, known.value, [perm.index(axis) for axis in known.order])]


def _reduce(site: Site, moved: Moved) -> Sequence[int] | None:
    known = moved.of(site.inputs[0])
    if known is None:
        return None
    axes = ints_of(site.node.attributes, "axes")
    positions = tuple(i for i, axis in enumerate(known.order) if axis in axes)
    result = site.to.op("reduce", known.value, **{**site.node.attributes, "axes": positions})
    if flag_of(site.node.attributes, "keepdims"):
        return [moved.original(site.to, result, known.order)]
    left = [axis for axis in known.order if axis not in axes]
    return [moved.original(site.to, result, [sorted(left).index(axis) for axis in left])]


def _depth_to_space(site: Site, moved: Moved) -> Sequence[int] | None:
    """Only a channels-last operand carries its order: channels are what moves into the spatial axes."""
    known = moved.of(site.inputs[0])
    order = channels_last(site.to.type(site.inputs[0]).rank)
    if known is None or known.order != order or site.node.attributes["layout"] != "NCHW":
        return None
    result = site.to.op("depth_to_space", known.value, **{**site.node.attributes, "layout": "NHWC"})
    return [moved.original(site.to, result, order)]


def _indexed_axis(site: Site, moved: Moved) -> Sequence[int] | None:
    """resample, and gather by a vector: one axis of the data gets other extents and keeps its place."""
    known = moved.of(site.inputs[0])
    if known is None or site.to.type(site.inputs[0]).rank != site.old.types[site.node.output].rank:
        return None
    axis = known.order.index(axis_of(site.node.attributes, len(known.order)))
    result = site.to.op(site.node.op, known.value, *site.inputs[1:], axis=axis)
    return [moved.original(site.to, result, known.order)]


def _every_axis(*names: str) -> LayoutRule:
    """The rule of an op whose attributes `names` have one element for each axis."""

    def rule(site: Site, moved: Moved) -> Sequence[int] | None:
        known = moved.of(site.inputs[0])
        if known is None or site.to.type(site.inputs[0]).rank != site.old.types[site.node.output].rank:
            return None
        permuted = {name: _permuted(site.node.attributes, name, known) for name in names}
        result = site.to.op(site.node.op, known.value, **{**site.node.attributes, **permuted})
        return [moved.original(site.to, result, known.order)]

    return rule


def _permuted(attributes: Attributes, name: str, known: MovedValue) -> Attribute:
    extents = extents_of(attributes, name)
    return tuple(extents[axis] for axis in known.order)


def _one_axis(site: Site, moved: Moved) -> Sequence[int] | None:
    """softmax and concat: every operand in the order of the first that is moved."""
    known = next((m for m in map(moved.of, site.inputs) if m is not None), None)
    if known is None:
        return None
    axis = known.order.index(axis_of(site.node.attributes, len(known.order)))
    operands = [moved.ordered(site.to, v, known.order) for v in site.inputs]
    return [moved.original(site.to, site.to.op(site.node.op, *operands, axis=axis), known.order)]


_RULES: Mapping[str, LayoutRule] = {
    "conv": _conv,
    "transpose": _transpose,
    "reduce": _reduce,
    "reduce_window": _every_axis("window", "strides", "low", "high", "dilations"),
    "slice": _every_axis("starts", "stops", "steps"),
    "pad": _every_axis("low", "high"),
    "broadcast_to": _every_axis("shape"),
    "repeat": _every_axis("factors"),
    "depth_to_space": _depth_to_space,
    "resample": _indexed_axis,
    "gather": _indexed_axis,
    "softmax": _one_axis,
    "concat": _one_axis,
    "reshape": move_reshape,
    "matmul": flatten_into_matmul,
}


def layout_rule(op: str) -> LayoutRule | None:
    """The rule of an op; None when it always takes its operands in their original order."""
    return _elementwise if op_named(op).elementwise else _RULES.get(op)
