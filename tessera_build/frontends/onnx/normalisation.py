"""Normalisations: batch, layer, instance, group, RMS, local response, Lp, mean-variance.

Takes a tensor and its scales; gives core ops. Invariant: every row normalisation has one canonical form (mean,
x - mean, mean of squares, sqrt(variance + epsilon), its reciprocal once a row), which fusion later recognises as a
group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tessera_build.frontends.onnx.call import Call, Translator, normalise_axes
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import unsupported
from tessera_build.frontends.onnx.load import element_type
from tessera_build.frontends.onnx.reductions import square
from tessera_build.frontends.onnx.shapes import reshaped
from tessera_build.ir.core.dims import floordiv
from tessera_build.ir.core.types import F32, F64


def _per_channel(c: Context, values: Tensor, rank: int) -> Tensor:
    """A vector over axis 1, shaped to broadcast against a tensor of this rank."""
    return c.reshape(values, (*values.shape, *(1,) * max(rank - 2, 0)))


def _deviation(c: Context, variance: Tensor, epsilon: float) -> Tensor:
    return c.op("sqrt", c.op("add", variance, c.scalar(epsilon, variance.dtype)))


def _normalised(c: Context, x: Tensor, axes: Sequence[int], epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """(x - mean) / sqrt(variance + epsilon), the mean, and one over that square root.

    Rows are multiplied, as ONNX's function of LayerNormalization does: a division an element took half of the time.
    """
    mean = c.mean(x, axes, keepdims=True)
    centred = c.op("sub", x, mean)
    deviation = _deviation(c, c.mean(square(c, centred), axes, keepdims=True), epsilon)
    inverse = c.op("div", c.scalar(1, deviation.dtype), deviation)
    return c.op("mul", centred, inverse), mean, inverse


def _scaled(c: Context, x: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if scale is None else c.op("mul", x, scale)
    return x if bias is None else c.op("add", x, bias)


def _batch(c: Context, n: Call) -> Tensor | tuple[Tensor, ...]:
    """x * s + t with s = scale / sqrt(variance + epsilon) and t = bias - mean * s: constants that fold into weights."""
    n.only("spatial", 1, 1, "has statistics for every element")
    if n.integer("training_mode", 0):
        return _batch_in_training(c, n)
    n.ignore("momentum", "is_test")
    if any(n.wants(i) for i in range(1, 5)):
        raise unsupported("BatchNormalization in training mode is not built", hint="export the model for inference")
    return _with_statistics(c, n, n.input(3), n.input(4))


def _with_statistics(c: Context, n: Call, mean: Tensor, variance: Tensor) -> Tensor:
    x, own = n.input(0), (n.input(1), n.input(2), mean, variance)
    kinds = {t.dtype for t in (x, *own)}
    # Statistics that are narrower than the rows lose nothing that they hold: onnxruntime widens them first.
    kind = F64 if F64 in kinds else F32 if len(kinds) > 1 else x.dtype
    scale, bias, mean, variance = (c.cast(t, kind) for t in own)
    factor = c.op("div", scale, _deviation(c, variance, n.number("epsilon", 1e-5)))
    shift = c.op("sub", bias, c.op("mul", mean, factor))
    wide = c.cast(x, kind)
    result = c.op("mul", wide, _per_channel(c, factor, x.rank))
    return c.cast(c.op("add", result, _per_channel(c, shift, x.rank)), x.dtype)


def _batch_in_training(c: Context, n: Call) -> tuple[Tensor, ...]:
    """With the batch's own statistics, which also move the running ones: running * momentum + own * (1 - momentum)."""
    x, running = n.input(0), (n.input(3), n.input(4))
    axes = [axis for axis in range(x.rank) if axis != 1]
    wide = c.cast(x, F32 if x.dtype.bits < F32.bits else x.dtype)
    mean = c.mean(wide, axes, keepdims=True)
    variance = c.mean(square(c, c.op("sub", wide, mean)), axes, keepdims=True)
    momentum = n.number("momentum", 0.9)
    own = [c.reshape(value, (x.shape[1],)) for value in (mean, variance)]
    moved = [
        c.op("add", c.op("mul", c.cast(old, new.dtype), c.scalar(momentum, new.dtype)), _times(c, new, 1 - momentum))
        for old, new in zip(running, own, strict=True)
    ]
    result = _with_statistics(c, n, own[0], own[1])
    return (result, *(c.cast(new, old.dtype) for new, old in zip(moved, running, strict=True)))


def _times(c: Context, x: Tensor, factor: float) -> Tensor:
    return c.op("mul", x, c.scalar(factor, x.dtype))


def _layer(c: Context, n: Call) -> tuple[Tensor, ...]:
    x, scale, bias = n.input(0), n.input(1), n.optional(2)
    axis, stash = n.axis(x.rank, -1), element_type(n.integer("stash_type", 1), "stash_type")
    wide = c.cast(x, stash) if x.dtype.bits <= stash.bits else x
    axes = tuple(range(axis, x.rank))
    normalised, mean, inverse = _normalised(c, wide, axes, n.number("epsilon", 1e-5))
    result = _scaled(c, c.cast(normalised, x.dtype), scale, bias)
    return result, c.cast(mean, stash), c.cast(inverse, stash)


def _rms(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    axes = tuple(range(n.axis(x.rank, -1), x.rank))
    wide = c.cast(x, element_type(n.integer("stash_type", 1), "stash_type"))
    wide = wide if x.dtype.bits <= wide.dtype.bits else x
    deviation = _deviation(c, c.mean(square(c, wide), axes, keepdims=True), n.number("epsilon", 1e-5))
    # The scale may be of another type than the rows, and the result is of the scale's.
    scale = n.input(1)
    return c.op("mul", c.cast(c.cast(c.op("div", wide, deviation), x.dtype), scale.dtype), scale)


def _instance(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    normalised, _, _ = _normalised(c, x, range(2, x.rank), n.number("epsilon", 1e-5))
    return _scaled(c, normalised, _per_channel(c, n.input(1), x.rank), _per_channel(c, n.input(2), x.rank))


def _group(c: Context, n: Call) -> Tensor:
    """Before opset 21 scale and bias have one element a group, since then one a channel."""
    x, scale, bias, groups = n.input(0), n.input(1), n.input(2), n.integer("num_groups")
    n.ignore("stash_type")
    split = reshaped(c, x, (x.shape[0], groups, floordiv(x.shape[1], groups), *x.shape[2:]))
    normalised, _, _ = _normalised(c, split, range(2, split.rank), n.number("epsilon", 1e-5))
    if n.opset < 21:
        scaled = _scaled(c, normalised, *(_per_channel(c, v, split.rank) for v in (scale, bias)))
        return reshaped(c, scaled, x.shape)
    whole = reshaped(c, normalised, x.shape)
    return _scaled(c, whole, _per_channel(c, scale, x.rank), _per_channel(c, bias, x.rank))


def _local_response(c: Context, n: Call) -> Tensor:
    """x / (bias + alpha / size * sum of squares over neighbouring channels) ** beta."""
    x, size = n.input(0), n.integer("size")
    low = (size - 1) // 2
    ones, zeros = (1,) * (x.rank - 2), (0,) * (x.rank - 2)
    total = c.op(
        "reduce_window",
        square(c, x),
        kind="sum",
        window=(1, size, *ones),
        strides=(1, 1, *ones),
        low=(0, low, *zeros),
        high=(0, size - 1 - low, *zeros),
        dilations=(1, 1, *ones),
    )
    scaled = c.op("mul", total, c.scalar(n.number("alpha", 1e-4) / size, x.dtype))
    base = c.op("add", scaled, c.scalar(n.number("bias", 1.0), x.dtype))
    return c.op("div", x, c.op("pow", base, c.scalar(n.number("beta", 0.75), x.dtype)))


def _lp(c: Context, n: Call) -> Tensor:
    x, axis, power = n.input(0), n.integer("axis", -1), n.integer("p", 2)
    axes = normalise_axes((axis,), x.rank)
    if power == 1:
        norm = c.reduce("sum", c.op("abs", x), axes, keepdims=True)
    else:
        norm = c.op("sqrt", c.reduce("sum", square(c, x), axes, keepdims=True))
    # A row of zeros stays zeros.
    zero = c.scalar(0, x.dtype)
    return c.op("div", x, c.op("select", c.op("eq", norm, zero), c.scalar(1, x.dtype), norm))


def _mean_variance(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    axes = normalise_axes(n.integers("axes", (0, 2, 3)), x.rank)
    mean = c.mean(x, axes, keepdims=True)
    centred = c.op("sub", x, mean)
    deviation = c.op("sqrt", c.mean(square(c, centred), axes, keepdims=True))
    return c.op("div", centred, c.op("add", deviation, c.scalar(1e-9, x.dtype)))


NORMALISATION_OPERATORS: Mapping[str, Translator] = {
    "BatchNormalization": _batch,
    "LayerNormalization": _layer,
    "RMSNormalization": _rms,
    "InstanceNormalization": _instance,
    "GroupNormalization": _group,
    "LRN": _local_response,
    "LpNormalization": _lp,
    "MeanVarianceNormalization": _mean_variance,
}
