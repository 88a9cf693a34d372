"""Ops that read regions of images as equal numbers of bins: `sample_regions` and `max_regions`.

Takes images with their channels last and, for every region, its image and where its bins lie; gives [R, PH, PW, C].
Invariant: a bin without samples or pixels is zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.types import F32, F64, I64, Type, tensor
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import Attributes, DimValues, Op, expect_count, ints_of, mismatch, texts, word_of

_KINDS = ("avg", "max")
_SAMPLED = "x float[N, H, W, C], images i64[R], starts and sizes float[R, 2], counts i64[R, 2]"
_POOLED = "x f32[N, H, W, C], images i64[R], rows i64[R, PH, 2], columns i64[R, PW, 2]"


def _infer_sample_regions(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("sample_regions", types, 5)
    word_of(attributes, "kind", _KINDS)
    bins = ints_of(attributes, "bins")
    x, images, *places = types
    number = images.shape[0] if images.rank else 0
    wanted = [tensor(I64, number), *(tensor(x.dtype, number, 2),) * 2, tensor(I64, number, 2)]
    if x.rank != 4 or x.dtype not in (F32, F64) or [images, *places] != wanted:
        raise mismatch("sample_regions' operands do not fit", _SAMPLED, texts(types))
    if len(bins) != 2 or any(b < 1 for b in bins):
        raise mismatch("sample_regions has bins along two axes", "two integers >= 1", bins)
    return (tensor(x.dtype, number, *bins, x.shape[3]),)


def _taps(start: Array, size: Array, count: int, part: int, extent: int) -> list[list[tuple[int, Array]]]:
    """For each sample of a bin along one axis: the two pixels around it with their weights."""

    def number(value: float) -> Array:
        return np.asarray(value, start.dtype)

    found: list[list[tuple[int, Array]]] = []
    for step in range(count):
        begin = np.add(start, np.multiply(number(part), size))
        place = np.add(begin, np.divide(np.multiply(number(step + 0.5), size), number(count)))
        near = np.minimum(np.maximum(place, number(0)), number(extent - 1))
        low = np.floor(near)
        over = np.subtract(near, low)
        away = bool(place < number(-1)) or bool(place > number(extent))
        weights = [number(0), number(0)] if away else [np.subtract(number(1), over), over]
        first = int(low)
        found.append([(first, weights[0]), (min(first + 1, extent - 1), weights[1])])
    return found


def _evaluate_sample_regions(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    x, images, starts, sizes, counts = arrays
    bins, average = ints_of(attributes, "bins"), word_of(attributes, "kind", _KINDS) == "avg"
    join = np.add if average else np.maximum
    result = np.zeros((len(images), *bins, x.shape[3]), x.dtype)
    for r, i, j in np.ndindex(*result.shape[:3]):
        image, number = x[int(images[r])], [int(k) for k in counts[r]]
        rows, columns = (_taps(starts[r, a], sizes[r, a], number[a], (i, j)[a], image.shape[a]) for a in (0, 1))
        total: Array | None = None
        for down in rows:
            for across in columns:
                parts = [np.multiply(image[y, z], np.multiply(v, w)) for y, v in down for z, w in across]
                sample = join(join(join(parts[0], parts[1]), parts[2]), parts[3])
                total = sample if total is None else join(total, sample)
        if total is not None:
            samples = np.asarray(number[0] * number[1], x.dtype)
            result[r, i, j] = np.divide(total, samples) if average else total
    return (result,)


def _infer_max_regions(types: Sequence[Type], _: Attributes) -> tuple[Type, ...]:
    expect_count("max_regions", types, 4)
    x, images, rows, columns = types
    number = images.shape[0] if images.rank else 0
    bins = [ends.shape[1] if ends.rank == 3 else 0 for ends in (rows, columns)]
    wanted = [tensor(I64, number), *(tensor(I64, number, b, 2) for b in bins)]
    if x.rank != 4 or x.dtype != F32 or [images, rows, columns] != wanted:
        raise mismatch("max_regions' operands do not fit", _POOLED, texts(types))
    return (tensor(x.dtype, number, *bins, x.shape[3]),)


def _evaluate_max_regions(arrays: Sequence[Array], _: Attributes, __: DimValues) -> tuple[Array, ...]:
    x, images, rows, columns = arrays
    result = np.zeros((len(images), rows.shape[1], columns.shape[1], x.shape[3]), x.dtype)
    for r, i, j in np.ndindex(*result.shape[:3]):
        (top, bottom), (left, right) = rows[r, i].tolist(), columns[r, j].tolist()
        window: NDArray[np.generic] = x[int(images[r]), top:bottom, left:right]
        if window.size:
            # NaN wins no comparison, as in the kernel; what is below every finite f32 does not either.
            result[r, i, j] = np.fmax(np.fmax.reduce(window, (0, 1)), np.finfo(np.float32).min)
    return (result,)


REGIONS: tuple[Op, ...] = (
    Op(
        "sample_regions",
        "(x[N, H, W, C], images[R], starts[R, 2], sizes[R, 2], counts[R, 2]) <{kind, bins}> -> the average or the "
        "maximum of counts[r] samples in each bin of size sizes[r] from starts[r] on",
        _infer_sample_regions,
        _evaluate_sample_regions,
        ("kind", "bins"),
        ordered=True,
    ),
    Op(
        "max_regions",
        "(x[N, H, W, C], images[R], rows[R, PH, 2], columns[R, PW, 2]) -> maxima [R, PH, PW, C] of pixels from "
        "rows[r, i, 0] and columns[r, j, 0] up to the second ones, which do not count",
        _infer_max_regions,
        _evaluate_max_regions,
        ordered=True,
    ),
)
