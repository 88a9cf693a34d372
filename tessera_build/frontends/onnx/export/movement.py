"""Ops that move elements, and those without operands, as ONNX operators.

Takes operands; gives one. Invariant: a zero in a shape is an extent of zero and never "as it was".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tessera_build.frontends.onnx.export.kernels import carrier
from tessera_build.frontends.onnx.export.site import Site, WriteNode
from tessera_build.frontends.onnx.export.writer import Operand
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import I64
from tessera_build.ir.graph.ops.op import (
    axis_of,
    dtype_attribute,
    extent_of,
    extents_of,
    ints_of,
    number_of,
)


def reshaped(site: Site, x: Operand, shape: Sequence[Extent]) -> Operand:
    """x with another shape; the only extent that is not known beforehand is left to the operator."""
    if shape == () or all(isinstance(e, int) and e > 0 for e in shape):
        return site.writer.run_on("Reshape", x, site.extents.shape(shape))
    open_axes = [i for i, e in enumerate(shape) if not isinstance(e, int)]
    if len(open_axes) == 1 and 0 not in shape:
        sizes = [-1 if i in open_axes else int(str(e)) for i, e in enumerate(shape)]
        return site.writer.reshaped(x, *sizes)
    return site.writer.run_on("Reshape", x, site.extents.shape(shape), allowzero=1)


def transposed(site: Site, x: Operand, perm: Sequence[int]) -> Operand:
    """x with its axes in another order."""
    if list(perm) == list(range(len(perm))):
        return x
    return site.writer.run("Transpose", x, perm=tuple(perm))


def expanded(site: Site, x: Operand, shape: Sequence[Extent]) -> Operand:
    """x repeated to a shape."""
    return site.writer.run_on("Expand", x, site.extents.shape(shape))


Cut = tuple[int, Extent, Extent, int]  # axis, start, stop, step


def cut(site: Site, x: Operand, parts: Sequence[Cut]) -> Operand:
    """x[start:stop:step] along some axes."""
    if not parts:
        return x
    axes, starts, stops, steps = (tuple(column) for column in zip(*parts, strict=True))
    operands = (
        site.extents.shape(starts),
        site.extents.shape(stops),
        site.writer.integers(*(int(str(a)) for a in axes)),
        site.writer.integers(*(int(str(s)) for s in steps)),
    )
    return site.writer.run_on("Slice", x, *operands)


def joined(site: Site, parts: Sequence[Operand], axis: int) -> Operand:
    """Tensors joined along an axis."""
    return site.writer.run("Concat", *parts, axis=axis)


def padded(site: Site, x: Operand, low: Sequence[Extent], high: Sequence[Extent], value: float | int | bool) -> Operand:
    """x with a value around it."""
    if not any(e != 0 for e in (*low, *high)):
        return x
    through = carrier("Pad", x.dtype)
    filling = site.writer.cast(site.writer.number(value, x.dtype), through)
    whole = site.writer.run_on("Pad", site.writer.cast(x, through), site.extents.shape((*low, *high)), filling)
    return site.writer.cast(whole, x.dtype)


def counted(site: Site, shape: Sequence[Extent], axis: int) -> Operand:
    """0, 1, 2, ... of i64 along an axis of a shape that has one elsewhere."""
    zero, one = site.writer.number(0, I64), site.writer.number(1, I64)
    numbers = site.writer.emit("Range", zero, site.extents.scalar(shape[axis]), one, dtype=I64)
    return site.writer.reshaped(numbers, *(-1 if i == axis else 1 for i in range(len(shape))))


def _reshape(site: Site) -> Operand:
    return reshaped(site, site.inputs[0], extents_of(site.attributes, "shape"))


def _transpose(site: Site) -> Operand:
    return transposed(site, site.inputs[0], ints_of(site.attributes, "perm"))


def _broadcast_to(site: Site) -> Operand:
    return expanded(site, site.inputs[0], extents_of(site.attributes, "shape"))


def _concat(site: Site) -> Operand:
    return joined(site, site.inputs, axis_of(site.attributes, site.result.rank))


def _slice(site: Site) -> Operand:
    starts, stops = extents_of(site.attributes, "starts"), extents_of(site.attributes, "stops")
    rows = zip(starts, stops, ints_of(site.attributes, "steps"), site.types[0].shape, strict=True)
    whole = [(0, extent, 1) for extent in site.types[0].shape]
    parts = [(i, a, b, s) for i, (a, b, s, _) in enumerate(rows) if (a, b, s) != whole[i]]
    return cut(site, site.inputs[0], parts)


def _pad(site: Site) -> Operand:
    low, high = extents_of(site.attributes, "low"), extents_of(site.attributes, "high")
    return padded(site, site.inputs[0], low, high, number_of(site.attributes, "value"))


def _dimension(site: Site) -> Operand:
    value = site.extents.scalar(extent_of(site.attributes["value"]))
    return site.writer.cast(value, dtype_attribute(site.attributes, "dtype"))


def _iota(site: Site) -> Operand:
    shape, dtype = site.result.shape, dtype_attribute(site.attributes, "dtype")
    numbers = site.writer.cast(counted(site, shape, axis_of(site.attributes, len(shape))), dtype)
    return numbers if len(shape) == 1 else expanded(site, numbers, shape)


MOVEMENT_WRITERS: Mapping[str, WriteNode] = {
    "reshape": _reshape,
    "transpose": _transpose,
    "broadcast_to": _broadcast_to,
    "concat": _concat,
    "slice": _slice,
    "pad": _pad,
    "dimension": _dimension,
    "iota": _iota,
}
