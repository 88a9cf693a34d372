"""tile_to_target for machines of groups: one tile program becomes the code of one lane.

Takes a Tile function bound to such a machine (loops of scope "group" outermost) and the lanes of a group; gives a
Target kernel and how many groups a launch has. Invariant: the kernel computes what the Tile reference interpreter
computes; barriers are derived from what is read and written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from tessera_build.ir.core.dims import Extent, floordiv
from tessera_build.ir.core.node import Function, Node, Region, walk
from tessera_build.ir.core.types import I64, Type, memref, scalar
from tessera_build.ir.machine.instructions import INSTRUCTIONS
from tessera_build.ir.target import group as g
from tessera_build.ir.target import kernel as k
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.tile_to_target.builder import TargetBuilder, make_region
from tessera_build.lower.tile_to_target.scalars import ScalarEmitter
from tessera_build.lower.tile_to_target.simt_compute import GroupArithmetic
from tessera_build.lower.tile_to_target.simt_layouts import Fragment, Layout, layout_named
from tessera_build.lower.tile_to_target.simt_matrix import (
    FourWarpMultiply,
    MatrixEmitter,
    MatrixLoop,
    WarpMultiply,
)
from tessera_build.lower.tile_to_target.simt_memory import GroupMemory, GroupTile
from tessera_build.lower.tile_to_target.table import ValueTable
from tessera_build.lower.tile_to_target.values import BufferValue, ViewValue, checked, row_major


@dataclass(frozen=True, slots=True)
class GroupKernel:
    """A Target kernel for one lane; how many groups a launch has, how many lanes and how much shared memory a group."""

    kernel: Function
    groups: Extent
    lanes: int
    shared_bytes: int


def lower_group(function: Function, lanes: int) -> GroupKernel:
    """Lower one tile program that is bound to a machine of groups."""
    return _GroupLowering(function, lanes).run()


class _GroupLowering:
    def __init__(self, function: Function, lanes: int) -> None:
        self._function = function
        self._lanes = lanes
        self._b = TargetBuilder(function.name)
        self._values = ValueTable(GroupTile)
        self._groups: Extent = 1

    def run(self) -> GroupKernel:
        b, function = self._b, self._function
        for argument in function.args:
            kind = self._type(argument)
            pointer = b.arg(memref(kind.dtype, *kind.shape))
            self._values[argument] = BufferValue(pointer, kind.dtype, kind.shape, row_major(kind.shape))
        names = _dims(function)
        for name in names:
            b.symbols[name] = b.arg(scalar(I64))
        self._start(names)
        self._groups_of(function.nodes)
        kernel = b.finish({"dims": names, "lanes": self._lanes})
        kernel = replace(kernel, nodes=(*self._memory.allocations, *kernel.nodes))
        return GroupKernel(kernel, self._groups, self._lanes, g.shared_offsets(kernel)[1])

    def _start(self, names: Sequence[str]) -> None:
        b, written = self._b, _written_buffers(self._function)
        lane = b.fresh(scalar(I64))
        b.emit(g.Lane(lane))
        constant = [v.pointer for a, v in self._values.buffers() if a not in written]
        self._memory = GroupMemory(b, lane, self._lanes, frozenset(constant))
        self._memory.ranges.update(dict.fromkeys(names, (0, None)))
        self._math = GroupArithmetic(b, self._memory, ScalarEmitter(b, fused=True))

    def _type(self, value: int) -> Type:
        return self._function.types[value]

    # -- groups -------------------------------------------------------------------------------------------------------

    def _groups_of(self, nodes: tuple[Node, ...]) -> None:
        """Turn the perfect nest of group loops at the top into divisions of the group's number."""
        b, loops = self._b, list[t.For]()
        while len(nodes) == 1 and isinstance(nodes[0], t.For) and _scope(nodes[0]) == "group":
            loops.append(nodes[0])
            nodes = nodes[0].body.nodes
        rest = b.fresh(scalar(I64))
        b.emit(g.GroupIndex(rest))
        for loop in reversed(loops):
            trips = floordiv(loop.extent + (loop.step - 1), loop.step)
            self._groups = self._groups * trips
            count = b.extent(trips)
            position = rest if loop is loops[0] else b.op("rem", rest, count)
            rest = rest if loop is loops[0] else b.op("div", rest, count)
            b.symbols[loop.index] = b.op("mul", position, b.const(loop.step, I64))
            self._memory.ranges[loop.index] = (0, None)
        self._block(nodes)

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _block(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            self._node(node)

    def _node(self, node: Node) -> None:
        values, math = self._values, self._math
        match node:
            case t.View():
                values[node.result] = self._view(node)
            case t.Load():
                values[node.result] = self._load(node)
            case t.Store():
                self._store(self._values.view(node.view), self._values.tile(node.value))
            case t.Copy():
                self._copy(node)
            case t.Map():
                layout = self._layout(node, node.result)
                values[node.result] = math.map(layout, node.program, [self._values.tile(o) for o in node.operands])
            case t.Contract():
                acc, a, b = self._values.tile(node.acc), self._values.operand(node.a), self._values.operand(node.b)
                values[node.result] = math.contract(node, acc, a, b)
            case t.Reduce():
                results = math.reduce(node, [self._values.tile(o) for o in node.operands])
                values.update(zip(node.results, results, strict=True))
            case t.Permute():
                layout = self._layout(node, node.result)
                values[node.result] = math.permute(self._values.tile(node.operand), node.permutation, layout)
            case t.Iota():
                layout = self._layout(node, node.result)
                values[node.result] = math.iota(node, layout, self._type(node.result).dtype)
            case t.Alloc():
                kind = self._type(node.result)
                values[node.result] = self._memory.shared(kind.dtype, kind.static_shape)
            case t.For():
                self._for(node)
            case t.If():
                self._if(node)
            case t.Wait():
                pass  # Copies that nothing bound as asynchronous are complete at the next barrier.
            case _:
                raise ValueError(f"tile node {type(node).__name__} has no lowering for groups")

    def _layout(self, node: t.Map | t.Load | t.Permute | t.Iota, value: int) -> Layout:
        name = node.binding.layout if node.binding is not None else None
        return layout_named(name, self._type(value).static_shape, self._lanes)

    def _view(self, node: t.View) -> ViewValue:
        buffer = self._values.buffer(node.buffer)
        if node.indices is not None:
            raise ValueError("a gather needs a status to report bad indices, which kernels of groups do not have")
        shape = self._type(node.result).static_shape
        return ViewValue(buffer, shape, node.offsets, node.axes, None, -1, False, not checked(node.binding))

    def _load(self, node: t.Load) -> GroupTile:
        view, layout = self._values.view(node.view), self._layout(node, node.result)
        self._memory.reads(view.buffer.pointer)
        registers = tuple(self._memory.load(view, place, node.pad) for place in self._math.places(layout))
        return GroupTile(layout, view.buffer.dtype, registers)

    def _store(self, view: ViewValue, tile: GroupTile) -> None:
        self._memory.writes(view.buffer.pointer)
        for place, register in zip(self._math.places(tile.layout), tile.registers, strict=True):
            self._memory.store(view, place, register)

    def _copy(self, node: t.Copy) -> None:
        source, target = self._values.view(node.source), self._values.view(node.target)
        self._memory.reads(source.buffer.pointer)
        places = self._math.places(self._math.cyclic(source.shape))
        registers = [self._memory.load(source, place, node.pad) for place in places]
        self._memory.writes(target.buffer.pointer)
        for place, register in zip(places, registers, strict=True):
            self._memory.store(target, place, register)

    # -- structure ----------------------------------------------------------------------------------------------------

    def _for(self, node: t.For) -> None:
        if node.binding is not None and node.binding.stage is not None:
            self._matrix_loop(node, node.binding.stage)
            return
        b = self._b
        self._memory.fence()
        start, stop = b.const(0, I64), b.extent(node.extent)
        carried = [self._values.tile(c) for c in node.carried]
        initial = tuple(r for c in carried for r in c.registers)
        index = b.fresh(scalar(I64))
        inner = [b.fresh(b.type(r)) for r in initial]
        self._memory.ranges[node.index] = (0, None)
        with b.region() as nodes:
            b.symbols[node.index] = index
            self._values.update(zip(node.body.args, _collect(carried, inner), strict=True))
            self._block(node.body.nodes)
            self._memory.fence()
            final = [r for v in node.body.results for r in self._values.tile(v).registers]
            body = make_region((index, *inner), nodes, final)
        results = tuple(b.fresh(b.type(r)) for r in initial)
        b.emit(k.Loop(results, start, stop, node.step, initial, body))
        self._values.update(zip(node.results, _collect(carried, results), strict=True))

    def _matrix_loop(self, node: t.For, stages: int) -> None:
        """A loop whose body is views and one contraction by a matrix instruction, its operands copied ahead."""
        for view in node.body.nodes:
            if isinstance(view, t.View):
                self._values[view.result] = self._view(view)
        (contract,) = (n for n in node.body.nodes if isinstance(n, t.Contract))
        name = contract.binding.instruction if contract.binding is not None else None
        acc = self._values.tile(node.carried[0])
        emitter = self._matrix_emitter(name or "", acc)
        self._memory.ranges[node.index] = (0, None)
        loop = MatrixLoop(self._b, self._memory, emitter, node.index, node.extent, node.step, stages)
        self._values[node.results[0]] = loop.run(acc, self._values.view(contract.a), self._values.view(contract.b))

    def _matrix_emitter(self, name: str, acc: GroupTile) -> MatrixEmitter:
        if not isinstance(acc.layout, Fragment):
            raise ValueError(f"the accumulator of {name} is not laid out in fragments")
        if INSTRUCTIONS[name].executor == "warpgroup":
            return FourWarpMultiply(self._b, name)
        return WarpMultiply(self._b, acc.layout.warps, name)

    def _if(self, node: t.If) -> None:
        b = self._b
        self._memory.fence()
        condition = b.op(node.relation, b.extent(node.left), b.extent(node.right))
        regions: list[Region] = []
        tiles: list[GroupTile] = []
        for region in (node.then, node.otherwise):
            with b.region() as nodes:
                self._block(region.nodes)
                self._memory.fence()
                tiles = [self._values.tile(v) for v in region.results]
                regions.append(make_region((), nodes, [r for v in tiles for r in v.registers]))
        results = tuple(b.fresh(b.type(r)) for r in regions[0].results)
        b.emit(k.Branch(results, condition, regions[0], regions[1]))
        self._values.update(zip(node.results, _collect(tiles, results), strict=True))


def _collect(like: Sequence[GroupTile], registers: Sequence[int]) -> list[GroupTile]:
    """Tiles laid out as in `like` over a flat list of registers."""
    tiles: list[GroupTile] = []
    position = 0
    for tile in like:
        count = len(tile.registers)
        tiles.append(replace(tile, registers=tuple(registers[position : position + count])))
        position += count
    return tiles


def _dims(function: Function) -> tuple[str, ...]:
    dims = function.attributes.get("dims", ())
    return tuple(str(name) for name in cast("tuple[object, ...]", dims)) if isinstance(dims, tuple) else ()


def _scope(loop: t.For) -> str | None:
    return loop.binding.scope if loop.binding is not None else None


def _written_buffers(function: Function) -> set[int]:
    """Buffers that some node writes through a view."""
    buffers = {node.result: node.buffer for node in function.walk() if isinstance(node, t.View)}
    targets = [
        n.view if isinstance(n, t.Store) else n.target for n in walk(function.nodes) if isinstance(n, t.Store | t.Copy)
    ]
    return {buffers[target] for target in targets}
