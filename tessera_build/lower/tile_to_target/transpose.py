"""Transposition of small matrices that lie in registers, by shuffles of two registers at a time.

Takes one register a row; gives one register a column. Within 128 bits pairs of rows are interleaved in growing units,
then units of 128 bits are dealt out: each step is one instruction on processors with 128, 256 and 512 bits. Invariant:
elements only change places, and lanes that no row fills are zero.
"""

from __future__ import annotations

from collections.abc import Sequence

from tessera_build.ir.core.types import BOOL, F16, U8, U16, DType, number_in
from tessera_build.lower.tile_to_target.builder import TargetBuilder

_LANE_BITS = 128  # the unit within which shuffles cost least on x86


def transposed(b: TargetBuilder, rows: Sequence[int], tall: int, columns: int) -> list[int]:
    """`columns` registers of `tall` lanes, from as many or fewer rows: vectors of one type, or scalars."""
    dtype, wide = b.type(rows[0]).dtype, b.lanes(rows[0])
    if tall == 1:
        return [b.extract(rows[0], lane) for lane in range(columns)]
    if wide == 1:
        return [_collected(b, rows, tall)]
    filler = b.const(number_in(0, dtype), dtype, wide)
    carried = [_into(b, row, dtype) for row in [*rows, *[filler] * (tall - len(rows))]]
    side = min(wide, tall)
    # With more rows than lanes a register takes those that lie `side` apart, with fewer it is cut up in the end.
    square = _squares(b, [_joined(b, carried[start::side]) for start in range(side)] if tall > wide else carried)
    moved = [square[c % side] if tall >= wide else _cut(b, square[c % side], c // side, side) for c in range(columns)]
    return [_back(b, register, dtype) for register in moved]


def _squares(b: TargetBuilder, rows: Sequence[int]) -> list[int]:
    """n registers as n columns: every stretch of n lanes is a square matrix, transposed in its place."""
    side = len(rows)
    unit = min(side, max(1, _LANE_BITS // max(8, b.type(rows[0]).dtype.bits)))
    groups = [_interleaved(b, rows[start : start + unit], 1, unit) for start in range(0, side, unit)]
    columns: list[int] = [0] * side
    for place in range(unit):
        for group, register in enumerate(_dealt(b, [g[place] for g in groups], unit, side)):
            columns[group * unit + place] = register
    return columns


def _interleaved(b: TargetBuilder, rows: Sequence[int], width: int, unit: int) -> list[int]:
    """Rows as columns within every `unit` lanes: neighbours interleaved by units of `width`, which doubles."""
    if len(rows) == 1:
        return list(rows)
    lanes, half = b.lanes(rows[0]), unit // 2
    low: list[int] = []
    high: list[int] = []
    for left, right in zip(rows[::2], rows[1::2], strict=True):
        for upper, into in ((0, low), (half, high)):
            picked = [
                start + upper + other * lanes + place + lane
                for start in range(0, lanes, unit)
                for place in range(0, half, width)
                for other in (0, 1)
                for lane in range(width)
            ]
            into.append(b.shuffle(left, right, picked))
    return [*_interleaved(b, low, 2 * width, unit), *_interleaved(b, high, 2 * width, unit)]


def _dealt(b: TargetBuilder, rows: Sequence[int], unit: int, side: int) -> list[int]:
    """Rows of units as columns within every `side` lanes: the even units of neighbours, then the odd ones."""
    if len(rows) == 1:
        return list(rows)
    lanes = b.lanes(rows[0])
    found: list[list[int]] = []
    for odd in (0, unit):
        picked = [
            start + other * lanes + place + odd + lane
            for start in range(0, lanes, side)
            for other in (0, 1)
            for place in range(0, side, 2 * unit)
            for lane in range(unit)
        ]
        pairs = zip(rows[::2], rows[1::2], strict=True)
        found.append(_dealt(b, [b.shuffle(left, right, picked) for left, right in pairs], unit, side))
    return [register for pair in zip(*found, strict=True) for register in pair]


def _joined(b: TargetBuilder, rows: Sequence[int]) -> int:
    """Registers one after the other in one."""
    if len(rows) == 1:
        return rows[0]
    lanes = range(2 * b.lanes(rows[0]))
    return _joined(b, [b.shuffle(left, right, lanes) for left, right in zip(rows[::2], rows[1::2], strict=True)])


def _cut(b: TargetBuilder, register: int, part: int, lanes: int) -> int:
    return b.shuffle(register, register, range(part * lanes, (part + 1) * lanes))


def _collected(b: TargetBuilder, elements: Sequence[int], lanes: int) -> int:
    dtype = b.type(elements[0]).dtype
    register = b.const(number_in(0, dtype), dtype, lanes)
    for lane, element in enumerate(elements):
        register = b.insert(register, element, lane)
    return register


def _into(b: TargetBuilder, register: int, dtype: DType) -> int:
    """The register as one of whole bytes that processors shuffle."""
    if dtype == F16:
        return b.op("bitcast", register, dtype=U16)
    return b.op("cast", register, dtype=U8) if _narrow(dtype) else register


def _back(b: TargetBuilder, register: int, dtype: DType) -> int:
    if dtype == BOOL:
        return b.op("ne", register, b.const(0, U8, b.lanes(register)))
    if dtype == F16:
        return b.op("bitcast", register, dtype=dtype)
    return b.op("cast", register, dtype=dtype) if _narrow(dtype) else register


def _narrow(dtype: DType) -> bool:
    """Integers of less than a byte; the narrowest floats are bytes already."""
    return dtype.bits < 8 and not dtype.is_float
