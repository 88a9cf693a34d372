"""Proof for a machine that is not this one: tile programs, sampled, through the Tile reference interpreter.

Takes: the lowered variant, the graph module, one case.
Gives: one `GroupResult` per sampled launch.
Invariant: of a loop over independent instances only the first one runs, and only what it wrote is compared; what is
left out for its cost is not reported as proved.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from tessera_build.config import Tolerance
from tessera_build.ir.core.dims import Extent, evaluate, minimum
from tessera_build.ir.core.node import Function, Node
from tessera_build.ir.core.rewrite import map_nodes
from tessera_build.ir.core.structure import regions_of
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.target.host import Buffer
from tessera_build.ir.tile import reference as tile_reference
from tessera_build.ir.tile.nodes import For
from tessera_build.lower.program.records import LoweredVariant
from tessera_build.verify.groups import Case, GroupResult, Groups, choose_launches, judge, reference_values
from tessera_build.verify.inputs import Sizes

# The interpreter takes 20 to 100 µs for a node; a launch of this many is some seconds.
LAUNCH_VISITS: Final = 30_000
BUDGET_SECONDS: Final = 10.0


def sample_tiles(lowered: LoweredVariant, groups: Groups, case: Case, policy: Tolerance) -> list[GroupResult]:
    """Compare a launch of each distinct kernel, cheap ones first, until the time is used.

    One launch of each kind of task is compared whatever it takes, unless it is beyond the limit on visits.
    """
    chosen = choose_launches(groups, case.sizes)
    distinct = [index for index in groups.representatives(case.sizes) if index in chosen]
    expected = reference_values(groups, case, frozenset(distinct))
    plan, results, kinds = _Plan(lowered, groups, case), list[GroupResult](), set[str]()
    functions = {index: first_instances(groups.records[index].tile_function) for index in distinct}
    costs = {index: visits(function.nodes, case.sizes) for index, function in functions.items()}
    end = time.perf_counter() + BUDGET_SECONDS
    for index in sorted(distinct, key=lambda index: (costs[index], index)):
        kind = groups.records[index].kind
        if costs[index] <= LAUNCH_VISITS and (time.perf_counter() < end or kind not in kinds):
            kinds.add(kind)
            results.append(plan.run(index, functions[index], expected, policy))
    return sorted(results, key=lambda result: result.launch)


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    lowered: LoweredVariant
    groups: Groups
    case: Case

    def run(self, launch: int, function: Function, expected: Mapping[int, Array], policy: Tolerance) -> GroupResult:
        """Interpret one launch and judge the elements that it wrote."""
        record = self.groups.records[launch]
        written = {place.value for place in record.writes}
        buffers: list[Array] = []
        for argument, buffer in zip(function.args, self.groups.launches[launch].buffers, strict=True):
            value = self._value(launch, buffer)
            shape = self._shape(function.types[argument])
            if value is None and buffer.space == "arena":
                buffers.append(self._prepared(launch, buffer, expected))
                continue
            made = self._blank(function.types[argument]) if value in written else self._given(value, buffer, expected)
            buffers.append(made.reshape(-1)[: math.prod(shape)].reshape(shape))
        tile_reference.run(function, buffers, self.case.sizes)
        pairs: list[tuple[Array, Array]] = []
        for buffer, array in zip(self.groups.launches[launch].buffers, buffers, strict=True):
            value = self._value(launch, buffer)
            if value is not None and value in written:
                blank = np.full(array.shape, _filler(array.dtype), array.dtype)
                written_here = np.not_equal(array, blank)
                if array.dtype.kind == "f":  # a NaN differs from everything, itself included
                    written_here &= np.logical_not(np.isnan(array))
                pairs.append((array[written_here], expected[value].reshape(array.shape)[written_here]))
        return judge(self.groups, launch, pairs, policy)

    def _prepared(self, launch: int, scratch: Buffer, expected: Mapping[int, Array]) -> Array:
        """Memory that a launch shares with the one before it, which is of the same task and writes nothing else."""
        before, function = self.groups.launches[launch - 1], self.groups.records[launch - 1].tile_function
        buffers: list[Array] = []
        for argument, buffer in zip(function.args, before.buffers, strict=True):
            shape = self._shape(function.types[argument])
            blank = (buffer.space, buffer.offset) == (scratch.space, scratch.offset)
            given = self._blank(function.types[argument]) if blank else self._given(
                self._value(launch - 1, buffer), buffer, expected
            )  # fmt: skip
            buffers.append(given.reshape(-1)[: math.prod(shape)].reshape(shape))
        tile_reference.run(function, buffers, self.case.sizes)
        return next(a for a, b in zip(buffers, before.buffers, strict=True) if b.offset == scratch.offset)

    def _value(self, launch: int, buffer: Buffer) -> int | None:
        """The graph value behind a buffer of a launch."""
        record = self.groups.records[launch]
        for place in (*record.writes, *record.reads):
            if (place.space, place.index, place.offset_bytes) == (buffer.space, buffer.index, buffer.offset):
                return place.value
        return None

    def _given(self, value: int | None, buffer: Buffer, expected: Mapping[int, Array]) -> Array:
        if buffer.space == "weight":
            return np.array(self.lowered.weights[buffer.index].array)
        if buffer.space == "input":
            # A slice may be the same memory: what the buffer names begins at its offset.
            whole = self.case.inputs[self.groups.module.input_names[self.case.entry][buffer.index]]
            return np.array(whole).reshape(-1)[evaluate(buffer.offset, self.case.sizes) // whole.dtype.itemsize :]
        assert value is not None
        return np.array(expected[value])

    def _blank(self, type_: Type) -> Array:
        return np.full(self._shape(type_), _filler(type_.dtype.numpy), type_.dtype.numpy)

    def _shape(self, type_: Type) -> tuple[int, ...]:
        return tuple(evaluate(extent, self.case.sizes) for extent in type_.shape)


def _filler(dtype: np.dtype[np.generic]) -> float | int | bool:
    """What an element holds until it is written."""
    if dtype.kind in "iu":
        return int(np.iinfo(str(dtype)).max)
    return False if dtype.kind == "b" else float("nan")


def first_instances(function: Function) -> Function:
    """The function with every parallel loop cut down to its first iteration."""

    def cut(node: Node) -> Node:
        if isinstance(node, For) and not node.carried and node.binding and node.binding.scope == "parallel":
            return replace(node, extent=minimum(node.extent, node.step))
        return node

    return map_nodes(function, cut)


def visits(nodes: tuple[Node, ...], sizes: Sizes) -> int:
    """How many nodes the interpreter will visit; extents that depend on outer loops count once."""
    total = 0
    for node in nodes:
        inner = sum(visits(region.nodes, sizes) for region in regions_of(node))
        total += 1 + (_iterations(node.extent, node.step, sizes) * inner if isinstance(node, For) else inner)
    return total


def _iterations(extent: Extent, step: int, sizes: Sizes) -> int:
    try:
        return -(-evaluate(extent, sizes) // step)
    except KeyError:
        return 1
