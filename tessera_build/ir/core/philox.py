"""Random numbers that are functions of a key and a position: Philox4x32-10, and what draws make of its words.

Takes a scalar program under construction with a 64-bit key and the number of an element; gives the element's draw.
Invariant: element i is made of block i alone, the 128 bits that the key gives for the counter (i, 0); so no result
depends on how many elements there are, on their order or on who computes them.

The generator is that of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from tessera_build.ir.core.scalar import ScalarBuilder, ScalarProgram
from tessera_build.ir.core.types import BF16, F16, F32, F64, I32, I64, U32, U64, DType

ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)

Words = tuple[int, int, int, int]


def philox(b: ScalarBuilder, counter: Words, key: tuple[int, int]) -> Words:
    """The four words (u32 values) of the block that a counter and a key give, lowest first."""
    for number in range(ROUNDS):
        low = [b.op("mul", b.const(m, U32), counter[2 * i]) for i, m in enumerate(_MULTIPLIERS)]
        high = [b.op("mulhi", b.const(m, U32), counter[2 * i]) for i, m in enumerate(_MULTIPLIERS)]
        first, second = (
            b.op("xor", b.op("xor", high[1 - i], counter[2 * i + 1]), _round_key(b, key[i], number * _KEY_STEPS[i]))
            for i in range(2)
        )
        counter = (first, low[1], second, low[0])
    return counter


def _round_key(b: ScalarBuilder, word: int, added: int) -> int:
    return b.op("add", word, b.const(added % 2**32, U32)) if added else word


def draw(kind: str, dtype: DType, key: int | None, far: bool) -> ScalarProgram:
    """The program of one draw; its inputs: the key (u64), unless it is known here, and the number of the element (i64).

    `kind`: `bits` (u32 or u64, uniform), `uniform` (a float in [0, 1)), `normal` (a float, mean 0 and variance 1).
    `far`: whether there may be elements beyond the 2**32th; the draws of those before them are the same either way.
    """
    b = ScalarBuilder((I64,) if key is not None else (U64, I64))
    position = 0 if key is not None else 1
    zero = b.const(0, U32)
    beyond = b.cast(b.op("shr", position, b.const(32, I64)), U32) if far else zero
    block = philox(b, (b.cast(position, U32), beyond, zero, zero), _words_of(b, key))
    return b.finish(_KINDS[kind](b, block, dtype))


def _words_of(b: ScalarBuilder, key: int | None) -> tuple[int, int]:
    if key is not None:
        return b.const(key % 2**32, U32), b.const(key >> 32, U32)
    return b.cast(0, U32), b.cast(b.op("shr", 0, b.const(32, U64)), U32)


def _bits(b: ScalarBuilder, block: Words, dtype: DType) -> int:
    return block[0] if dtype == U32 else _long(b, block[0], block[1])


def _long(b: ScalarBuilder, low: int, high: int) -> int:
    return b.op("or", b.op("shl", b.cast(high, U64), b.const(32, U64)), b.cast(low, U64))


# -- uniform ----------------------------------------------------------------------------------------------------------

# Bits of a uniform draw: those that every number below 1 has room for, so that none is rounded up to 1.
UNIFORM_BITS: Mapping[DType, int] = {F64: 53, F32: 24, F16: 11, BF16: 8}


def _uniform(b: ScalarBuilder, block: Words, dtype: DType) -> int:
    """The highest bits of the block's first words times a power of two: exact in every format."""
    if dtype == F64:
        return b.op("mul", _whole_double(b, block[0], block[1], "shr"), b.const(2.0**-53, F64))
    kept = UNIFORM_BITS[dtype]
    whole = b.bitcast(b.op("shr", block[0], b.const(32 - kept, U32)), I32)
    return b.cast(b.op("mul", b.cast(whole, F32), b.const(2.0**-kept, F32)), dtype)


def _whole_double(b: ScalarBuilder, low: int, high: int, shift: str, signed: bool = False) -> int:
    """The upper 53 bits of two words as a whole number."""
    both = _long(b, low, high)
    both = b.bitcast(both, I64) if signed else both
    moved = b.op(shift, both, b.const(11, I64 if signed else U64))
    return b.cast(b.bitcast(moved, I64), F64)


# -- normal -----------------------------------------------------------------------------------------------------------


def _normal(b: ScalarBuilder, block: Words, dtype: DType) -> int:
    """Box and Muller's first number: sqrt(-2 log u) * cos(angle), u in (0, 1], the angle in [-pi, pi).

    The words of a block are two independent uniform numbers, so the second number of a pair is not wanted.
    """
    wide = F64 if dtype == F64 else F32
    u, angle = _double_pair(b, block) if dtype == F64 else _single_pair(b, block)
    radius = b.op("sqrt", b.op("mul", b.op("log", u), b.const(-2.0, wide)))
    return b.cast(b.op("mul", radius, b.op("cos", angle)), dtype)


def _single_pair(b: ScalarBuilder, block: Words) -> tuple[int, int]:
    """All 32 bits: rounding costs precision near 1, where none is needed, and none near 0, where the tail is."""
    half = b.const(2.0**-33, F32)
    u = b.op("add", b.op("mul", b.cast(block[0], F32), b.const(2.0**-32, F32)), half)
    return u, b.op("mul", b.cast(b.bitcast(block[1], I32), F32), b.const(2.0 * math.pi * 2.0**-32, F32))


def _double_pair(b: ScalarBuilder, block: Words) -> tuple[int, int]:
    one = b.const(1.0, F64)
    u = b.op("mul", b.op("add", _whole_double(b, block[0], block[1], "shr"), one), b.const(2.0**-53, F64))
    turned = _whole_double(b, block[2], block[3], "shr", signed=True)
    return u, b.op("mul", turned, b.const(2.0 * math.pi * 2.0**-53, F64))


_KINDS: Mapping[str, Callable[[ScalarBuilder, Words, DType], int]] = {
    "bits": _bits,
    "uniform": _uniform,
    "normal": _normal,
}
KINDS = tuple(_KINDS)
# What a draw of each kind may be.
DTYPES_OF: Mapping[str, tuple[DType, ...]] = {
    "bits": (U32, U64),
    "uniform": (F32, F64, F16, BF16),
    "normal": (F32, F64, F16, BF16),
}
