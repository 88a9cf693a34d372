"""log and pow.

Takes f32 or f64 values; gives values of that type. Invariant: no table, no branch; special values are put in by
selects at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

from tessera_build.ir.core.math.coefficients import LN2_HIGH, LN2_LOW, LOG
from tessera_build.ir.core.math.emitter import Emitter, Format, format_of, polynomial

_ROOT_HALF_BITS = {"f32": 0x3F3504F3, "f64": 0x3FE6A09E667F3BCD}


@dataclass(frozen=True, slots=True)
class Parts:
    """x = m * 2**e with m in [sqrt(1/2), sqrt(2)): `fraction` is m - 1, exactly; `exponent` is e as a float."""

    fraction: int
    exponent: int


def take_apart(emitter: Emitter, x: int, layout: Format) -> Parts:
    """Split a positive finite value, denormal ones included; what others give means nothing."""
    smallest = emitter.const(2.0 ** (1 - layout.bias), x)
    denormal = emitter.op("lt", x, smallest)
    lift = layout.mantissa_bits + 1
    scaled = emitter.op("select", denormal, emitter.op("mul", x, emitter.const(2.0**lift, x)), x)
    bits = emitter.bitcast(scaled, layout.integer)
    above = emitter.op("sub", bits, emitter.const(_ROOT_HALF_BITS[layout.dtype.name], bits))
    exponent = emitter.op("ashr", above, emitter.const(layout.mantissa_bits, bits))
    taken = emitter.op("shl", exponent, emitter.const(layout.mantissa_bits, bits))
    mantissa = emitter.bitcast(emitter.op("sub", bits, taken), layout.dtype)
    fraction = emitter.op("sub", mantissa, emitter.const(1.0, x))
    number = emitter.cast(exponent, layout.dtype)
    lowered = emitter.op("sub", number, emitter.const(float(lift), x))
    return Parts(fraction, emitter.op("select", denormal, lowered, number))


def log(emitter: Emitter, x: int) -> int:
    """Natural logarithm within 1 ULP: -inf at zero, NaN below."""
    layout = format_of(emitter, x)
    name = layout.dtype.name
    parts = take_apart(emitter, x, layout)
    f = parts.fraction
    # log(1 + f) = f - s * (f - s**2 * ...) would lose digits in s; f - f**2/2 + s * (f**2/2 + z * tail(z)) does not.
    s = emitter.op("div", f, emitter.op("add", f, emitter.const(2.0, x)))
    z = emitter.op("mul", s, s)
    tail = emitter.op("mul", z, polynomial(emitter, z, LOG[name]))
    half_square = emitter.op("mul", emitter.op("mul", f, f), emitter.const(0.5, x))
    low = emitter.op("mul", parts.exponent, emitter.const(LN2_LOW[name], x))
    correction = emitter.op("fma", s, emitter.op("add", half_square, tail), low)
    high = emitter.op("mul", parts.exponent, emitter.const(LN2_HIGH[name], x))
    # The leading sum is kept exact as total + lost: |high| > |f| wherever high is not zero.
    total = emitter.op("add", high, f)
    lost = emitter.op("add", emitter.op("sub", high, total), f)
    rest = emitter.op("add", lost, emitter.op("sub", correction, half_square))
    return _log_specials(emitter, x, emitter.op("add", total, rest))


def _log_specials(emitter: Emitter, x: int, value: int) -> int:
    zero, infinity = emitter.const(0.0, x), emitter.const(float("inf"), x)
    minus, nothing = emitter.const(float("-inf"), x), emitter.const(float("nan"), x)
    at_zero = emitter.op("select", emitter.op("eq", x, zero), minus, nothing)
    value = emitter.op("select", emitter.op("gt", x, zero), value, at_zero)
    return emitter.op("select", emitter.op("lt", x, infinity), value, x)
