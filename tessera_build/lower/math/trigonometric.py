"""sin and cos.

Takes f32 or f64 values; gives values of that type. Invariant: no table, no branch; the bound holds up to |x| = 1e5,
where the three parts of pi/2 (Cody and Waite's reduction) still cancel exactly. Beyond, digits are lost and the
result is only known to lie in [-1, 1]; infinities give NaN.
"""

from __future__ import annotations

from tessera_build.lower.math.coefficients import COS, HALF_PI, SIN, TWO_OVER_PI
from tessera_build.lower.math.emitter import Emitter, format_of, polynomial


def sin(emitter: Emitter, x: int) -> int:
    """Sine within 2 ULP for |x| <= 1e5."""
    layout = format_of(emitter, x)
    value, quadrant = _quadrant_value(emitter, emitter.op("abs", x), 0)
    flips = emitter.op("shl", quadrant, emitter.const(layout.dtype.bits - 2, quadrant))
    sign = emitter.op("and", flips, emitter.const(layout.sign_bit, flips))
    bits = emitter.op("xor", emitter.bitcast(value, layout.integer), sign)
    given = emitter.op("and", emitter.bitcast(x, layout.integer), emitter.const(layout.sign_bit, bits))
    return emitter.bitcast(emitter.op("xor", bits, given), layout.dtype)


def cos(emitter: Emitter, x: int) -> int:
    """Cosine within 2 ULP for |x| <= 1e5: the sine one quadrant on."""
    layout = format_of(emitter, x)
    value, quadrant = _quadrant_value(emitter, emitter.op("abs", x), 1)
    flips = emitter.op("shl", quadrant, emitter.const(layout.dtype.bits - 2, quadrant))
    sign = emitter.op("and", flips, emitter.const(layout.sign_bit, flips))
    return emitter.bitcast(emitter.op("xor", emitter.bitcast(value, layout.integer), sign), layout.dtype)


def _quadrant_value(emitter: Emitter, x: int, shift: int) -> tuple[int, int]:
    """sin(r) in even quadrants, cos(r) in odd ones, and the quadrant plus `shift`; bit 1 of it is the sign."""
    layout = format_of(emitter, x)
    name = layout.dtype.name
    magic = emitter.const(layout.magic, x)
    shifted = emitter.op("fma", x, emitter.const(TWO_OVER_PI[name], x), magic)
    n = emitter.op("sub", shifted, magic)
    r = x
    for part in HALF_PI[name]:
        r = emitter.op("fma", n, emitter.const(-part, x), r)
    limit = emitter.const(1.0, x)
    r = emitter.op("max", emitter.op("min", r, limit), emitter.op("neg", limit))
    quadrant = emitter.bitcast(shifted, layout.integer)
    quadrant = emitter.op("add", quadrant, emitter.const(shift, quadrant)) if shift else quadrant
    odd = emitter.op("and", quadrant, emitter.const(1, quadrant))
    is_odd = emitter.op("ne", odd, emitter.const(0, odd))
    return emitter.op("select", is_odd, _cos_near_zero(emitter, r, name), _sin_near_zero(emitter, r, name)), quadrant


def _sin_near_zero(emitter: Emitter, r: int, name: str) -> int:
    square = emitter.op("mul", r, r)
    cube = emitter.op("mul", square, r)
    return emitter.op("fma", cube, polynomial(emitter, square, SIN[name]), r)


def _cos_near_zero(emitter: Emitter, r: int, name: str) -> int:
    square = emitter.op("mul", r, r)
    fourth = emitter.op("mul", square, square)
    less = emitter.op("fma", square, emitter.const(-0.5, r), emitter.const(1.0, r))
    return emitter.op("fma", fourth, polynomial(emitter, square, COS[name]), less)
