"""Gates and norms of com.microsoft around linear attention, as exporters of its newest models write them.

Takes what onnxruntime documents for each; gives core ops. Invariant: arithmetic is in f32 whatever the operands are,
and is rounded where onnxruntime says that it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.frontends.onnx.activations import softplus
from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.frontends.onnx.reductions import square
from tessera_build.frontends.onnx.shapes import reshaped
from tessera_build.ir.core.dims import Extent, floordiv
from tessera_build.ir.core.types import F32


def _normalised(c: Context, x: Tensor, epsilon: float) -> Tensor:
    """Rows over the root of the mean of their squares."""
    mean = c.mean(square(c, x), (x.rank - 1,), keepdims=True)
    return c.op("mul", x, c.op("rsqrt", c.op("add", mean, c.scalar(epsilon, x.dtype))))


def _gated_norm(c: Context, n: Call) -> Tensor:
    """Groups of as many columns as there are scales are normalised, each element times its gate's activation."""
    x, scale, gate = n.input(0), n.input(1), n.input(2)
    word = n.text("activation", "silu")
    if word not in ("silu", "swish", "sigmoid") or scale.rank != 1 or x.rank < 1:
        raise ill_formed("GatedRMSNorm does not fit its operands", found=f"{word} of {x.type} by {scale.type}")
    width = scale.shape[0]
    groups = _groups(c, x.shape[-1], width, "GatedRMSNorm's columns are no whole groups")
    split = reshaped(c, c.cast(x, F32), (*x.shape[:-1], groups, width))
    result = c.op("mul", _normalised(c, split, n.number("epsilon", 1e-5)), c.cast(scale, F32))
    wide = c.cast(gate, F32)
    open_ = c.op("sigmoid", wide) if word == "sigmoid" else c.op("mul", wide, c.op("sigmoid", wide))
    return c.cast(c.op("mul", reshaped(c, result, x.shape), open_), x.dtype)


def _groups(c: Context, columns: Extent, width: Extent, message: str) -> Extent:
    groups = floordiv(columns, width)
    c.require(columns, "==", groups * width, message)
    return groups


def _gated_sum(c: Context, n: Call) -> Tensor:
    return c.op("add", n.input(0), c.op("mul", n.input(1), n.input(2)))


def _scaled_silu(c: Context, n: Call) -> Tensor:
    """silu(scale * x), rounded to the operand's type after each step."""
    x, stated = n.input(0), n.optional(1)
    scale = c.scalar(n.number("alpha", 1.0), F32) if stated is None else c.reshape(c.cast(stated, F32), ())
    scaled = c.cast(c.op("mul", c.cast(x, F32), scale), x.dtype)
    open_ = c.cast(c.op("sigmoid", c.cast(scaled, F32)), x.dtype)
    return c.cast(c.op("mul", c.cast(scaled, F32), c.cast(open_, F32)), x.dtype)


def _branch_norm(c: Context, n: Call) -> Tensor:
    """Each branch normalised by itself; branches are an axis, or side by side."""
    x, scale, branches = n.input(0), n.optional(1), n.integer("num_branches", 0)
    split = c.cast(x, F32)
    if branches:
        split = reshaped(c, split, (*x.shape[:-1], branches, floordiv(x.shape[-1], branches)))
    if split.rank < 2:
        raise ill_formed("BranchwiseRMSNorm takes branches", found=str(x.type))
    result = _normalised(c, split, n.number("epsilon", 1e-5))
    if scale is not None:
        whole = scale.rank == 1 and scale.shape[0] != split.shape[-1]
        wide = c.cast(scale, F32)
        result = c.op("mul", result, reshaped(c, wide, split.shape[-2:]) if whole else wide)
    return c.cast(reshaped(c, result, x.shape), x.dtype)


def _gates(c: Context, n: Call) -> tuple[Tensor, ...]:
    """LinearAttentionGate: how much is forgotten, and how much is learnt."""
    a, learnt = n.input(0), n.optional(3)
    moved = c.op("add", c.cast(a, F32), c.cast(n.input(1), F32))
    decay = c.cast(c.op("mul", softplus(c, moved), c.cast(n.input(2), F32)), a.dtype)
    if learnt is None:
        return (decay,)
    return decay, c.cast(c.op("sigmoid", c.cast(learnt, F32)), a.dtype)


CONTRIB_GATE_OPERATORS: Mapping[str, Translator] = {
    "GatedRMSNorm": _gated_norm,
    "GatedAdd": _gated_sum,
    "ScaledSiLU": _scaled_silu,
    "BranchwiseRMSNorm": _branch_norm,
    "LinearAttentionGate": _gates,
}
