"""Operators that draw random numbers, and Dropout, which draws only in training.

Takes calls; gives draws of the graph's op `random`. Invariant: a key is the node's `seed` or, without one, a digest of
the node's name, and the numbers of the iterations around it: each run gives the same draws, each iteration others.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.content import is_symbolic
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.frontends.onnx.load import element_type
from tessera_build.frontends.onnx.truth import known_truth
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import BOOL, F32, F64, I32, I64, U64, DType

# Part of what draws without a seed are: changing it changes them in every bundle.
_BUILD_SEED = b"tessera draws 1"
# Odd, so that iterations of one loop never meet; unlike, so that those of nested loops do not.
_STRIDES = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)


# -- keys -------------------------------------------------------------------------------------------------------------


def _key(c: Context, n: Call) -> Tensor:
    """The key of a node in the iteration that it is in."""
    key = _seed(n.number("seed")) if n.has("seed") else _digest(f"{c.builder.span}:{n.outputs[0]}")
    counted: list[tuple[int, Extent]] = []
    for depth, number in enumerate(c.iterations):
        stride = _STRIDES[depth % len(_STRIDES)]
        if isinstance(number, int):
            key += stride * number
        else:
            counted.append((stride, number))
    total = c.scalar(key % 2**64, U64)
    for stride, number in counted:
        # A node even where it could be folded: as an expression over dims it would not wrap.
        value = c.builder.op("dimension", value=number, dtype=I64)
        whole = c.op("bitcast", Tensor(c.builder.type(value), value), dtype=U64)
        total = c.op("add", total, c.op("mul", whole, c.scalar(stride, U64)))
    return total


def _seed(seed: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", seed))[0])


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.sha256(_BUILD_SEED + b"\0" + name.encode()).digest()[:8], "little")


def _draw(c: Context, n: Call, kind: str, dtype: DType, shape: Sequence[Extent]) -> Tensor:
    return c.op("random", _key(c, n), kind=kind, shape=tuple(shape), dtype=dtype)


# -- distributions ----------------------------------------------------------------------------------------------------

_Draw = Callable[[Context, Call, DType, Sequence[Extent]], Tensor]


def _uniform(c: Context, n: Call, dtype: DType, shape: Sequence[Extent]) -> Tensor:
    """low + (high - low) * u; what is rounded to high itself becomes the number below it."""
    low, high = n.number("low", 0.0), n.number("high", 1.0)
    if not -math.inf < low <= high < math.inf:
        raise ill_formed(f"{n.op}'s bounds make no interval", expected="finite low <= high", found=f"{low} to {high}")
    if (low, high) == (0.0, 1.0):
        return _draw(c, n, "uniform", dtype, shape)
    wide = F64 if dtype == F64 or high - low > np.finfo(np.float32).max else F32
    scaled = c.op("mul", _draw(c, n, "uniform", wide, shape), c.scalar(high - low, wide))
    value = c.cast(c.op("add", scaled, c.scalar(low, wide)), dtype)
    first, end = np.asarray(low).astype(dtype.numpy), np.asarray(high).astype(dtype.numpy)
    last = np.asarray(np.nextafter(end, np.asarray(-np.inf).astype(dtype.numpy)))
    return c.op("min", value, c.constant(np.maximum(first, last)))


def _normal(c: Context, n: Call, dtype: DType, shape: Sequence[Extent]) -> Tensor:
    mean, scale = n.number("mean", 0.0), n.number("scale", 1.0)
    wide = F64 if dtype == F64 else F32
    value = _draw(c, n, "normal", wide, shape)
    value = value if scale == 1.0 else c.op("mul", value, c.scalar(scale, wide))
    return c.cast(value if mean == 0.0 else c.op("add", value, c.scalar(mean, wide)), dtype)


def _of_shape(draw: _Draw) -> Translator:
    def translate(c: Context, n: Call) -> Tensor:
        shape = n.integers("shape")
        if any(extent < 0 for extent in shape):
            raise ill_formed(f"{n.op}'s shape has a negative extent", found=str(list(shape)))
        return draw(c, n, _float_type(n, F32), shape)

    return translate


def _like(draw: _Draw) -> Translator:
    def translate(c: Context, n: Call) -> Tensor:
        x = n.input(0)
        return draw(c, n, _float_type(n, x.dtype), x.shape)

    return translate


def _float_type(n: Call, otherwise: DType) -> DType:
    """The element type asked for, which must be a float that is computed in."""
    dtype = element_type(n.integer("dtype"), f"the result of {n.op}") if n.has("dtype") else otherwise
    if not dtype.is_float or dtype.bits < 16:
        raise ill_formed(f"{n.op} draws floats", expected="dtype: float, double, float16 or bfloat16", found=str(dtype))
    return dtype


def _bernoulli(c: Context, n: Call) -> Tensor:
    """1 where a uniform number lies below the probability. (ONNX's function body has the two the other way round.)"""
    p = n.input(0)
    dtype = element_type(n.integer("dtype"), "the result of Bernoulli") if n.has("dtype") else p.dtype
    wide = F64 if p.dtype == F64 else F32
    return c.cast(c.op("lt", _draw(c, n, "uniform", wide, p.shape), c.cast(p, wide)), dtype)


def _multinomial(c: Context, n: Call) -> Tensor:
    """Classes by their unnormalised log-probabilities: how many cumulated sums a uniform part of the total reaches."""
    x, samples = n.input(0), n.integer("sample_size", 1)
    if x.rank != 2 or x.shape[1] == 0 or samples < 1:
        raise ill_formed("Multinomial does not fit", expected="[batch, classes], samples", found=f"{x.type}, {samples}")
    batch, classes = x.shape
    dtype = element_type(n.integer("dtype", 6), "the result of Multinomial")
    if dtype not in (I32, I64):
        raise ill_formed("Multinomial gives class numbers", expected="dtype: int32 or int64", found=str(dtype))
    logits = c.cast(x, F64)
    top = c.reduce("max", logits, (1,), True)
    top = c.op("max", top, c.scalar(-np.finfo(np.float64).max, F64))  # of no possible class, all weights are 0
    weights = c.reshape(c.op("exp", c.op("sub", logits, top)), (batch, classes, 1))
    sums = c.reshape(c.op("cumulate", weights, kind="sum"), (batch, 1, classes))
    total = c.slice(sums, (0, 0, classes - 1), (batch, 1, classes))
    part = c.op("mul", c.reshape(_draw(c, n, "uniform", F64, (batch, samples)), (batch, samples, 1)), total)
    reached = c.reduce("sum", c.cast(c.op("le", sums, part), dtype), (2,), True)
    return c.op("min", c.reshape(reached, (batch, samples)), c.number(classes - 1, dtype))


# -- Dropout ----------------------------------------------------------------------------------------------------------

_TRAINING_SINCE = 12


def _dropout(c: Context, n: Call) -> Tensor | tuple[Tensor, ...]:
    """The operand and a mask of ones, unless a run trains and drops some."""
    n.ignore("ratio", "seed", "is_test")
    x = n.input(0)
    ratio, training = n.optional(1), n.optional(2)
    mode = c.scalar(False, BOOL) if training is None or n.opset < _TRAINING_SINCE else c.reshape(training, ())
    share = c.scalar(0.5, F32) if ratio is None else c.cast(c.reshape(ratio, ()), F32)
    known = known_truth(mode)
    if known is not False:
        drops = _drops(c, share)
        known = False if drops is False else known if drops else None
    if known is False:
        mask = c.broadcast_to(c.scalar(1, BOOL if n.opset >= 10 else x.dtype), x.shape)
        return (x, mask) if n.wants(1) else x
    if known is None:
        mode = c.op("and", mode, c.op("ne", share, c.scalar(0.0, F32)))
    return _dropped(c, n, (share, mode), known is True)


def _drops(c: Context, share: Tensor) -> bool | None:
    """Whether a share is more than nothing, where that is known."""
    if share.content is None or is_symbolic(share.content):
        return None
    number = c.known_number(share, "the ratio")
    if not 0 <= number < 1:
        raise ill_formed("Dropout's ratio is out of range", expected="0 <= ratio < 1", found=str(number))
    return number > 0


def _dropped(c: Context, n: Call, ways: tuple[Tensor, Tensor], always: bool) -> tuple[Tensor, Tensor]:
    """What is left, divided by the share that is kept on average; a ratio that only a run finds out of range gives NaN.

    The division and its precision are onnxruntime's, and so is that a NaN stays one where it is dropped.
    """
    x, (share, mode) = n.input(0), ways
    one, zero = c.scalar(1.0, F32), c.scalar(0.0, F32)
    inside = c.op("and", c.op("ge", share, zero), c.op("lt", share, one))
    kept = c.op("select", inside, c.op("sub", one, share), c.scalar(math.nan, F32))
    keep = c.op("ge", _draw(c, n, "uniform", F32, x.shape), share)
    wide = F64 if x.dtype == F64 else F32
    left = c.op("div", c.op("mul", c.cast(x, wide), c.cast(keep, wide)), c.cast(kept, wide))
    left = c.cast(left, x.dtype)
    if always:
        return left, keep
    return c.op("select", mode, left, x), c.op("or", keep, c.op("not", mode))


RANDOM_OPERATORS: Mapping[str, Translator] = {
    "RandomUniform": _of_shape(_uniform),
    "RandomNormal": _of_shape(_normal),
    "RandomUniformLike": _like(_uniform),
    "RandomNormalLike": _like(_normal),
    "Bernoulli": _bernoulli,
    "Multinomial": _multinomial,
    "Dropout": _dropout,
}
