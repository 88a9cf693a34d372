"""Where along one axis a resized element lies in the source, which elements it is made of, and their weights.

Takes an axis with its extents and scale, and a way of sampling; gives vectors of float32 coordinates, of indices and
of weights. Invariant: the formulas and their order are onnxruntime's, and they are constants where the extents are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import F32, F64, I64

# A filter's elements are read one by one in the code of one loop; this many shrink an image by 64.
MOST_TAPS = 256


@dataclass(frozen=True, slots=True)
class Sampling:
    """The attributes of Resize that say how elements are made."""

    mode: str
    transform: str
    nearest: str
    coefficient: float = -0.75
    exclude_outside: bool = False
    extrapolation: float = 0.0
    antialias: bool = False


@dataclass(frozen=True, slots=True)
class Scaled:
    """One axis: its extent before and after, its scale where that is a number, and what part of it is resized.

    A scale that only data tell is `factor`; without either, the scale is that of the extents.
    """

    axis: int
    extent: Extent
    result: Extent
    scale: float | None
    region: tuple[float, float] = (0.0, 1.0)
    factor: Tensor | None = None

    @property
    def still(self) -> bool:
        """Whether nothing moves; onnxruntime then keeps the axis even where a region of it is to be cropped."""
        return self.scale == 1.0 and self.result == self.extent


def _f32(c: Context, number: float) -> Tensor:
    return c.scalar(np.float32(number).item(), F32)


def _scale(c: Context, row: Scaled) -> Tensor:
    if row.scale is not None:
        return _f32(c, row.scale)
    if row.factor is not None:
        return row.factor
    return c.op("div", c.number(row.result, F32), c.number(row.extent, F32))


def coordinates(c: Context, row: Scaled, sampling: Sampling) -> Tensor:
    """The place of every resized element in the source, a vector of float32."""
    steps = c.cast(c.op("iota", shape=(row.result,), axis=0, dtype=I64), F32)
    if row.still:
        return steps
    match sampling.transform:
        case "asymmetric":
            return _over_scale(c, row, steps)
        case "tf_half_pixel_for_nn":
            return _half(c, row, steps)
        case "half_pixel" | "pytorch_half_pixel" | "half_pixel_symmetric":
            return _half_pixel(c, row, steps, sampling.transform)
        case "align_corners":
            return _corners(c, row, steps)
        case "tf_crop_and_resize":
            return _unless_still(c, row, _crop(c, row, steps), steps)
        case other:
            raise ill_formed("coordinate_transformation_mode is unknown", found=other)


def _half(c: Context, row: Scaled, steps: Tensor) -> Tensor:
    return _over_scale(c, row, c.op("add", steps, _f32(c, 0.5)))


def _over_scale(c: Context, row: Scaled, places: Tensor) -> Tensor:
    """A quotient of f32. By a constant, one of f64 rounds to it even where it is computed with a reciprocal."""
    if row.scale is None:
        return c.op("div", places, _scale(c, row))
    return c.cast(c.op("div", c.cast(places, F64), c.cast(_scale(c, row), F64)), F32)


def _half_pixel(c: Context, row: Scaled, steps: Tensor, transform: str) -> Tensor:
    middle = c.op("sub", _half(c, row, steps), _f32(c, 0.5))
    if transform == "pytorch_half_pixel":
        return _unless_single(c, row, middle, _f32(c, 0.0))
    if transform == "half_pixel":
        return middle
    whole = c.op("mul", _scale(c, row), c.number(row.extent, F32))
    adjustment = c.op("div", c.number(row.result, F32), whole)
    centre = c.op("div", c.number(row.extent, F32), _f32(c, 2.0))
    offset = c.op("mul", centre, c.op("sub", _f32(c, 1.0), adjustment))
    return c.op("sub", c.op("add", offset, _half(c, row, steps)), _f32(c, 0.5))


def _unless_single(c: Context, row: Scaled, many: Tensor, single: Tensor) -> Tensor:
    """Some formulas have another value where the result has one element."""
    if isinstance(row.result, int):
        return many if row.result > 1 else c.broadcast_to(single, (row.result,))
    more = c.op("gt", c.number(row.result, I64), c.scalar(1, I64))
    return c.op("select", more, many, single)


def _unless_still(c: Context, row: Scaled, moved: Tensor, steps: Tensor) -> Tensor:
    """A scale that is 1 only for some values of the dims, or of the data, keeps the axis for those."""
    if row.scale is not None:
        return moved
    if row.factor is not None:
        return c.op("select", c.op("eq", row.factor, _f32(c, 1.0)), steps, moved)
    same = c.op("eq", c.number(row.result, I64), c.number(row.extent, I64))
    return c.op("select", same, steps, moved)


def _gaps(c: Context, row: Scaled) -> tuple[Tensor, Tensor]:
    """Distances from first to last element before and after, the latter at least 1."""
    after = c.op("max", c.op("sub", c.number(row.result, F32), _f32(c, 1.0)), _f32(c, 1.0))
    return c.op("sub", c.number(row.extent, F32), _f32(c, 1.0)), after


def _corners(c: Context, row: Scaled, steps: Tensor) -> Tensor:
    before, after = _gaps(c, row)
    return _unless_single(c, row, c.op("div", c.op("mul", steps, before), after), _f32(c, 0.0))


def _crop(c: Context, row: Scaled, steps: Tensor) -> Tensor:
    before, after = _gaps(c, row)
    start, end = (np.float32(e) for e in row.region)
    first = c.op("mul", _f32(c, float(start)), before)
    moved = c.op("mul", c.op("mul", steps, _f32(c, float(end - start))), before)
    middle = c.op("mul", _f32(c, float(np.float32(0.5) * (start + end))), before)
    return _unless_single(c, row, c.op("add", first, c.op("div", moved, after)), middle)


def outside(c: Context, row: Scaled, sampling: Sampling) -> Tensor:
    """Which resized elements lie outside the source."""
    place = coordinates(c, row, sampling)
    last = c.op("sub", c.number(row.extent, F32), _f32(c, 1.0))
    return c.op("or", c.op("lt", place, _f32(c, 0.0)), c.op("gt", place, last))


def _clamped(c: Context, row: Scaled, indices: Tensor) -> Tensor:
    return c.op("max", c.op("min", indices, c.number(row.extent - 1, I64)), c.scalar(0, I64))


def nearest_indices(c: Context, place: Tensor, row: Scaled, sampling: Sampling) -> Tensor:
    """The element that stands for each place."""
    low = c.op("floor", place)
    over = c.op("sub", place, low)
    half, above = _f32(c, 0.5), c.op("add", low, _f32(c, 1.0))
    match sampling.nearest:
        case "floor":
            found = low
        case "ceil":
            found = c.op("ceil", place)
        case "round_prefer_floor":
            found = c.op("select", c.op("gt", over, half), above, low)
        case "round_prefer_ceil":
            found = c.op("select", c.op("ge", over, half), above, low)
        case "simple":
            shrinks = row.scale is not None and row.scale < 1
            found = c.op("ceil", place) if shrinks else low
            if row.factor is not None:
                found = c.op("select", c.op("lt", row.factor, _f32(c, 1.0)), c.op("ceil", place), low)
        case other:
            raise ill_formed("nearest_mode is unknown", found=other)
    return _clamped(c, row, c.cast(found, I64))


def taps(c: Context, row: Scaled, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Indices and weights [taps, n] of linear and cubic interpolation."""
    place = coordinates(c, row, sampling)
    if sampling.antialias:
        return _filtered(c, row, sampling, place)
    return _linear(c, row, place) if sampling.mode == "linear" else _cubic(c, row, sampling, place)


def _linear(c: Context, row: Scaled, place: Tensor) -> tuple[Tensor, Tensor]:
    last = c.op("sub", c.number(row.extent, F32), _f32(c, 1.0))
    place = c.op("max", c.op("min", place, last), _f32(c, 0.0))
    low = c.op("floor", place)
    high = c.op("min", c.op("add", low, _f32(c, 1.0)), last)
    above, below = c.op("sub", place, low), c.op("sub", high, place)
    same = c.op("eq", low, high)
    halves = [c.op("select", same, _f32(c, 0.5), w) for w in (below, above)]
    return _rows(c, [c.cast(low, I64), c.cast(high, I64)]), _rows(c, halves)


def _rows(c: Context, vectors: list[Tensor]) -> Tensor:
    return c.op("concat", *(c.reshape(v, (1, *v.shape)) for v in vectors), axis=0)


def _cubic(c: Context, row: Scaled, sampling: Sampling, place: Tensor) -> tuple[Tensor, Tensor]:
    low = c.op("floor", place)
    over = c.op("sub", place, low)
    distances = [
        c.op("add", over, _f32(c, 1.0)), over, c.op("sub", _f32(c, 1.0), over), c.op("sub", _f32(c, 2.0), over)
    ]  # fmt: skip
    weights = [keys(c, d, sampling.coefficient, near=i in (1, 2)) for i, d in enumerate(distances)]
    first = c.cast(low, I64)
    indices = [c.op("add", first, c.scalar(step, I64)) for step in (-1, 0, 1, 2)]
    if sampling.exclude_outside:
        weights = _inside_only(c, row, indices, weights)
    return _rows(c, [_clamped(c, row, i) for i in indices]), _rows(c, weights)


def keys(c: Context, distance: Tensor, a: float, near: bool) -> Tensor:
    """Keys' cubic, nested as onnxruntime nests it: within one element of the place, or from one to two away."""

    def step(value: Tensor, op: str, number: float) -> Tensor:
        return c.op(op, value, _f32(c, number))

    a = float(np.float32(a))
    if near:
        inner = step(step(distance, "mul", a + 2), "sub", a + 3)
        return step(c.op("mul", c.op("mul", inner, distance), distance), "add", 1.0)
    inner = step(step(distance, "mul", a), "sub", 5 * a)
    inner = step(c.op("mul", inner, distance), "add", 8 * a)
    return step(c.op("mul", inner, distance), "sub", 4 * a)


def _inside_only(c: Context, row: Scaled, indices: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
    """Weights of elements outside the source are 0, and the others are scaled to add up to 1 again."""
    kept: list[Tensor] = []
    for index, weight in zip(indices, weights, strict=True):
        inside = c.op("and", c.op("ge", index, c.scalar(0, I64)), c.op("lt", index, c.number(row.extent, I64)))
        kept.append(c.op("select", inside, weight, _f32(c, 0.0)))
    total = sum_of(c, kept)
    return [c.op("div", weight, total) for weight in kept]


def _filtered(c: Context, row: Scaled, sampling: Sampling, place: Tensor) -> tuple[Tensor, Tensor]:
    """The taps of a filter; elements beyond an end count as the end's."""
    places, weights = filter_taps(c, row, sampling, place)
    indices = [c.cast(index, I64) for index in places]
    if sampling.exclude_outside:
        weights = _inside_only(c, row, indices, weights)
    else:
        total = sum_of(c, weights)
        weights = [c.op("div", weight, total) for weight in weights]
    return _rows(c, [_clamped(c, row, i) for i in indices]), _rows(c, weights)


def sum_of(c: Context, terms: Sequence[Tensor]) -> Tensor:
    """The sum, first to last."""
    total = terms[0]
    for term in terms[1:]:
        total = c.op("add", total, term)
    return total


def filter_taps(c: Context, row: Scaled, sampling: Sampling, place: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """A filter as wide as what one resized element covers: elements, in f32, inside or not, and weights of any sum."""
    if row.scale is None:
        raise unsupported("antialias with sizes that depend on a dynamic dim", hint="give scales, or fix the sizes")
    if row.scale * MOST_TAPS < 4:
        raise unsupported(f"antialias with a scale of {row.scale}", hint="resize in several steps")
    reach = 1.0 if sampling.mode == "linear" else 2.0
    step = max(float(np.float32(1) / np.float32(row.scale)), 1.0)
    support = float(np.float32(reach) * np.float32(step))
    centre = c.op("add", place, _f32(c, 0.5))
    first = c.op("floor", c.op("add", c.op("sub", centre, _f32(c, support)), _f32(c, 0.5)))
    stop = c.op("floor", c.op("add", c.op("add", centre, _f32(c, support)), _f32(c, 0.5)))
    indices: list[Tensor] = []
    weights: list[Tensor] = []
    for tap in range(2 * math.ceil(support) + 1):
        index = c.op("add", first, _f32(c, tap))
        away = c.op("add", c.op("sub", index, centre), _f32(c, 0.5))
        scaled = c.op("abs", c.op("mul", away, _f32(c, float(np.float32(1) / np.float32(step)))))
        weight = c.op("select", c.op("lt", index, stop), _filter(c, scaled, sampling), _f32(c, 0.0))
        indices.append(index)
        weights.append(weight)
    return indices, weights


def _filter(c: Context, distance: Tensor, sampling: Sampling) -> Tensor:
    if sampling.mode == "linear":
        return c.op("max", c.op("sub", _f32(c, 1.0), distance), _f32(c, 0.0))
    near, far = keys(c, distance, sampling.coefficient, near=True), c.op("sub", distance, _f32(c, 5.0))
    # Nested otherwise than in interpolation, as onnxruntime does: the rounding of integers shows it.
    for number in (8.0, -4.0):
        far = c.op("add", c.op("mul", far, distance), _f32(c, number))
    far = c.op("mul", far, _f32(c, sampling.coefficient))
    beyond = c.op("select", c.op("lt", distance, _f32(c, 2.0)), far, _f32(c, 0.0))
    return c.op("select", c.op("lt", distance, _f32(c, 1.0)), near, beyond)
