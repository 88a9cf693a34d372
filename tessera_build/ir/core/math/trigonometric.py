"""sin and cos.

Takes f32 or f64 values; gives values of that type. Invariant: the bound holds for every number: up to `LIMIT` parts
of pi/2 cancel exactly (Cody and Waite's reduction), beyond, integers multiply by the digits of 2/pi that matter, in a
branch that vectors of small numbers skip; infinities give NaN.
"""

from __future__ import annotations

from tessera_build.ir.core.math.coefficients import COS, HALF_PI, SHORT_HALF_PI, SIN, TWO_OVER_PI
from tessera_build.ir.core.math.emitter import Emitter, format_of, polynomial
from tessera_build.ir.core.math.large_angle import large_angle
from tessera_build.ir.core.math.large_double_angle import large_double_angle
from tessera_build.ir.core.types import F32, F64

LIMIT = {"f32": 1e5, "f64": 2.0**22}  # up to here, the parts of pi/2 cancel exactly


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
    magic = emitter.const(layout.magic, x)
    shifted = emitter.op("fma", x, emitter.const(TWO_OVER_PI[layout.dtype.name], x), magic)
    n = emitter.op("sub", shifted, magic)
    limit = emitter.const(1.0, x)
    r = _beyond_quadrants(emitter, x, n)
    r = emitter.op("max", emitter.op("min", r, limit), emitter.op("neg", limit))
    quadrant = emitter.bitcast(shifted, layout.integer)
    beyond = emitter.op("gt", x, emitter.const(LIMIT[layout.dtype.name], x))
    is_far = emitter.op("and", beyond, emitter.op("lt", x, emitter.const(float("inf"), x)))
    quadrant, r = emitter.rarely(is_far, lambda: _far(emitter, x), (quadrant, r))
    return quadrant, r


def _beyond_quadrants(emitter: Emitter, x: int, n: int) -> int:
    """x - n * pi/2 for a whole n below 2**22; every product is exact, as is each difference that cancels."""
    dtype = emitter.dtype(x)
    if emitter.fused:
        for part in HALF_PI[dtype.name]:
            x = emitter.op("fma", n, emitter.const(-part, x), x)
        return x
    x, n = emitter.cast(x, F64), emitter.cast(n, F64)
    for part in HALF_PI[F32.name] if dtype == F32 else SHORT_HALF_PI:
        x = emitter.op("sub", x, emitter.op("mul", n, emitter.const(part, x)))
    return emitter.cast(x, dtype)


def _far(emitter: Emitter, x: int) -> tuple[int, int]:
    if emitter.dtype(x) == F64:
        return large_double_angle(emitter, x)
    far = large_angle(emitter, x)
    return far.quadrant, emitter.cast(far.rest, F32)


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
