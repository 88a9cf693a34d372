"""exp and what is made of it: tanh, sigmoid, erf.

Takes f32 or f64 values; gives values of that type. Invariant: no table, no branch; a NaN comes out as a NaN, because
clamps keep their first operand when it is one and the powers of two are multiplied in, not added to the bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tessera_build.ir.core.math.coefficients import ERF, ERF_SLOPE_LOW, EXP, EXPM1, LN2_HIGH, LN2_LOW, LOG2_E
from tessera_build.ir.core.math.coefficients_double import ERF_FAR, ERF_HALF, ERF_MIDDLE, ERF_NEAR, ERF_SLOPE
from tessera_build.ir.core.math.emitter import Emitter, Format, copy_sign, format_of, polynomial, power_of_two
from tessera_build.ir.core.types import F32

# Beyond these, results are zero and infinity; between them, both halves of 2**n are normal numbers.
_EXP_RANGE = {"f32": (-104.0, 89.0), "f64": (-746.0, 710.0)}


@dataclass(frozen=True, slots=True)
class _Reduced:
    """x = n ln 2 + r, `r` in [-ln2/2, ln2/2]: `whole` is n as a float, `shifted` has it in the low bits."""

    shifted: int
    whole: int
    r: int

    def number(self, emitter: Emitter, layout: Format) -> int:
        """n as an integer."""
        bits = emitter.bitcast(self.shifted, layout.integer)
        return emitter.op("sub", bits, emitter.const(layout.magic_bits, bits))


def _reduce(emitter: Emitter, x: int, layout: Format) -> _Reduced:
    name = layout.dtype.name
    magic = emitter.const(layout.magic, x)
    shifted = emitter.op("fma", x, emitter.const(LOG2_E[name], x), magic)
    rounded = emitter.op("sub", shifted, magic)
    partly = emitter.op("fma", rounded, emitter.const(-LN2_HIGH[name], x), x)
    r = emitter.op("fma", rounded, emitter.const(-LN2_LOW[name], x), partly)
    return _Reduced(shifted, rounded, r)


def exp(emitter: Emitter, x: int) -> int:
    """e**x within 1 ULP (1.25 without fused multiply-adds), overflow to infinity and gradual underflow included."""
    layout = format_of(emitter, x)
    low, high = _EXP_RANGE[layout.dtype.name]
    # Scaling needs no bound above: the polynomial, of even degree, is positive wherever a large x leaves the rest, and
    # where x is infinite that rest is NaN, whose scaling by infinity is infinite. Below, 0 * infinity would be wrong.
    above = emitter.scales(x) and layout.dtype == F32
    below = x if above else emitter.op("min", x, emitter.const(high, x))
    return _exp_bounded(emitter, emitter.op("max", below, emitter.const(low, x)), layout)


def _exp_bounded(emitter: Emitter, x: int, layout: Format) -> int:
    return _exp_reduced(emitter, _reduce(emitter, x, layout), layout)


def _exp_reduced(emitter: Emitter, reduced: _Reduced, layout: Format) -> int:
    value = polynomial(emitter, reduced.r, EXP[layout.dtype.name])
    if emitter.scales(value):
        return emitter.op("scale", value, reduced.whole)
    # 2**n in two factors: one alone leaves the normal range at both ends. The first product is exact, so that the
    # second one rounds as `scale` does.
    n = reduced.number(emitter, layout)
    half = emitter.op("ashr", n, emitter.const(1, n))
    rest = emitter.op("sub", n, half)
    value = emitter.op("mul", value, power_of_two(emitter, half, layout))
    return emitter.op("mul", value, power_of_two(emitter, rest, layout))


def exp_of_sum(emitter: Emitter, high: int, low: int) -> int:
    """e**(high + low), where low is a correction below the last place of high."""
    layout = format_of(emitter, high)
    floor, ceiling = _EXP_RANGE[layout.dtype.name]
    bounded = emitter.op("max", emitter.op("min", high, emitter.const(ceiling, high)), emitter.const(floor, high))
    reduced = _reduce(emitter, bounded, layout)
    # Where high was cut, low may be anything, a NaN included.
    kept = emitter.op("select", emitter.op("eq", bounded, high), low, emitter.const(0.0, high))
    return _exp_reduced(emitter, replace(reduced, r=emitter.op("add", reduced.r, kept)), layout)


def _expm1_bounded(emitter: Emitter, x: int, layout: Format) -> int:
    """e**x - 1 for x between -2**7 and 2**7; relative error small near zero as well."""
    reduced = _reduce(emitter, x, layout)
    tail = polynomial(emitter, reduced.r, EXPM1[layout.dtype.name][1:])
    square = emitter.op("mul", reduced.r, reduced.r)
    small = emitter.op("fma", square, tail, reduced.r)
    scale = power_of_two(emitter, reduced.number(emitter, layout), layout)
    return emitter.op("fma", small, scale, emitter.op("sub", scale, emitter.const(1.0, x)))


def tanh(emitter: Emitter, x: int) -> int:
    """tanh(x) within 2.5 ULP, as (e**2|x| - 1) / (e**2|x| + 1)."""
    layout = format_of(emitter, x)
    limit = 10.0 if layout.mantissa_bits == 23 else 20.0
    bounded = emitter.op("min", emitter.op("abs", x), emitter.const(limit, x))
    grown = _expm1_bounded(emitter, emitter.op("add", bounded, bounded), layout)
    ratio = emitter.op("div", grown, emitter.op("add", grown, emitter.const(2.0, x)))
    return copy_sign(emitter, ratio, x)


def sigmoid(emitter: Emitter, x: int) -> int:
    """1 / (1 + e**-x) within 2.5 ULP; e**-|x| never overflows, and small results keep their digits."""
    layout = format_of(emitter, x)
    low, _ = _EXP_RANGE[layout.dtype.name]
    negative = emitter.op("max", emitter.op("neg", emitter.op("abs", x)), emitter.const(low, x))
    small = _exp_bounded(emitter, negative, layout)
    one = emitter.const(1.0, x)
    above = emitter.op("select", emitter.op("lt", x, emitter.const(0.0, x)), small, one)
    return emitter.op("div", above, emitter.op("add", small, one))


def erf(emitter: Emitter, x: int) -> int:
    """The error function within 2 ULP, as 1 - e**-q with q = -log(1 - erf|x|), |x| times a polynomial in |x|."""
    layout = format_of(emitter, x)
    name = layout.dtype.name
    if name == "f64":
        return _erf_double(emitter, x)
    bounded = emitter.op("min", emitter.op("abs", x), emitter.const(3.95, x))
    first, *rest = ERF[name]
    # 2/sqrt(pi) in two parts: its rounding alone would be 0.4 ULP of every small result.
    slope = emitter.op("fma", bounded, polynomial(emitter, bounded, tuple(rest)), emitter.const(ERF_SLOPE_LOW[name], x))
    minus = emitter.op("neg", bounded)
    exponent = emitter.op("fma", minus, emitter.const(first, x), emitter.op("mul", minus, slope))
    # abs, not neg: at zero the difference is +0 already.
    return copy_sign(emitter, emitter.op("abs", _expm1_bounded(emitter, exponent, layout)), x)


def _erf_double(emitter: Emitter, x: int) -> int:
    """An odd polynomial up to 1; beyond, 1 - e**-x**2 * g, where the factor after 1 makes errors of both small."""
    one = emitter.const(1.0, x)
    size = emitter.op("abs", x)
    near, far = emitter.op("min", size, one), emitter.op("min", size, emitter.const(5.95, x))
    high, low = (emitter.const(part, x) for part in ERF_SLOPE)
    square = emitter.op("mul", near, near)
    bent = emitter.op("mul", emitter.op("mul", near, square), polynomial(emitter, square, ERF_NEAR))
    # 2/sqrt(pi) in two parts, as for f32.
    rest = emitter.op("fma", near, low, emitter.op("mul", bent, high))
    small = emitter.op("fma", near, high, rest)
    t = emitter.op("mul", emitter.op("sub", far, emitter.const(ERF_MIDDLE, x)), emitter.const(1 / ERF_HALF, x))
    falling = _exp_bounded(emitter, emitter.op("neg", emitter.op("mul", far, far)), format_of(emitter, x))
    large = emitter.op("fma", emitter.op("neg", falling), polynomial(emitter, t, ERF_FAR), one)
    return copy_sign(emitter, emitter.op("select", emitter.op("gt", size, one), large, small), x)
