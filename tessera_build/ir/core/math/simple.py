"""Scalar operations that Target IR lacks and that need no polynomial.

Takes values of any numeric type; gives values of that type (`isnan`: bool). Invariant: the results are those of
`ir.core.scalar.evaluate`, numpy's meaning of each name.
"""

from __future__ import annotations

from tessera_build.ir.core.math.emitter import Emitter


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


def shift_left(emitter: Emitter, x: int, count: int) -> int:
    """Bits moved up; none are left when the count reaches the width."""
    return _shifted(emitter, "shl", (x, count), emitter.const(0, x))


def shift_right(emitter: Emitter, x: int, count: int) -> int:
    """Bits moved down, the sign of a signed type following."""
    if emitter.dtype(x).kind == "unsigned":
        return _shifted(emitter, "lshr", (x, count), emitter.const(0, x))
    last = emitter.const(emitter.dtype(x).bits - 1, x)
    return _shifted(emitter, "ashr", (x, count), emitter.op("ashr", x, last))


def _shifted(emitter: Emitter, name: str, operands: tuple[int, int], empty: int) -> int:
    """Target IR's shift, which is defined below the width only; a negative count is beyond it."""
    x, count = operands
    zero = emitter.const(0, x)
    inside = emitter.op("lt", count, emitter.const(emitter.dtype(x).bits, x))
    if emitter.dtype(x).kind == "signed":
        inside = emitter.op("and", inside, emitter.op("ge", count, zero))
    return emitter.op("select", inside, emitter.op(name, x, emitter.op("select", inside, count, zero)), empty)
