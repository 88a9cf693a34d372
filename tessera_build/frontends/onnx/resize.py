"""Resize and Upsample: which axes get which extents and scales, and the op that does it best.

Takes a tensor, and scales or sizes in the spellings of opsets 7 to 19; gives core ops. Invariant: coordinates are
computed in float32 by onnxruntime's formulas, at build time or at run time, so that both choose the same elements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from tessera_build.frontends.onnx.antialiased import antialiased_integers, stays
from tessera_build.frontends.onnx.call import Call, Translator, normalise_axes
from tessera_build.frontends.onnx.content import is_symbolic
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.taps import Sampling, Scaled, coordinates, nearest_indices, outside, taps
from tessera_build.ir.core.dims import Extent, floordiv
from tessera_build.ir.core.types import F32, I64

# Up to here a product of float32 scale and extent was compared with exact division; larger images are refused by name.
LARGEST = 1 << 16


def _resize(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    sampling = _sampling(n)
    scales = n.optional(1 if n.opset < 11 else 2)
    sizes = n.optional(3)
    n.ignore("axes", "keep_aspect_ratio_policy")
    axes = normalise_axes(n.integers("axes"), x.rank) if n.has("axes") else tuple(range(x.rank))
    if scales is not None and scales.shape != (0,):
        if scales.content is None:
            rows = _from_data(c, x, axes, scales, sampling.transform)
        else:
            rows = _from_scales(c, x, axes, _numbers(c, scales, "the scales of Resize"))
    elif sizes is not None:
        rows = _from_sizes(c, n, x, (axes, c.extents_of(sizes)))
    else:
        raise ill_formed("Resize has neither scales nor sizes")
    if sampling.transform in ("align_corners", "tf_crop_and_resize"):
        for row in rows:
            _whole(row)
    if sampling.transform == "tf_crop_and_resize":
        rows = _cropped(c, n, rows, x.rank)
    return _resized(c, x, rows, sampling)


def _upsample(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    mode = n.text("mode", "nearest")
    sampling = Sampling("linear" if mode in ("linear", "bilinear") else mode, "asymmetric", "simple")
    axes = tuple(range(x.rank))
    if n.opset >= 9 and n.input(1).content is None:
        return _resized(c, x, _from_data(c, x, axes, n.input(1), sampling.transform), sampling)
    if n.opset < 9:
        value = n.value("scales")
        scales = tuple(float(v) for v in value) if isinstance(value, tuple) else ()
    else:
        scales = _numbers(c, n.input(1), "the scales of Upsample")
    return _resized(c, x, _from_scales(c, x, axes, scales), sampling)


def _sampling(n: Call) -> Sampling:
    mode = n.text("mode", "nearest")
    if mode not in ("nearest", "linear", "cubic"):
        raise ill_formed("Resize's mode is unknown", expected="nearest, linear or cubic", found=mode)
    if n.opset < 11:
        return Sampling(mode, "asymmetric", "simple")
    return Sampling(
        mode,
        n.text("coordinate_transformation_mode", "half_pixel"),
        n.text("nearest_mode", "round_prefer_floor"),
        n.number("cubic_coeff_a", -0.75),
        bool(n.integer("exclude_outside", 0)),
        n.number("extrapolation_value", 0.0),
        bool(n.integer("antialias", 0)),
    )


def _numbers(c: Context, source: Tensor, what: str) -> tuple[float, ...]:
    content = c.known(source, what)
    if is_symbolic(content):
        raise unsupported(f"{what} depend on a dynamic dim", hint="give sizes, which may")
    return tuple(float(v) for v in content.reshape(-1))


def _from_scales(c: Context, x: Tensor, axes: Sequence[int], scales: Sequence[float]) -> list[Scaled]:
    if len(axes) != len(scales) or any(not 0 < s < float("inf") for s in scales):
        raise ill_formed("scales do not fit", expected=f"{len(axes)} positive numbers", found=str(list(scales)))
    return [Scaled(a, x.shape[a], _times(c, x.shape[a], s), s) for a, s in zip(axes, scales, strict=True)]


def _from_data(c: Context, x: Tensor, axes: Sequence[int], scales: Tensor, transform: str) -> list[Scaled]:
    """Scales that only data tell: the extents that they give are read; one that is not positive gives none."""
    if transform in ("align_corners", "tf_crop_and_resize"):
        # Where a scale leaves a rest, ONNX and onnxruntime differ.
        raise unsupported("Resize between corners by scales that only data tell", hint="state sizes")
    if not all(isinstance(extent, int) for extent in scales.shape):
        raise unsupported("scales have a symbolic shape", found=str(scales.type))
    if scales.shape != (len(axes),):
        raise ill_formed("scales do not fit", expected=f"{len(axes)} numbers", found=str(scales.type))
    rows: list[Scaled] = []
    for position, axis in enumerate(axes):
        factor = c.reshape(c.slice(scales, (position,), (position + 1,)), ())
        whole = c.op("floor", c.op("mul", c.number(x.shape[axis], F32), factor))
        sound = c.op("gt", factor, c.scalar(0.0, F32))
        number = c.op("select", sound, c.cast(whole, I64), c.scalar(-1, I64))
        rows.append(Scaled(axis, x.shape[axis], c.size(number), None, factor=factor))
    return rows


def _times(c: Context, extent: Extent, scale: float) -> Extent:
    """floor(extent * scale) as float32 has it."""
    if isinstance(extent, int):
        return int(np.float32(extent) * np.float32(scale))
    if scale == int(scale):
        return extent * int(scale)
    numbers = np.arange(LARGEST)
    found = (numbers.astype(np.float32) * np.float32(scale)).astype(np.int64)
    for most in (16, 4096, 10**6):
        ratio = Fraction(scale).limit_denominator(most)
        if np.array_equal(found, numbers * ratio.numerator // ratio.denominator):
            c.require(LARGEST - 1, ">=", extent, f"an image is resized by {scale} and larger than was checked")
            return floordiv(extent * ratio.numerator, ratio.denominator)
    raise unsupported(f"a scale of {scale} rounds an extent of {extent} in a way that no division does")


def _from_sizes(c: Context, n: Call, x: Tensor, stated: tuple[Sequence[int], Sequence[Extent]]) -> list[Scaled]:
    axes, sizes = stated
    if len(axes) != len(sizes):
        raise ill_formed("sizes do not fit", expected=f"{len(axes)} extents", found=str(len(sizes)))
    rows = [Scaled(a, x.shape[a], size, _ratio(size, x.shape[a])) for a, size in zip(axes, sizes, strict=True)]
    policy = n.text("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return rows
    if policy not in ("not_larger", "not_smaller"):
        raise ill_formed("the policy is unknown", expected="stretch, not_larger or not_smaller", found=policy)
    known = [r.scale for r in rows if r.scale is not None]
    if len(known) < len(rows):
        raise unsupported("keep_aspect_ratio_policy with sizes or extents that depend on a dynamic dim")
    scale = np.float32(min(known) if policy == "not_larger" else max(known))
    return [replace(r, result=_rounded(c, r.extent, scale), scale=float(scale)) for r in rows]


def _whole(row: Scaled) -> None:
    """Refuse a scale that leaves a rest: the last element then stands elsewhere for ONNX than for onnxruntime."""
    exact = row.scale is None or row.scale == int(row.scale)
    if isinstance(row.extent, int) and isinstance(row.result, int) and row.scale is not None:
        exact = abs(row.extent * row.scale - row.result) <= row.result * 1e-6
    if not exact:
        raise unsupported(
            f"Resize between corners by a scale of {row.scale}, which leaves a rest",
            found=f"{row.extent} becomes {row.result}",
            hint="ONNX and onnxruntime place the last element differently; state sizes",
        )


def _rounded(c: Context, extent: Extent, scale: np.float32) -> Extent:
    assert isinstance(extent, int), c
    return int(np.floor(np.float32(extent) * scale + np.float32(0.5)))


def _ratio(size: Extent, extent: Extent) -> float | None:
    """The scale, where it is the same for every value of the dims."""
    if isinstance(size, int) and isinstance(extent, int):
        return float(np.float32(size) / np.float32(max(extent, 1)))
    if size == extent:
        return 1.0
    factor = floordiv(size, extent)
    return float(factor) if isinstance(factor, int) and extent * factor == size else None


def _cropped(c: Context, n: Call, rows: Sequence[Scaled], rank: int) -> list[Scaled]:
    region = _numbers(c, n.input(1), "the region of Resize")
    if len(region) != 2 * len(rows):
        raise ill_formed("roi does not fit", expected=f"{2 * len(rows)} numbers", found=f"{len(region)} of {rank}")
    ends = zip(region[: len(rows)], region[len(rows) :], strict=True)
    return [replace(r, region=ends_of) for r, ends_of in zip(rows, ends, strict=True)]


def _resized(c: Context, x: Tensor, rows: Sequence[Scaled], sampling: Sampling) -> Tensor:
    moving = [r for r in rows if not r.still]
    if sampling.mode == "nearest":
        result = _nearest(c, x, moving, sampling)
    elif not x.dtype.is_float:
        result = _integers(c, x, rows, sampling)
    else:
        # The axis that shrinks most goes first: what follows has less to do.
        ordered = sorted(moving, key=lambda r: (r.scale or 1.0, -r.axis))
        result = c.cast(x, x.dtype if x.dtype.bits >= F32.bits else F32)
        for row in ordered:
            if sampling.antialias and stays(c, row):
                continue
            result = _along(c, result, row, sampling)
        result = c.cast(result, x.dtype)
    if sampling.transform != "tf_crop_and_resize":
        return result
    for row in moving:
        shape = [row.result if i == row.axis else 1 for i in range(x.rank)]
        beyond = c.reshape(outside(c, row, sampling), shape)
        result = c.op("select", beyond, c.scalar(sampling.extrapolation, x.dtype), result)
    return result


def _integers(c: Context, x: Tensor, rows: Sequence[Scaled], sampling: Sampling) -> Tensor:
    """Integers are truncated at the end, which shows the order of sums: onnxruntime's four corners of a pixel."""
    if sampling.mode != "linear" and not sampling.antialias:
        raise unsupported(f"Resize of integers with mode={sampling.mode}", hint="cast the image to float first")
    if x.rank < 2 or any(not r.still for r in rows if r.axis < x.rank - 2):
        raise unsupported("Resize of integers along other axes than the last two", hint="cast to float first")
    if sampling.antialias:
        return antialiased_integers(c, x, rows, sampling)
    found = {r.axis: r for r in rows}
    ends = [found.get(axis, Scaled(axis, x.shape[axis], x.shape[axis], 1.0)) for axis in (x.rank - 2, x.rank - 1)]
    (rows_at, row_weights), (columns_at, column_weights) = (taps(c, row, sampling) for row in ends)
    total: Tensor | None = None
    for place in ((0, 0), (0, 1), (1, 0), (1, 1)):
        part = c.op("gather", x, _row(c, rows_at, place[0]), axis=x.rank - 2)
        part = c.cast(c.op("gather", part, _row(c, columns_at, place[1]), axis=x.rank - 1), F32)
        down = _row(c, row_weights, place[0])
        weight = c.op("mul", _row(c, column_weights, place[1]), c.reshape(down, (*down.shape, 1)))
        term = c.op("mul", weight, part)
        total = term if total is None else c.op("add", total, term)
    assert total is not None
    return c.cast(total, x.dtype)


def _row(c: Context, source: Tensor, index: int) -> Tensor:
    """One row of a matrix."""
    width = source.shape[1]
    return c.reshape(c.slice(source, (index, 0), (index + 1, width)), (width,))


def _along(c: Context, x: Tensor, row: Scaled, sampling: Sampling) -> Tensor:
    indices, weights = taps(c, row, sampling)
    return c.op("resample", x, indices, c.cast(weights, x.dtype), axis=row.axis)


def _nearest(c: Context, x: Tensor, rows: Sequence[Scaled], sampling: Sampling) -> Tensor:
    factors = [1] * x.rank
    for row in rows:
        factor = _repeats(c, row, sampling)
        if factor is not None:
            factors[row.axis] = factor
            continue
        x = c.op("gather", x, nearest_indices(c, coordinates(c, row, sampling), row, sampling), axis=row.axis)
    return c.op("repeat", x, factors=tuple(factors)) if max(factors, default=1) > 1 else x


def _repeats(c: Context, row: Scaled, sampling: Sampling) -> int | None:
    """The factor f where the nearest element of every i is i // f."""
    factor = int(row.scale or 0)
    if factor < 1 or row.scale != factor or row.result != row.extent * factor:
        return None
    half = sampling.transform in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")
    if half and "round" in sampling.nearest and row.result != 1:
        return factor
    low = sampling.transform == "asymmetric" and sampling.nearest in ("floor", "simple")
    if low or (sampling.transform == "tf_half_pixel_for_nn" and sampling.nearest == "floor"):
        return factor
    content = nearest_indices(c, coordinates(c, row, sampling), row, sampling).content
    same = content is not None and np.array_equal(content, np.arange(content.size) // factor)
    return factor if same else None


RESIZE_OPERATORS: Mapping[str, Translator] = {"Resize": _resize, "Upsample": _upsample}
