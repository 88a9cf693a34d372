"""Every launch of a whole run, on what the launches before it really left: for runs that roundings take far.

Takes the compiled program, the launches of an entry, one case; gives one `GroupResult` per launch. Where a comparison
decides what is added up, as at the kink of a rectifier, two right runs differ by more than rounding. So a value is
compared with what the Graph reference makes of the values that this run made before, rounding included.
Invariant: a value is what its launch wrote, and every later launch finds the same bits: what is read in between, or
written over it, is an error of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tessera_build.config import Tolerance
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.sizes import data_sizes
from tessera_build.verify.execute import CompiledProgram, Memory
from tessera_build.verify.groups import VALUES_BYTES, Case, GroupResult, Groups, dynamic, excused, judge


def compare_in_place(
    program: CompiledProgram, groups: Groups, case: Case, policy: Tolerance
) -> list[GroupResult] | None:
    """Run once, keep what is written, compare it in the order of the graph.

    None where values take too much memory, or have sizes that another run may not have.
    """
    if data_sizes(groups.module.entries[groups.entry]):
        return None
    seen = _Seen(groups, frozenset(groups.running(case.sizes)))
    outputs = program.run(case.entry, case.inputs, case.sizes, seen.look)
    if seen.failures:
        raise seen.failures[0]
    function = groups.module.entries[groups.entry]
    for name, value in zip(groups.module.output_names[groups.entry], function.results, strict=True):
        seen.meet(len(groups.records) - 1, value, outputs[name])
    if seen.bytes > VALUES_BYTES:
        return None
    found = {value: array for value, (_, array) in seen.values.items() if value in function.types}
    wanted = _expected(groups, case, found)
    results: list[GroupResult] = []
    pairs = _pairs(groups, case, seen, wanted)
    for launch in sorted(seen.running | pairs.keys() | seen.overwritten):
        if launch in seen.overwritten:
            results.append(GroupResult(launch, groups.name(launch), groups.records[launch].kernel.name, math.inf, 0.0))
        elif launch in pairs:
            made = {value: array for value, (place, array) in seen.values.items() if place == launch}
            results.append(excused(groups, case, judge(groups, launch, pairs[launch], policy), (found, made), policy))
        elif any(place.value in function.types for place in groups.records[launch].writes):
            return None  # values that lowering added are judged by what is made of them
        if results and not results[-1].accepted:
            break
    return results


@dataclass(slots=True, eq=False)
class _Seen:
    """What a run wrote: by value, the launch where it was first met, and a copy.

    `overwritten`: launches that found another value than was written. Beyond the limit on memory, bytes are counted.
    """

    groups: Groups
    running: frozenset[int]
    values: dict[int, tuple[int, Array]] = field(default_factory=dict)
    overwritten: set[int] = field(default_factory=set)
    failures: list[Exception] = field(default_factory=list)
    bytes: int = 0

    def look(self, launch: int, phase: int, memory: Memory) -> None:
        """Before a launch, what it reads; after it, what it wrote."""
        record = self.groups.records[launch]
        if launch not in self.running:
            return
        try:
            for place in dynamic(record.reads) if phase == 0 else record.writes:
                self.meet(launch, place.value, memory.at(place))
        except Exception as error:  # it cannot pass through C
            self.failures.append(error)

    def meet(self, launch: int, value: int, array: Array) -> None:
        """Keep it, or compare it with what was kept."""
        known = self.values.get(value)
        if known is not None:
            if known[1].tobytes() != np.ascontiguousarray(array).tobytes():
                self.overwritten.add(launch)
            return
        self.bytes += array.nbytes
        if self.bytes <= VALUES_BYTES:
            self.values[value] = launch, np.array(array, order="C")


def _expected(groups: Groups, case: Case, found: Mapping[int, Array]) -> dict[int, Array]:
    """What the reference makes of each value, where all values before it are those of the run."""
    wanted: dict[int, Array] = {}

    def correct(value: int, array: Array) -> Array:
        if value not in found:
            return array
        wanted[value] = array
        return found[value]

    reference.run_along(groups.module, case.entry, case.inputs, found.keys(), reference.Course(correct))
    return wanted


def _pairs(
    groups: Groups, case: Case, seen: _Seen, wanted: Mapping[int, Array]
) -> dict[int, list[tuple[Array, Array]]]:
    """By launch, what was found and what is right; a copy that lowering added is right if it is its origin's."""
    pairs: dict[int, list[tuple[Array, Array]]] = {}
    origin, right = groups.origin(), {**_given(groups, case), **wanted}
    for value, (launch, array) in seen.values.items():
        source = origin.get(value, value)
        if source in seen.values and source != value:
            pairs.setdefault(launch, []).append((array, seen.values[source][1].reshape(array.shape)))
        elif source in right:
            pairs.setdefault(launch, []).append((array, right[source].reshape(array.shape)))
    return pairs


def _given(groups: Groups, case: Case) -> dict[int, Array]:
    """Inputs and constants."""
    function, names = groups.module.entries[groups.entry], groups.module.input_names[groups.entry]
    constants = [node for node in graph_nodes(function) if node.op == "constant"]
    known = {n.outputs[0]: groups.module.constants[str(n.attributes["digest"])] for n in constants}
    return known | {value: case.inputs[name] for value, name in zip(function.args, names, strict=True)}
