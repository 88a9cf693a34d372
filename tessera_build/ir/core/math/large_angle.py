"""Reduction of large f32 angles by as many digits of 2/pi as they need (Payne and Hanek, 1983).

Takes |x| of f32; gives its quadrant, and its distance from the nearest multiple of pi/2 in f64. Invariant: integers
alone carry the product with 2/pi, modulo 4, to 62 bits after the point, of which no f32 loses more than 32 in r.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from tessera_build.ir.core.math.emitter import Emitter
from tessera_build.ir.core.types import F64, I32, I64

# 2/pi after the point in words of 32 bits, behind one of zeros.
TWO_OVER_PI_WORDS = (0, 0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041, 0xFE5163AB)
_WINDOW = 4  # words that meet the 24 bits of a number


@dataclass(frozen=True, slots=True)
class Angle:
    """x = (4 * turns + quadrant) * pi/2 + rest, `quadrant` an i32, `rest` an f64 in [-pi/4, pi/4]."""

    quadrant: int
    rest: int


def large_angle(emitter: Emitter, x: int) -> Angle:
    """The angle of a finite x >= 2**16; what others give means nothing."""
    bits = emitter.bitcast(x, I32)

    def small(value: int) -> int:
        return emitter.const(value, bits)

    # The window begins at the digit of 2/pi that x turns into the 2.
    place = emitter.op("sub", emitter.op("lshr", bits, small(23)), small(120))
    word = emitter.cast(emitter.op("ashr", place, small(5)), I64)
    offset = emitter.cast(emitter.op("and", place, small(31)), I64)
    mantissa = emitter.op("or", emitter.op("and", bits, small(0x7FFFFF)), small(0x800000))
    return _angle(emitter, emitter.cast(mantissa, I64), _digits(emitter, word, offset))


def _digits(emitter: Emitter, word: int, offset: int) -> list[int]:
    """Three words of 2/pi from bit `offset` of word `word` on."""
    choices = len(TWO_OVER_PI_WORDS) - _WINDOW + 1
    found: list[int] = []
    for ahead in range(_WINDOW):
        value = emitter.const(TWO_OVER_PI_WORDS[choices - 1 + ahead], word)
        for start in reversed(range(choices - 1)):
            is_here = emitter.op("eq", word, emitter.const(start, word))
            value = emitter.op("select", is_here, emitter.const(TWO_OVER_PI_WORDS[start + ahead], word), value)
        found.append(value)
    half = emitter.const(32, word)
    pairs = [emitter.op("or", emitter.op("shl", high, half), low) for high, low in itertools.pairwise(found)]
    return [emitter.op("lshr", emitter.op("shl", pair, offset), half) for pair in pairs]


def _angle(emitter: Emitter, mantissa: int, digits: list[int]) -> Angle:
    half = emitter.const(32, mantissa)
    high, middle, low = (emitter.op("mul", mantissa, digit) for digit in digits)
    product = emitter.op("add", emitter.op("shl", high, half), middle)
    product = emitter.op("add", product, emitter.op("lshr", low, half))
    # Two bits before the point are the quadrant; half a quadrant added makes it the nearest one.
    place = emitter.const(62, mantissa)
    quadrant = emitter.op("lshr", emitter.op("add", product, emitter.const(1 << 61, mantissa)), place)
    rest = emitter.cast(emitter.op("sub", product, emitter.op("shl", quadrant, place)), F64)
    return Angle(emitter.cast(quadrant, I32), emitter.op("mul", rest, emitter.const(math.pi / 2 * 2.0**-62, rest)))
