"""Scalar operations that Target IR lacks and that need no polynomial.

Takes values of any numeric type; gives values of that type (`isnan`: bool). Invariant: the results are those of
`ir.core.scalar.evaluate`, numpy's meaning of each name.
"""

from __future__ import annotations

from tessera_build.ir.core.types import F32, F64
from tessera_build.lower.math.emitter import Emitter


def rsqrt(emitter: Emitter, x: int) -> int:
    """1 / sqrt(x), each step rounded: within 1.5 ULP, and the same on every target."""
    return emitter.op("div", emitter.const(1.0, x), emitter.op("sqrt", x))


def sign(emitter: Emitter, x: int) -> int:
    """-1, 0 or 1; a NaN stays."""
    zero, one = emitter.const(0, x), emitter.const(1, x)
    positive = emitter.op("gt", x, zero)
    if emitter.dtype(x).kind == "unsigned":
        return emitter.op("select", positive, one, zero)
    rest = emitter.op("select", emitter.op("lt", x, zero), emitter.const(-1, x), zero)
    value = emitter.op("select", positive, one, rest)
    return emitter.op("select", emitter.op("ne", x, x), x, value) if emitter.dtype(x).is_float else value


def isnan(emitter: Emitter, x: int) -> int:
    """Whether x is not a number."""
    return emitter.op("ne", x, x)


def minimum(emitter: Emitter, left: int, right: int) -> int:
    """The smaller; a NaN on either side is the result. Target IR's `min` keeps a NaN of its first operand only."""
    return _with_nan(emitter, "min", left, right)


def maximum(emitter: Emitter, left: int, right: int) -> int:
    """The larger; a NaN on either side is the result. Target IR's `max` keeps a NaN of its first operand only."""
    return _with_nan(emitter, "max", left, right)


def _with_nan(emitter: Emitter, name: str, left: int, right: int) -> int:
    chosen = emitter.op(name, left, right)
    if not emitter.dtype(left).is_float:
        return chosen
    return emitter.op("select", emitter.op("ne", right, right), right, chosen)


def mod(emitter: Emitter, left: int, right: int) -> int:
    """left - floor(left / right) * right, with the sign of `right`; floats: exact for |left / right| < 2**52."""
    dtype = emitter.dtype(left)
    if dtype == F32:
        wide = _float_mod(emitter, emitter.cast(left, F64), emitter.cast(right, F64))
        return emitter.cast(wide, F32)
    if dtype.is_float:
        return _float_mod(emitter, left, right)
    remainder = emitter.op("rem", left, right)
    if dtype.kind == "unsigned":
        return remainder
    zero = emitter.const(0, left)
    differ = emitter.op("lt", emitter.op("xor", remainder, right), zero)
    wrong = emitter.op("and", differ, emitter.op("ne", remainder, zero))
    return emitter.op("select", wrong, emitter.op("add", remainder, right), remainder)


def _float_mod(emitter: Emitter, left: int, right: int) -> int:
    quotient = emitter.op("floor", emitter.op("div", left, right))
    remainder = emitter.op("fma", emitter.op("neg", quotient), right, left)
    # The rounded quotient may have reached the next integer: the remainder is then one divisor off.
    zero = emitter.const(0.0, left)
    below = emitter.op("lt", emitter.op("mul", remainder, right), zero)
    remainder = emitter.op("select", below, emitter.op("add", remainder, right), remainder)
    return _of_infinite(emitter, left, right, remainder)


def _of_infinite(emitter: Emitter, left: int, right: int, otherwise: int) -> int:
    """An infinite divisor leaves a finite number of its own sign as it is, and is itself the result for the others."""
    infinity, zero = emitter.const(float("inf"), left), emitter.const(0.0, left)
    opposite = emitter.op("lt", emitter.op("mul", left, right), zero)
    chosen = emitter.op("select", opposite, right, left)
    infinite = emitter.op("eq", emitter.op("abs", right), infinity)
    applies = emitter.op("and", infinite, emitter.op("lt", emitter.op("abs", left), infinity))
    return emitter.op("select", applies, chosen, otherwise)
