"""Contractions by matrix instructions: tiles of the operands staged in shared memory, copied ahead of their use.

Takes a loop bound to `stage` copies in flight whose body is one `Contract` of views; gives its accumulators. Invariant:
in each turn every lane waits for its own copies, meets the group at one barrier, starts the copies of a later turn and
computes; no stage is overwritten before all lanes have passed the barrier after its last use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from tessera_build.ir.core.dims import Extent, substitute, symbol
from tessera_build.ir.core.types import I64, scalar
from tessera_build.ir.target import group as g
from tessera_build.ir.target import kernel as k
from tessera_build.lower.tile_to_target.builder import TargetBuilder, make_region
from tessera_build.lower.tile_to_target.simt_layouts import Fragment, quotient, remainder
from tessera_build.lower.tile_to_target.simt_memory import GroupMemory, GroupTile
from tessera_build.lower.tile_to_target.values import BufferValue, ViewValue

CHUNK = 8  # elements of 16 bits in one asynchronous copy of 16 bytes


@dataclass(frozen=True, slots=True)
class Staged:
    """One operand, a or (`right`) b: its view, and its place in shared memory, where stages follow each other."""

    view: ViewValue
    buffer: BufferValue
    stage_elements: int
    right: bool


class MatrixEmitter(Protocol):
    """How one family of matrix instructions lays its operands out in shared memory, and uses them."""

    def stage_elements(self, shape: tuple[int, ...]) -> int:
        """Elements that one tile of an operand takes."""
        ...

    def chunk_index(self, b: TargetBuilder, operand: Staged, row: int, chunk: int) -> int:
        """Where the 16 bytes number `chunk` of a row go, in elements from the start of the stage."""
        ...

    def ready(self, b: TargetBuilder) -> None:
        """What must happen between the end of a lane's copies and the barrier."""
        ...

    def multiply(self, lane: int, acc: GroupTile, operands: tuple[Staged, Staged], stage: int) -> GroupTile:
        """acc + a * b for the tiles in stage number `stage` (a value)."""
        ...


@dataclass(frozen=True, slots=True)
class MatrixLoop:
    """The loop for k in 0, step, ... < extent: acc += a(k) * b(k), with `stages` - 1 turns' copies in flight."""

    b: TargetBuilder
    memory: GroupMemory
    emitter: MatrixEmitter
    index: str
    extent: Extent
    step: int
    stages: int

    def run(self, acc: GroupTile, a: ViewValue, b: ViewValue) -> GroupTile:
        """The accumulators after the last turn."""
        builder = self.b
        self.memory.fence()
        operands = (self._staged(a, right=False), self._staged(b, right=True))
        for turn in range(self.stages - 1):
            self._copy(operands, {self.index: turn * self.step}, builder.const(turn, I64))
        index = builder.fresh(scalar(I64))
        inner = tuple(builder.fresh(builder.type(r)) for r in acc.registers)
        start, stop = builder.const(0, I64), builder.extent(self.extent)
        with builder.region() as nodes:
            builder.symbols[self.index] = index
            final = self._turn(index, replace(acc, registers=inner), operands)
            body = make_region((index, *inner), nodes, final.registers)
        results = tuple(builder.fresh(builder.type(r)) for r in acc.registers)
        builder.emit(k.Loop(results, start, stop, self.step, acc.registers, body))
        builder.emit(g.AsyncWait(0))
        builder.emit(g.Barrier())
        return replace(acc, registers=results)

    def _turn(self, index: int, acc: GroupTile, operands: tuple[Staged, Staged]) -> GroupTile:
        b, ahead = self.b, self.stages - 1
        b.emit(g.AsyncWait(self.stages - 2))
        self.emitter.ready(b)
        b.emit(g.Barrier())
        turn = quotient(b, index, self.step)
        later = remainder(b, b.op("add", turn, b.const(ahead, I64)), self.stages)
        self._copy(operands, {self.index: symbol(self.index) + ahead * self.step}, later)
        return self.emitter.multiply(self.memory.lane, acc, operands, remainder(b, turn, self.stages))

    def _staged(self, view: ViewValue, *, right: bool) -> Staged:
        elements = self.emitter.stage_elements(view.shape)
        return Staged(view, self.memory.shared(view.buffer.dtype, (self.stages * elements,)), elements, right)

    def _copy(self, operands: tuple[Staged, Staged], at: dict[str, Extent], stage: int) -> None:
        """Start copying both operands' tiles of one turn; past the last turn, zeros."""
        for operand in operands:
            offsets = tuple(substitute(offset, at) for offset in operand.view.offsets)
            self._copy_operand(replace(operand, view=replace(operand.view, offsets=offsets)), stage)
        self.b.emit(g.AsyncCommit())

    def _copy_operand(self, operand: Staged, stage: int) -> None:
        b, view = self.b, operand.view
        rows, columns = view.shape
        chunks = columns // CHUNK
        base = b.op("mul", stage, b.const(operand.stage_elements, I64))
        for first in range(0, rows * chunks, self.memory.lanes):
            number = b.op("add", self.memory.lane, b.const(first, I64))
            row, chunk = quotient(b, number, chunks), remainder(b, number, chunks)
            coordinates = (row, b.op("mul", chunk, b.const(CHUNK, I64)))
            target = b.op("add", base, self.emitter.chunk_index(b, operand, row, chunk))
            source, mask = self.memory.index(view, coordinates), self.memory.inside(view, coordinates)
            copied = CHUNK * view.buffer.dtype.bytes
            b.emit(g.AsyncCopy(operand.buffer.pointer, target, view.buffer.pointer, source, copied, mask))


@dataclass(frozen=True, slots=True)
class WarpMultiply:
    """mma.m16n8k16: every warp loads fragments of its blocks from rows padded by 16 bytes, free of bank conflicts."""

    b: TargetBuilder
    warps: tuple[int, int]
    instruction: str

    def stage_elements(self, shape: tuple[int, ...]) -> int:
        """Rows with their padding."""
        return shape[0] * (shape[1] + CHUNK)

    def chunk_index(self, b: TargetBuilder, operand: Staged, row: int, chunk: int) -> int:
        """Row-major with the padded pitch."""
        pitch = b.const(operand.view.shape[1] + CHUNK, I64)
        return b.op("add", b.op("mul", row, pitch), b.op("mul", chunk, b.const(CHUNK, I64)))

    def ready(self, b: TargetBuilder) -> None:
        """Warps read with ordinary loads: the barrier is enough."""

    def multiply(self, lane: int, acc: GroupTile, operands: tuple[Staged, Staged], stage: int) -> GroupTile:
        """All products of one stage, sixteen k at a time."""
        layout = acc.layout
        assert isinstance(layout, Fragment)
        registers = list(acc.registers)
        for step in range(0, operands[0].view.shape[1], 16):
            left = [self._left(lane, operands[0], stage, row, step) for row in range(layout.blocks[0])]
            right = [
                f for pair in range(0, layout.blocks[1], 2) for f in self._right(lane, operands[1], stage, pair, step)
            ]
            for row, a in enumerate(left):
                for column, b in enumerate(right):
                    first = 4 * (row * layout.blocks[1] + column)
                    registers[first : first + 4] = self._multiply(tuple(registers[first : first + 4]), a, b)
        return replace(acc, registers=tuple(registers))

    def _multiply(self, acc: tuple[int, ...], a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
        results = tuple(self.b.fresh(self.b.type(r)) for r in acc)
        self.b.emit(g.MatrixMultiply(results, self.instruction, acc, a, b))
        return results

    def _left(self, lane: int, operand: Staged, stage: int, block: int, step: int) -> tuple[int, ...]:
        """Sixteen rows and sixteen k of a: lane l points at row l % 16, half l // 16."""
        b, inner = self.b, remainder(self.b, lane, 32)
        warp_row = quotient(b, quotient(b, lane, 32), self.warps[1])
        row = b.op("add", b.op("mul", warp_row, b.const(16, I64)), remainder(b, inner, 16))
        row = b.op("add", row, b.const(block * self.warps[0] * 16, I64))
        column = b.op("add", b.op("mul", quotient(b, inner, 16), b.const(8, I64)), b.const(step, I64))
        return self._load(operand, stage, row, column, transposed=False)

    def _right(self, lane: int, operand: Staged, stage: int, pair: int, step: int) -> list[tuple[int, ...]]:
        """Sixteen k and two blocks of eight columns of b, transposed on the way."""
        b, inner = self.b, remainder(self.b, lane, 32)
        warp_column = remainder(b, quotient(b, lane, 32), self.warps[1])
        row = b.op("add", remainder(b, inner, 16), b.const(step, I64))
        column = b.op("mul", quotient(b, inner, 16), b.const(8 * self.warps[1], I64))
        column = b.op("add", column, b.op("mul", warp_column, b.const(8, I64)))
        column = b.op("add", column, b.const(pair * self.warps[1] * 8, I64))
        fragments = self._load(operand, stage, row, column, transposed=True)
        return [fragments[:2], fragments[2:]]

    def _load(self, operand: Staged, stage: int, row: int, column: int, *, transposed: bool) -> tuple[int, ...]:
        b = self.b
        pitch = operand.view.shape[1] + CHUNK
        index = b.op("add", b.op("mul", row, b.const(pitch, I64)), column)
        index = b.op("add", index, b.op("mul", stage, b.const(operand.stage_elements, I64)))
        results = tuple(b.fresh(g.FRAGMENT) for _ in range(4))
        b.emit(g.MatrixLoad(results, operand.buffer.pointer, index, transposed))
        return results


@dataclass(frozen=True, slots=True)
class FourWarpMultiply:
    """wgmma.m64n128k16: four warps read both operands from shared memory, in core matrices of 8 × 16 bytes."""

    b: TargetBuilder
    instruction: str

    def stage_elements(self, shape: tuple[int, ...]) -> int:
        """Core matrices without gaps."""
        return shape[0] * shape[1]

    def chunk_index(self, b: TargetBuilder, operand: Staged, row: int, chunk: int) -> int:
        """One row of one core matrix.

        Of a (rows m, chunks along k) core matrices run down m first; of b (rows k, chunks along n) along n first.
        """
        rows, columns = operand.view.shape
        core_row, inner = quotient(b, row, 8), remainder(b, row, 8)
        if operand.right:
            core = b.op("add", b.op("mul", core_row, b.const(columns // CHUNK, I64)), chunk)
        else:
            core = b.op("add", b.op("mul", chunk, b.const(rows // 8, I64)), core_row)
        return b.op("add", b.op("mul", core, b.const(64, I64)), b.op("mul", inner, b.const(CHUNK, I64)))

    def ready(self, b: TargetBuilder) -> None:
        """The instruction reads shared memory past the lanes' own path."""
        b.emit(g.SharedFence())

    def multiply(self, lane: int, acc: GroupTile, operands: tuple[Staged, Staged], stage: int) -> GroupTile:
        """All products of one stage, sixteen k at a time, 64 rows at a time."""
        del lane
        b, registers = self.b, list(acc.registers)
        a, right = operands
        rows, depth = a.view.shape
        columns = right.view.shape[1]
        b.emit(g.WarpgroupFence())
        for step in range(depth // 16):
            b_matrix = self._matrix(right, stage, 2 * step * columns * 8, columns // CHUNK * 128)
            for block in range(rows // 64):
                start = 2 * step * rows * 8 + block * 512
                a_matrix = self._matrix(a, stage, start, rows // 8 * 128)
                own = slice(64 * block, 64 * block + 64)
                registers[own] = self._multiply(tuple(registers[own]), a_matrix, b_matrix)
        b.emit(g.MatrixWait(0))
        return replace(acc, registers=tuple(registers))

    def _multiply(self, acc: tuple[int, ...], a: int, b: int) -> tuple[int, ...]:
        results = tuple(self.b.fresh(self.b.type(r)) for r in acc)
        self.b.emit(g.WarpgroupMultiply(results, self.instruction, acc, a, b, (False, True)))
        return results

    def _matrix(self, operand: Staged, stage: int, start: int, leading: int) -> int:
        b = self.b
        index = b.op("add", b.op("mul", stage, b.const(operand.stage_elements, I64)), b.const(start, I64))
        result = b.fresh(scalar(I64))
        b.emit(g.SharedMatrix(result, operand.buffer.pointer, index, leading, 128))
        return result
