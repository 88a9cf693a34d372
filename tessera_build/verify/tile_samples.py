"""Proof for a machine that is not this one: tile programs, sampled, through the Tile reference interpreter.

Takes: the lowered variant, the graph module, one case.
Gives: one `GroupResult` per sampled launch.
Invariant: of a loop over independent instances only the first one runs, and only what it wrote is compared; what is
left out for its cost is not reported as proved.
"""

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

# The interpreter visits about 50,000 nodes a second (a node on tiles of a few hundred elements takes 20 µs).
LAUNCH_VISITS: Final = 30_000
TOTAL_VISITS: Final = 400_000


def sample_tiles(
    lowered: LoweredVariant, groups: Groups, case: Case, policy: Tolerance
) -> list[GroupResult]:
    """Compare launches of distinct kernels, as many as the limits on visits allow."""
    chosen = choose_launches(groups, case.sizes)
    distinct = [index for index in groups.representatives(case.sizes) if index in chosen]
    plan = _Plan(lowered, groups, case)
    expected = reference_values(groups, case, frozenset(distinct))
    results: list[GroupResult] = []
    spent = 0
    for index in distinct:
        function = first_instances(groups.records[index].tile_function)
        cost = visits(function.nodes, case.sizes)
        if cost <= LAUNCH_VISITS and spent + cost <= TOTAL_VISITS:
            spent += cost
            results.append(plan.run(index, function, expected, policy))
    return results


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    lowered: LoweredVariant
    groups: Groups
    case: Case

    def run(
        self, launch: int, function: Function, expected: Mapping[int, Array], policy: Tolerance
    ) -> GroupResult:
        """Interpret one launch and judge the elements that it wrote."""
        record = self.groups.records[launch]
        written = {place.value for place in record.writes}
        buffers: list[Array] = []
        for argument, buffer in zip(function.args, self.groups.launches[launch].buffers, strict=True):
            value = self._value(launch, buffer)
            made = self._blank(function.types[argument]) if value in written else self._given(value, buffer, expected)
            buffers.append(made.reshape(self._shape(function.types[argument])))
        tile_reference.run(function, buffers, self.case.sizes)
        pairs: list[tuple[Array, Array]] = []
        for buffer, array in zip(self.groups.launches[launch].buffers, buffers, strict=True):
            value = self._value(launch, buffer)
            if value in written and value is not None:
                touched = array != array if array.dtype.kind == "f" else array == _filler(array.dtype)
                wanted = expected[value].reshape(array.shape)
                pairs.append((array[~touched], wanted[~touched]))
        return judge(self.groups, launch, pairs, policy)

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
            return np.array(self.case.inputs[self.groups.module.input_names[self.case.entry][buffer.index]])
        assert value is not None
        return np.array(expected[value])

    def _blank(self, type_: Type) -> Array:
        return np.full(self._shape(type_), _filler(type_.dtype.numpy), type_.dtype.numpy)

    def _shape(self, type_: Type) -> tuple[int, ...]:
        return tuple(evaluate(extent, self.case.sizes) for extent in type_.shape)


def _filler(dtype: np.dtype[np.generic]) -> float | int | bool:
    """What an element holds until it is written."""
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).max)
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
