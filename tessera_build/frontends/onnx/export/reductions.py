"""Reductions, sliding windows, softmax and running totals as ONNX operators.

Takes one operand; gives one. Invariant: what padding adds to a window never changes its result.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from tessera_build.frontends.onnx.export.elementwise import reread, scalar
from tessera_build.frontends.onnx.export.movement import cut, padded, reshaped, transposed
from tessera_build.frontends.onnx.export.site import Site, WriteNode
from tessera_build.frontends.onnx.export.writer import Operand
from tessera_build.ir.core.types import BOOL, F16, F32, F64, I32, I64, U64, DType
from tessera_build.ir.graph.ops.cumulation import KINDS as CUMULATED
from tessera_build.ir.graph.ops.op import axis_of, flag_of, ints_of, word_of
from tessera_build.ir.graph.ops.reduction import KINDS, WINDOW_KINDS, identity
from tessera_build.ir.graph.ops.shapes import count

_TOP = 1 << 63
_POOLED: Mapping[str, tuple[DType, ...]] = {"max": (F64, F32, F16), "sum": (F32, F16), "min": (F64, F32, F16)}
_COMBINED = {"sum": "add", "max": "max", "min": "min"}


def reduced(site: Site, x: Operand, kind: str, axes: Sequence[int], *, keepdims: bool = False) -> Operand:
    """x reduced over axes; over none it stays."""
    writer = site.writer
    if not axes:
        return x
    if x.dtype == BOOL and kind in ("sum", "prod"):
        return writer.cast(reduced(site, writer.cast(x, I32), kind, axes, keepdims=keepdims), BOOL)
    if x.dtype == U64:  # sums wrap alike in i64, whose order is that of u64 when the highest bit is turned
        ordered = kind in ("max", "min")
        whole = reduced(site, reread(writer, _turned(site, x, ordered), I64), kind, axes, keepdims=keepdims)
        return _turned(site, reread(writer, whole, U64), ordered)
    return writer.run_on(f"Reduce{kind.capitalize()}", x, writer.integers(*axes), keepdims=int(keepdims))


def _turned(site: Site, x: Operand, ordered: bool) -> Operand:
    return site.writer.emit("BitwiseXor", x, site.writer.number(_TOP, U64), dtype=U64) if ordered else x


def _reduce(site: Site) -> Operand:
    kind, axes = word_of(site.attributes, "kind", KINDS), ints_of(site.attributes, "axes")
    return reduced(site, site.inputs[0], kind, axes, keepdims=flag_of(site.attributes, "keepdims"))


def _softmax(site: Site) -> Operand:
    return site.writer.run("Softmax", site.inputs[0], axis=axis_of(site.attributes, site.result.rank))


# -- windows ----------------------------------------------------------------------------------------------------------


def _reduce_window(site: Site) -> Operand:
    """By a pooling operator over the axes that have windows, or, for types without one, position by position."""
    (x,), kind = site.inputs, word_of(site.attributes, "kind", WINDOW_KINDS)
    low, high = ints_of(site.attributes, "low"), ints_of(site.attributes, "high")
    whole = padded(site, x, low, high, identity(kind, x.dtype))
    sizes, strides = ints_of(site.attributes, "window"), ints_of(site.attributes, "strides")
    axes = [i for i, (size, stride) in enumerate(zip(sizes, strides, strict=True)) if (size, stride) != (1, 1)]
    if not axes:
        return whole
    if x.dtype in _POOLED[kind] and len(axes) <= 3 and math.prod(sizes) > 1:
        return _pooled(site, whole, kind, axes)
    return _position_by_position(site, whole, kind)


def _pooled(site: Site, whole: Operand, kind: str, axes: Sequence[int]) -> Operand:
    """[1, all other axes, *axes with windows] through the operator and back."""
    writer, rank, shape = site.writer, site.result.rank, site.types[0].shape
    low, high = ints_of(site.attributes, "low"), ints_of(site.attributes, "high")
    extents = [a + e + b for a, e, b in zip(low, shape, high, strict=True)]
    others = [i for i in range(rank) if i not in axes]
    x = transposed(site, whole, [*others, *axes])
    x = reshaped(site, x, (1, count([extents[i] for i in others]), *(extents[i] for i in axes)))
    window, strides, dilations = (
        tuple(ints_of(site.attributes, name)[i] for i in axes) for name in ("window", "strides", "dilations")
    )
    x = scalar(writer, "neg", [x]) if kind == "min" else x
    op = "AveragePool" if kind == "sum" else "MaxPool"
    x = writer.emit(op, x, dtype=x.dtype, kernel_shape=window, strides=strides, dilations=dilations)
    x = scalar(writer, "neg", [x]) if kind == "min" else x
    x = writer.emit("Mul", x, writer.number(math.prod(window), x.dtype), dtype=x.dtype) if kind == "sum" else x
    x = reshaped(site, x, tuple(site.result.shape[i] for i in (*others, *axes)))
    back = sorted(range(rank), key=lambda i: [*others, *axes][i])
    return transposed(site, x, back)


def _position_by_position(site: Site, whole: Operand, kind: str) -> Operand:
    sizes, strides, dilations = (ints_of(site.attributes, name) for name in ("window", "strides", "dilations"))
    total: Operand | None = None
    for position in itertools.product(*(range(size) for size in sizes)):
        parts = [
            (axis, p * d, p * d + (extent - 1) * stride + 1, stride)
            for axis, (p, d, extent, stride) in enumerate(
                zip(position, dilations, site.result.shape, strides, strict=True)
            )
            if (sizes[axis], stride) != (1, 1)
        ]
        part = cut(site, whole, parts)
        total = part if total is None else scalar(site.writer, _COMBINED[kind], [total, part])
    assert total is not None, "a window has a position"
    return total


def _cumulate(site: Site) -> Operand:
    """Along the middle axis; u64 wraps as i64 does."""
    (x,), product = site.inputs, word_of(site.attributes, "kind", CUMULATED) == "prod"
    wraps = x.dtype == U64 and not product
    x = reread(site.writer, x, I64) if wraps else x
    flags = {name: int(flag_of(site.attributes, name)) for name in ("exclusive", "reverse")}
    axis = site.writer.number(1, I64)
    found = site.writer.run_on("CumProd" if product else "CumSum", x, axis, **flags)
    return reread(site.writer, found, U64) if wraps else found


REDUCTION_WRITERS: Mapping[str, WriteNode] = {
    "reduce": _reduce,
    "reduce_window": _reduce_window,
    "softmax": _softmax,
    "cumulate": _cumulate,
}
