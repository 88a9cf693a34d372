"""Operators that choose by index: GatherElements, GatherND, ArgMax, ArgMin, OneHot, Trilu, EyeLike.

Takes tensors and indices; gives core ops. Invariant: an index outside its own axis ends a run with
INDEX_OUT_OF_RANGE, even where several indices are folded into one, except for OneHot, where ONNX gives it a meaning.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.frontends.onnx.call import Call, Translator, normalise_axis
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.load import element_type
from tessera_build.frontends.onnx.order import sign_of
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import I32, I64
from tessera_build.ir.graph.ops.shapes import count


def counting(c: Context, rank: int, axis: int, extent: Extent) -> Tensor:
    """0, 1, 2, ... along one axis of a tensor whose other axes have extent 1; 32-bit, as wide as float32."""
    return c.op("iota", shape=tuple(extent if i == axis else 1 for i in range(rank)), axis=axis, dtype=I32)


def _gather_elements(c: Context, n: Call) -> Tensor:
    x, indices = n.input(0), n.input(1)
    if x.rank != indices.rank or x.rank == 0:
        raise ill_formed("GatherElements takes two tensors of one rank", found=f"{x.type}, {indices.type}")
    axis = n.axis(x.rank, 0)
    wanted = list(x.shape)
    for i, (own, whole) in enumerate(zip(indices.shape, x.shape, strict=True)):
        if i != axis and own != whole:
            c.require(whole, ">=", own, f"GatherElements' indices reach over its data at axis {i}")
            wanted[i] = own
    # A slice carries into the types what is a guard where the extents are dims.
    part = x if all(isinstance(e, int) for e in (*wanted, *x.shape)) else c.slice(x, (0,) * x.rank, wanted)
    return c.op("gather_elements", part, indices, axis=axis)


def _gather_nd(c: Context, n: Call) -> Tensor:
    """One gather over the chosen axes flattened into one; batch axes are chosen by counting."""
    x, indices = n.input(0), n.input(1)
    batch = n.integer("batch_dims", 0)
    depth = indices.shape[-1]
    if not isinstance(depth, int):
        raise unsupported("GatherND's indices have a symbolic shape in their last axis", found=str(indices.type))
    if not 0 <= batch < min(x.rank, indices.rank) or batch + depth > x.rank:
        raise ill_formed("GatherND's indices do not fit its data", found=f"{x.type}, {indices.type}, batch {batch}")
    for axis in range(batch):
        c.unify(x.shape[axis], indices.shape[axis], f"GatherND's batch axis {axis} differs")
    outer = indices.shape[:-1]
    chosen = [c.reshape(c.slice(indices, *_component(indices, j)), outer) for j in range(depth)]
    if depth == 1 and batch == 0:
        return c.op("gather", x, chosen[0], axis=0)
    place = c.scalar(0, I64)
    for axis, extent in enumerate(x.shape[: batch + depth]):
        if axis < batch:
            own = c.cast(counting(c, len(outer), axis, extent), I64)
        else:
            own = _checked(c, chosen[axis - batch], extent)
        place = c.op("add", c.op("mul", place, c.number(extent, I64)), own)
    flat = c.reshape(x, (count(x.shape[: batch + depth]), *x.shape[batch + depth :]))
    return c.op("gather", flat, c.broadcast_to(place, outer), axis=0)


def _component(indices: Tensor, j: int) -> tuple[tuple[Extent, ...], tuple[Extent, ...]]:
    zeros = (0,) * (indices.rank - 1)
    return (*zeros, j), (*indices.shape[:-1], j + 1)


def _checked(c: Context, index: Tensor, extent: Extent) -> Tensor:
    """The index counted from the front; reading it from a table of places refuses one outside the axis."""
    return c.op("gather", c.cast(counting(c, 1, 0, extent), I64), index, axis=0)


def _arg(kind: str) -> Translator:
    """The place of the first (or last) element that equals the extremum, or that is no number."""

    def translate(c: Context, n: Call) -> Tensor:
        x = n.input(0)
        axis, last = n.axis(x.rank, 0), bool(n.integer("select_last_index", 0))
        extent = x.shape[axis]
        if extent == 0 and 0 not in (*x.shape[:axis], *x.shape[axis + 1 :]):
            raise ill_formed(f"{n.op} along an axis without elements", found=str(x.type))
        extreme = c.reduce(kind, x, (axis,), keepdims=True)
        found = c.op("eq", x, extreme)
        if x.dtype.is_float:
            found = c.op("or", found, c.op("isnan", x))
        none = c.scalar(-1 if last else 2**31 - 1, I32)
        places = c.op("select", found, counting(c, x.rank, axis, extent), none)
        keep = bool(n.integer("keepdims", 1))
        place = c.cast(c.reduce("max" if last else "min", places, (axis,), keep), I64)
        is_some = sign_of(extent - 1, c.ranges) == 1
        return place if is_some or 0 in x.shape else _checked(c, place, extent)

    return translate


def _one_hot(c: Context, n: Call) -> Tensor:
    """A negative index counts from the end; one outside the depth, or a NaN, leaves its row at the off value.

    Fractions are cut off, as ONNX's text says; onnxruntime found no place for them before 1.32.
    """
    indices, depth, values = n.input(0), n.input(1), n.input(2)
    stated = c.extents_of(depth)
    if len(stated) != 1 or values.rank != 1:
        raise ill_formed("OneHot takes one depth and two values", found=f"{depth.type}, {values.type}")
    c.unify(values.shape[0], 2, "OneHot takes two values")
    axis = normalise_axis(n.integer("axis", -1), indices.rank + 1)
    wide, extent = c.cast(indices, I64), stated[0]
    from_front = c.op("select", c.op("lt", wide, c.scalar(0, I64)), c.op("add", wide, c.number(extent, I64)), wide)
    shape = (*indices.shape[:axis], 1, *indices.shape[axis:])
    places = c.cast(counting(c, len(shape), axis, extent), I64)
    hit = c.op("eq", c.reshape(from_front, shape), places)
    off, on = (c.reshape(c.slice(c.retyped(values, (2,)), (i,), (i + 1,)), ()) for i in range(2))
    return c.op("select", hit, on, off)


def _trilu(c: Context, n: Call) -> Tensor:
    """Elements on and above (or on and below) diagonal k, zeros elsewhere; k may be computed at run time."""
    x, k = n.input(0), n.optional(1)
    if x.rank < 2:
        raise ill_formed("Trilu takes matrices", found=str(x.type))
    diagonal = c.scalar(0, I64) if k is None else c.reshape(c.cast(k, I64), ())
    rows, columns = (c.cast(counting(c, 2, i, x.shape[i - 2]), I64) for i in range(2))
    edge = c.op("add", rows, diagonal)
    kept = c.op("ge" if n.integer("upper", 1) else "le", columns, edge)
    return c.op("select", kept, x, c.scalar(0, x.dtype))


def _eye_like(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    if x.rank != 2:
        raise ill_formed("EyeLike takes a matrix", found=str(x.type))
    dtype = element_type(n.integer("dtype"), "EyeLike's result") if n.has("dtype") else x.dtype
    k = n.integer("k", 0)
    if abs(k) >= 2**30:
        raise unsupported(f"EyeLike with k={k} is not built")
    rows, columns = (counting(c, 2, i, x.shape[i]) for i in range(2))
    return c.cast(c.op("eq", columns, c.op("add", rows, c.scalar(k, I32))), dtype)


INDEXING_OPERATORS: Mapping[str, Translator] = {
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ArgMax": _arg("max"),
    "ArgMin": _arg("min"),
    "OneHot": _one_hot,
    "Trilu": _trilu,
    "EyeLike": _eye_like,
}
