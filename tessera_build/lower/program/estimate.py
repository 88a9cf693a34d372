"""What the launches of a lowered variant cost at given sizes: arithmetic, traffic, and cycles by a roofline.

Takes launch records and the sizes of the dims; gives one `Cost` a launch. Invariant: nothing is run or measured; an
operation counts once an element, a multiply-add twice, a change of sign not at all, because it rides along, and every
byte of a value that is read or written once a launch.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tessera_build.ir.core.dims import evaluate, symbols_of
from tessera_build.ir.core.node import Function, Node, walk
from tessera_build.ir.core.scalar import ScalarProgram
from tessera_build.ir.core.types import Type
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.tile.nodes import Contract, For, If, Map, Reduce
from tessera_build.lower.program.records import LaunchRecord, ValuePlace

# What one core draws from memory per cycle where data is in no cache: about 20 GB/s at 2.5 GHz.
_BYTES_PER_CYCLE = 8.0
_MOST_TRIPS = 4096  # of loops, one in another, whose turns are looked at one by one

_RELATIONS: Mapping[str, Callable[[int, int], bool]] = {
    "lt": operator.lt,
    "le": operator.le,
    "eq": operator.eq,
    "ne": operator.ne,
}

_TIMES: Mapping[str, int] = {"fma": 2, "neg": 0}

Sizes = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Cost:
    """One launch: the task's name and kind, floating-point and integer operations, bytes, estimated cycles."""

    name: str
    kind: str
    operations: float
    bytes: int
    cycles: float


def launch_cost(record: LaunchRecord, sizes: Sizes, machine: CpuMachine) -> Cost:
    """The cost of one launch on one core of `machine`."""
    operations = operations_of(record.tile_function, sizes)
    moved = sum(_bytes(place, sizes) for place in (*record.reads, *record.writes))
    peak = 2.0 * machine.lanes * machine.multiply_adds_per_cycle
    cycles = max(operations / peak, moved / _BYTES_PER_CYCLE)
    return Cost(record.task_name, record.kind, operations, moved, cycles)


def operations_of(function: Function, sizes: Sizes) -> float:
    """Arithmetic in a tile function, loops counted by their trips.

    Of two branches the one counts that is taken at these sizes; where that is not known, the dearer one.
    """
    return _block(function.nodes, function.types, dict(sizes), _MOST_TRIPS)


def _block(nodes: tuple[Node, ...], types: Mapping[int, Type], values: dict[str, int], most: int) -> float:
    """`most`: turns that may be looked at one by one."""
    return sum((_node(node, types, values, most) for node in nodes), 0.0)


def _node(node: Node, types: Mapping[int, Type], values: dict[str, int], most: int) -> float:
    if isinstance(node, For):
        trips = max(0, -(-evaluate(node.extent, values) // node.step))
        if trips <= most and _is_asked_for(node):
            turns = (values | {node.index: turn * node.step} for turn in range(trips))
            return sum((_block(node.body.nodes, types, turn, most // trips) for turn in turns), 0.0)
        # The body of a loop of more turns is taken at the middle of its range.
        inner = values | {node.index: trips // 2 * node.step}
        return trips * _block(node.body.nodes, types, inner, most)
    if isinstance(node, If):
        if symbols_of(node.left) | symbols_of(node.right) <= values.keys():
            holds = _RELATIONS[node.relation](evaluate(node.left, values), evaluate(node.right, values))
            return _block((node.then if holds else node.otherwise).nodes, types, values, most)
        return max(_block(branch.nodes, types, values, most) for branch in (node.then, node.otherwise))
    if isinstance(node, Contract):
        return 2.0 * _contraction(node, types)
    if isinstance(node, Map):
        return float(math.prod(types[node.result].static_shape) * _operations(node.program))
    if isinstance(node, Reduce):
        return float(math.prod(types[node.operands[0]].static_shape) * _operations(node.combine))
    return 0.0


def _operations(program: ScalarProgram) -> int:
    """Those of one element."""
    return sum(_TIMES.get(op.name, 1) for op in program.ops)


def _is_asked_for(loop: For) -> bool:
    """Whether what runs in a turn of the loop depends on its index."""
    return any(loop.index in _asked(node) for node in walk(loop.body.nodes))


def _asked(node: Node) -> frozenset[str]:
    """The symbols that say what of a node runs."""
    if isinstance(node, If):
        return frozenset(symbols_of(node.left) | symbols_of(node.right))
    return frozenset(symbols_of(node.extent)) if isinstance(node, For) else frozenset()


def _contraction(node: Contract, types: Mapping[int, Type]) -> int:
    """The number of multiply-adds: the product of the extents of all axes of the spec."""
    left, right = node.spec.split("->")[0].split(",")
    extents = dict(zip(left, types[node.a].static_shape, strict=False))
    extents |= dict(zip(right, types[node.b].static_shape, strict=False))
    return math.prod(extents.values())


def _bytes(place: ValuePlace, sizes: Sizes) -> int:
    return math.prod(evaluate(extent, sizes) for extent in place.shape) * place.dtype.bytes
