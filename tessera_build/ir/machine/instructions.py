"""Vector and matrix instructions as rows of one table: shape, element types, where operands lie, who emits them.

Takes nothing; gives `Instruction` records by name, the names that `Binding.instruction` may hold. Invariant: a row is
data — an FMA register tile of a CPU, a warp's mma and a warpgroup's wgmma differ only in their fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tessera_build.ir.core.types import BF16, F32, I8, I32, U8, DType

Space = Literal["register", "shared", "memory"]
# Who executes one instruction: one thread of a CPU, one lane, 32 lanes (a warp), 128 lanes (a warpgroup).
Executor = Literal["thread", "lane", "warp", "warpgroup"]


@dataclass(frozen=True, slots=True)
class Operand:
    """Where an operand lies, and how: `rows` (row-major), `columns`, `broadcast`, or the name of a fragment layout."""

    space: Space
    dtype: DType
    layout: str


@dataclass(frozen=True, slots=True)
class Instruction:
    """acc[m, n] += sum over k of a[m, k] * b[k, n], `shape` = (m, n, k), by one instruction or one register tile.

    `order` is the order of its additions as Tile IR names it. `emitter` is the node of Target IR that it becomes.
    """

    name: str
    shape: tuple[int, int, int]
    executor: Executor
    acc: Operand
    a: Operand
    b: Operand
    order: str
    emitter: str


# Bytes that one step of a byte product takes along the reduction: an operand's 32-bit lane holds that many.
QUAD = 4


def _register_tile(rows: int, columns: int) -> Instruction:
    """A CPU's block of accumulators: `a` broadcast from memory, `b` in vectors, one fused multiply-add a step."""
    return Instruction(
        name=f"fma.{rows}x{columns}x1",
        shape=(rows, columns, 1),
        executor="thread",
        acc=Operand("register", F32, "rows"),
        a=Operand("memory", F32, "broadcast"),
        b=Operand("memory", F32, "rows"),
        order="seq",
        emitter="fma",
    )


def _byte_tile(rows: int, columns: int) -> Instruction:
    """A CPU's block of i32 accumulators: four bytes of `a` broadcast, `b` in panels of quads, four products a step."""
    return Instruction(
        name=f"dot4.{rows}x{columns}x{QUAD}",
        shape=(rows, columns, QUAD),
        executor="thread",
        acc=Operand("register", I32, "rows"),
        a=Operand("memory", U8, "broadcast"),
        b=Operand("memory", I8, "quads"),
        order="seq",
        emitter="dot4",
    )


LANE_FMA = Instruction(
    name="fma.1x1x1",
    shape=(1, 1, 1),
    executor="lane",
    acc=Operand("register", F32, "cyclic"),
    a=Operand("memory", F32, "broadcast"),
    b=Operand("memory", F32, "broadcast"),
    order="seq",
    emitter="fma",
)
MMA_BF16 = Instruction(
    name="mma.m16n8k16.bf16",
    shape=(16, 8, 16),
    executor="warp",
    acc=Operand("register", F32, "mma.c"),
    a=Operand("register", BF16, "mma.a"),
    b=Operand("register", BF16, "mma.b"),
    order="hw",
    emitter="matrix_multiply",
)
WGMMA_BF16 = Instruction(
    name="wgmma.m64n128k16.bf16",
    shape=(64, 128, 16),
    executor="warpgroup",
    acc=Operand("register", F32, "wgmma.c"),
    a=Operand("shared", BF16, "core"),
    b=Operand("shared", BF16, "core"),
    order="hw",
    emitter="warpgroup_multiply",
)
# Register tiles that reached the roofline on AVX-512 (6x64, 14x32), and those that fit the 16 registers of AVX and SSE.
REGISTER_TILES = tuple(
    _register_tile(rows, columns)
    for rows, columns in ((6, 64), (8, 48), (12, 32), (14, 32), (28, 16), (6, 16), (4, 24), (6, 8), (4, 12))
)
BYTE_TILES = tuple(_byte_tile(rows, columns) for rows, columns in ((14, 32), (6, 64), (6, 16), (6, 8)))
INSTRUCTIONS: dict[str, Instruction] = {
    row.name: row for row in (*REGISTER_TILES, *BYTE_TILES, LANE_FMA, MMA_BF16, WGMMA_BF16)
}
