"""asin, acos, atan, tan, and the hyperbolic functions with their inverses, all computed in f64.

Takes f32 or f64 values; gives values of that type. Invariant: no table, no branch; f32 results are f64 results rounded
once, so their error is that of the rounding.
"""

from __future__ import annotations

from collections.abc import Callable

from tessera_build.ir.core.math import exponential, logarithm, trigonometric
from tessera_build.ir.core.math.coefficients import LN2_HIGH, LN2_LOW
from tessera_build.ir.core.math.coefficients_double import ASIN, ATAN, QUARTER_TURN, SINH
from tessera_build.ir.core.math.emitter import DOUBLE, Emitter, copy_sign, polynomial
from tessera_build.ir.core.types import F64, I64

_TAN_EIGHTH, _TAN_THREE_EIGHTHS = 0.41421356237309503, 2.414213562373095
# Beyond this, x*x + 1 is x*x and what log would lose to overflow is taken as log(x) + ln 2.
_LARGE = 2.0**28


def in_double(function: Callable[[Emitter, int], int]) -> Callable[[Emitter, int], int]:
    """The function of f64 values for f32 values as well."""

    def computed(emitter: Emitter, x: int) -> int:
        dtype = emitter.dtype(x)
        return function(emitter, x) if dtype == F64 else emitter.cast(function(emitter, emitter.cast(x, F64)), dtype)

    return computed


def _odd(emitter: Emitter, x: int, coefficients: tuple[float, ...]) -> int:
    """x + x**3 * polynomial(x**2)."""
    square = emitter.op("mul", x, x)
    return emitter.op("fma", emitter.op("mul", x, square), polynomial(emitter, square, coefficients), x)


def tan(emitter: Emitter, x: int) -> int:
    """Tangent as sine over cosine."""
    quadrant, r = trigonometric.reduced(emitter, emitter.op("abs", x))
    is_odd = trigonometric.odd(emitter, quadrant)
    sine, cosine = trigonometric.sin_near_zero(emitter, r, "f64"), trigonometric.cos_near_zero(emitter, r, "f64")
    above = emitter.op("select", is_odd, emitter.op("neg", cosine), sine)
    value = emitter.op("div", above, emitter.op("select", is_odd, sine, cosine))
    bits = emitter.bitcast(x, I64)
    sign = emitter.op("and", bits, emitter.const(DOUBLE.sign_bit, bits))
    return emitter.bitcast(emitter.op("xor", emitter.bitcast(value, I64), sign), F64)


def asin(emitter: Emitter, x: int) -> int:
    """Arcsine; beyond 1/2 by way of the half angle."""
    size = emitter.op("abs", x)
    high, low = (emitter.const(part, x) for part in QUARTER_TURN)
    doubled, rest = _half_angle(emitter, size)
    far = emitter.op("sub", high, emitter.op("sub", doubled, emitter.op("sub", low, rest)))
    near = _odd(emitter, size, ASIN)
    is_near = emitter.op("le", size, emitter.const(0.5, x))
    return copy_sign(emitter, emitter.op("select", is_near, near, far), x)


def acos(emitter: Emitter, x: int) -> int:
    """Arccosine: pi/2 - asin near zero, the half angle from 1 or from -1 elsewhere."""
    high, low = (emitter.const(part, x) for part in QUARTER_TURN)
    doubled, rest = _half_angle(emitter, emitter.op("abs", x))
    upper = emitter.op("add", doubled, rest)
    twice = emitter.op("add", high, high)
    lower = emitter.op("sub", twice, emitter.op("sub", upper, emitter.op("add", low, low)))
    far = emitter.op("select", emitter.op("lt", x, emitter.const(0.0, x)), lower, upper)
    near = emitter.op("sub", high, emitter.op("sub", _odd(emitter, x, ASIN), low))
    is_near = emitter.op("le", emitter.op("abs", x), emitter.const(0.5, x))
    return emitter.op("select", is_near, near, far)


def _half_angle(emitter: Emitter, size: int) -> tuple[int, int]:
    """2 asin(sqrt((1 - size) / 2)) as a number and what the square root left out; NaN for a size above 1."""
    half = emitter.const(0.5, size)
    inside = emitter.op("fma", emitter.op("neg", size), half, half)
    root = emitter.op("sqrt", inside)
    lost = emitter.op("fma", emitter.op("neg", root), root, inside)
    some = emitter.op("max", root, emitter.const(1e-300, root))
    angle = _odd(emitter, root, ASIN)
    return emitter.op("add", angle, angle), emitter.op("div", lost, some)


def atan(emitter: Emitter, x: int) -> int:
    """Arctangent, reduced to |r| <= tan(pi/8) by atan(x) = pi/4 + atan((x-1)/(x+1)) = pi/2 - atan(1/x)."""
    size = emitter.op("abs", x)
    one = emitter.const(1.0, x)
    is_far = emitter.op("gt", size, emitter.const(_TAN_THREE_EIGHTHS, x))
    is_near = emitter.op("le", size, emitter.const(_TAN_EIGHTH, x))
    above = emitter.op("select", is_far, emitter.op("neg", one), emitter.op("sub", size, one))
    below = emitter.op("select", is_far, size, emitter.op("add", size, one))
    reduced = emitter.op("select", is_near, size, emitter.op("div", above, below))
    base, rest = (
        emitter.op(
            "select",
            is_near,
            emitter.const(0.0, x),
            emitter.op("select", is_far, emitter.const(part, x), emitter.const(part / 2, x)),
        )
        for part in QUARTER_TURN
    )
    square = emitter.op("mul", reduced, reduced)
    tail = emitter.op("mul", emitter.op("mul", reduced, square), polynomial(emitter, square, ATAN))
    angle = emitter.op("add", base, emitter.op("add", reduced, emitter.op("add", tail, rest)))
    return copy_sign(emitter, angle, x)


def sinh(emitter: Emitter, x: int) -> int:
    """(e**x - e**-x) / 2, and a polynomial below 1 where that cancels."""
    size = emitter.op("abs", x)
    growing, falling = _halves(emitter, size)
    near = _odd(emitter, emitter.op("min", size, emitter.const(1.0, x)), SINH)
    is_near = emitter.op("lt", size, emitter.const(1.0, x))
    return copy_sign(emitter, emitter.op("select", is_near, near, emitter.op("sub", growing, falling)), x)


def cosh(emitter: Emitter, x: int) -> int:
    """(e**x + e**-x) / 2."""
    growing, falling = _halves(emitter, emitter.op("abs", x))
    return emitter.op("add", growing, falling)


def _halves(emitter: Emitter, size: int) -> tuple[int, int]:
    """e**size / 2 and e**-size / 2; the first overflows where the sum does, not where e**size does."""
    half = emitter.const(0.5, size)
    root = exponential.exp(emitter, emitter.op("mul", size, half))
    growing = emitter.op("mul", emitter.op("mul", root, half), root)
    return growing, emitter.op("div", emitter.const(0.25, size), growing)


def asinh(emitter: Emitter, x: int) -> int:
    """log(|x| + sqrt(x**2 + 1)) with the sign of x."""
    size = emitter.op("abs", x)
    one = emitter.const(1.0, x)
    bounded = emitter.op("min", size, emitter.const(_LARGE, x))
    square = emitter.op("mul", bounded, bounded)
    root = emitter.op("sqrt", emitter.op("add", square, one))
    beyond = emitter.op("add", bounded, emitter.op("div", square, emitter.op("add", root, one)))
    near = _log_of_one_and(emitter, beyond)
    is_near = emitter.op("lt", size, emitter.const(_LARGE, x))
    return copy_sign(emitter, emitter.op("select", is_near, near, _log_of_twice(emitter, size)), x)


def acosh(emitter: Emitter, x: int) -> int:
    """log(x + sqrt(x**2 - 1)); NaN below 1."""
    one = emitter.const(1.0, x)
    beyond = emitter.op("sub", emitter.op("min", x, emitter.const(_LARGE, x)), one)
    twice = emitter.op("add", beyond, beyond)
    root = emitter.op("sqrt", emitter.op("fma", beyond, beyond, twice))
    near = _log_of_one_and(emitter, emitter.op("add", beyond, root))
    value = emitter.op("select", emitter.op("lt", x, emitter.const(_LARGE, x)), near, _log_of_twice(emitter, x))
    return emitter.op("select", emitter.op("lt", x, one), emitter.const(float("nan"), x), value)


def atanh(emitter: Emitter, x: int) -> int:
    """log((1 + |x|) / (1 - |x|)) / 2 with the sign of x: infinite at 1, NaN beyond."""
    size = emitter.op("abs", x)
    one = emitter.const(1.0, x)
    beyond = emitter.op("div", emitter.op("add", size, size), emitter.op("sub", one, size))
    value = emitter.op("mul", _log_of_one_and(emitter, beyond), emitter.const(0.5, x))
    outside = emitter.op("gt", size, one)
    return copy_sign(emitter, emitter.op("select", outside, emitter.const(float("nan"), x), value), x)


def _log_of_one_and(emitter: Emitter, u: int) -> int:
    """log(1 + u) for u >= 0: the logarithm of the rounded sum, corrected by what the sum left out."""
    total = emitter.op("add", u, emitter.const(1.0, u))
    lost = emitter.op("sub", u, emitter.op("sub", total, emitter.const(1.0, u)))
    value = emitter.op("add", logarithm.log(emitter, total), emitter.op("div", lost, total))
    return emitter.op("select", emitter.op("lt", total, emitter.const(float("inf"), u)), value, total)


def _log_of_twice(emitter: Emitter, x: int) -> int:
    """log(2 x) for a large x that may have no double."""
    low = emitter.op("add", logarithm.log(emitter, x), emitter.const(LN2_LOW["f64"], x))
    return emitter.op("add", low, emitter.const(LN2_HIGH["f64"], x))
