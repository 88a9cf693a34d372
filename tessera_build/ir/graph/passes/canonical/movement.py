"""Rules for ops that move elements: compose them, drop those that move nothing, prefer the cheaper kind.

Takes a site; gives the value that replaces it, or None. Invariant: every element is the same bit pattern as before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tessera_build.ir.core.dims import bounds
from tessera_build.ir.graph.infer import op_named
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.graph.ops.op import axis_of, extents_of, ints_of
from tessera_build.ir.graph.ops.shapes import broadcast_shapes
from tessera_build.ir.graph.sweep import Site

SHAPE_ONLY = frozenset({"reshape", "broadcast_to", "slice", "pad", "transpose"})


def drop_unmoved(site: Site) -> Sequence[int] | None:
    """A reshape, broadcast, slice, pad or transpose that gives its operand back."""
    if site.node.op == "concat" and len(site.inputs) == 1:
        return [site.inputs[0]]
    if site.node.op not in SHAPE_ONLY or site.to.type(site.inputs[0]) != site.old.types[site.node.output]:
        return None
    if site.node.op == "transpose":
        perm = ints_of(site.node.attributes, "perm")
        return [site.inputs[0]] if perm == tuple(range(len(perm))) else None
    # Equal extents leave slice and pad nothing to remove or to add, whatever their attributes say.
    return [site.inputs[0]]


def compose_transposes(site: Site) -> Sequence[int] | None:
    """transpose(transpose(x)) → one transpose."""
    inner = _operand(site, "transpose", "transpose")
    if inner is None:
        return None
    first, second = ints_of(inner.attributes, "perm"), ints_of(site.node.attributes, "perm")
    return [site.to.op("transpose", inner.inputs[0], perm=tuple(first[p] for p in second))]


def compose_reshapes(site: Site) -> Sequence[int] | None:
    """reshape(reshape(x)) → one reshape."""
    inner = _operand(site, "reshape", "reshape")
    if inner is None:
        return None
    return [site.to.op("reshape", inner.inputs[0], shape=extents_of(site.node.attributes, "shape"))]


def transpose_to_reshape(site: Site) -> Sequence[int] | None:
    """A transpose that only moves axes of extent 1 → reshape."""
    if site.node.op != "transpose":
        return None
    shape = site.to.type(site.inputs[0]).shape
    moved = [p for p in ints_of(site.node.attributes, "perm") if shape[p] != 1]
    if moved != sorted(moved):
        return None
    return [site.to.op("reshape", site.inputs[0], shape=site.old.types[site.node.output].shape)]


def drop_broadcast(site: Site) -> Sequence[int] | None:
    """op(broadcast_to(x), y) → op(x, y) where elementwise broadcasting gives the same shape."""
    if not op_named(site.node.op).elementwise or len(site.inputs) < 2:
        return None
    inputs = list(site.inputs)
    result = site.old.types[site.node.output].shape
    for position, value in enumerate(site.inputs):
        source = site.to.producer(value)
        if source is None or source.op != "broadcast_to":
            continue
        candidate = [*inputs[:position], source.inputs[0], *inputs[position + 1 :]]
        if broadcast_shapes(site.node.op, [site.to.type(v).shape for v in candidate]) == result:
            inputs = candidate
    return None if inputs == list(site.inputs) else [site.to.op(site.node.op, *inputs)]


def drop_leading_ones(site: Site) -> Sequence[int] | None:
    """op(x, c[1, 1, C]) → op(x, c[C]) where x gives the rank: one form for a bias, whatever its history."""
    if not op_named(site.node.op).elementwise or len(site.inputs) < 2:
        return None
    rank = site.old.types[site.node.output].rank
    if not any(site.to.array(v) is None and site.to.type(v).rank == rank for v in site.inputs):
        return None
    inputs = [_without_leading_ones(site, v) for v in site.inputs]
    return None if inputs == list(site.inputs) else [site.to.op(site.node.op, *inputs)]


def _without_leading_ones(site: Site, value: int) -> int:
    array = site.to.array(value)
    if array is None or array.ndim == 0 or array.shape[0] != 1:
        return value
    kept = next((axis for axis, extent in enumerate(array.shape) if extent != 1), array.ndim)
    return site.to.constant(array.reshape(array.shape[kept:]), site.to.name(value))


def sink_broadcast(site: Site) -> Sequence[int] | None:
    """op(broadcast_to(x), scalars) → broadcast_to(op(x, scalars)): compute before the elements are repeated."""
    if not op_named(site.node.op).elementwise:
        return None
    wide = [v for v in site.inputs if site.to.type(v).rank]
    if not wide or any(v != wide[0] for v in wide):
        return None
    source = site.to.producer(wide[0])
    if source is None or source.op != "broadcast_to":
        return None
    inputs = [source.inputs[0] if v == wide[0] else v for v in site.inputs]
    small = site.to.op(site.node.op, *inputs, **site.node.attributes)
    return [site.to.op("broadcast_to", small, shape=site.old.types[site.node.output].shape)]


def broadcast_mask(site: Site) -> Sequence[int] | None:
    """attention(q, k, v, broadcast_to(m)) → attention(q, k, v, m), for a mask that still has a number for each key."""
    source = site.to.producer(site.inputs[3]) if site.node.op == "attention" and len(site.inputs) == 4 else None
    if source is None or source.op != "broadcast_to":
        return None
    shape = site.to.type(source.inputs[0]).shape
    if not shape or shape[-1] != site.to.type(source.output).shape[-1]:
        return None
    mask = site.to.op("reshape", source.inputs[0], shape=(1,) * (4 - len(shape)) + shape)
    return [site.to.op("attention", *site.inputs[:3], mask, **site.node.attributes)]


def gather_in_order(site: Site) -> Sequence[int] | None:
    """gather with the constant indices 0, 1, ..., extent - 1 → reshape."""
    if site.node.op != "gather":
        return None
    data, index = site.to.type(site.inputs[0]), site.to.array(site.inputs[1])
    extent = data.shape[axis_of(site.node.attributes, data.rank)]
    if index is None or index.size != extent or index.reshape(-1).tolist() != list(range(index.size)):
        return None
    return [site.to.op("reshape", site.inputs[0], shape=site.old.types[site.node.output].shape)]


def gather_of_one(site: Site) -> Sequence[int] | None:
    """gather with one constant index that is certainly in range → slice and reshape, which need no indices."""
    if site.node.op != "gather":
        return None
    data, index = site.to.type(site.inputs[0]), site.to.array(site.inputs[1])
    axis = axis_of(site.node.attributes, data.rank)
    if index is None or index.size != 1:
        return None
    extent = data.shape[axis]
    position = int(index.reshape(-1)[0])
    start = position if position >= 0 else extent + position
    smallest = bounds(extent, site.to.dims)[0]
    if smallest is None or not -smallest <= position < smallest:
        return None
    starts = tuple(start if i == axis else 0 for i in range(data.rank))
    stops = tuple(start + 1 if i == axis else e for i, e in enumerate(data.shape))
    piece = site.to.op("slice", site.inputs[0], starts=starts, stops=stops, steps=(1,) * data.rank)
    return [site.to.op("reshape", piece, shape=site.old.types[site.node.output].shape)]


def transpose_flags(site: Site) -> Sequence[int] | None:
    """matmul(transpose(x), y), where the last two axes are swapped → matmul(x, y) with the other flag."""
    if site.node.op != "matmul":
        return None
    inputs, attributes = list(site.inputs), dict(site.node.attributes)
    for position, flag in enumerate(("transpose_a", "transpose_b")):
        source = site.to.producer(inputs[position])
        if source is None or source.op != "transpose":
            continue
        perm = ints_of(source.attributes, "perm")
        rank = len(perm)
        if perm == (*range(rank - 2), rank - 1, rank - 2):
            inputs[position] = source.inputs[0]
            attributes[flag] = not attributes[flag]
    return None if inputs == list(site.inputs) else [site.to.op("matmul", *inputs, **attributes)]


def transposed_product(site: Site) -> Sequence[int] | None:
    """transpose(matmul(x, y) with x transposed) → matmul(y, x) with y transposed: the gradient of stored weights.

    Both read rows of either operand, so nothing gets dearer; of 12 encoders of BERT the transpositions took a sixth of
    all gradients' time. A constant stays the second operand, which is packed.
    """
    inner = _operand(site, "transpose", "matmul")
    if inner is None or not site.only_use(0):
        return None
    perm = ints_of(site.node.attributes, "perm")
    rank = len(perm)
    left, right = inner.inputs
    turned = inner.attributes["transpose_a"] and not inner.attributes["transpose_b"]
    known = site.to.array(left) is not None or site.to.array(right) is not None
    if perm != (*range(rank - 2), rank - 1, rank - 2) or not turned or known:
        return None
    return [site.to.op("matmul", right, left, transpose_a=True, transpose_b=False)]


def _operand(site: Site, outer: str, inner: str) -> GraphNode | None:
    """The node before this one, when the two are `outer` and `inner`."""
    if site.node.op != outer:
        return None
    source = site.to.producer(site.inputs[0])
    return source if source is not None and source.op == inner else None


MOVEMENT: tuple[Callable[[Site], Sequence[int] | None], ...] = (
    drop_unmoved,
    compose_transposes,
    compose_reshapes,
    transpose_to_reshape,
    drop_broadcast,
    drop_leading_ones,
    sink_broadcast,
    broadcast_mask,
    gather_in_order,
    gather_of_one,
    transpose_flags,
    transposed_product,
)
