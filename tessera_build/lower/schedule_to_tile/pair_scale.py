"""Scales of what is taken in pairs, as scalar programs: powers of two by the exponents of sums of sizes.

Takes a sum of sizes; gives the factor by which rows or columns are scaled, exactly, and what undoes it. Invariant: the
factor is 2**e such that sizes add up to 2**scale or more, and less than twice as much, if they lie between 1e-29 and
1e29; a number that is none stays none.
"""

from __future__ import annotations

from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.types import F32, I32

# Exponents as f32 has them: of 1, and the smallest and largest that sums of sizes are taken to have.
_MANTISSA_BITS, _ONE, _LEAST, _MOST = 23, 127, 27, 227


def factor_of(s: ScalarBuilder, size: int, scale: int) -> int:
    """2**(scale - exponent of the size)."""
    bits = s.op("shr", s.bitcast(size, I32), s.const(_MANTISSA_BITS, I32))
    exponent = s.op("min", s.op("max", bits, s.const(_LEAST, I32)), s.const(_MOST, I32))
    turned = s.op("sub", s.const(2 * _ONE + scale, I32), exponent)
    return s.bitcast(s.op("shl", turned, s.const(_MANTISSA_BITS, I32)), F32)


def undone_of(s: ScalarBuilder) -> int:
    """Of a size and its factor, 1 / factor; 0 of zeros, whose sums are what rounding left of the weights' own."""
    bits = s.op("sub", s.const(2 * _ONE << _MANTISSA_BITS, I32), s.bitcast(1, I32))
    zero = s.const(0.0, F32)
    return s.op("select", s.op("eq", 0, zero), zero, s.bitcast(bits, F32))


def with_sign(s: ScalarBuilder) -> int:
    """The first, negated where the second, a number, is odd."""
    odd = s.op("ne", s.op("and", 1, s.const(1, I32)), s.const(0, I32))
    return s.op("select", odd, s.op("neg", 0), 0)


def add_size(s: ScalarBuilder) -> int:
    """The first and the size of the second."""
    return s.op("add", 0, s.op("abs", 1))
