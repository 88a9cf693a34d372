"""Arithmetic on register tiles: elementwise maps, contractions, reductions, permutations.

Takes `TileValue`s; gives `TileValue`s, register by register. Invariant: the order of every floating-point operation is
the one the Tile node states, so results do not depend on how tiles were cut.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from tessera_build.ir.core.scalar import ScalarProgram
from tessera_build.ir.core.types import I32, DType, number_in
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.tile.contraction import parse_spec, summed_axes, tree_width
from tessera_build.ir.tile.nodes import Ahead, Contract, Iota, Reduce
from tessera_build.lower.tile_to_target.builder import TargetBuilder
from tessera_build.lower.tile_to_target.byte_product import ByteProducts
from tessera_build.lower.tile_to_target.memory import Memory
from tessera_build.lower.tile_to_target.scalars import ScalarEmitter
from tessera_build.lower.tile_to_target.transpose import transposed
from tessera_build.lower.tile_to_target.values import Key, TileValue, ViewValue, positions, vector_lanes
from tessera_build.lower.tile_to_target.weave import woven

Operand = TileValue | ViewValue


class Arithmetic:
    """Emits arithmetic for one kernel."""

    def __init__(self, builder: TargetBuilder, memory: Memory, machine: CpuMachine) -> None:
        self._b = builder
        self._memory = memory
        self._machine_lanes = machine.lanes
        self._registers = machine.registers
        self._scalars = ScalarEmitter(builder, machine.fused, machine.scales)
        self._bytes = ByteProducts(builder, memory, machine.byte_products)

    def lanes(self, shape: Sequence[int]) -> int:
        """Lanes of the registers of a tile of this shape."""
        return vector_lanes(shape[-1], self._machine_lanes) if shape[-1] > 1 else 1

    def map(
        self, shape: tuple[int, ...], program: ScalarProgram, operands: Sequence[TileValue], beside: int = 0
    ) -> TileValue:
        """Run a scalar program on every register of the broadcast operands; other tiles hold `beside` registers."""
        lanes = self.lanes(shape)
        registers: dict[Key, int] = {}
        done: dict[tuple[int, ...], int] = {}
        starts: list[int] = []
        for key in positions(shape, lanes):
            starts.append(self._b.length)
            args = tuple(self._b.splat(o.register(key), lanes) for o in operands)
            if args not in done:
                done[args] = self._b.splat(self._scalars.run(program, args)[0], lanes)
            registers[key] = done[args]
        self._b.rearrange(starts, lambda chains: woven(chains, self._registers - beside))
        return TileValue(shape, program.dtype(program.results[0]), lanes, registers)

    def iota(self, node: Iota, shape: tuple[int, ...], dtype: DType) -> TileValue:
        """offset + position along one axis."""
        lanes = self.lanes(shape)
        b, registers = self._b, dict[Key, int]()
        start = b.op("cast", b.extent(node.offset), dtype=dtype) if dtype.name != "i64" else b.extent(node.offset)
        for key in positions(shape, lanes):
            if node.axis == len(shape) - 1:
                first = b.op("add", start, b.const(key[-1] * lanes, dtype))
                registers[key] = b.op("add", b.splat(first, lanes), b.lane_index(dtype, lanes))
            else:
                registers[key] = b.splat(b.op("add", start, b.const(key[node.axis], dtype)), lanes)
        return TileValue(shape, dtype, lanes, registers)

    def contract(self, node: Contract, acc: TileValue, a: Operand, b: Operand) -> TileValue:
        """acc + a * b over shared axes: one fused multiply-add a register and step, summed axes ascending."""
        dot = node.binding is not None and node.binding.instruction == "dot4"
        ahead = None if node.binding is None else node.binding.ahead
        asked = (b, ahead) if isinstance(b, ViewValue) and ahead is not None else None
        if dot and isinstance(a, ViewValue) and isinstance(b, ViewValue):
            self._ask(asked, 0, 1)
            return self._bytes.contract(node, acc, a, b)
        left, right, out = parse_spec(node.spec)
        summed = summed_axes(node.spec)  # of the operands as they stand in the node: exchanging them keeps the order
        if out[-1] not in right:
            a, b, left, right = b, a, right, left
        extents = dict(zip(left, a.shape, strict=True)) | dict(zip(right, b.shape, strict=True))
        registers = dict(acc.registers)
        steps = list(itertools.product(*(range(extents[s]) for s in summed)))
        for number, step in enumerate(steps):
            self._ask(asked, number, len(steps))
            at = dict(zip(summed, step, strict=True))
            fetch_a = self._fetcher(a, left, at, acc.lanes, out[-1])
            fetch_b = self._fetcher(b, right, at, acc.lanes, out[-1])
            for key in positions(acc.shape, acc.lanes):
                where = dict(zip(out, key, strict=True))
                registers[key] = self._multiply_add(fetch_a(where), fetch_b(where), registers[key], acc.dtype)
        return TileValue(acc.shape, acc.dtype, acc.lanes, registers)

    def _ask(self, asked: tuple[ViewValue, Ahead] | None, step: int, steps: int) -> None:
        """Ask for one step's share of the lines that a contraction wants near."""
        if asked is None:
            return
        view, ahead = asked
        lines = ahead.lines * ahead.rows
        for line in range(lines * step // steps, lines * (step + 1) // steps):
            self._memory.ask(view.buffer, ahead, line)

    def _multiply_add(self, a: int, b: int, acc: int, dtype: DType) -> int:
        return self._scalars.fma(self._scalars.convert(a, dtype), self._scalars.convert(b, dtype), acc)

    def _fetcher(
        self, operand: Operand, letters: str, at: dict[str, int], lanes: int, vector_letter: str
    ) -> Callable[[dict[str, int]], int]:
        """A function from a result position to the operand's register there; each is loaded once a step."""
        seen: dict[Key, int] = {}

        def fetch(where: dict[str, int]) -> int:
            key = tuple(at[s] if s in at else where[s] for s in letters)
            if key not in seen:
                seen[key] = self._fetch(operand, letters, key, lanes, vector_letter)
            return seen[key]

        return fetch

    def _fetch(self, operand: Operand, letters: str, key: Key, lanes: int, vector_letter: str) -> int:
        if letters[-1] == vector_letter and operand.shape[-1] > 1:
            if isinstance(operand, ViewValue):
                return self._memory.vector(operand, key[:-1], key[-1], lanes, 0.0)
            return operand.registers[key]
        place = letters.find(vector_letter)
        if place >= 0 and operand.shape[place] > 1:
            return self._across(operand, key, place, lanes)
        return self._b.splat(self._element(operand, key), lanes)

    def _across(self, operand: Operand, key: Key, place: int, lanes: int) -> int:
        """A register along an axis that is not the operand's last: its lanes one by one."""
        dtype = operand.buffer.dtype if isinstance(operand, ViewValue) else operand.dtype
        register = self._b.const(number_in(0, dtype), dtype, lanes)
        first = key[place] * lanes
        for lane in range(min(lanes, operand.shape[place] - first)):
            value = self._element(operand, (*key[:place], first + lane, *key[place + 1 :]))
            register = self._b.insert(register, value, lane)
        return register

    def _element(self, operand: Operand, key: Key) -> int:
        if isinstance(operand, ViewValue):
            return self._memory.element(operand, key[:-1], key[-1], 0.0)
        return self._b.extract(operand.registers[(*key[:-1], key[-1] // operand.lanes)], key[-1] % operand.lanes)

    # -- reductions -------------------------------------------------------------------------------------------------

    def reduce(self, node: Reduce, operands: Sequence[TileValue]) -> tuple[TileValue, ...]:
        """Combine along axes in the node's order: whole registers where lanes may stay apart, else lane by lane."""
        shape, lanes = operands[0].shape, operands[0].lanes
        kept = tuple(1 if axis in node.axes else extent for axis, extent in enumerate(shape))
        last = len(shape) - 1 in node.axes and shape[-1] > 1
        partials = last and _lanes_are_partials(node, shape, lanes)
        single = last and not partials
        results: list[dict[Key, int]] = [{} for _ in operands]
        for key in positions(kept, 1 if last else lanes):
            elements = [self._elements(node, o, n, key, single) for n, o in enumerate(operands)]
            order = "seq" if partials else node.order
            values = self._fold(node, list(zip(*elements, strict=True)), order)
            values = self._across_lanes(node, values, lanes) if partials else values
            for result, value in zip(results, values, strict=True):
                result[key] = value
        width = 1 if last else lanes
        return tuple(TileValue(kept, o.dtype, width, r) for o, r in zip(operands, results, strict=True))

    def _elements(self, node: Reduce, operand: TileValue, number: int, key: Key, single: bool) -> list[int]:
        """What is combined into one result: registers, or single elements, with the last of `axes` moving fastest."""
        extents = list(operand.shape)
        if not single:
            extents[-1] = -(-extents[-1] // operand.lanes)
        found: list[int] = []
        for steps in itertools.product(*(range(extents[axis]) for axis in node.axes)):
            moved = dict(zip(node.axes, steps, strict=True))
            where = tuple(moved.get(axis, index) for axis, index in enumerate(key))
            if single:
                found.append(self._element(operand, where))
            else:
                found.append(self._valid(operand, where, node.identity[number], operand.shape[-1]))
        return found

    def _fold(self, node: Reduce, elements: Sequence[tuple[int, ...]], order: str) -> tuple[int, ...]:
        """Elements combined in "seq" or "tree(n)" order, starting from the identity."""
        width = tree_width(order) or 1
        first = elements[0]
        types = [(self._b.type(v).dtype, self._b.lanes(v)) for v in first]
        identity = tuple(
            self._b.const(number_in(i, dtype), dtype, lanes)
            for i, (dtype, lanes) in zip(node.identity, types, strict=True)
        )
        partials = [identity] * width
        for index, element in enumerate(elements):
            partials[index % width] = self._scalars.run(node.combine, (*partials[index % width], *element))
        while len(partials) > 1:
            half = len(partials) // 2
            pairs = zip(partials[:half], partials[half:], strict=True)
            partials = [self._scalars.run(node.combine, (*low, *high)) for low, high in pairs]
        return partials[0]

    def _valid(self, operand: TileValue, key: Key, identity: float, extent: int) -> int:
        """The register with the lanes beyond the tile's last extent set to the identity."""
        register, lanes = operand.registers[key], operand.lanes
        room = extent - key[-1] * lanes
        if lanes == 1 or room >= lanes:
            return register
        mask = self._b.op("lt", self._b.lane_index(I32, lanes), self._b.const(room, I32, lanes))
        filler = self._b.const(number_in(identity, operand.dtype), operand.dtype, lanes)
        return self._b.op("select", mask, register, filler)

    def _across_lanes(self, node: Reduce, values: tuple[int, ...], lanes: int) -> tuple[int, ...]:
        """The lanes of registers as partial results, combined pairwise with halving distance."""
        width = lanes
        while width > 1:
            half = width // 2
            parts = [
                (self._b.shuffle(v, v, range(half)), self._b.shuffle(v, v, range(half, width)))
                if half > 1
                else (self._b.extract(v, 0), self._b.extract(v, 1))
                for v in values
            ]
            values = self._scalars.run(node.combine, (*(p[0] for p in parts), *(p[1] for p in parts)))
            width = half
        return values

    def permute(self, operand: TileValue, permutation: tuple[int, ...]) -> TileValue:
        """Axes in another order; where another one becomes the last, blocks of registers are transposed."""
        shape, last = tuple(operand.shape[p] for p in permutation), len(permutation) - 1
        lanes, crossed = self.lanes(shape), permutation[-1]
        registers: dict[Key, int] = {}
        if crossed == last:
            for key in positions(shape, lanes):
                registers[key] = operand.registers[tuple(key[permutation.index(axis)] for axis in range(last + 1))]
            return TileValue(shape, operand.dtype, lanes, registers)
        for key in positions((*operand.shape[:crossed], 1, *operand.shape[crossed + 1 :]), operand.lanes):
            for vector, top in enumerate(range(0, shape[-1], lanes)):
                rows = [
                    operand.registers[(*key[:crossed], row, *key[crossed + 1 :])]
                    for row in range(top, min(top + lanes, shape[-1]))
                ]
                first = key[-1] * operand.lanes
                columns = transposed(self._b, rows, lanes, min(operand.lanes, operand.shape[-1] - first))
                for column, register in enumerate(columns):
                    moved = (*key[:crossed], vector, *key[crossed + 1 : -1], first + column)
                    registers[tuple(moved[axis] for axis in permutation)] = register
        return TileValue(shape, operand.dtype, lanes, registers)


def _lanes_are_partials(node: Reduce, shape: tuple[int, ...], lanes: int) -> bool:
    """Whether the lane of an element is the partial result that "tree(n)" gives it to."""
    width = tree_width(node.order)
    if width is None or node.axes[-1] != len(shape) - 1:
        return False
    alone = all(shape[axis] == 1 for axis in node.axes[:-1])
    if alone and shape[-1] <= lanes <= width:
        return True  # the partial results beyond the lanes are identities
    return width == lanes and (alone or shape[-1] % lanes == 0)
