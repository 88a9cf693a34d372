"""Conversions between f32 and the narrowest floats, in integer operations that every machine has.

Takes f32 values or values of a storage type; gives the other. Invariant: bit for bit what `ir.core.conversion` says:
to nearest, ties to even, denormal results included; beyond the largest number, infinity or NaN as the format has it,
and the largest number itself where it has neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tessera_build.ir.core.math.emitter import Emitter
from tessera_build.ir.core.types import (
    F4E2M1,
    F6E2M3,
    F6E3M2,
    F8E4M3,
    F8E4M3FNUZ,
    F8E5M2,
    F8E5M2FNUZ,
    F8E8M0,
    F32,
    I32,
    U8,
    DType,
)

# What lies beyond the largest number: infinity and NaN, one NaN with each sign, one NaN in place of -0, nothing.
Beyond = Literal["infinity", "nan", "unsigned nan", "nothing"]
_INFINITY_BITS = 0x7F800000


@dataclass(frozen=True, slots=True)
class Storage:
    """A binary format with a sign: bits of exponent and mantissa, bias, and what its top codes mean."""

    exponent: int
    mantissa: int
    bias: int
    beyond: Beyond

    @property
    def sign_place(self) -> int:
        """The place of the sign bit."""
        return self.exponent + self.mantissa

    @property
    def largest(self) -> int:
        """The code of the largest number; the next one is infinity or NaN."""
        top = (1 << self.sign_place) - 1
        if self.beyond == "infinity":
            return top - (1 << self.mantissa)
        return top - 1 if self.beyond == "nan" else top


STORAGE: dict[DType, Storage] = {
    F8E4M3: Storage(4, 3, 7, "nan"),
    F8E5M2: Storage(5, 2, 15, "infinity"),
    F8E4M3FNUZ: Storage(4, 3, 8, "unsigned nan"),
    F8E5M2FNUZ: Storage(5, 2, 16, "unsigned nan"),
    F6E2M3: Storage(2, 3, 1, "nothing"),
    F6E3M2: Storage(3, 2, 3, "nothing"),
    F4E2M1: Storage(2, 1, 1, "nothing"),
}


def to_storage(emitter: Emitter, x: int, dtype: DType) -> int:
    """An f32 value in a storage type."""
    bits = emitter.bitcast(x, I32)
    code = _exponent_alone(emitter, bits) if dtype == F8E8M0 else _signed_code(emitter, x, bits, STORAGE[dtype])
    return emitter.bitcast(emitter.cast(code, U8), dtype)


def from_storage(emitter: Emitter, value: int) -> int:
    """A storage type's value in f32, exactly."""
    dtype = emitter.dtype(value)
    code = emitter.cast(emitter.bitcast(value, U8), I32)
    if dtype == F8E8M0:
        return _power(emitter, code)
    return _signed_value(emitter, code, STORAGE[dtype])


def _signed_code(emitter: Emitter, x: int, bits: int, layout: Storage) -> int:
    def number(value: int) -> int:
        return emitter.const(value, bits)

    sign = emitter.op("lshr", bits, number(31))
    size = emitter.op("and", bits, number(0x7FFFFFFF))
    is_nan = emitter.op("gt", size, number(_INFINITY_BITS))
    code = emitter.op("select", is_nan, number(0), _rounded(emitter, x, size, layout))
    too_large = emitter.op("gt", code, number(layout.largest))
    place = number(layout.sign_place)
    if layout.beyond == "nothing":
        # A NaN has no code: it becomes a zero of the other sign, as ml_dtypes has it.
        code = emitter.op("select", too_large, number(layout.largest), code)
        sign = emitter.op("select", is_nan, emitter.op("xor", sign, number(1)), sign)
        return emitter.op("or", code, emitter.op("shl", sign, place))
    if layout.beyond == "unsigned nan":
        signed = emitter.op("or", code, emitter.op("shl", sign, place))
        signed = emitter.op("select", emitter.op("eq", code, number(0)), code, signed)
        lost = emitter.op("or", is_nan, too_large)
        return emitter.op("select", lost, number(1 << layout.sign_place), signed)
    code = emitter.op("select", too_large, number(layout.largest + 1), code)
    quiet = layout.largest + 1 + (1 << (layout.mantissa - 1) if layout.beyond == "infinity" else 0)
    code = emitter.op("select", is_nan, number(quiet), code)
    return emitter.op("or", code, emitter.op("shl", sign, place))


def _rounded(emitter: Emitter, x: int, size: int, layout: Storage) -> int:
    """|x| as a code that may run beyond the largest one; `size` holds the bits of |x|."""

    def number(value: int) -> int:
        return emitter.const(value, size)

    shift = 23 - layout.mantissa
    odd = emitter.op("and", emitter.op("lshr", size, number(shift)), number(1))
    raised = emitter.op("add", emitter.op("add", size, number((1 << (shift - 1)) - 1)), odd)
    normal = emitter.op("lshr", raised, number(shift))
    normal = emitter.op("sub", normal, number((127 - layout.bias) << layout.mantissa))
    # Added to this, |x| is rounded to a multiple of the smallest denormal, which then counts in the low bits.
    magic = 2.0 ** (24 - layout.bias - layout.mantissa)
    lifted = emitter.bitcast(emitter.op("add", emitter.op("abs", x), emitter.const(magic, x)), I32)
    magic_bits = (24 - layout.bias - layout.mantissa + 127) << 23
    denormal = emitter.op("sub", lifted, number(magic_bits))
    is_denormal = emitter.op("lt", size, number((128 - layout.bias) << 23))
    return emitter.op("select", is_denormal, denormal, normal)


def _signed_value(emitter: Emitter, code: int, layout: Storage) -> int:
    def number(value: int) -> int:
        return emitter.const(value, code)

    size = emitter.op("and", code, number((1 << layout.sign_place) - 1))
    shifted = emitter.bitcast(emitter.op("shl", size, number(23 - layout.mantissa)), F32)
    # The exponent is off by the difference of the biases; multiplying repairs it, for denormal codes as well.
    value = emitter.op("mul", shifted, emitter.const(2.0 ** (127 - layout.bias), shifted))
    bits = emitter.bitcast(value, I32)
    if layout.beyond in ("infinity", "nan"):
        extra = emitter.op("sub", size, number(layout.largest + 1))
        tail = emitter.op("or", emitter.op("shl", extra, number(23 - layout.mantissa)), number(_INFINITY_BITS))
        tail = tail if layout.beyond == "infinity" else number(_INFINITY_BITS | 1 << 22)
        bits = emitter.op("select", emitter.op("gt", size, number(layout.largest)), tail, bits)
    sign = emitter.op("shl", emitter.op("lshr", code, number(layout.sign_place)), number(31))
    bits = emitter.op("or", bits, sign)
    if layout.beyond == "unsigned nan":
        lost = emitter.op("eq", code, number(1 << layout.sign_place))
        bits = emitter.op("select", lost, number(_INFINITY_BITS | 1 << 22), bits)
    return emitter.bitcast(bits, F32)


def _exponent_alone(emitter: Emitter, bits: int) -> int:
    """The nearest power of two, ties to the larger; whatever is no positive number is NaN, code 255."""

    def number(value: int) -> int:
        return emitter.const(value, bits)

    up = emitter.op("lshr", emitter.op("add", bits, number(1 << 22)), number(23))
    tiny = emitter.op("lt", bits, number(1 << 23))
    up = emitter.op("select", tiny, _tiny_power(emitter, bits), up)
    wrong = emitter.op("or", emitter.op("le", bits, number(0)), emitter.op("ge", bits, number(_INFINITY_BITS)))
    return emitter.op("select", wrong, number(255), up)


def _tiny_power(emitter: Emitter, bits: int) -> int:
    """Below 2**-126: code 0 up to 2**-127, code 1 beyond, which is where ml_dtypes rounds."""
    return emitter.cast(emitter.op("gt", bits, emitter.const(1 << 22, bits)), I32)


def _power(emitter: Emitter, code: int) -> int:
    def number(value: int) -> int:
        return emitter.const(value, code)

    bits = emitter.op("shl", code, number(23))
    bits = emitter.op("select", emitter.op("eq", code, number(0)), number(1 << 22), bits)
    nothing = emitter.op("eq", code, number(255))
    return emitter.bitcast(emitter.op("select", nothing, number(_INFINITY_BITS | 1 << 22), bits), F32)
