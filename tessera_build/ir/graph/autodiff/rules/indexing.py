"""Derivatives of ops that read and write at computed positions: what was read passes back by adding where it was read.

Takes sites; gives their rows of the table. Invariant: where several updates go to one place, the derivative goes to the
one that stays, or to those that share an extremum; additions are made in the order of the updates.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.ir.core.dims import symbols_of
from tessera_build.ir.core.types import I64, tensor
from tessera_build.ir.graph.autodiff.derivative import (
    Derivative,
    NotDifferentiable,
    Site,
    first,
    linear,
)
from tessera_build.ir.graph.autodiff.emit import Emit, Values
from tessera_build.ir.graph.ops.op import axis_of
from tessera_build.ir.graph.ops.shapes import count


def _gather(site: Site, cotangents: Values) -> Values:
    """Slices are added to rows [V, C] of zeros, which then become the data's axes again."""
    e, c, shape, indices = site.emit, first(cotangents), site.type(0).shape, site.inputs[1]
    axis, rank = axis_of(site.attributes, len(shape)), len(site.type(1).shape)
    chosen = range(axis, axis + rank)
    rest = [i for i in range(len(e.shape(c))) if i not in chosen]
    others = (*shape[:axis], *shape[axis + 1 :])
    number, width = count(site.type(1).shape), count(others)
    updates = e.reshape(e.transpose(c, (*chosen, *rest)), (number, width))
    rows = e.reshape(indices, (number, 1))
    total = e.op("scatter_nd", e.zeros(tensor(e.type(c).dtype, shape[axis], width)), rows, updates, reduction="add")
    whole = e.reshape(total, (shape[axis], *others))
    perm = [*range(1, axis + 1), 0, *range(axis + 1, len(shape))]
    return [e.transpose(whole, perm), None]


def _gather_elements(site: Site, cotangents: Values) -> Values:
    e, c = site.emit, first(cotangents)
    axis = axis_of(site.attributes, len(e.shape(c)))
    zeros = e.zeros(site.type(0))
    return [e.op("scatter_elements", zeros, site.inputs[1], c, axis=axis, reduction="add"), None]


def _scatter_jvp(site: Site, tangents: Values) -> Values:
    kind = str(site.attributes["reduction"])
    data, _, updates = (t if t is not None else site.emit.zeros(site.type(i)) for i, t in enumerate(tangents))
    if kind == "mul":
        return [_multiplied(site, data, updates)]
    if kind in ("max", "min"):
        return [_chosen(site, data, updates)]
    return [site.again(data, site.inputs[1], updates)]


def _added(site: Site, data: int, updates: int) -> int:
    """`data` with the updates added where the node puts its own."""
    attributes = {**site.attributes, "reduction": "add"}
    return site.emit.op(site.node.op, data, site.inputs[1], updates, **attributes)


def _chosen(site: Site, data: int, updates: int) -> int:
    """The mean of the changes of those that are the extremum of their place."""
    e, y, dtype = site.emit, site.outputs[0], site.type(0).dtype
    masks = e.op("eq", site.inputs[0], y), e.op("eq", site.inputs[2], _read(site, y))
    number = _added(site, *(e.op("cast", mask, dtype=dtype) for mask in masks))
    total = _added(site, e.where(masks[0], data), e.where(masks[1], updates))
    return e.op("div", total, number)


def _multiplied(site: Site, data: int, updates: int) -> int:
    """The change of the data times the updates' product, and theirs times the data. At each place the first update
    that is zero is a factor beside the product of the others, so that derivatives by two zeros are there; third ones
    lack those by three zeros of one place."""
    e, (x, indices, factors) = site.emit, site.inputs
    one, nothing = e.scalar(1.0, x), e.zeros(site.type(0))
    first = _first_zeros(site)
    rest = e.op("select", first, one, factors)
    others = site.again(e.full(1.0, site.type(0)), indices, rest)
    there = _added(site, nothing, e.op("cast", first, dtype=site.type(0).dtype))
    zero = _added(site, e.op("sub", one, there), e.where(first, factors))
    change = e.op("mul", _added(site, nothing, e.where(first, updates)), others)
    kept = e.where(e.op("not", first), updates)
    change = e.op("add", change, e.op("mul", zero, _product_change(site, rest, others, kept)))
    by_data = e.op("mul", data, e.op("mul", zero, others))
    return e.op("add", by_data, e.op("mul", x, change))


def _product_change(site: Site, factors: int, product: int, updates: int) -> int:
    """The change of each place's product: that times the sum of relative changes of factors, and where one factor
    alone is zero, its change times the product of the others. Nothing is divided by zero."""
    e, indices = site.emit, site.inputs[1]
    nothing, (zero, one) = e.zeros(site.type(0)), (e.scalar(n, product) for n in (0.0, 1.0))
    mask = e.op("eq", factors, zero)
    rest = e.op("select", mask, one, factors)
    relative = _added(site, nothing, e.op("select", mask, zero, e.op("div", updates, rest)))
    alone = e.op("eq", _added(site, nothing, e.op("cast", mask, dtype=site.type(0).dtype)), one)
    others = e.where(alone, site.again(e.full(1.0, site.type(0)), indices, rest))
    own = _added(site, nothing, e.where(mask, updates))
    return e.op("add", e.op("mul", product, relative), e.op("mul", others, own))


def _first_zeros(site: Site) -> int:
    """For each update, whether it is zero and no earlier one of its place is."""
    e, factors, shape = site.emit, site.inputs[2], site.type(2).shape
    numbers = e.op("reshape", e.op("iota", shape=(count(shape),), axis=0, dtype=I64), shape=shape)
    behind = e.broadcast(e.op("dimension", value=count(shape), dtype=I64), site.type(0).shape)
    zeros = e.op("eq", factors, e.scalar(0.0, factors))
    numbers = e.op("select", zeros, numbers, e.op("dimension", value=count(shape), dtype=I64))
    least = e.op(site.node.op, behind, site.inputs[1], numbers, **{**site.attributes, "reduction": "min"})
    return e.op("and", zeros, e.op("eq", _read(site, least), numbers))


def _scatter(site: Site, cotangents: Values) -> Values:
    e, c, indices = site.emit, first(cotangents), site.inputs[1]
    kept = site.attributes["reduction"] == "add"
    data = updates = None
    if site.linear(0):
        data = c if kept else site.again(c, indices, e.zeros(site.type(2)))
    if site.linear(2):
        updates = _read(site, c)
        updates = updates if kept else e.where(_stays(site), updates)
    return [data, None, updates]


def _read(site: Site, data: int) -> int:
    """What stands in `data` where each update goes."""
    e, indices = site.emit, site.inputs[1]
    if site.node.op == "scatter_elements":
        return _elements(e, data, indices, axis_of(site.attributes, len(e.shape(data))))
    shape = e.shape(data)
    places = _places(site)
    return e.op("gather", e.reshape(data, (count(shape[:-1]), shape[-1])), places, axis=0)


def _elements(e: Emit, data: int, indices: int, axis: int) -> int:
    """What stands in the data at the indices. Where it cannot be seen from extents that the indices fit into the data,
    as they do where they were written to, the data are cut to them."""
    own, shape = e.shape(indices), e.shape(data)
    wanted = [whole if i == axis else n for i, (n, whole) in enumerate(zip(own, shape, strict=True))]
    if any(n != whole and symbols_of(whole - n) for n, whole in zip(wanted, shape, strict=True)):
        data = e.slice(data, (0,) * len(shape), wanted)
    return e.op("gather_elements", data, indices, axis=axis)


def _places(site: Site) -> int:
    """The row that each vector of indices means, counted through all axes but the last."""
    e, indices, shape = site.emit, site.inputs[1], site.type(0).shape
    number = site.type(1).shape[0]
    total: int | None = None
    for k, extent in enumerate(shape[:-1]):
        column = e.slice(indices, (0, k), (number, k + 1))
        column = e.op("cast", e.reshape(column, (number,)), dtype=I64)
        size = e.op("dimension", value=extent, dtype=I64)
        zero = e.scalar(0.0, column)
        column = e.op("select", e.op("lt", column, zero), e.op("add", column, size), column)
        total = column if total is None else e.op("add", e.op("mul", total, size), column)
    assert total is not None
    return total


def _stays(site: Site) -> int:
    """For each update, whether no later one goes to its place: numbers are scattered as the updates were."""
    e, indices = site.emit, site.inputs[1]
    shape, elements = site.type(2).shape, site.node.op == "scatter_elements"
    numbered = shape if elements else (shape[0], 1)
    numbers = e.op("reshape", e.op("iota", shape=(count(numbered),), axis=0, dtype=I64), shape=numbered)
    whole = site.type(0).shape
    where = whole if elements else (*whole[:-1], 1)
    blank = e.broadcast(e.integers([-1]), where) if where else e.integers([-1])
    if elements:
        axis = axis_of(site.attributes, len(whole))
        marked = e.op("scatter_elements", blank, indices, numbers, axis=axis, reduction="none")
        return e.op("eq", _elements(e, marked, indices, axis), numbers)
    marked = e.op("scatter_nd", blank, indices, numbers, reduction="none")
    rows = e.op("gather", e.reshape(marked, (count(whole[:-1]), 1)), _places(site), axis=0)
    return e.op("eq", rows, numbers)


def _rows_jvp(site: Site, tangents: Values) -> Values:
    cache, updates = (t if t is not None else site.emit.zeros(site.type(i)) for i, t in enumerate(tangents[:2]))
    return [site.again(cache, updates, site.inputs[2])]


def _rows(site: Site, cotangents: Values) -> Values:
    e, c, start = site.emit, first(cotangents), site.inputs[2]
    cache = site.again(c, e.zeros(site.type(1)), start) if site.linear(0) else None
    if not site.linear(1):
        return [cache, None, None]
    batch, planes, steps, width = site.type(1).shape
    shape = (batch, planes, steps, width)
    wide = e.op("cast", start, dtype=I64)
    turns = e.op("iota", shape=shape, axis=2, dtype=I64)
    places = e.op("add", e.reshape(wide, (batch, 1, 1, 1)), turns)
    size = e.op("dimension", value=site.type(0).shape[2], dtype=I64)
    inside = e.op("mod", places, size)
    return [cache, e.op("gather_elements", c, inside, axis=2), None]


def _look_up_jvp(site: Site, tangents: Values) -> Values:
    """What is found changes with the table's values; another key is a jump."""
    (x, keys, *table), changes = site.inputs, tangents[2:]
    if changes == [None, None]:
        return [None]
    values, default = (
        t if t is not None else site.emit.zeros(site.emit.type(v)) for t, v in zip(changes, table, strict=True)
    )
    return [site.again(x, keys, values, default)]


def _look_up(site: Site, cotangents: Values) -> Values:
    e, c, (x, keys) = site.emit, first(cotangents), site.inputs[:2]
    (number,), (known,) = site.type(0).shape, site.type(1).shape
    found = e.op("eq", e.reshape(x, (number, 1)), e.reshape(keys, (1, known)))
    values = e.sum(e.where(found, e.reshape(c, (number, 1))), (0,)) if site.linear(2) else None
    if not site.linear(3):
        return [None, None, values, None]
    some = e.op("reduce", e.op("cast", found, dtype=I64), kind="max", axes=(1,), keepdims=False)
    return [None, None, values, e.sum(e.where(e.op("eq", some, e.scalar(0, some)), c), (0,))]


INDEXING: Mapping[str, Derivative | NotDifferentiable] = {
    "gather": linear(_gather),
    "gather_elements": linear(_gather_elements),
    "scatter_elements": Derivative(_scatter_jvp, _scatter),
    "scatter_nd": Derivative(_scatter_jvp, _scatter),
    "scatter_rows": Derivative(_rows_jvp, _rows),
    "look_up": Derivative(_look_up_jvp, _look_up),
}
