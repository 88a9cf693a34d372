"""Arithmetic on tiles that lie over the lanes of a group: maps, reductions, contractions, permutations.

Takes `GroupTile`s and views; gives `GroupTile`s. A lane that needs another lane's element finds it in shared memory.
Invariant: every element's operations come in the order that the Tile node states, so results equal the reference
bit for bit where its scalar operations do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tessera_build.ir.core.scalar import ScalarProgram
from tessera_build.ir.core.types import I64, DType, scalar
from tessera_build.ir.target import kernel as k
from tessera_build.ir.tile.contraction import parse_spec, summed_axes, tree_width
from tessera_build.ir.tile.nodes import Contract, Iota, Reduce
from tessera_build.lower.tile_to_target.builder import TargetBuilder, make_region
from tessera_build.lower.tile_to_target.scalars import ScalarEmitter
from tessera_build.lower.tile_to_target.simt_layouts import Cyclic, Layout, Place, divided
from tessera_build.lower.tile_to_target.simt_memory import GroupMemory, GroupTile
from tessera_build.lower.tile_to_target.values import BufferValue, ViewValue

Fetch = Callable[[Sequence[int]], int]


@dataclass(frozen=True, slots=True)
class GroupArithmetic:
    """Emits arithmetic for one kernel."""

    b: TargetBuilder
    memory: GroupMemory
    scalars: ScalarEmitter

    def cyclic(self, shape: tuple[int, ...]) -> Cyclic:
        """The default layout."""
        return Cyclic(shape, self.memory.lanes)

    def places(self, layout: Layout) -> list[Place]:
        """Where each register of a layout lies."""
        return [layout.place(self.b, self.memory.lane, r) for r in range(layout.registers)]

    def map(self, layout: Layout, program: ScalarProgram, operands: Sequence[GroupTile]) -> GroupTile:
        """Run a scalar program on every register of the operands, brought to one layout."""
        columns = [self._aligned(operand, layout) for operand in operands]
        registers = tuple(
            self.scalars.run(program, [column[r] for column in columns])[0] for r in range(layout.registers)
        )
        return GroupTile(layout, program.dtype(program.results[0]), registers)

    def _aligned(self, tile: GroupTile, layout: Layout) -> tuple[int, ...]:
        """The tile's elements, broadcast to the registers of `layout`."""
        if tile.layout == layout:
            return tile.registers
        if math.prod(tile.shape) == 1 or self._is_constant(tile):
            return (tile.registers[0],) * layout.registers
        buffer = self.memory.spill(tile)
        self.memory.reads(buffer.pointer)
        registers = tuple(self.memory.element(buffer, place.coordinates) for place in self.places(layout))
        self.memory.give_back(buffer)
        return registers

    def _is_constant(self, tile: GroupTile) -> bool:
        return len(set(tile.registers)) == 1 and self.b.constant(tile.registers[0]) is not None

    def iota(self, node: Iota, layout: Layout, dtype: DType) -> GroupTile:
        """offset + coordinate along one axis."""
        b, start = self.b, self.b.extent(node.offset)
        values = [b.op("add", start, place.coordinates[node.axis]) for place in self.places(layout)]
        return GroupTile(layout, dtype, tuple(v if dtype == I64 else b.op("cast", v, dtype=dtype) for v in values))

    def permute(self, tile: GroupTile, permutation: tuple[int, ...], layout: Layout) -> GroupTile:
        """Axes in another order, through shared memory."""
        buffer = self.memory.spill(tile)
        self.memory.reads(buffer.pointer)
        registers: list[int] = []
        for place in self.places(layout):
            source = [place.coordinates[permutation.index(axis)] for axis in range(len(permutation))]
            registers.append(self.memory.element(buffer, source))
        self.memory.give_back(buffer)
        return GroupTile(layout, tile.dtype, tuple(registers))

    # -- contractions -------------------------------------------------------------------------------------------------

    def contract(self, node: Contract, acc: GroupTile, a: GroupTile | ViewValue, b: GroupTile | ViewValue) -> GroupTile:
        """Every lane adds up its own elements, products in ascending order, one fused multiply-add each."""
        left, right, out = parse_spec(node.spec)
        extents = dict(zip(left, a.shape, strict=True)) | dict(zip(right, b.shape, strict=True))
        summed = summed_axes(node.spec)
        fetch_a, release_a = self._source(a)
        fetch_b, release_b = self._source(b)
        places = self.places(acc.layout)

        def add_products(values: list[int], at: dict[str, int]) -> list[int]:
            seen: dict[tuple[str, tuple[int, ...]], int] = {}
            for number, place in enumerate(places):
                where = dict(zip(out, place.coordinates, strict=True)) | at
                x = self._once(seen, ("a", tuple(where[s] for s in left)), fetch_a)
                y = self._once(seen, ("b", tuple(where[s] for s in right)), fetch_b)
                values[number] = self.scalars.fma(self._cast(x, acc.dtype), self._cast(y, acc.dtype), values[number])
            return values

        registers = self._nest([(s, extents[s]) for s in summed], list(acc.registers), {}, add_products)
        release_a()
        release_b()
        return GroupTile(acc.layout, acc.dtype, tuple(registers))

    def _once(
        self, seen: dict[tuple[str, tuple[int, ...]], int], key: tuple[str, tuple[int, ...]], fetch: Fetch
    ) -> int:
        if key not in seen:
            seen[key] = fetch(key[1])
        return seen[key]

    def _cast(self, value: int, dtype: DType) -> int:
        return self.scalars.convert(value, dtype)

    def _source(self, operand: GroupTile | ViewValue) -> tuple[Fetch, Callable[[], None]]:
        """How to read any element of an operand, and what to do afterwards."""
        memory = self.memory
        if isinstance(operand, ViewValue):
            memory.reads(operand.buffer.pointer)
            return (lambda at: memory.load(operand, Place(tuple(at), None), 0.0)), lambda: None
        buffer = memory.spill(operand)
        memory.reads(buffer.pointer)
        return (lambda at: memory.element(buffer, at)), lambda: memory.give_back(buffer)

    def _nest(
        self,
        loops: list[tuple[str, int]],
        values: list[int],
        at: dict[str, int],
        body: Callable[[list[int], dict[str, int]], list[int]],
    ) -> list[int]:
        """`body` inside loops over named axes, carrying `values`."""
        if not loops:
            return body(values, at)
        (name, extent), rest = loops[0], loops[1:]
        return self._loop(
            self.b.const(0, I64),
            extent,
            1,
            values,
            lambda index, inner: self._nest(rest, inner, {**at, name: index}, body),
        )

    def _loop(
        self, start: int, stop: int, step: int, values: Sequence[int], body: Callable[[int, list[int]], list[int]]
    ) -> list[int]:
        b = self.b
        index = b.fresh(scalar(I64))
        inner = [b.fresh(b.type(v)) for v in values]
        end = b.const(stop, I64)
        with b.region() as nodes:
            final = body(index, list(inner))
            region = make_region((index, *inner), nodes, final)
        results = tuple(b.fresh(b.type(v)) for v in values)
        b.emit(k.Loop(results, start, end, step, tuple(values), region))
        return list(results)

    # -- reductions ---------------------------------------------------------------------------------------------------

    def reduce(self, node: Reduce, operands: Sequence[GroupTile]) -> list[GroupTile]:
        """Combine along axes: by one lane a result for "seq", by n lanes a result for "tree(n)"."""
        buffers = [self.memory.spill(operand) for operand in operands]
        for buffer in buffers:
            self.memory.reads(buffer.pointer)
        shape = operands[0].shape
        kept = tuple(1 if axis in node.axes else extent for axis, extent in enumerate(shape))
        layout, width = self.cyclic(kept), tree_width(node.order)
        if width is None:
            zero = self.b.const(0, I64)
            rows = [self._fold(node, buffers, place.coordinates, zero, 1) for place in self.places(layout)]
        else:
            rows = self._tree(node, buffers, layout, width)
        for buffer in buffers:
            self.memory.give_back(buffer)
        return [GroupTile(layout, operand.dtype, tuple(row[n] for row in rows)) for n, operand in enumerate(operands)]

    def _fold(
        self, node: Reduce, buffers: Sequence[BufferValue], kept: Sequence[int], start: int, step: int
    ) -> tuple[int, ...]:
        """Combine elements start, start + step, ... of the reduced axes, from the identity on."""
        extents = tuple(int(str(buffers[0].shape[axis])) for axis in node.axes)
        identity = [self._identity(i, buffer.dtype) for i, buffer in zip(node.identity, buffers, strict=True)]

        def combine(index: int, values: list[int]) -> list[int]:
            coordinates = list(kept)
            for axis, coordinate in zip(node.axes, divided(self.b, index, extents), strict=True):
                coordinates[axis] = coordinate
            elements = [self.memory.element(buffer, coordinates) for buffer in buffers]
            return list(self.scalars.run(node.combine, [*values, *elements]))

        return tuple(self._loop(start, math.prod(extents), step, identity, combine))

    def _tree(self, node: Reduce, buffers: Sequence[BufferValue], layout: Cyclic, width: int) -> list[tuple[int, ...]]:
        """Partial results by `width` lanes a result, then pairs at halving distance."""
        memory = self.memory
        partials = [memory.borrow(buffer.dtype, (*layout.shape, width)) for buffer in buffers]
        for partial in partials:
            memory.writes(partial.pointer)
        for place in self.places(self.cyclic((*layout.shape, width))):
            values = self._fold(node, buffers, place.coordinates[:-1], place.coordinates[-1], width)
            for partial, value in zip(partials, values, strict=True):
                memory.put(partial, place, value)
        for partial in partials:
            memory.reads(partial.pointer)
        rows = [self._halve(node, partials, place.coordinates, width) for place in self.places(layout)]
        for partial in partials:
            memory.give_back(partial)
        return rows

    def _halve(self, node: Reduce, partials: Sequence[BufferValue], kept: Sequence[int], width: int) -> tuple[int, ...]:
        rows = [
            [self.memory.element(partial, (*kept, self.b.const(j, I64))) for partial in partials] for j in range(width)
        ]
        while len(rows) > 1:
            half = len(rows) // 2
            pairs = zip(rows[:half], rows[half:], strict=True)
            rows = [list(self.scalars.run(node.combine, [*low, *high])) for low, high in pairs]
        return tuple(rows[0])

    def _identity(self, value: float, dtype: DType) -> int:
        return self.b.const(float(value) if dtype.is_float else int(value), dtype)
