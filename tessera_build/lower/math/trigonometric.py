"""sin and cos.

Takes f32 or f64 values; gives values of that type. Invariant: no branch; the bound holds for every f32 and up to
|x| = 1e5 in f64, where the three parts of pi/2 (Cody and Waite's reduction) still cancel exactly. Beyond, f64 loses
digits and its result is only known to lie in [-1, 1]; infinities give NaN.
"""

from __future__ import annotations

from tessera_build.ir.core.types import F32
from tessera_build.lower.math.coefficients import COS, HALF_PI, SIN, TWO_OVER_PI
from tessera_build.lower.math.emitter import Emitter, format_of, polynomial
from tessera_build.lower.math.large_angle import large_angle

LIMIT = 1e5  # up to here, f32's parts of pi/2 cancel exactly


def sin(emitter: Emitter, x: int) -> int:
    """Sine within 2 ULP."""
    layout = format_of(emitter, x)
    value, quadrant = _quadrant_value(emitter, emitter.op("abs", x), 0)
    flips = emitter.op("shl", quadrant, emitter.const(layout.dtype.bits - 2, quadrant))
    sign = emitter.op("and", flips, emitter.const(layout.sign_bit, flips))
    bits = emitter.op("xor", emitter.bitcast(value, layout.integer), sign)
    given = emitter.op("and", emitter.bitcast(x, layout.integer), emitter.const(layout.sign_bit, bits))
    return emitter.bitcast(emitter.op("xor", bits, given), layout.dtype)


def cos(emitter: Emitter, x: int) -> int:
    """Cosine within 2 ULP: the sine one quadrant on."""
    layout = format_of(emitter, x)
    value, quadrant = _quadrant_value(emitter, emitter.op("abs", x), 1)
    flips = emitter.op("shl", quadrant, emitter.const(layout.dtype.bits - 2, quadrant))
    sign = emitter.op("and", flips, emitter.const(layout.sign_bit, flips))
    return emitter.bitcast(emitter.op("xor", emitter.bitcast(value, layout.integer), sign), layout.dtype)


def _quadrant_value(emitter: Emitter, x: int, shift: int) -> tuple[int, int]:
    """sin(r) in even quadrants, cos(r) in odd ones, and the quadrant plus `shift`; bit 1 of it is the sign."""
    name = emitter.dtype(x).name
    quadrant, r = reduced(emitter, x)
    quadrant = emitter.op("add", quadrant, emitter.const(shift, quadrant)) if shift else quadrant
    is_odd = odd(emitter, quadrant)
    return emitter.op("select", is_odd, cos_near_zero(emitter, r, name), sin_near_zero(emitter, r, name)), quadrant


def odd(emitter: Emitter, quadrant: int) -> int:
    """Whether sine and cosine change places."""
    bit = emitter.op("and", quadrant, emitter.const(1, quadrant))
    return emitter.op("ne", bit, emitter.const(0, bit))


def reduced(emitter: Emitter, x: int) -> tuple[int, int]:
    """The quadrant of an angle x >= 0 as an integer of its width, and the distance from the nearest one."""
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
    if layout.dtype != F32:
        return quadrant, r
    far = large_angle(emitter, x)
    beyond = emitter.op("gt", x, emitter.const(LIMIT, x))
    is_far = emitter.op("and", beyond, emitter.op("lt", x, emitter.const(float("inf"), x)))
    quadrant = emitter.op("select", is_far, far.quadrant, quadrant)
    return quadrant, emitter.op("select", is_far, emitter.cast(far.rest, F32), r)


def sin_near_zero(emitter: Emitter, r: int, name: str) -> int:
    """Sine of |r| <= pi/4."""
    square = emitter.op("mul", r, r)
    cube = emitter.op("mul", square, r)
    return emitter.op("fma", cube, polynomial(emitter, square, SIN[name]), r)


def cos_near_zero(emitter: Emitter, r: int, name: str) -> int:
    """Cosine of |r| <= pi/4."""
    square = emitter.op("mul", r, r)
    fourth = emitter.op("mul", square, square)
    less = emitter.op("fma", square, emitter.const(-0.5, r), emitter.const(1.0, r))
    return emitter.op("fma", fourth, polynomial(emitter, square, COS[name]), less)
