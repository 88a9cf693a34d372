"""What an expansion needs from the place that it is written to: a small protocol, and the layout of the float formats.

Takes value ids of scalars or vectors; gives value ids. Invariant: expansions use the rows of Target IR's `OPS` only,
so one expansion serves compiled kernels, device kernels and the numpy runs that sweep its error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tessera_build.ir.core.types import F32, F64, I32, I64, DType


class Emitter(Protocol):
    """Appends operations; values are ids whose element type and number of lanes the emitter knows."""

    @property
    def fused(self) -> bool:
        """Whether `fma` rounds once; where it does not, no exact product may be taken from it."""
        ...

    def dtype(self, value: int) -> DType:
        """Element type of a value."""
        ...

    def const(self, value: float | int, like: int) -> int:
        """A constant with the element type and lanes of `like`."""
        ...

    def op(self, name: str, *operands: int) -> int:
        """A row of `OPS`; the result has the type of the operands, or bool lanes for a comparison."""
        ...

    def scales(self, like: int) -> bool:
        """Whether `scale` is an operation of registers such as that of `like`."""
        ...

    def cast(self, value: int, dtype: DType) -> int:
        """Numeric conversion, lanes kept."""
        ...

    def bitcast(self, value: int, dtype: DType) -> int:
        """The same bits as another element type of the same width."""
        ...

    def rarely(self, mask: int, compute: Callable[[], Sequence[int]], otherwise: Sequence[int]) -> Sequence[int]:
        """What `compute` writes where `mask` holds, else the values given; skipped where no lane asks for it."""
        ...


@dataclass(frozen=True, slots=True)
class Format:
    """An IEEE binary format: its integer twin and the numbers that take it apart."""

    dtype: DType
    integer: DType
    mantissa_bits: int
    bias: int

    @property
    def magic(self) -> float:
        """Adding this rounds a small number to an integer, which then stands in the low bits."""
        return 1.5 * 2.0**self.mantissa_bits

    @property
    def magic_bits(self) -> int:
        """The bits of `magic`."""
        return (self.bias + self.mantissa_bits) << self.mantissa_bits | 1 << (self.mantissa_bits - 1)

    @property
    def sign_bit(self) -> int:
        """The sign alone."""
        return -(1 << (self.dtype.bits - 1))

    @property
    def one_bits(self) -> int:
        """The bits of 1.0."""
        return self.bias << self.mantissa_bits


SINGLE = Format(F32, I32, 23, 127)
DOUBLE = Format(F64, I64, 52, 1023)
FORMATS = {F32.name: SINGLE, F64.name: DOUBLE}


def format_of(emitter: Emitter, value: int) -> Format:
    """The format of a value; raises `KeyError` for one that is computed in a wider format."""
    return FORMATS[emitter.dtype(value).name]


def polynomial(emitter: Emitter, x: int, coefficients: tuple[float, ...]) -> int:
    """Horner's rule with one rounding a step; coefficients from the constant term upwards."""
    result = emitter.const(coefficients[-1], x)
    for coefficient in reversed(coefficients[:-1]):
        result = emitter.op("fma", result, x, emitter.const(coefficient, x))
    return result


def product_error(emitter: Emitter, left: int, right: int, product: int) -> int:
    """left * right - product, where `product` is their rounded product: exact, or short of it by 2**-104 of it at most.

    Without fused multiply-adds each factor is cut at half its mantissa (Dekker, 1971), by its bits: no factor is so
    large that this overflows.
    """
    if emitter.fused:
        return emitter.op("fma", left, right, emitter.op("neg", product))
    (a, b), (c, d) = _halves(emitter, left), _halves(emitter, right)
    error = emitter.op("sub", emitter.op("mul", a, c), product)
    for one, other in ((a, d), (b, c), (b, d)):
        error = emitter.op("add", error, emitter.op("mul", one, other))
    return error


def _halves(emitter: Emitter, value: int) -> tuple[int, int]:
    """A number as the upper half of its mantissa and the rest."""
    layout = format_of(emitter, value)
    bits = emitter.bitcast(value, layout.integer)
    mask = emitter.const(-1 << (layout.mantissa_bits + 2) // 2, bits)
    high = emitter.bitcast(emitter.op("and", bits, mask), layout.dtype)
    return high, emitter.op("sub", value, high)


def copy_sign(emitter: Emitter, magnitude: int, sign: int) -> int:
    """`magnitude` (not negative) with the sign bit of `sign`."""
    layout = format_of(emitter, magnitude)
    bits = emitter.bitcast(sign, layout.integer)
    only = emitter.op("and", bits, emitter.const(layout.sign_bit, bits))
    return emitter.bitcast(emitter.op("or", emitter.bitcast(magnitude, layout.integer), only), layout.dtype)


def power_of_two(emitter: Emitter, exponent: int, layout: Format) -> int:
    """2**exponent for an integer value in the format's normal range."""
    shifted = emitter.op("shl", exponent, emitter.const(layout.mantissa_bits, exponent))
    return emitter.bitcast(emitter.op("add", shifted, emitter.const(layout.one_bits, exponent)), layout.dtype)
