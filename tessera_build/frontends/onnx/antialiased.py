"""Antialiased resizing of integers: along the last axis, then along the one before, each rounded to integers.

Takes an image of uint8 or int32 and its axes; gives core ops. Invariant: what decides how results round is
onnxruntime's: bytes are summed in integers, by weights in units of 2**-22, other integers in f32, tap after tap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import unsupported
from tessera_build.frontends.onnx.taps import Sampling, Scaled, coordinates, filter_taps, sum_of
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import F32, F64, I32, I64, U8

_BITS = 22


def antialiased_integers(c: Context, x: Tensor, rows: Sequence[Scaled], sampling: Sampling) -> Tensor:
    """The image resized along its last two axes."""
    if x.dtype not in (U8, I32):
        # onnxruntime looks sums of int8 up in a table for uint8, which makes every negative one 0.
        raise unsupported(f"antialias of {x.dtype}", hint="cast the image to float first")
    if sampling.transform == "tf_crop_and_resize":
        raise unsupported("antialias of integers in a region of the image", hint="cast the image to float first")
    result = c.cast(x, I32)
    for row in sorted(rows, key=lambda r: -r.axis):
        if not row.still and not stays(c, row):
            result = _along(c, result, row, sampling, x.dtype == U8)
    return c.cast(result, x.dtype)


def stays(c: Context, row: Scaled) -> bool:
    """Whether onnxruntime copies: where an extent stays, even if the scale is not 1."""
    if row.result == row.extent:
        return True
    if row.scale is not None and 1 < row.scale < 2:
        least = math.ceil(1 / (row.scale - 1))
        c.require(row.extent, ">=", least, f"a scale of {row.scale} leaves an image as small as it is")
    return False


def _along(c: Context, x: Tensor, row: Scaled, sampling: Sampling, is_bytes: bool) -> Tensor:
    places, weights = _folded(c, row, sampling)
    shape = [1] * x.rank
    terms: list[Tensor] = []
    for place, weight in zip(places, weights, strict=True):
        factor = c.reshape(_units(c, weight) if is_bytes else weight, _placed(shape, row))
        part = c.op("gather", x, place, axis=row.axis)
        terms.append(c.op("mul", part if is_bytes else c.cast(part, F32), factor))
    total = sum_of(c, terms)
    if not is_bytes:
        return c.cast(_rounded(c, c.cast(total, F64)), I32)
    # What is below zero becomes zero anyhow, and a positive quotient is a shift.
    total = c.op("max", c.op("add", total, c.scalar(1 << (_BITS - 1), I32)), c.scalar(0, I32))
    return c.op("min", c.op("div", total, c.scalar(1 << _BITS, I32)), c.scalar(255, I32))


def _placed(shape: list[int], row: Scaled) -> list[Extent]:
    return [row.result if i == row.axis else e for i, e in enumerate(shape)]


def _units(c: Context, weight: Tensor) -> Tensor:
    return c.cast(_rounded(c, c.op("mul", c.cast(weight, F64), c.scalar(float(1 << _BITS), F64))), I32)


def _rounded(c: Context, value: Tensor) -> Tensor:
    """Of f64 that was f32: to the nearest integer, halves away from zero."""
    size = c.op("floor", c.op("add", c.op("abs", value), c.scalar(0.5, F64)))
    return c.op("select", c.op("lt", value, c.scalar(0.0, F64)), c.op("neg", size), size)


def _folded(c: Context, row: Scaled, sampling: Sampling) -> tuple[list[Tensor], list[Tensor]]:
    """Elements and weights by tap; the ends have the weights of what lies beyond them, added in onnxruntime's order."""
    places, weights = filter_taps(c, row, sampling, coordinates(c, row, sampling))
    zero, last = c.scalar(0.0, F32), c.op("sub", c.number(row.extent, F32), c.scalar(1.0, F32))
    before, behind = ([c.op(op, p, end) for p in places] for op, end in (("lt", zero), ("gt", last)))
    outside = [c.op("or", *pair) for pair in zip(before, behind, strict=True)]
    kept = [c.op("select", out, zero, w) for out, w in zip(outside, weights, strict=True)]
    total = sum_of(c, kept if sampling.exclude_outside else weights)
    if not sampling.exclude_outside:
        for beyond, end in ((before, zero), (behind, last)):
            spilled = [c.op("select", out, w, zero) for out, w in zip(beyond, weights, strict=True)]
            kept = [_with(c, own, c.op("eq", p, end), spilled) for own, p in zip(kept, places, strict=True)]
    inverse = c.op("div", c.scalar(1.0, F32), total)
    inside = [c.cast(c.op("max", c.op("min", p, last), zero), I64) for p in places]
    return inside, [c.op("mul", w, inverse) for w in kept]


def _with(c: Context, own: Tensor, is_end: Tensor, spilled: Sequence[Tensor]) -> Tensor:
    return c.op("select", is_end, sum_of(c, [own, *spilled]), own)
