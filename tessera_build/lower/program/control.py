"""Choices and loops as host nodes: where their regions' memory lies, and how values get in and out.

Takes a graph node with regions and its planned blocks; gives one host node. Invariant: a region's values live in a
scratch part of the arena that is alive while the node runs, and results are written where they belong by the region.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import Atom, Extent, maximum, substitute, symbol, symbols_of, terms_of
from tessera_build.ir.core.node import Node, Region
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.graph.ops.control import index_of
from tessera_build.ir.graph.ops.op import extent_of, flag_of, int_of
from tessera_build.ir.target.host import Allocate, Carried, Choose, Release, Repeat
from tessera_build.lower.program.arena import aligned
from tessera_build.lower.program.frame import Home, PlannedBlock, Slots, Surroundings


@dataclass(frozen=True, slots=True)
class ControlPlan:
    """A node with its blocks, the bytes of each value it takes or gives, and `scratch_bytes` of arena.

    For a loop, `places` are the memory that carried values need beside their homes: offsets in the scratch, or the
    dynamic slots of `memory`, which is held while the node runs.
    """

    node: GraphNode
    blocks: tuple[PlannedBlock, ...]
    sizes: Mapping[int, Extent]
    scratch_bytes: Extent
    places: tuple[Home, ...] = ()
    memory: tuple[Allocate, ...] = ()


@dataclass(frozen=True, slots=True)
class Room:
    """What planning needs to know of memory: the most that a size can be, free slots, and the name to blame."""

    most: Callable[[Extent], Extent | None]
    dynamic: Slots
    row: int


def plan_control(node: GraphNode, blocks: Sequence[PlannedBlock], types: Mapping[int, Type], room: Room) -> ControlPlan:
    """Lay out the scratch: the blocks of a choice share it; a loop adds a second place for each carried value."""
    values = (*node.inputs, *node.outputs, *(v for region in node.regions for v in region.results))
    sizes = {value: _bytes(types[value]) for value in values}
    if node.op == "loop":  # what grows from one iteration to the next has room for its last size from the first
        conditional = flag_of(node.attributes, "conditional")
        sizes |= {v: sizes[end] for v, end in zip(node.inputs[conditional:], node.outputs, strict=False)}
    if node.op == "if":
        return ControlPlan(node, tuple(blocks), sizes, _largest([block.arena_bytes for block in blocks]))
    end = aligned(_known(room.most(_over_iterations(node, blocks[0].arena_bytes))))
    places: list[Home] = []
    memory: list[Allocate] = []
    # No result of the loop is a home for its condition, so that has two places here.
    conditions = node.inputs[:1] if flag_of(node.attributes, "conditional") else ()
    for value in (*conditions, *node.inputs):
        most = room.most(sizes[value])
        if most is None:
            memory.append(Allocate("dynamic", room.dynamic.take(1), sizes[value], room.row))
            places.append(Home("dynamic", memory[-1].index))
        else:
            places.append(Home("arena", 0, end))
            end = end + aligned(most)
    return ControlPlan(node, tuple(blocks), sizes, end, tuple(places), tuple(memory))


def _known(size: Extent | None) -> Extent:
    if size is None:
        raise TesseraError(
            "UNSUPPORTED",
            "the memory that a loop needs grows with a number of iterations that only data tell",
            hint="bound the number of iterations, or let the body work on parts of one size",
        )
    return size


def emit_control(plan: ControlPlan, homes: Mapping[int, Home], scratch: Extent, slots: Slots) -> list[Node]:
    """The host nodes; `homes` are those of operands, of captured values and of results."""
    node = plan.node
    if node.op == "loop":
        release = [Release(memory.index) for memory in plan.memory]
        return [*plan.memory, _emit_loop(plan, homes, scratch, slots), *release]
    around = Surroundings(scratch, homes, [homes[v] for v in node.outputs])
    then, otherwise = (Region((), tuple(block.emit(around))) for block in plan.blocks)
    return [Choose(homes[node.inputs[0]].buffer, then, otherwise)]


def _emit_loop(plan: ControlPlan, homes: Mapping[int, Home], scratch: Extent, slots: Slots) -> Node:
    node, (block,) = plan.node, plan.blocks
    conditional, trips = flag_of(node.attributes, "conditional"), extent_of(node.attributes["trips"])
    places = [
        replace(place, offset=scratch + place.offset) if place.space == "arena" else place for place in plan.places
    ]
    ends = [places.pop(0)] if conditional else []
    ends += [homes[v] for v in node.outputs[: len(node.outputs) - int_of(node.attributes, "scans")]]
    carried = tuple(
        Carried(homes[value].buffer, end.buffer, spare.buffer, plan.sizes[value])
        for value, end, spare in zip(node.inputs, ends, places, strict=True)
    )
    first = slots.take(max(1, 2 * len(carried)))  # one to be told by, where nothing is carried
    current = [Home("carried", first + 2 * i) for i in range(len(carried))]
    following = [Home("carried", first + 2 * i + 1) for i in range(len(carried))]
    arguments = {**homes, **dict(zip(node.regions[0].args, current[conditional:], strict=True))}
    nodes = block.emit(Surroundings(scratch, arguments, [*following, *_slices(plan, homes, len(carried))]))
    downward = flag_of(node.attributes, "downward")
    body = Region((), tuple(nodes))
    return Repeat(index_of(node.attributes), trips, conditional, downward, first, carried, body)


def _slices(plan: ControlPlan, homes: Mapping[int, Home], carried: int) -> list[Home]:
    """Where an iteration leaves its part of each stacked result."""
    index = symbol(index_of(plan.node.attributes))
    parts = plan.node.regions[0].results[carried:]
    wholes = [homes[v] for v in plan.node.outputs[len(plan.node.outputs) - len(parts) :]]
    return [
        Home(whole.space, whole.index, whole.offset + index * plan.sizes[part])
        for whole, part in zip(wholes, parts, strict=True)
    ]


def _bytes(type_: Type) -> Extent:
    size: Extent = type_.dtype.bytes
    for extent in type_.shape:
        size = size * extent
    return size


def _largest(sizes: Sequence[Extent]) -> Extent:
    known = [size for size in sizes if isinstance(size, int)]
    largest: Extent = max(known, default=0)
    for size in sizes:
        largest = largest if isinstance(size, int) else size if largest == 0 else maximum(largest, size)
    return largest


def _over_iterations(node: GraphNode, size: Extent) -> Extent:
    """The most that any iteration needs: a size that mentions the index has to grow with it."""
    index = index_of(node.attributes)
    if index not in symbols_of(size):
        return size
    if all(_grows(factor, index) and count > 0 for term, count in terms_of(size) for factor, _ in term):
        # Where nothing runs, a size over index -1 could be negative and move other memory.
        return substitute(size, {index: maximum(extent_of(node.attributes["trips"]) - 1, 0)})
    raise TesseraError(
        "UNSUPPORTED",
        "the memory that a loop needs shrinks from one iteration to the next in a way that is not understood",
        expected=f"a size that grows with the index {index}",
        found=str(size),
    )


def _grows(factor: Atom, index: str) -> bool:
    """Whether a factor never gets smaller when the index gets larger."""
    if not factor.function or index not in symbols_of(factor.left) | symbols_of(factor.right):
        return True
    if factor.function == "mod" or index in symbols_of(factor.right):
        return False
    return all(_grows(inner, index) and count > 0 for term, count in terms_of(factor.left) for inner, _ in term)
