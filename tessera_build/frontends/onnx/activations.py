"""The activation functions of ONNX's recurrent layers, with the parameters that each may take.

Takes a name and parameters; gives the function on tensors. Invariant: lists of parameters are consumed in the order of
the functions, and only by functions that have such a parameter, as onnxruntime reads them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.elementwise import elu, softplus
from tessera_build.frontends.onnx.errors import ill_formed, unsupported

Activation = Callable[[Context, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class _Family:
    """A function of x, alpha and beta with the defaults of those that it has.

    NaN stands for no default: there ONNX has none, or onnxruntime takes another one.
    """

    apply: Callable[[Context, Tensor, float, float], Tensor]
    alpha: float | None = None
    beta: float | None = None


def _named(op: str) -> _Family:
    return _Family(lambda c, x, _, __: c.op(op, x))


def scaled(c: Context, x: Tensor, factor: float, shift: float = 0.0) -> Tensor:
    """x * factor + shift."""
    x = x if factor == 1.0 else c.op("mul", x, c.scalar(factor, x.dtype))
    return x if shift == 0.0 else c.op("add", x, c.scalar(shift, x.dtype))


def _clamped(c: Context, x: Tensor, low: float, high: float) -> Tensor:
    """x, but not below `low` or above `high`, and flat at both."""
    return c.op("min", c.op("max", x, c.scalar(low, x.dtype)), c.scalar(high, x.dtype))


def _relu(c: Context, x: Tensor, _: float, __: float) -> Tensor:
    return c.op("max", x, c.scalar(0, x.dtype))


def _chosen(c: Context, x: Tensor, above: float, positive: Tensor, other: Tensor) -> Tensor:
    return c.op("select", c.op("gt", x, c.scalar(above, x.dtype)), positive, other)


def _leaky(c: Context, x: Tensor, alpha: float, _: float) -> Tensor:
    return _chosen(c, x, 0.0, x, scaled(c, x, alpha))


def _thresholded(c: Context, x: Tensor, alpha: float, _: float) -> Tensor:
    return _chosen(c, x, alpha, x, c.scalar(0, x.dtype))


def _softsign(c: Context, x: Tensor, _: float, __: float) -> Tensor:
    return c.op("div", x, c.op("add", c.op("abs", x), c.scalar(1, x.dtype)))


def _softplus(c: Context, x: Tensor, _: float, __: float) -> Tensor:
    return softplus(c, x)


_FAMILIES: dict[str, _Family] = {
    "relu": _Family(_relu),
    "tanh": _named("tanh"),
    "sigmoid": _named("sigmoid"),
    "affine": _Family(scaled, math.nan, math.nan),
    "leakyrelu": _Family(_leaky, 0.01),
    "thresholdedrelu": _Family(_thresholded, math.nan),
    "scaledtanh": _Family(lambda c, x, a, b: scaled(c, c.op("tanh", scaled(c, x, b)), a), math.nan, math.nan),
    "hardsigmoid": _Family(lambda c, x, a, b: _clamped(c, scaled(c, x, a, b), 0.0, 1.0), 0.2, 0.5),
    "elu": _Family(lambda c, x, alpha, _: elu(c, x, alpha), 1.0),
    "softsign": _Family(_softsign),
    "softplus": _Family(_softplus),
}


def activations(names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]) -> tuple[Activation, ...]:
    """The functions of these names, in order; raises for one that ONNX does not have."""
    left = list(alphas), list(betas)
    found: list[Activation] = []
    for name in names:
        family = _FAMILIES.get(name.lower())
        if family is None:
            raise ill_formed("a recurrent layer names an unknown activation", expected=", ".join(_FAMILIES), found=name)
        alpha, beta = (_taken(default, given) for default, given in zip((family.alpha, family.beta), left, strict=True))
        if math.isnan(alpha) or math.isnan(beta):
            hint = "state activation_alpha and activation_beta"
            raise unsupported(f"a recurrent layer leaves the parameters of {name} open", hint=hint)
        found.append(lambda c, x, f=family.apply, a=alpha, b=beta: f(c, x, a, b))
    return tuple(found)


def _taken(default: float | None, given: list[float]) -> float:
    if default is None:
        return 0.0
    return given.pop(0) if given else default
