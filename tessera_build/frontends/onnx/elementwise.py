"""Elementwise operators of ONNX: arithmetic, comparisons, logic, activations, casts.

Takes tensors that broadcast; gives one tensor made of core ops. Invariant: formulas are chosen so that no
intermediate overflows where the result does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.ir.core.types import BOOL, F32, F64

SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


def _direct(name: str) -> Translator:
    """An operator that is one core op on the same operands."""

    def translate(c: Context, n: Call) -> Tensor:
        return c.op(name, *n.all_inputs())

    return translate


def _folded(name: str) -> Translator:
    """A variadic operator: the operands combined from left to right."""

    def translate(c: Context, n: Call) -> Tensor:
        first, *rest = n.all_inputs()
        for operand in rest:
            first = c.op(name, first, operand)
        return first

    return translate


def _mean(c: Context, n: Call) -> Tensor:
    total = _folded("add")(c, n)
    assert isinstance(total, Tensor)
    return _times(c, total, 1.0 / len(n.inputs)) if len(n.inputs) > 1 else total


def _times(c: Context, x: Tensor, factor: float) -> Tensor:
    return x if factor == 1.0 else c.op("mul", x, c.scalar(factor, x.dtype))


def _plus(c: Context, x: Tensor, term: float) -> Tensor:
    return x if term == 0.0 else c.op("add", x, c.scalar(term, x.dtype))


def _parts(c: Context, x: Tensor) -> tuple[Tensor, Tensor]:
    """What of x is above zero, and what is not. At zero derivatives are the other's: max and min would have none."""
    zero = c.scalar(0, x.dtype)
    above = c.op("gt", x, zero)
    return c.op("select", above, x, zero), c.op("select", above, zero, x)


def _relu(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    return c.op("max", x, c.scalar(0, x.dtype))


def _leaky_relu(c: Context, n: Call) -> Tensor:
    above, rest = _parts(c, n.input(0))
    return c.op("add", above, _times(c, rest, n.number("alpha", 0.01)))


def _prelu(c: Context, n: Call) -> Tensor:
    above, rest = _parts(c, n.input(0))
    return c.op("add", above, c.op("mul", rest, n.input(1)))


def _exponential(c: Context, x: Tensor, alpha: float) -> Tensor:
    """alpha * (exp(x) - 1)."""
    return _times(c, _plus(c, c.op("exp", x), -1.0), alpha)


def elu(c: Context, x: Tensor, alpha: float) -> Tensor:
    """x above 0, alpha * (exp(x) - 1) below; exp is of no number above zero."""
    above, rest = _parts(c, x)
    return c.op("add", above, _exponential(c, rest, alpha))


def _elu(c: Context, n: Call) -> Tensor:
    return elu(c, n.input(0), n.number("alpha", 1.0))


def _selu(c: Context, n: Call) -> Tensor:
    return _times(c, elu(c, n.input(0), n.number("alpha", SELU_ALPHA)), n.number("gamma", SELU_GAMMA))


def _celu(c: Context, n: Call) -> Tensor:
    above, rest = _parts(c, n.input(0))
    alpha = n.number("alpha", 1.0)
    return c.op("add", above, _exponential(c, c.op("div", rest, c.scalar(alpha, rest.dtype)), alpha))


def _thresholded_relu(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    wide = c.cast(x, F32) if x.dtype.bits < 32 else x  # rounded to x's type, the threshold may be one of its numbers
    above = c.op("gt", wide, c.scalar(n.number("alpha", 1.0), wide.dtype))
    return c.op("select", above, x, c.scalar(0, x.dtype))


def softplus(c: Context, x: Tensor) -> Tensor:
    """log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), right to the last places where it is small, too."""
    above, rest = _parts(c, x)
    return c.op("add", above, _log_of_one_plus(c, c.op("exp", c.op("sub", rest, above))))


def _log_of_one_plus(c: Context, x: Tensor) -> Tensor:
    """Of x from 0 to 1; what 1 + x rounds away is put back, and is a constant to derivatives: its terms' cancel."""
    total = _plus(c, x, 1.0)
    lost = c.op("sub", x, _plus(c, total, -1.0))
    return c.op("add", c.op("log", total), c.op("div", lost, total))


def _shrink(c: Context, n: Call) -> Tensor:
    """x + bias below -lambd, x - bias above lambd, 0 between; integers as floats, cut off."""
    given, bias, edge = n.input(0), n.number("bias", 0.0), n.number("lambd", 0.5)
    x = given if given.dtype.is_float else c.cast(given, F64)
    zero = c.scalar(0, x.dtype)
    above = c.op("select", c.op("gt", x, c.scalar(edge, x.dtype)), _plus(c, x, -bias), zero)
    result = c.op("select", c.op("lt", x, c.scalar(-edge, x.dtype)), _plus(c, x, bias), above)
    return c.cast(result, given.dtype)


def _softplus(c: Context, n: Call) -> Tensor:
    return softplus(c, n.input(0))


def _softsign(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    return c.op("div", x, _plus(c, c.op("abs", x), 1.0))


def _mish(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    return c.op("mul", x, c.op("tanh", softplus(c, x)))


def _swiglu(c: Context, n: Call) -> Tensor:
    return c.op("mul", _swish(c, n), n.input(1))


def _sigmoid(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    return c.op("sigmoid" if x.dtype == F64 else "logistic", x)


def _swish(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    return c.op("mul", x, c.op("sigmoid", _times(c, x, n.number("alpha", 1.0))))


def _clamp(c: Context, x: Tensor, low: float, high: float) -> Tensor:
    return c.op("min", c.op("max", x, c.scalar(low, x.dtype)), c.scalar(high, x.dtype))


def _hard_sigmoid(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    return _clamp(c, _plus(c, _times(c, x, n.number("alpha", 0.2)), n.number("beta", 0.5)), 0.0, 1.0)


def _hard_swish(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    return c.op("mul", x, _clamp(c, _plus(c, _times(c, x, 1.0 / 6.0), 0.5), 0.0, 1.0))


def _gelu(c: Context, n: Call) -> Tensor:
    x, kind = n.input(0), n.text("approximate", "none")
    if kind == "tanh":
        cubic = c.op("mul", c.op("mul", x, x), _times(c, x, 0.044715))
        inner = c.op("tanh", _times(c, c.op("add", x, cubic), math.sqrt(2.0 / math.pi)))
    else:
        inner = c.op("erf", _times(c, x, math.sqrt(0.5)))
    return c.op("mul", _times(c, x, 0.5), _plus(c, inner, 1.0))


_LARGEST = 3.4028234663852886e38  # of float32


def clipped(c: Context, x: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor:
    """x with what lies outside of the bounds moved to them; at a bound the derivative is x's."""
    x = x if low is None else c.op("select", c.op("gt", low, x), low, x)
    return x if high is None else c.op("select", c.op("lt", high, x), high, x)


def _clip(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    if n.opset < 11:
        # The attributes have defaults, so that infinities are cut; since opset 11 a bound that is left out is none.
        cuts = x.dtype in (F32, F64)
        low = c.scalar(n.number("min", -_LARGEST), x.dtype) if cuts or n.has("min") else None
        high = c.scalar(n.number("max", _LARGEST), x.dtype) if cuts or n.has("max") else None
    else:
        low, high = n.optional(1), n.optional(2)
    return clipped(c, x, low, high)


def _reciprocal(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    return c.op("div", c.scalar(1, x.dtype), x)


def _pow(c: Context, n: Call) -> Tensor:
    """Small constant exponents become products and roots, which are exact and cheap."""
    x, exponent = n.input(0), n.input(1)
    number = None
    if exponent.content is not None and exponent.content.size == 1 and exponent.rank <= x.rank:
        number = c.known_number(exponent, "the exponent")
    if number == 2.0:
        return c.op("mul", x, x)
    if number == 1.0:
        return x
    if number == 0.5 and x.dtype.is_float:
        return c.op("sqrt", x)
    if exponent.dtype.is_float and not x.dtype.is_float:
        return c.cast(c.op("pow", c.cast(x, F64), c.cast(exponent, F64)), x.dtype)
    if exponent.dtype.is_float and exponent.dtype != x.dtype and exponent.dtype.bits >= x.dtype.bits:
        # A rounded exponent would be another one: of a negative number to 2.0003 there is no power, to 2 there is.
        wide = exponent.dtype if exponent.dtype.bits > x.dtype.bits else F32
        return c.cast(c.op("pow", c.cast(x, wide), c.cast(exponent, wide)), x.dtype)
    return c.op("pow", x, c.cast(exponent, x.dtype))


def _mod(c: Context, n: Call) -> Tensor:
    """The remainder, with the sign of the divisor, or of the dividend (fmod)."""
    return c.op("rem" if n.integer("fmod", 0) else "mod", n.input(0), n.input(1))


def _shift(c: Context, n: Call) -> Tensor:
    direction = n.text("direction")
    if direction not in ("LEFT", "RIGHT"):
        raise ill_formed("BitShift knows no such direction", expected="LEFT or RIGHT", found=direction)
    return c.op("shl" if direction == "LEFT" else "shr", n.input(0), n.input(1))


def _rounding(name: str) -> Translator:
    def translate(c: Context, n: Call) -> Tensor:
        x = n.input(0)
        return c.op(name, x) if x.dtype.is_float else x

    return translate


def _is_infinite(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    signs = [s for s, name in ((1, "detect_positive"), (-1, "detect_negative")) if n.integer(name, 1)]
    if not signs:
        return c.broadcast_to(c.scalar(False, BOOL), x.shape)
    magnitude = c.op("abs", x) if len(signs) == 2 else x
    return c.op("eq", magnitude, c.scalar(math.inf * signs[0], x.dtype))


def _where(c: Context, n: Call) -> Tensor:
    return c.op("select", n.input(0), n.input(1), n.input(2))


_DIRECT: Mapping[str, str] = {
    "Abs": "abs",
    "Neg": "neg",
    "Exp": "exp",
    "Log": "log",
    "Sqrt": "sqrt",
    "Erf": "erf",
    "Tanh": "tanh",
    "Sin": "sin",
    "Cos": "cos",
    "Tan": "tan",
    "Asin": "asin",
    "Acos": "acos",
    "Atan": "atan",
    "Sinh": "sinh",
    "Cosh": "cosh",
    "Asinh": "asinh",
    "Acosh": "acosh",
    "Atanh": "atanh",
    "BitwiseNot": "not",
    "Sign": "sign",
    "Not": "not",
    "IsNaN": "isnan",
}
_BINARY: Mapping[str, str] = {
    "Add": "add",
    "Sub": "sub",
    "Mul": "mul",
    "Div": "div",
    "Equal": "eq",
    "Less": "lt",
    "LessOrEqual": "le",
    "Greater": "gt",
    "GreaterOrEqual": "ge",
    "And": "and",
    "Or": "or",
    "Xor": "xor",
    "BitwiseAnd": "and",
    "BitwiseOr": "or",
    "BitwiseXor": "xor",
}
_VARIADIC: Mapping[str, str] = {"Sum": "add", "Max": "max", "Min": "min"}


def _table(make: Callable[[str], Translator], names: Mapping[str, str]) -> dict[str, Translator]:
    return {onnx_name: make(name) for onnx_name, name in names.items()}


ELEMENTWISE_OPERATORS: Mapping[str, Translator] = {
    **_table(_direct, _DIRECT),
    **_table(_direct, _BINARY),
    **_table(_folded, _VARIADIC),
    **_table(_rounding, {"Floor": "floor", "Ceil": "ceil", "Round": "round"}),
    "Mean": _mean,
    "Sigmoid": _sigmoid,
    "Relu": _relu,
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Elu": _elu,
    "Selu": _selu,
    "Celu": _celu,
    "ThresholdedRelu": _thresholded_relu,
    "Shrink": _shrink,
    "Softplus": _softplus,
    "Softsign": _softsign,
    "Mish": _mish,
    "Swish": _swish,
    "SwiGLU": _swiglu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Gelu": _gelu,
    "Clip": _clip,
    "Reciprocal": _reciprocal,
    "Pow": _pow,
    "Mod": _mod,
    "BitShift": _shift,
    "IsInf": _is_infinite,
    "Where": _where,
}
