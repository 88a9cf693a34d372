"""How a tile lies over the lanes of a group: which element each lane's registers hold.

Takes a binding's layout name, a tile's shape and the number of lanes; gives the coordinates of every register as
values of the kernel. Invariant: every element is in some lane's register, and only one holder of an element passes
its guard.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Protocol

from tessera_build.ir.core.types import I64
from tessera_build.lower.tile_to_target.builder import TargetBuilder


@dataclass(frozen=True, slots=True)
class Place:
    """Coordinates of one register's element, and the condition that this lane is the one to store it (None: always)."""

    coordinates: tuple[int, ...]
    guard: int | None


class Layout(Protocol):
    """The distribution of one tile."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the tile."""
        ...

    @property
    def registers(self) -> int:
        """Registers that every lane has."""
        ...

    def place(self, b: TargetBuilder, lane: int, register: int) -> Place:
        """Where register number `register` of lane `lane` (a value) lies."""
        ...


@dataclass(frozen=True, slots=True)
class Cyclic:
    """Element e, in row-major order, is in register e // lanes of lane e % lanes; past the end it starts over.

    Starting over makes a tile of one element known to every lane.
    """

    shape: tuple[int, ...]
    lanes: int

    @property
    def elements(self) -> int:
        """Elements of the tile."""
        return math.prod(self.shape)

    @property
    def registers(self) -> int:
        """Registers that every lane has."""
        return -(-self.elements // self.lanes)

    def place(self, b: TargetBuilder, lane: int, register: int) -> Place:
        """Row-major division of the element's number."""
        element = b.op("add", lane, b.const(register * self.lanes, I64))
        guard = None
        if (register + 1) * self.lanes > self.elements:
            guard = b.op("lt", element, b.const(self.elements, I64))
            element = remainder(b, element, self.elements)
        return Place(divided(b, element, self.shape), guard)


@dataclass(frozen=True, slots=True)
class Fragment:
    """The accumulators of NVIDIA's matrix instructions: 16 × 8 blocks dealt to `warps` (rows, columns) of 32 lanes.

    Within a block, lane l holds row l // 4 (registers 0, 1) and row l // 4 + 8 (registers 2, 3), columns 2 (l % 4) and
    the next. Four warps in a column give wgmma's m64 accumulators.
    """

    shape: tuple[int, ...]
    warps: tuple[int, int]

    @property
    def blocks(self) -> tuple[int, int]:
        """Blocks of one warp along rows and columns."""
        rows, columns = self.shape
        return rows // (16 * self.warps[0]), columns // (8 * self.warps[1])

    @property
    def registers(self) -> int:
        """Registers that every lane has."""
        return 4 * self.blocks[0] * self.blocks[1]

    def place(self, b: TargetBuilder, lane: int, register: int) -> Place:
        """The PTX manual's figure of the accumulator of m16n8k16, once a block."""
        block, part = divmod(register, 4)
        block_row, block_column = divmod(block, self.blocks[1])
        warp, inner = quotient(b, lane, 32), remainder(b, lane, 32)
        warp_row, warp_column = quotient(b, warp, self.warps[1]), remainder(b, warp, self.warps[1])
        row = b.op("add", b.op("mul", warp_row, b.const(16, I64)), quotient(b, inner, 4))
        row = b.op("add", row, b.const(block_row * self.warps[0] * 16 + 8 * (part // 2), I64))
        column = b.op("mul", remainder(b, inner, 4), b.const(2, I64))
        column = b.op("add", b.op("mul", warp_column, b.const(8, I64)), column)
        column = b.op("add", column, b.const(block_column * self.warps[1] * 8 + part % 2, I64))
        return Place((row, column), None)


_FRAGMENT = re.compile(r"fragment\((\d+)x(\d+)\)")


def layout_named(name: str | None, shape: tuple[int, ...], lanes: int) -> Layout:
    """The layout that a binding names: "cyclic" (also None) or "fragment(2x2)", the warps along rows and columns."""
    if name in (None, "cyclic"):
        return Cyclic(shape, lanes)
    match = _FRAGMENT.fullmatch(name or "")
    if match is None:
        raise ValueError(f"no layout is called {name!r}")
    return Fragment(shape, (int(match[1]), int(match[2])))


def divided(b: TargetBuilder, element: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Coordinates of a row-major element number."""
    coordinates: list[int] = []
    for axis, extent in reversed(list(enumerate(shape))):
        coordinates.insert(0, element if axis == 0 and extent > 1 else remainder(b, element, extent))
        element = quotient(b, element, extent)
    return tuple(coordinates)


def remainder(b: TargetBuilder, value: int, divisor: int) -> int:
    """value % divisor of a non-negative value."""
    return b.const(0, I64) if divisor == 1 else b.op("rem", value, b.const(divisor, I64))


def quotient(b: TargetBuilder, value: int, divisor: int) -> int:
    """value // divisor of a non-negative value."""
    return value if divisor == 1 else b.op("div", value, b.const(divisor, I64))
