"""Remainders of a division: `rem` with the sign of the dividend, `mod` with that of the divisor.

Takes values of any numeric type; gives values of that type. Invariant: exact, whatever the quotient's size, as C's fmod
and numpy's mod are; by zero, floats give NaN.
"""

from __future__ import annotations

from tessera_build.ir.core.types import F32, F64
from tessera_build.lower.math.emitter import Emitter, copy_sign

# Bits of quotient that one step takes off, and those that the largest quotient of a type has.
_STEP = 50
_LARGEST_POWER = 1000
_QUOTIENT_BITS = {"f32": 277, "f64": 2098}


def rem(emitter: Emitter, left: int, right: int) -> int:
    """left - trunc(left / right) * right."""
    dtype = emitter.dtype(left)
    if not dtype.is_float:
        return emitter.op("rem", left, right)
    if dtype == F32:
        operands = emitter.cast(left, F64), emitter.cast(right, F64)
        return emitter.cast(_float_rem(emitter, operands, _QUOTIENT_BITS["f32"]), F32)
    return _float_rem(emitter, (left, right), _QUOTIENT_BITS["f64"])


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


def _float_rem(emitter: Emitter, operands: tuple[int, int], quotient_bits: int) -> int:
    """Long division, some bits of the quotient a step; each difference is a number of the format, hence exact."""
    left, right = operands
    size, divisor = emitter.op("abs", left), emitter.op("abs", right)
    rest = size
    for power in range(quotient_bits // _STEP * _STEP, -1, -_STEP):
        scaled = divisor
        for done in range(0, power, _LARGEST_POWER):  # 2**power itself may be no number
            factor = 2.0 ** min(power - done, _LARGEST_POWER)
            scaled = emitter.op("mul", scaled, emitter.const(factor, left))
        rest = _reduced(emitter, rest, scaled)
    infinity = emitter.const(float("inf"), left)
    defined = emitter.op("and", emitter.op("lt", size, infinity), emitter.op("gt", divisor, emitter.const(0.0, left)))
    return copy_sign(emitter, emitter.op("select", defined, rest, emitter.const(float("nan"), left)), left)


def _reduced(emitter: Emitter, rest: int, divisor: int) -> int:
    quotient = emitter.op("floor", emitter.op("div", rest, divisor))
    less = emitter.op("fma", emitter.op("neg", quotient), divisor, rest)
    # The rounded quotient may have reached the next integer.
    below = emitter.op("lt", less, emitter.const(0.0, rest))
    less = emitter.op("select", below, emitter.op("add", less, divisor), less)
    return emitter.op("select", emitter.op("ge", rest, divisor), less, rest)
