"""Elementwise functions: arithmetic, roots, circular and hyperbolic functions, activations, casts, choices.

Takes tensors that broadcast as numpy's do; gives one tensor. Invariant: formulas are chosen so that no intermediate
overflows where the result does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tessera.derive.custom import stated
from tessera.errors import LanguageError
from tessera.model.arguments import Condition, Exact, door
from tessera.model.numeric import LARGEST, NO_POLICY, Numeric, numeric_of
from tessera.model.policies import bounds_of
from tessera.model.site import here
from tessera.model.tensor import Operand, Tensor, Value, emit, quotient
from tessera.op.creation import Element
from tessera.op.random import dropout as dropped
from tessera_build.ir.core.dims import Dim
from tessera_build.ir.core.types import BF16, BOOL, F32, F64, I32, U32, DType


@door
def add(a: Operand, b: Operand) -> Tensor:
    """a + b."""
    return emit("add", a, b)


@door
def sub(a: Operand, b: Operand) -> Tensor:
    """a - b."""
    return emit("sub", a, b)


@door
def mul(a: Operand, b: Operand) -> Tensor:
    """a * b."""
    return emit("mul", a, b)


@door
def div(a: Operand, b: Operand) -> Tensor:
    """a / b of floats; of integers `floor_divide` is what stays an integer."""
    return quotient(a, b)


@door
def power(a: Operand, b: Operand) -> Tensor:
    """a to the power of b."""
    return emit("pow", a, b)


@door
def maximum(a: Operand, b: Operand) -> Tensor:
    """The larger of two; NaN where one is NaN."""
    return emit("max", a, b)


@door
def minimum(a: Operand, b: Operand) -> Tensor:
    """The smaller of two; NaN where one is NaN."""
    return emit("min", a, b)


@door
def equal(a: Operand, b: Operand) -> Tensor:
    """Whether elements are equal."""
    return emit("eq", a, b)


@door
def neg(x: Value) -> Tensor:
    """-x."""
    return emit("neg", x)


@door
def absolute(x: Value) -> Tensor:
    """|x|."""
    return emit("abs", x)


@door
def exp(x: Value) -> Tensor:
    """e to the power of x."""
    return emit("exp", x)


@door
def log(x: Value) -> Tensor:
    """The natural logarithm."""
    return emit("log", x)


@door
def sqrt(x: Value) -> Tensor:
    """The square root."""
    return emit("sqrt", x)


@door
def rsqrt(x: Value) -> Tensor:
    """1 / sqrt(x)."""
    return emit("rsqrt", x)


@door
def reciprocal(x: Value) -> Tensor:
    """1 / x."""
    return quotient(1, x)


@door
def square(x: Value) -> Tensor:
    """x * x."""
    return emit("mul", x, x)


@door
def sin(x: Value) -> Tensor:
    """The sine of an angle in radians."""
    return emit("sin", x)


@door
def cos(x: Value) -> Tensor:
    """The cosine of an angle in radians."""
    return emit("cos", x)


@door
def tan(x: Value) -> Tensor:
    """The tangent of an angle in radians."""
    return emit("tan", x)


@door
def tanh(x: Value) -> Tensor:
    """The hyperbolic tangent."""
    return emit("tanh", x)


@door
def erf(x: Value) -> Tensor:
    """The error function."""
    return emit("erf", x)


@door
def floor(x: Value) -> Tensor:
    """The largest whole number below or at x."""
    return emit("floor", x)


@door
def ceil(x: Value) -> Tensor:
    """The smallest whole number above or at x."""
    return emit("ceil", x)


@door
def round_half_even(x: Value) -> Tensor:
    """The nearest whole number, the even one of two."""
    return emit("round", x)


@door
def sign(x: Value) -> Tensor:
    """-1, 0 or 1."""
    return emit("sign", x)


@door
def isnan(x: Value) -> Tensor:
    """Where x is not a number."""
    return emit("isnan", x)


@door
def relu(x: Value) -> Tensor:
    """max(x, 0)."""
    return emit("max", x, 0)


@door
def leaky_relu(x: Value, slope: Operand = 0.01) -> Tensor:
    """x above 0, slope * x below."""
    above, rest = _parts(x)
    return above + emit("mul", slope, rest)


@door
def sigmoid(x: Value) -> Tensor:
    """1 / (1 + exp(-x))."""
    return emit("sigmoid", x)


@door
def silu(x: Value) -> Tensor:
    """x * sigmoid(x)."""
    return emit("mul", x, emit("sigmoid", x))


@door
def softplus(x: Value) -> Tensor:
    """log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), right to the last places where it is small, too."""
    above, rest = _parts(x)
    small = emit("exp", rest - above)
    total = small + 1
    # What the sum rounds away is put back; it is a constant to derivatives, which those of its two terms cancel.
    return above + (emit("log", total) + (small - (total - 1)) / total)


def _parts(x: Value) -> tuple[Tensor, Tensor]:
    """What of x is above zero, and what is not. At zero derivatives are the other's: max and min would have none."""
    above = emit("gt", x, 0)
    return where(above, x, 0), where(above, 0, x)


@door
def gelu(x: Value, approximate: bool = False) -> Tensor:
    """x times the probability that a normal number lies below x; `approximate` by the hyperbolic tangent."""
    cubic = (x + x * x * (x * 0.044715)) * math.sqrt(2.0 / math.pi) if approximate else None
    inner = erf(x * math.sqrt(0.5)) if cubic is None else tanh(cubic)
    return (x * 0.5) * (inner + 1)


@door
def clip(x: Value, low: Operand | None = None, high: Operand | None = None) -> Tensor:
    """x with what lies outside of the bounds moved to them; at a bound the derivative is still one."""
    if low is None and high is None:
        raise LanguageError("BAD_ARGUMENT", "clip has no bound", site=here(), expected="low, high or both")
    result = x if low is None else _bounded(x, "gt", low)
    result = result if high is None else _bounded(result, "lt", high)
    assert isinstance(result, Tensor)
    return result


def _bounded(x: Value, beyond: str, bound: Operand) -> Tensor:
    """x, but the bound where that is beyond x, or NaN."""
    outside = emit(beyond, bound, x)
    never_nan = isinstance(bound, Dim) or (isinstance(bound, int | float) and not math.isnan(bound))
    if x.dtype.is_float and not never_nan:
        outside = emit("or", outside, emit("isnan", bound))
    return where(outside, bound, x)


@door
def where(condition: Condition, a: Operand, b: Operand) -> Tensor:
    """a where the condition holds, else b."""
    return emit("select", condition, a, b)


@door
def residual(x: Value, branch: Value, dropout: float = 0.0, key: Value | None = None) -> Tensor:
    """x + branch, of which `dropout` leaves a share out, by a key of `op.random`."""
    return emit("add", x, dropped(branch, dropout, key) if dropout else branch)


@door
def with_policy(x: Value, numeric: Element) -> Tensor:
    """x under another numeric policy; the element type must be its own."""
    numeric = numeric_of(numeric)
    if numeric.dtype != x.dtype:
        raise LanguageError(
            "TYPE_MISMATCH",
            "with_policy keeps the element type",
            site=here(),
            expected=str(x.dtype),
            found=str(numeric),
            hint="op.cast converts",
        )
    same = emit("reshape", x, shape=x.shape)
    same.trace.policies[same.value] = numeric.policy
    return same


@door
def cast(x: Exact, dtype: Element, key: Value | None = None) -> Tensor:
    """x in another element type, under its policy.

    To integers: towards zero. `saturate` moves what is too large to the largest number of the type;
    `stochastic_round` rounds up or down by chance, in proportion to the distance, as `key` draws.
    """
    wanted = numeric_of(dtype)
    if wanted.policy.stochastic:
        result = _stochastic(x, wanted.dtype, key)
    else:
        result = emit("cast", _within(x, wanted.dtype) if wanted.policy.saturating else x, dtype=wanted.dtype)
    result.trace.policies[result.value] = wanted.policy
    return result


@door
def cast_like(x: Value, like: Value) -> Tensor:
    """x in the element type and under the policy of another tensor."""
    return cast(x, Numeric(like.dtype, like.policy))


def _within(x: Value, dtype: DType) -> Value:
    """x moved into the range of a type."""
    if dtype == BOOL or (x.dtype.is_float and dtype.is_float and dtype.bits >= x.dtype.bits):
        return x
    low, high = _range_of(dtype)
    if x.dtype.is_float:
        return clip(x, low, _below(high, x.dtype))
    own_low, own_high = _range_of(x.dtype)
    result = x if low <= own_low else emit("max", x, low)
    return result if high >= own_high else emit("min", result, high)


def _range_of(dtype: DType) -> tuple[float, float]:
    if dtype.is_float and dtype.name not in LARGEST:
        raise LanguageError(
            "POLICY_UNSUPPORTED", f"saturate is not defined for {dtype}", site=here(), expected=", ".join(LARGEST)
        )
    return bounds_of(dtype)


def _below(high: float, dtype: DType) -> float:
    """The largest number of a float type that is not above `high`: 2**31 - 1 is no f32."""
    digits = {"f64": 53, "f32": 24, "f16": 11, "bf16": 8}.get(dtype.name, 4)
    if not isinstance(high, int) or high.bit_length() <= digits:
        return high
    cut = high.bit_length() - digits
    return float(high >> cut << cut)


# Digits behind the point of a normal number, and the exponent of the smallest one.
_DIGITS: Mapping[str, tuple[int, int]] = {"f16": (10, -14), "f8e4m3": (3, -6), "f8e5m2": (2, -14)}


def _stochastic(x: Value, dtype: DType, key: Value | None) -> Tensor:
    """f32, or what it holds exactly, to a narrower float: chance decides in proportion to what is cut off."""
    if key is None:
        raise LanguageError(
            "RANDOM_WITHOUT_KEY",
            "stochastic rounding needs a key",
            site=here(),
            expected="op.cast(x, bf16 @ stochastic_round, key=key)",
        )
    if not x.dtype.is_float or x.dtype == F64 or (dtype != BF16 and dtype.name not in _DIGITS):
        raise LanguageError(
            "POLICY_UNSUPPORTED",
            "stochastic rounding is built from f32 to narrower floats",
            site=here(),
            expected=f"f32 to bf16, {', '.join(_DIGITS)}",
            found=f"{x.dtype} to {dtype}",
        )
    (result,) = stated(
        lambda *values: (_by_chance(values[0], dtype, values[1]),),
        lambda *values: (emit("cast", values[3], dtype=dtype),),  # on average it is the identity
        (x, key),
    )
    result.trace.policies[result.value] = NO_POLICY
    return result


def _by_chance(x: Value, dtype: DType, key: Value) -> Tensor:
    wide = x if x.dtype == F32 else emit("cast", x, dtype=F32)
    chance = emit("random", key, kind="bits", shape=x.shape, dtype=U32)
    rounded = _rounded_bits(wide, chance) if dtype == BF16 else _rounded_to(wide, chance, *_DIGITS[dtype.name])
    # A number that is infinite or none keeps its bits: adding to them would make another of it.
    finite = emit("lt", emit("abs", wide), math.inf)
    return emit("cast", emit("select", finite, rounded, wide), dtype=dtype)


def _rounded_bits(x: Value, chance: Value) -> Tensor:
    """bf16 is the upper half of f32: chance is added to the bits that are cut off."""
    bits = emit("bitcast", emit("bitcast", x, dtype=I32), dtype=U32)
    cut = emit("shl", emit("shr", emit("add", bits, emit("shr", chance, 16)), 16), 16)
    return emit("bitcast", emit("bitcast", cut, dtype=I32), dtype=F32)


def _rounded_to(x: Value, chance: Value, digits: int, lowest: int) -> Tensor:
    """A multiple of the distance of neighbours where x lies: a fraction drawn by chance is added and cut off."""
    exponent = emit("shr", emit("bitcast", emit("bitcast", emit("abs", x), dtype=I32), dtype=U32), 23)
    least = emit("max", exponent, lowest + 127)
    distance = emit("bitcast", emit("bitcast", emit("shl", least - digits, 23), dtype=I32), dtype=F32)
    fraction = emit("cast", emit("shr", chance, 9 + digits), dtype=F32) * 2.0 ** (digits - 23)
    moved = emit("floor", emit("add", emit("div", emit("abs", x), distance), fraction))
    return emit("mul", emit("mul", moved, distance), emit("sign", x))
