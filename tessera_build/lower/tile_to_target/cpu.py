"""tile_to_target for CPUs: one tile program becomes one kernel of scalars and machine-wide vectors.

Takes a Tile function (attributes: `dims`, optional `strides` per buffer) and the machine's vector facts; gives a
Target kernel. Loops bound to scope "parallel" at the top become the kernel's iteration index; `parallel_count` is how
many there are. Invariant: the kernel computes what the Tile reference interpreter computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import cast

from tessera_build.ir.core.dims import Extent, Range, bounds, floordiv
from tessera_build.ir.core.node import Function, Node, Region
from tessera_build.ir.core.types import I64, Type, memref, scalar
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.target import kernel as k
from tessera_build.ir.tile import nodes as t
from tessera_build.ir.tile.text import print_function as print_tile
from tessera_build.lower.tile_to_target.builder import TargetBuilder, make_region
from tessera_build.lower.tile_to_target.compute import Arithmetic
from tessera_build.lower.tile_to_target.early import ended_early
from tessera_build.lower.tile_to_target.memory import INDEX_OUT_OF_RANGE, Memory
from tessera_build.lower.tile_to_target.pressure import registers_beside
from tessera_build.lower.tile_to_target.table import ValueTable
from tessera_build.lower.tile_to_target.values import (
    BufferValue,
    Key,
    TileValue,
    ViewValue,
    checked,
    exchanged,
    neighbours,
    row_major,
)


@dataclass(frozen=True, slots=True)
class LoweredKernel:
    """A Target kernel and how many parallel iterations a launch has."""

    kernel: Function
    parallel_count: Extent


def lower_cpu(function: Function, machine: CpuMachine, ranges: Mapping[str, Range]) -> LoweredKernel:
    """Lower one bound tile program; `ranges` bounds its symbolic dims.

    Programs with the same text share the nodes of their kernel: a network of equal layers has few distinct ones.
    """
    text = print_tile(replace(function, name=""))
    lowered = _lower_text(_Request(text, machine, tuple(sorted(ranges.items())), function))
    return replace(lowered, kernel=replace(lowered.kernel, name=function.name))


@dataclass(frozen=True, slots=True)
class _Request:
    """What a kernel is made from; `text` says all that `function` is."""

    text: str
    machine: CpuMachine
    ranges: tuple[tuple[str, Range], ...]
    function: Function = field(compare=False)


@lru_cache(maxsize=64)  # of some hundred nodes to some thousand each
def _lower_text(request: _Request) -> LoweredKernel:
    return _CpuLowering(request.function, request.machine, dict(request.ranges)).run()


class _CpuLowering:
    def __init__(self, function: Function, machine: CpuMachine, ranges: Mapping[str, Range]) -> None:
        self._function = function
        self._b = TargetBuilder(function.name)
        self._memory = Memory(self._b, machine.lanes)
        self._memory.ranges.update(ranges)
        self._math = Arithmetic(self._b, self._memory, machine)
        self._beside = registers_beside(function, machine.lanes)
        self._values = ValueTable(TileValue)
        self._count: Extent = 1

    def run(self) -> LoweredKernel:
        given = cast(tuple[tuple[Extent, ...] | None, ...], self._function.attributes.get("strides", ()))
        for position, arg in enumerate(self._function.args):
            kind = self._type(arg)
            pointer = self._b.arg(memref(kind.dtype, *kind.shape))
            layout = given[position] if position < len(given) else None
            self._values[arg] = BufferValue(pointer, kind.dtype, kind.shape, layout or row_major(kind.shape))
        names = self._function.names("dims")
        for name in names:
            self._b.symbols[name] = self._b.arg(scalar(I64))
        index = self._b.arg(scalar(I64))
        self._parallel(self._function.nodes, index)
        return LoweredKernel(self._b.finish({"dims": names}), self._count)

    def _type(self, value: int) -> Type:
        return self._function.types[value]

    # -- the parallel iteration space ---------------------------------------------------------------------------------

    def _parallel(self, nodes: tuple[Node, ...], index: int) -> None:
        """Turn the perfect nest of parallel loops at the top into divisions of the kernel's index."""
        loops: list[t.For] = []
        while len(nodes) == 1 and isinstance(nodes[0], t.For) and _is_parallel(nodes[0]):
            loops.append(nodes[0])
            nodes = nodes[0].body.nodes
        trips = [_trips(loop) for loop in loops]
        for trip in trips:
            self._count = self._count * trip
        rest = index
        for loop, trip in reversed(list(zip(loops, trips, strict=True))):
            outermost = loop is loops[0]
            extent = self._b.extent(trip)
            position = rest if outermost else self._b.op("rem", rest, extent)
            rest = rest if outermost else self._b.op("div", rest, extent)
            self._b.symbols[loop.index] = self._b.op("mul", position, self._b.const(loop.step, I64))
            self._enter(loop)
        self._block(nodes)

    def _enter(self, loop: t.For) -> None:
        high: int | None = None
        if isinstance(loop.extent, int):
            high = (loop.extent - 1) // loop.step * loop.step
        else:
            top = bounds(loop.extent, self._memory.ranges)[1]
            high = None if top is None else top - 1
        self._memory.ranges[loop.index] = (0, high)

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _block(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            self._node(node)

    def _node(self, node: Node) -> None:
        values = self._values
        match node:
            case t.View():
                values[node.result] = self._view(node)
            case t.Load():
                values[node.result] = self._load(self._values.view(node.view), node.pad)
            case t.Store():
                self._store(self._values.view(node.view), self._values.tile(node.value))
            case t.Copy():
                loaded = self._load(self._values.view(node.source), node.pad)
                self._store(self._values.view(node.target), loaded)
            case t.Map():
                shape, operands = self._type(node.result).static_shape, [values.tile(o) for o in node.operands]
                values[node.result] = self._math.map(shape, node.program, operands, self._beside[node.result])
            case t.Contract():
                acc, a, b = values.tile(node.acc), values.operand(node.a), values.operand(node.b)
                values[node.result] = self._math.contract(node, acc, a, b)
            case t.Reduce():
                results = self._math.reduce(node, [self._values.tile(o) for o in node.operands])
                values.update(zip(node.results, results, strict=True))
            case t.Permute():
                values[node.result] = self._math.permute(self._values.tile(node.operand), node.permutation)
            case t.Iota():
                kind = self._type(node.result)
                values[node.result] = self._math.iota(node, kind.static_shape, kind.dtype)
            case t.Alloc():
                values[node.result] = self._alloc(node)
            case t.For():
                self._for(node)
            case t.If():
                self._if(node)
            case t.Let():
                self._let(node)
            case t.Wait():
                pass  # Copies on a CPU are complete when issued.
            case _:
                raise ValueError(f"tile node {type(node).__name__} has no CPU lowering")

    def _load(self, view: ViewValue, pad: float) -> TileValue:
        """The tile as its elements lie in memory, its axes exchanged in registers where those are not the tile's rows.

        Measured, 12 x 128 x 64 keys as columns: 38 us by gathers, which is what attention lost before its products.
        """
        axis = neighbours(view)
        if axis is None:
            return self._memory.load(view, pad)
        turned, order = exchanged(view, axis)
        return self._math.permute(self._memory.load(turned, pad), order)

    def _store(self, view: ViewValue, value: TileValue) -> None:
        axis = neighbours(view)
        if axis is None or value.shape != view.shape:
            self._memory.store(view, value)
            return
        turned, order = exchanged(view, axis)
        self._memory.store(turned, self._math.permute(value, order))

    def _view(self, node: t.View) -> ViewValue:
        buffer = self._values.buffer(node.buffer)
        indices = None if node.indices is None else self._values.tile(node.indices)
        shape = self._type(node.result).static_shape
        stored = not checked(node.binding)
        if node.binding is not None and node.binding.ahead is not None:
            for line in range(node.binding.ahead.lines * node.binding.ahead.rows):
                self._memory.ask(buffer, node.binding.ahead, line)
        return ViewValue(buffer, shape, node.offsets, node.axes, indices, node.gather_axis, node.gather_checked, stored)

    def _alloc(self, node: t.Alloc) -> BufferValue:
        kind = self._type(node.result)
        elements = 1
        for extent in kind.static_shape:
            elements *= extent
        pointer = self._b.fresh(memref(kind.dtype, elements))
        self._b.emit(k.Alloca(pointer, elements))
        return BufferValue(pointer, kind.dtype, kind.shape, row_major(kind.shape))

    # -- structure ----------------------------------------------------------------------------------------------------

    def _for(self, node: t.For) -> None:
        if node.binding is not None and node.binding.scope == "unroll" and isinstance(node.extent, int):
            self._unrolled(node, node.extent)
            return
        b = self._b
        start, stop = b.const(0, I64), b.extent(node.extent)
        carried = [self._values.tile(c) for c in node.carried]
        initial = tuple(r for c in carried for r in self._spread(c))
        index = b.fresh(scalar(I64))
        inner = [b.fresh(b.type(r)) for r in initial]
        self._enter(node)
        with b.region() as nodes:
            b.symbols[node.index] = index
            self._values.update(zip(node.body.args, self._collect(carried, inner), strict=True))
            self._block(node.body.nodes)
            final = [r for v in node.body.results for r in self._spread(self._values.tile(v))]
            ordered = nodes if b.halves is None else ended_early(nodes, inner, b.halves)
            body = make_region((index, *inner), ordered, final)
        results = tuple(b.fresh(b.type(r)) for r in initial)
        b.emit(k.Loop(results, start, stop, node.step, initial, body))
        self._values.update(zip(node.results, self._collect(carried, results), strict=True))

    def _unrolled(self, node: t.For, extent: int) -> None:
        carried = [self._values[c] for c in node.carried]
        for position in range(0, extent, node.step):
            self._b.fixed[node.index] = position
            self._memory.ranges[node.index] = (position, position)
            self._values.update(zip(node.body.args, carried, strict=True))
            self._block(node.body.nodes)
            carried = [self._values[r] for r in node.body.results]
        self._b.fixed.pop(node.index, None)
        self._values.update(zip(node.results, carried, strict=True))

    def _if(self, node: t.If) -> None:
        b = self._b
        condition = b.op(node.relation, b.extent(node.left), b.extent(node.right))
        regions: list[Region] = []
        shapes: list[TileValue] = []
        for region in (node.then, node.otherwise):
            with b.region() as nodes:
                self._block(region.nodes)
                shapes = [self._values.tile(v) for v in region.results]
                regions.append(make_region((), nodes, [r for v in shapes for r in self._spread(v)]))
        results = tuple(b.fresh(b.type(r)) for r in regions[0].results)
        b.emit(k.Branch(results, condition, regions[0], regions[1]))
        self._values.update(zip(node.results, self._collect(shapes, results), strict=True))

    def _let(self, node: t.Let) -> None:
        """Straight code: the region only keeps what is known about the index from code that follows."""
        b = self._b
        (register,) = self._values.tile(node.value).registers.values()
        chosen = b.op("cast", register, dtype=I64)
        extent = b.extent(node.extent)
        inside = b.op("and", b.op("ge", chosen, b.const(0, I64)), b.op("lt", chosen, extent))
        b.emit(k.Check(inside, INDEX_OUT_OF_RANGE))
        high = bounds(node.extent, self._memory.ranges)[1]
        self._memory.ranges[node.index] = (0, None if high is None else max(0, high - 1))
        with b.region() as nodes:
            b.symbols[node.index] = chosen
            self._block(node.body.nodes)
        for inner in nodes:
            b.emit(inner)
        self._values.update(zip(node.results, [self._values.tile(r) for r in node.body.results], strict=True))

    def _spread(self, value: TileValue) -> list[int]:
        return [self._b.splat(r, value.lanes) for r in value.registers.values()]

    def _collect(self, like: Sequence[TileValue], registers: Sequence[int]) -> list[TileValue]:
        """Tiles of the shapes in `like` over a flat list of registers."""
        tiles: list[TileValue] = []
        position = 0
        for value in like:
            keys: list[Key] = list(value.registers)
            own = dict(zip(keys, registers[position : position + len(keys)], strict=True))
            tiles.append(TileValue(value.shape, value.dtype, value.lanes, own))
            position += len(keys)
        return tiles


def _is_parallel(loop: t.For) -> bool:
    return loop.binding is not None and loop.binding.scope == "parallel" and not loop.carried


def _trips(loop: t.For) -> Extent:
    return floordiv(loop.extent + (loop.step - 1), loop.step)
