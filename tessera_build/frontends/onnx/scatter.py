"""ScatterElements, ScatterND and TensorScatter: updates put at positions that are data.

Takes data, indices and updates; gives one graph op after reshapes. Invariant: axes that the operator treats alike
are merged, so that a kernel walks as few of them as there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tessera_build.frontends.onnx.call import Call, Translator, normalise_axis
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import BOOL, I64
from tessera_build.ir.graph.ops.shapes import count

_REDUCTIONS = ("none", "add", "mul", "max", "min")
_OF_TRUTH = {"add": "max", "mul": "min"}  # sums and products of truth values are "or" and "and"


def _reduction(n: Call) -> str:
    word = n.text("reduction", "none")
    if word not in _REDUCTIONS:
        raise ill_formed(f"{n.op} combines by an unknown word", expected=" | ".join(_REDUCTIONS), found=word)
    return _OF_TRUTH.get(word, word) if n.input(0).dtype == BOOL else word


def _scatter_elements(c: Context, n: Call) -> Tensor:
    data, indices, updates = n.input(0), n.input(1), n.input(2)
    axis = n.axis(data.rank, 0)
    if data.rank == 0 or indices.rank != data.rank or updates.rank != data.rank:
        raise ill_formed(f"{n.op} needs operands of one rank of at least 1", found=f"{data.type}, {indices.type}")
    pairs = zip(indices.shape, updates.shape, strict=True)
    shape = tuple(c.unify(i, u, "updates have another shape than the indices") for i, u in pairs)
    for position, (some, whole) in enumerate(zip(shape, data.shape, strict=True)):
        if position != axis:
            c.require(whole, ">=", some, f"the indices of {n.op} reach past its data at axis {position}")
    indices, updates = c.retyped(indices, shape), c.retyped(updates, shape)
    groups = _merged_axes(data.shape, shape, axis)
    at = next(i for i, group in enumerate(groups) if axis in group)
    changed = c.op(
        "scatter_elements",
        c.reshape(data, _grouped(data.shape, groups)),
        c.reshape(indices, _grouped(shape, groups)),
        c.reshape(updates, _grouped(shape, groups)),
        axis=at,
        reduction=_reduction(n),
    )
    return c.reshape(changed, data.shape)


def _merged_axes(whole: Sequence[Extent], some: Sequence[Extent], axis: int) -> list[list[int]]:
    """Runs of neighbouring axes that one index can walk: all but a run's first have the indices' extent in full."""
    groups: list[list[int]] = []
    for position in range(len(whole)):
        apart = position == axis or (groups and groups[-1] == [axis]) or whole[position] != some[position]
        if not groups or apart:
            groups.append([position])
        else:
            groups[-1].append(position)
    return groups


def _grouped(shape: Sequence[Extent], groups: Sequence[Sequence[int]]) -> tuple[Extent, ...]:
    return tuple(count([shape[position] for position in group]) for group in groups)


def _scatter_nd(c: Context, n: Call) -> Tensor:
    data, indices, updates = n.input(0), n.input(1), n.input(2)
    depth = data.rank + indices.rank - 1 - updates.rank
    if indices.rank == 0 or not 0 < depth <= data.rank:
        raise ill_formed(f"{n.op}'s operands do not fit", found=f"{data.type}, {indices.type}, {updates.type}")
    c.unify(depth, indices.shape[-1], f"the last axis of {n.op}'s indices names another number of axes")
    row, updated = data.shape[depth:], count(indices.shape[:-1])
    wanted = (*indices.shape[:-1], *row)
    pairs = zip(wanted, updates.shape, strict=True)
    updates = c.retyped(updates, [c.unify(w, u, "ScatterND's updates have another shape") for w, u in pairs])
    changed = c.op(
        "scatter_nd",
        c.reshape(data, (*data.shape[:depth], count(row))),
        c.reshape(indices, (updated, depth)),
        c.reshape(updates, (updated, count(row))),
        reduction=_reduction(n),
    )
    return c.reshape(changed, data.shape)


def _tensor_scatter(c: Context, n: Call) -> Tensor:
    cache, updates, first = n.input(0), n.input(1), n.optional(2)
    axis = normalise_axis(n.integer("axis", -2), cache.rank)
    mode = n.text("mode", "linear")
    if mode not in ("linear", "circular") or axis == 0 or updates.rank != cache.rank:
        raise ill_formed("TensorScatter does not fit its operands", found=f"mode={mode}, axis={axis}, {updates.type}")
    pairs = list(enumerate(zip(cache.shape, updates.shape, strict=True)))
    updates = c.retyped(
        updates, [u if i == axis else c.unify(w, u, "TensorScatter's update has another shape") for i, (w, u) in pairs]
    )
    c.require(cache.shape[axis], ">=", updates.shape[axis], "TensorScatter's update is longer than the cache")
    batch = cache.shape[0]
    whole, part = (
        c.reshape(t, (batch, count(t.shape[1:axis]), t.shape[axis], count(t.shape[axis + 1 :])))
        for t in (cache, updates)
    )
    if first is not None:
        start = c.retyped(first, [c.unify(batch, first.shape[0], "TensorScatter has another number of positions")])
    else:
        start = c.broadcast_to(c.scalar(0, I64), (batch,))
    return c.reshape(c.op("scatter_rows", whole, part, start, circular=mode == "circular"), cache.shape)


SCATTER_OPERATORS: Mapping[str, Translator] = {
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TensorScatter": _tensor_scatter,
}
