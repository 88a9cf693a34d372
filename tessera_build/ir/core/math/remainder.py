"""Remainders of a division: `rem` with the sign of the dividend, `mod` with that of the divisor.

Takes values of any numeric type; gives values of that type. Invariant: exact, whatever the quotient's size, as C's fmod
and numpy's mod are; by zero, floats give NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

from tessera_build.ir.core.math.emitter import Emitter, copy_sign
from tessera_build.ir.core.types import F32, F64, I64

_LARGEST_POWER = 1000


@dataclass(frozen=True, slots=True)
class _Division:
    """How many bits the largest quotient has, how many one step takes off, and whether divisors fill their type.

    A step's product must be exact without a fused multiply-add, which not every machine has: 28 bits times the 24 of
    an f32 are exact in f64, and so are 26 times each half of an f64.
    """

    quotient_bits: int
    step: int
    halves: bool


_OF_SINGLE = _Division(277, 28, halves=False)
_OF_DOUBLE = _Division(2098, 26, halves=True)


def rem(emitter: Emitter, left: int, right: int) -> int:
    """left - trunc(left / right) * right."""
    dtype = emitter.dtype(left)
    if not dtype.is_float:
        return emitter.op("rem", left, right)
    if dtype == F32:
        operands = emitter.cast(left, F64), emitter.cast(right, F64)
        return emitter.cast(_float_rem(emitter, operands, _OF_SINGLE), F32)
    return _float_rem(emitter, (left, right), _OF_DOUBLE)


def mod(emitter: Emitter, left: int, right: int) -> int:
    """left - floor(left / right) * right."""
    remainder, dtype = rem(emitter, left, right), emitter.dtype(left)
    if dtype.kind == "unsigned":
        return remainder
    zero = emitter.const(0, left)
    negative = emitter.op("lt", remainder, zero), emitter.op("lt", right, zero)
    wrong = emitter.op("and", emitter.op("xor", *negative), emitter.op("ne", remainder, zero))
    moved = emitter.op("select", wrong, emitter.op("add", remainder, right), remainder)
    if not dtype.is_float:
        return moved
    # numpy gives an empty remainder the divisor's sign.
    empty = copy_sign(emitter, emitter.op("abs", remainder), right)
    return emitter.op("select", emitter.op("eq", remainder, zero), empty, moved)


def _float_rem(emitter: Emitter, operands: tuple[int, int], division: _Division) -> int:
    """Long division, some bits of the quotient a step; each difference is a number of the format, hence exact."""
    left, right = operands
    size, divisor = emitter.op("abs", left), emitter.op("abs", right)
    rest = size
    for power in range(division.quotient_bits // division.step * division.step, -1, -division.step):
        scaled = divisor
        for done in range(0, power, _LARGEST_POWER):  # 2**power itself may be no number
            factor = 2.0 ** min(power - done, _LARGEST_POWER)
            scaled = emitter.op("mul", scaled, emitter.const(factor, left))
        rest = _reduced(emitter, rest, scaled, division.halves)
    infinity = emitter.const(float("inf"), left)
    defined = emitter.op("and", emitter.op("lt", size, infinity), emitter.op("gt", divisor, emitter.const(0.0, left)))
    return copy_sign(emitter, emitter.op("select", defined, rest, emitter.const(float("nan"), left)), left)


def _reduced(emitter: Emitter, rest: int, divisor: int, halves: bool) -> int:
    quotient = emitter.op("floor", emitter.op("div", rest, divisor))
    parts = _halves(emitter, divisor) if halves else (divisor,)
    less = rest
    for part in parts:
        less = emitter.op("sub", less, emitter.op("mul", quotient, part))
    # The rounded quotient may have reached the next integer.
    below = emitter.op("lt", less, emitter.const(0.0, rest))
    less = emitter.op("select", below, emitter.op("add", less, divisor), less)
    return emitter.op("select", emitter.op("ge", rest, divisor), less, rest)


def _halves(emitter: Emitter, x: int) -> tuple[int, int]:
    """An f64 as the sum of its upper 26 bits and the rest."""
    bits = emitter.bitcast(x, I64)
    high = emitter.bitcast(emitter.op("and", bits, emitter.const(-(1 << 27), bits)), F64)
    return high, emitter.op("sub", x, high)
