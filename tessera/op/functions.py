"""Functions of one and two numbers beyond arithmetic: inverse circular and hyperbolic ones, logarithms and
exponentials near one, angles, exponential units, activations of mobile networks.

Takes tensors that broadcast as numpy's do; gives one tensor. Invariant: formulas are chosen so that neither the value
nor the derivative loses digits where the function itself is harmless; nothing is divided by zero on a side not taken.
"""

from __future__ import annotations

import math

from tessera.model.arguments import door
from tessera.model.filled import full_like, stop_gradient
from tessera.model.tensor import Operand, Tensor, Value, emit, floor_quotient, quotient
from tessera.op.elementwise import absolute, sign, softplus, tanh, where

_SELU = (1.0507009873554805, 1.6732632423543772)  # scale and alpha of Klambauer and others, 2017


@door
def asin(x: Value) -> Tensor:
    """The angle whose sine is x."""
    return emit("asin", x)


@door
def acos(x: Value) -> Tensor:
    """The angle whose cosine is x."""
    return emit("acos", x)


@door
def atan(x: Value) -> Tensor:
    """The angle whose tangent is x."""
    return emit("atan", x)


@door
def sinh(x: Value) -> Tensor:
    """Hyperbolic sine."""
    return emit("sinh", x)


@door
def cosh(x: Value) -> Tensor:
    """Hyperbolic cosine."""
    return emit("cosh", x)


@door
def asinh(x: Value) -> Tensor:
    """Inverse hyperbolic sine."""
    return emit("asinh", x)


@door
def acosh(x: Value) -> Tensor:
    """Inverse hyperbolic cosine."""
    return emit("acosh", x)


@door
def atanh(x: Value) -> Tensor:
    """Inverse hyperbolic tangent."""
    return emit("atanh", x)


@door
def floor_divide(a: Operand, b: Operand) -> Tensor:
    """The largest whole number that is not above a / b: a = floor_divide(a, b) * b + mod(a, b)."""
    return floor_quotient(a, b)


@door
def mod(a: Operand, b: Operand) -> Tensor:
    """a - b * floor(a / b): what is left has the sign of b."""
    return emit("mod", a, b)


@door
def log1p(x: Value) -> Tensor:
    """log(1 + x); near zero by 2 atanh(x / (2 + x)), which keeps the digits of x."""
    near = absolute(x) < 0.5
    small = where(near, x, 0.0)
    return where(near, atanh(small / (small + 2.0)) * 2.0, emit("log", where(near, 0.0, x) + 1.0))


@door
def expm1(x: Value) -> Tensor:
    """exp(x) - 1; near zero by 2 t / (1 - t) with t = tanh(x / 2), which keeps the digits of x."""
    near = absolute(x) < 0.5
    half = tanh(where(near, x, 0.0) * 0.5)
    return where(near, half * 2.0 / (1.0 - half), emit("exp", where(near, 0.0, x)) - 1.0)


@door
def log2(x: Value) -> Tensor:
    """The logarithm to the base 2."""
    return emit("log", x) * (1.0 / math.log(2.0))


@door
def log10(x: Value) -> Tensor:
    """The logarithm to the base 10."""
    return emit("log", x) * (1.0 / math.log(10.0))


@door
def exp2(x: Value) -> Tensor:
    """2 to the power of x."""
    return emit("pow", 2.0, x)


@door
def logaddexp(a: Value, b: Value) -> Tensor:
    """log(exp(a) + exp(b)), as the larger and log(1 + exp(the other less the larger)); of two infinities of one sign,
    that."""
    first = a > b
    high, low = where(first, a, b), where(first, b, a)
    infinite = (low == high) & (absolute(high) == math.inf)
    return high + log1p(emit("exp", where(infinite, 0.0, low - high)))


@door
def hypot(a: Value, b: Value) -> Tensor:
    """The length of (a, b); squares of what is divided by the larger do not overflow."""
    size = stop_gradient(emit("max", absolute(a), absolute(b)))
    size = where((size > 0.0) & (size < math.inf), size, 1.0)
    left, right = a / size, b / size
    return emit("sqrt", left * left + right * right) * size


@door
def atan2(y: Value, x: Value) -> Tensor:
    """The angle of (x, y), from -pi to pi; of zeros and of infinities, what their signs say."""
    wide = absolute(x) >= absolute(y)
    both = wide & (absolute(y) == math.inf)
    flat = wide & (x != 0.0) & ~both
    slope = where(both, sign(y) * sign(x), where(flat, y, 0.0) / where(flat, x, 1.0))
    half = where(_has_minus(y), full_like(y, -0.5 * math.pi), 0.5 * math.pi)
    near = emit("atan", slope) + where(_has_minus(x), half * 2.0, 0.0)
    far = half - emit("atan", where(wide, 0.0, x) / where(wide, 1.0, y))
    return where(wide, near, far)


def _has_minus(x: Value) -> Tensor:
    """Where x is below zero, or the zero that is approached from there."""
    return (x < 0.0) | (quotient(1, x) < 0.0)


@door
def logsigmoid(x: Value) -> Tensor:
    """log(sigmoid(x)) = -softplus(-x)."""
    return -softplus(-x)


@door
def mish(x: Value) -> Tensor:
    """x tanh(softplus(x))."""
    return x * tanh(softplus(x))


@door
def softsign(x: Value) -> Tensor:
    """x / (1 + |x|)."""
    return x / (absolute(x) + 1.0)


@door
def relu6(x: Value) -> Tensor:
    """max(0, min(x, 6))."""
    return _cut(x, 6.0)


@door
def hard_sigmoid(x: Value) -> Tensor:
    """x / 6 + 1 / 2, cut off at 0 and 1."""
    return _cut(x * (1.0 / 6.0) + 0.5, 1.0)


def _cut(x: Value, high: float) -> Tensor:
    """max(0, min(x, high)), which is flat where it begins and ends; `clip` is not."""
    return emit("min", emit("max", x, 0.0), high)


@door
def hard_swish(x: Value) -> Tensor:
    """x hard_sigmoid(x)."""
    return x * hard_sigmoid(x)


@door
def elu(x: Value, alpha: Operand = 1.0) -> Tensor:
    """x above 0, alpha * (exp(x) - 1) below."""
    return where(x > 0.0, x, emit("mul", expm1(where(x > 0.0, 0.0, x)), alpha))


@door
def celu(x: Value, alpha: Operand = 1.0) -> Tensor:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1))."""
    below = where(x > 0.0, 0.0, x)
    return where(x > 0.0, x, emit("mul", expm1(quotient(below, alpha)), alpha))


@door
def selu(x: Value) -> Tensor:
    """A scaled exponential linear unit whose outputs stay near mean 0 and variance 1."""
    scale, alpha = _SELU
    below = where(x > 0.0, 0.0, x)
    return where(x > 0.0, x, expm1(below) * alpha) * scale
