"""Reduction of large f64 angles by as many digits of 2/pi as they need (Payne and Hanek, 1983).

Takes |x| of f64; gives its quadrant, and its distance from the nearest multiple of pi/2. Invariant: integers alone
carry the product with 2/pi, modulo 4, to 126 bits after the point; the f64 nearest to a multiple of pi/2 loses 61 of
them, and what is left is rounded once.
"""

from __future__ import annotations

import itertools

from tessera_build.ir.core.math.coefficients import HALF_PI
from tessera_build.ir.core.math.emitter import DOUBLE, Emitter
from tessera_build.ir.core.types import F64, I64

# 2/pi after the point, as many digits as the largest double needs.
TWO_OVER_PI_DIGITS = (
    "A2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163ABDEBBC561B7246E3A424DD2E006492EEA"
    "09D1921CFE1DEB1CB129A73EE88235F52EBB4484E99C7026B45F7E413991D639835339F49C845F8BBDF9283B"
    "1FF897FFDE05980FEF2F118B5A0A6D1F6D367ECF27CB09B74F463F669E5FEA2D7527BAC7EBE5F17B3D0739F7"
    "8A5292EA6BFB5FB11F8D5D0856033046"
)
_WORDS = (0, *(int(TWO_OVER_PI_DIGITS[place : place + 8], 16) for place in range(0, len(TWO_OVER_PI_DIGITS), 8)))
_WINDOW = 6  # words that meet the 53 bits of a number
_FIRST = 1045  # the biased exponent whose window begins at the first word
_HALF = 0xFFFFFFFF


def large_double_angle(emitter: Emitter, x: int) -> tuple[int, int]:
    """The quadrant as i64 and the rest in [-pi/4, pi/4] of a finite x >= 2**22; what others give means nothing."""
    bits = emitter.bitcast(x, I64)
    place = emitter.op("sub", emitter.op("lshr", bits, emitter.const(52, bits)), emitter.const(_FIRST, bits))
    fraction = emitter.op("and", bits, emitter.const((1 << 52) - 1, bits))
    mantissa = emitter.op("or", fraction, emitter.const(1 << 52, bits))
    top, bottom = _turns(emitter, mantissa, _digits(emitter, place))
    # Two bits before the point are the quadrant; half a quadrant added makes it the nearest one.
    before = emitter.const(62, bits)
    quadrant = emitter.op("lshr", emitter.op("add", top, emitter.const(1 << 61, bits)), before)
    return quadrant, _rest(emitter, emitter.op("sub", top, emitter.op("shl", quadrant, before)), bottom)


def _digits(emitter: Emitter, place: int) -> list[int]:
    """Six words of 2/pi from bit `place` on: the words that begin there are moved forward by halves of their number."""
    found = [emitter.const(word, place) for word in _WORDS]
    for bit in (9, 8, 7, 6, 5):
        distance = 1 << (bit - 5)
        chosen = emitter.op("and", place, emitter.const(1 << bit, place))
        is_later = emitter.op("ne", chosen, emitter.const(0, place))
        kept = range(_WINDOW + distance)
        found = [emitter.op("select", is_later, found[i + distance], found[i]) for i in kept]
    half, offset = emitter.const(32, place), emitter.op("and", place, emitter.const(31, place))
    pairs = [emitter.op("or", emitter.op("shl", high, half), low) for high, low in itertools.pairwise(found)]
    return [emitter.op("lshr", emitter.op("shl", pair, offset), half) for pair in pairs]


def _turns(emitter: Emitter, mantissa: int, digits: list[int]) -> tuple[int, int]:
    """The product of a number and a window after its point, to 128 bits: turns without the whole ones."""
    low_mantissa, high_mantissa = _low(emitter, mantissa), _high(emitter, mantissa)
    low = [emitter.op("mul", low_mantissa, digit) for digit in digits]
    high = [emitter.op("mul", high_mantissa, digit) for digit in digits]
    columns: list[int] = []
    carry: int | None = None
    for column in reversed(range(1, _WINDOW)):
        parts = [_low(emitter, low[column - 1]), _high(emitter, low[column]), _low(emitter, high[column])]
        parts += [_high(emitter, high[column + 1])] if column + 1 < _WINDOW else []
        parts += [] if carry is None else [_high(emitter, carry)]
        carry = parts[0]
        for part in parts[1:]:
            carry = emitter.op("add", carry, part)
        columns.insert(0, carry)
    half = emitter.const(32, mantissa)
    first, second, third, fourth = columns[:4]
    top = emitter.op("or", emitter.op("shl", first, half), _low(emitter, second))
    return top, emitter.op("or", emitter.op("shl", third, half), _low(emitter, fourth))


def _rest(emitter: Emitter, top: int, bottom: int) -> int:
    """A signed number of 128 bits, 126 of them after the point, times pi/2: no part of it is negative on the way."""
    sign = emitter.op("ashr", top, emitter.const(63, top))
    top, bottom = emitter.op("xor", top, sign), emitter.op("xor", bottom, sign)
    words = [_high(emitter, top), _low(emitter, top), _high(emitter, bottom), _low(emitter, bottom)]
    parts = [_scaled(emitter, word, -30 - 32 * position) for position, word in enumerate(words)]
    total, lost = _added(emitter, parts[0], parts[1])
    lost = emitter.op("add", lost, emitter.op("add", parts[2], parts[3]))
    total, lost = _added(emitter, total, lost)
    half_pi, remainder = (emitter.const(part, total) for part in HALF_PI[F64.name][:2])
    angle = emitter.op("mul", total, half_pi)
    error = emitter.op("fma", total, half_pi, emitter.op("neg", angle))
    error = emitter.op("fma", lost, half_pi, emitter.op("fma", total, remainder, error))
    size = emitter.bitcast(emitter.op("add", angle, error), I64)
    return emitter.bitcast(emitter.op("xor", size, emitter.op("and", sign, emitter.const(DOUBLE.sign_bit, sign))), F64)


def _scaled(emitter: Emitter, word: int, exponent: int) -> int:
    """A word of 32 bits times a power of two: the last bits of a number whose last bit is that power."""
    base = 2.0 ** (52 + exponent)
    bits = emitter.const((DOUBLE.bias + 52 + exponent) << 52, word)
    number = emitter.bitcast(emitter.op("or", word, bits), F64)
    return emitter.op("sub", number, emitter.const(base, number))


def _added(emitter: Emitter, large: int, small: int) -> tuple[int, int]:
    """A sum, and what rounding it left out."""
    total = emitter.op("add", large, small)
    return total, emitter.op("sub", small, emitter.op("sub", total, large))


def _low(emitter: Emitter, value: int) -> int:
    return emitter.op("and", value, emitter.const(_HALF, value))


def _high(emitter: Emitter, value: int) -> int:
    return emitter.op("lshr", value, emitter.const(32, value))
