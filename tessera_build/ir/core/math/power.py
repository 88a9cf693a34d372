"""pow, as e**(y log|x|) with the logarithm in twice the working precision.

Takes two f32 or f64 values; gives their power with the special cases of IEEE 754. Invariant: no table, no branch.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from tessera_build.ir.core.math.coefficients import LN2_HIGH, LN2_LOW, LOG
from tessera_build.ir.core.math.emitter import Emitter, format_of, polynomial, product_error
from tessera_build.ir.core.math.exponential import exp_of_sum
from tessera_build.ir.core.math.logarithm import take_apart


@dataclass(frozen=True, slots=True)
class _Pair:
    """A number as high + low, low below the last place of high."""

    high: int
    low: int


def power(emitter: Emitter, x: int, y: int) -> int:
    """x**y within 1.5 ULP; a negative x needs an integer y."""
    magnitude = emitter.op("abs", x)
    logarithm = _logarithm(emitter, magnitude)
    product = emitter.op("mul", y, logarithm.high)
    rounding = product_error(emitter, y, logarithm.high, product)
    rest = emitter.op("fma", y, logarithm.low, rounding)
    return _specials(emitter, x, y, exp_of_sum(emitter, product, rest))


def _logarithm(emitter: Emitter, x: int) -> _Pair:
    """log(x) for x >= 0: -inf at zero, infinity at infinity."""
    layout = format_of(emitter, x)
    name = layout.dtype.name
    parts = take_apart(emitter, x, layout)
    s = _ratio(emitter, parts.fraction)
    cube = _atanh_tail(emitter, s, LOG[name])
    twice = emitter.op("add", s.high, s.high)
    high = emitter.op("mul", parts.exponent, emitter.const(LN2_HIGH[name], x))
    first = _sum(emitter, high, twice)
    second = _sum(emitter, first.high, cube.high)
    low = emitter.op("fma", parts.exponent, emitter.const(LN2_LOW[name], x), emitter.op("add", s.low, s.low))
    for part in (cube.low, second.low, first.low):
        low = emitter.op("add", low, part)
    total = _sum(emitter, second.high, low)
    infinity, zero = emitter.const(float("inf"), x), emitter.const(0.0, x)
    final = emitter.op("select", emitter.op("lt", x, infinity), total.high, x)
    final = emitter.op("select", emitter.op("eq", x, zero), emitter.op("neg", infinity), final)
    return _Pair(final, total.low)


def _sum(emitter: Emitter, large: int, small: int) -> _Pair:
    """large + small, exactly, where |large| >= |small| or large is zero."""
    total = emitter.op("add", large, small)
    return _Pair(total, emitter.op("sub", small, emitter.op("sub", total, large)))


def _product(emitter: Emitter, left: int, right: int) -> _Pair:
    """left * right, exactly."""
    high = emitter.op("mul", left, right)
    return _Pair(high, product_error(emitter, left, right, high))


def _atanh_tail(emitter: Emitter, s: _Pair, coefficients: tuple[float, ...]) -> _Pair:
    """2 atanh(s) - 2 s: s**3 * 2/3 in double precision, what follows (a fiftieth of it) in single."""
    square = _product(emitter, s.high, s.high)
    low = emitter.op("fma", emitter.op("add", s.high, s.high), s.low, square.low)
    cube = _product(emitter, s.high, square.high)
    low = emitter.op("fma", s.high, low, emitter.op("fma", s.low, square.high, cube.low))
    leading = emitter.const(coefficients[0], s.high)
    tail = _product(emitter, leading, cube.high)
    rest = emitter.op("mul", square.high, polynomial(emitter, square.high, coefficients[1:]))
    # 2/3 is not a number of the format; what its rounding left out belongs to the rest.
    rest = emitter.op("add", rest, emitter.const(_left_out(coefficients[0]), rest))
    low = emitter.op("fma", leading, low, emitter.op("fma", cube.high, rest, tail.low))
    return _Pair(tail.high, low)


def _left_out(leading: float) -> float:
    return float(Fraction(2, 3) - Fraction(leading))


def _ratio(emitter: Emitter, f: int) -> _Pair:
    """f / (2 + f)."""
    two = emitter.const(2.0, f)
    divisor = emitter.op("add", two, f)
    lost = emitter.op("sub", f, emitter.op("sub", divisor, two))
    inverse = emitter.op("div", emitter.const(1.0, f), divisor)
    high = emitter.op("mul", f, inverse)
    minus = emitter.op("neg", high)
    if emitter.fused:
        rest = emitter.op("fma", minus, divisor, f)
    else:
        back = _product(emitter, minus, divisor)
        rest = emitter.op("add", emitter.op("add", f, back.high), back.low)
    rest = emitter.op("fma", minus, lost, rest)
    return _Pair(high, emitter.op("mul", rest, inverse))


def _specials(emitter: Emitter, x: int, y: int, value: int) -> int:
    layout = format_of(emitter, x)
    zero, one, infinity = (emitter.const(number, x) for number in (0.0, 1.0, float("inf")))
    half = emitter.op("mul", y, emitter.const(0.5, y))
    is_integer = emitter.op("eq", emitter.op("floor", y), y)
    is_odd = emitter.op("and", is_integer, emitter.op("ne", emitter.op("floor", half), half))
    bits = emitter.bitcast(x, layout.integer)
    sign = emitter.op("and", bits, emitter.const(layout.sign_bit, bits))
    sign = emitter.op("select", is_odd, sign, emitter.const(0, bits))
    value = emitter.bitcast(emitter.op("xor", emitter.bitcast(value, layout.integer), sign), layout.dtype)
    negative = emitter.op("and", emitter.op("lt", x, zero), emitter.op("gt", x, emitter.op("neg", infinity)))
    broken = emitter.op("and", negative, emitter.op("not", is_integer))
    broken = emitter.op("or", broken, emitter.op("ne", x, x))
    value = emitter.op("select", broken, emitter.const(float("nan"), x), value)
    endless = emitter.op("eq", emitter.op("abs", y), infinity)
    minus_one = emitter.op("and", emitter.op("eq", x, emitter.op("neg", one)), endless)
    is_one = emitter.op("or", emitter.op("eq", y, zero), emitter.op("eq", x, one))
    return emitter.op("select", emitter.op("or", is_one, minus_one), one, value)
