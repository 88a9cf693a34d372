"""Products of bytes on a CPU: four a lane of i32, by one instruction or by two products of 16-bit halves.

Takes a `Contract` bound to "dot4" over a view of unsigned bytes and one of signed bytes in quads; gives the
accumulators. Invariant: sums are exact (modulo 2^32): no instruction that saturates is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tessera_build.ir.core.types import I16, I32, U8, DType, scalar, tile
from tessera_build.ir.machine.instructions import QUAD
from tessera_build.ir.target import kernel as k
from tessera_build.ir.tile.contraction import parse_spec
from tessera_build.ir.tile.nodes import Contract
from tessera_build.lower.tile_to_target.builder import TargetBuilder
from tessera_build.lower.tile_to_target.memory import Memory
from tessera_build.lower.tile_to_target.values import Key, TileValue, ViewValue, positions

# A register of bytes for the machine that multiplies them, or its even and odd bytes in 16 bits each.
Parts = tuple[int, ...]
_BYTE_BITS = 8


@dataclass(frozen=True, slots=True)
class ByteProducts:
    """Emits byte products for one kernel; `native`: the machine adds four products to a lane by one instruction."""

    builder: TargetBuilder
    memory: Memory
    native: bool

    def contract(self, node: Contract, acc: TileValue, a: ViewValue, b: ViewValue) -> TileValue:
        """acc + a * b: quads ascending; `a` is broadcast, `b` is read a register at a time."""
        left, right, out = parse_spec(node.spec)
        quad, lanes, panels = left[-2], acc.lanes, _flat(b)
        registers = dict(acc.registers)
        for step in range(a.shape[-2]):
            rows, columns = dict[Key, Parts](), dict[Key, Parts]()
            for key in positions(acc.shape, lanes):
                where = dict(zip(out, key, strict=True)) | {quad: step}
                row = _at(a, left[:-1], where)
                column = _at(panels, right[:-1], where)
                x = _known(rows, row, lambda at: self._bytes_in_every_lane(a, at, lanes))
                w = _known(columns, column, lambda at: self._panel(panels, at, lanes))
                registers[key] = self._add(registers[key], x, w)
        return TileValue(acc.shape, acc.dtype, lanes, registers)

    def _add(self, acc: int, x: Parts, w: Parts) -> int:
        if self.native:
            return self._op("dot4", self.builder.lanes(acc), acc, *x, *w)
        for left, right in zip(x, w, strict=True):
            acc = self.builder.op("add", acc, self._op("dot2", self.builder.lanes(acc), left, right))
        return acc

    def _op(self, name: str, lanes: int, *operands: int) -> int:
        result = self.builder.fresh(tile(I32, lanes))
        self.builder.emit(k.Op(result, name, operands))
        return result

    def _bytes_in_every_lane(self, a: ViewValue, at: Key, lanes: int) -> Parts:
        """Four unsigned bytes, repeated; bytes beyond the end are zero."""
        b = self.builder
        whole = b.fresh(scalar(I32))
        b.emit(k.Op(whole, "bitcast", (self.memory.vector(a, at, 0, QUAD, 0.0),)))
        if self.native:
            return (self._as(U8, b.splat(whole, lanes)),)
        mask = b.const(0x00FF00FF, I32)
        even, odd = b.op("and", whole, mask), b.op("and", b.op("lshr", whole, b.const(_BYTE_BITS, I32)), mask)
        return self._as(I16, b.splat(even, lanes)), self._as(I16, b.splat(odd, lanes))

    def _panel(self, panels: ViewValue, at: Key, lanes: int) -> Parts:
        """A register of signed bytes."""
        *outer, vector = at
        register = self.memory.vector(panels, tuple(outer), vector, QUAD * lanes, 0.0)
        if self.native:
            return (register,)
        words = self._as(I16, register)
        shift = self.builder.const(_BYTE_BITS, I16, self.builder.lanes(words))
        return (
            self.builder.op("ashr", self.builder.op("shl", words, shift), shift),
            self.builder.op("ashr", words, shift),
        )

    def _as(self, dtype: DType, register: int) -> int:
        """The same bits as a vector of another element type."""
        type_ = self.builder.type(register)
        result = self.builder.fresh(tile(dtype, type_.static_shape[0] * type_.dtype.bits // dtype.bits))
        self.builder.emit(k.Op(result, "bitcast", (register,)))
        return result


def _flat(view: ViewValue) -> ViewValue:
    """A view of panels [..., lanes, 4] with its last two axes, which lie side by side in memory, as one."""
    *outer, lanes, quad = view.shape
    return replace(view, shape=(*outer, lanes * quad), axes=(*view.axes[:-2], view.axes[-1]))


def _at(view: ViewValue, letters: str, where: dict[str, int]) -> Key:
    """Where a result's position finds its operand: 0 along what the operand does not move with."""
    return tuple(0 if extent == 1 else where[s] for s, extent in zip(letters, view.shape, strict=False))


def _known(seen: dict[Key, Parts], at: Key, make: Callable[[Key], Parts]) -> Parts:
    """The registers for a place, made at first use."""
    if at not in seen:
        seen[at] = make(at)
    return seen[at]
