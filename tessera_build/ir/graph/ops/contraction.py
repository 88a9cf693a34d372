"""Contractions: `matmul` and `conv`.

Takes two tensors; gives their products summed over the contracted axes. Two 8-bit integers, signed or not, are added
up in i32, as every machine's byte products are. Invariant: references accumulate in float64 (int64 for integers) and
round once to the result's type, so a float32 reference is accurate to half an ULP of the exact sum and can judge any
order of accumulation. They use BLAS, hence they are not `ordered`; `matmul_in_order` does without.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import I8, I32, U8, DType, Type, dtype_of, tensor
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import (
    Attributes,
    DimValues,
    Op,
    expect_count,
    expect_numbers,
    expect_same_dtype,
    flag_of,
    int_of,
    ints_of,
    mismatch,
    texts,
    wide,
    word_of,
)
from tessera_build.ir.graph.ops.ordered import product_in_order
from tessera_build.ir.graph.ops.shapes import broadcast_shapes, shape_text, window_extent

LAYOUTS = ("NCHW", "NHWC")
BYTES = (U8, I8)
_Wide = NDArray[np.float64] | NDArray[np.int64]


def accumulator(op: str, types: Sequence[Type]) -> DType:
    """The element type of the result: i32 for two 8-bit integers, else the one that both operands have."""
    if all(t.dtype in BYTES for t in types):
        return I32
    expect_numbers(op, types[0])
    return expect_same_dtype(op, types)


def _wide(array: Array) -> _Wide:
    """The array in the type it is added up in: sums of byte products are exact in float64, where BLAS is fast."""
    return array.astype(np.float64) if array.dtype.itemsize == 1 and array.dtype.kind in "iu" else wide(array)


def _narrowed(total: NDArray[np.float64 | np.int64], operands: Sequence[Array]) -> Array:
    """The sums in the result's type; integers wrap."""
    if all(dtype_of(o.dtype) in BYTES for o in operands):
        return total.astype(np.int64).astype(np.int32)
    return total.astype(operands[0].dtype)


def _infer_matmul(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("matmul", types, 2)
    dtype = accumulator("matmul", types)
    if any(t.rank < 2 for t in types):
        raise mismatch("matmul takes matrices", "rank >= 2", texts(types), "reshape a vector to one row or one column")
    a, b = (t.shape for t in types)
    m, k = (a[-1], a[-2]) if flag_of(attributes, "transpose_a") else (a[-2], a[-1])
    k_of_b, n = (b[-1], b[-2]) if flag_of(attributes, "transpose_b") else (b[-2], b[-1])
    if k != k_of_b:
        raise mismatch(
            "matmul's contracted extents differ", f"{k} rows in b, as a has columns", f"{k_of_b}: {texts(types)}"
        )
    return (tensor(dtype, *broadcast_shapes("matmul", [a[:-2], b[:-2]]), m, n),)


def _evaluate_matmul(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    a, b = _oriented(arrays, attributes)
    return (_narrowed(np.matmul(a, b), arrays),)


def matmul_in_order(arrays: Sequence[Array], attributes: Attributes) -> Array:
    """What `matmul` gives, in the same bytes on every machine; sums of integers are exact in any order."""
    a, b = _oriented(arrays, attributes)
    if all(x.dtype.kind in "iu" for x in arrays):
        return _narrowed(np.matmul(a, b), arrays)
    return _narrowed(product_in_order(a.astype(np.float64), b.astype(np.float64)), arrays)


def _oriented(arrays: Sequence[Array], attributes: Attributes) -> tuple[_Wide, _Wide]:
    """Both operands as they are multiplied, in the type that they are added up in."""
    a, b = (_wide(x) for x in arrays)
    a = np.swapaxes(a, -1, -2) if flag_of(attributes, "transpose_a") else a
    b = np.swapaxes(b, -1, -2) if flag_of(attributes, "transpose_b") else b
    return a, b


def conv_spatial_axes(rank: int, layout: str) -> range:
    """The spatial axes of x and of the result."""
    return range(2, rank) if layout == "NCHW" else range(1, rank - 1)


def _infer_conv(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("conv", types, 2)
    dtype = accumulator("conv", types)
    x, w = (t.shape for t in types)
    if len(x) != len(w) or not 3 <= len(x) <= 5:
        raise mismatch("conv takes 1 to 3 spatial axes", "x and w of one rank, 3 to 5", texts(types))
    layout = word_of(attributes, "layout", LAYOUTS)
    groups = int_of(attributes, "groups")
    channels = x[1] if layout == "NCHW" else x[-1]
    kernel = _static_kernel(types[1])
    if channels != w[1] * groups or kernel[0] % groups:
        raise mismatch(
            "conv's channels do not fit its weights",
            f"{w[1] * groups} input channels ({groups} groups of {w[1]}) and a multiple of {groups} outputs",
            f"{channels} input channels in {layout} {shape_text(x)}, {kernel[0]} outputs",
        )
    spatial = _conv_spatial(types[0], kernel[2:], attributes)
    shape = (x[0], w[0], *spatial) if layout == "NCHW" else (x[0], *spatial, w[0])
    return (tensor(dtype, *shape),)


def _static_kernel(weights: Type) -> tuple[int, ...]:
    try:
        return weights.static_shape
    except ValueError as error:
        raise mismatch("conv's weights have a symbolic shape", "static [O, I/groups, *kernel]", weights) from error


def _conv_spatial(x: Type, kernel: tuple[int, ...], attributes: Attributes) -> list[Extent]:
    axes = conv_spatial_axes(x.rank, word_of(attributes, "layout", LAYOUTS))
    windows = [ints_of(attributes, name) for name in ("strides", "low", "high", "dilations")]
    if any(len(w) != len(kernel) for w in windows):
        raise mismatch("conv's attributes do not fit its kernel", f"{len(kernel)} values each", dict(attributes))
    return [
        window_extent("conv", x.shape[axis], (size, *rest))
        for axis, size, rest in zip(axes, kernel, zip(*windows, strict=True), strict=True)
    ]


def _evaluate_conv(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    """One batched matmul for each position of the kernel, summed in the order of the positions."""
    layout = word_of(attributes, "layout", LAYOUTS)
    groups = int_of(attributes, "groups")
    strides, low, high, dilations = (ints_of(attributes, n) for n in ("strides", "low", "high", "dilations"))
    x = arrays[0] if layout == "NCHW" else np.moveaxis(arrays[0], -1, 1)
    kernel = arrays[1].shape[2:]
    padded = np.pad(_wide(x), [(0, 0), (0, 0), *zip(low, high, strict=True)])
    out = tuple(
        (padded.shape[2 + i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in range(len(kernel))
    )
    batch, outputs, per_group = x.shape[0], arrays[1].shape[0], arrays[1].shape[1]
    w = _wide(arrays[1]).reshape(groups, outputs // groups, per_group, *kernel)
    total = np.zeros((batch, groups, outputs // groups, int(np.prod(out))), padded.dtype)
    for position in itertools.product(*(range(size) for size in kernel)):
        window = tuple(
            slice(p * d, p * d + (n - 1) * s + 1 if n else p * d, s)
            for p, d, n, s in zip(position, dilations, out, strides, strict=True)
        )
        columns = padded[(slice(None), slice(None), *window)].reshape(batch, groups, per_group, total.shape[-1])
        taps = w[(slice(None), slice(None), slice(None), *position)]
        # A depthwise tap is one number a channel: multiplying is an order of magnitude faster than 1 × 1 matmuls.
        total += taps * columns if per_group == 1 else np.matmul(taps, columns)
    result = _narrowed(total, arrays).reshape(batch, outputs, *out)
    return (result if layout == "NCHW" else np.asarray(np.moveaxis(result, 1, -1), order="C"),)


CONTRACTIONS: tuple[Op, ...] = (
    Op(
        "matmul",
        "(a[..., m, k], b[..., k, n]) <{transpose_a, transpose_b}> -> [..., m, n]; a flag swaps an operand's last axes",
        _infer_matmul,
        _evaluate_matmul,
        ("transpose_a", "transpose_b"),
        {"transpose_a": False, "transpose_b": False},
    ),
    Op(
        "conv",
        "(x, w[O, I/groups, *kernel]) <{strides, low, high, dilations, groups, layout}> -> like x with O channels",
        _infer_conv,
        _evaluate_conv,
        ("strides", "low", "high", "dilations", "groups", "layout"),
        {"groups": 1, "layout": "NCHW"},
    ),
)
