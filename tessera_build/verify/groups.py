"""Every fusion group by itself: reference inputs in, reference outputs expected.

Takes: the compiled program, the lowered variant, the graph module that it was lowered from, one case.
Gives: one `GroupResult` per launch that was compared.
Invariant: before a launch, what it reads is overwritten with the reference's values, so that a wrong kernel is found
at its own launch and never blamed on, or hidden by, another. Launches inside loops and choices are not compared alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from tessera_build.config import Tolerance
from tessera_build.ir.core.dims import evaluate
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.structure import defs_of
from tessera_build.ir.core.types import F32, dtype_of
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.target.host import Launch
from tessera_build.lower.program.records import LaunchRecord, LoweredVariant, ValuePlace
from tessera_build.verify.compare import error_of, is_float, last_places, limit_of
from tessera_build.verify.exact import noise_of_values, widened_limit
from tessera_build.verify.execute import CompiledProgram, Memory
from tessera_build.verify.inputs import Sizes
from tessera_build.verify.jumps import Suspect, judged_by_reach
from tessera_build.verify.steps import is_a_step_away, quantises

# Reference values that are held at once; beyond it only some launches are compared.
VALUES_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class GroupResult:
    """How far one launch is from the reference; `limit` is what the policy accepts.

    `noise` of a launch beyond its limit: how far the reference itself is from the exact answer, or how far roundings
    move all elements that are off.
    """

    launch: int
    node: str
    kernel: str
    error: float
    limit: float
    noise: float = 0.0

    @property
    def accepted(self) -> bool:
        """Whether the policy's tolerance holds."""
        return self.error <= self.limit


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One set of inputs: which entry, sizes of the dims, the seed and the arrays made from it."""

    entry: str
    sizes: Sizes
    seed: int
    inputs: Mapping[str, Array]


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """The launches of one entry beside the graph they came from."""

    module: Module
    entry: str
    records: tuple[LaunchRecord, ...]
    launches: tuple[Launch, ...]
    nodes: tuple[str, ...]
    symbols: Mapping[str, str]

    @classmethod
    def of(cls, module: Module, lowered: LoweredVariant, symbols: Mapping[str, str], entry: str) -> "Groups":
        """The launches of `entry`; `symbols` maps a kernel's name to the function that it became."""
        position = next(i for i, known in enumerate(lowered.variant.entries) if known.name == entry)
        launches = lowered.variant.entries[position].launches
        return cls(module, entry, lowered.launches[position], launches, lowered.nodes, symbols)

    def name(self, launch: int) -> str:
        """The graph node that a launch computes."""
        return self.nodes[self.launches[launch].node]

    def origin(self) -> dict[int, int]:
        """For values that lowering added (copies): the graph value that they are a copy of."""
        types = self.module.entries[self.entry].types
        found: dict[int, int] = {}
        for record in self.records:
            if (
                not record.depth
                and len(record.reads) == 1
                and len(record.writes) == 1
                and record.writes[0].value not in types
            ):
                source = record.reads[0].value
                found[record.writes[0].value] = found.get(source, source)
        return found

    def running(self, sizes: Sizes) -> list[int]:
        """Launches that do anything for these sizes: a task may have a second kernel for small ones.

        Those inside regions are left out: they run any number of times, and whole runs prove them.
        """
        outside = [i for i, record in enumerate(self.records) if not record.depth]
        return [i for i in outside if evaluate(self.launches[i].count, sizes) > 0]

    def representatives(self, sizes: Sizes) -> list[int]:
        """The first running launch of each distinct kernel."""
        first: dict[str, int] = {}
        for index in self.running(sizes):
            first.setdefault(self.symbols[self.launches[index].kernel], index)
        return list(first.values())


def compare_groups(program: CompiledProgram, groups: Groups, case: Case, policy: Tolerance) -> list[GroupResult]:
    """Run once and compare launch by launch, in the order in which they run."""
    chosen = choose_launches(groups, case.sizes)
    expected = reference_values(groups, case, chosen)
    results: list[GroupResult] = []
    beyond: dict[int, dict[int, Array]] = {}
    failures: list[Exception] = []

    def look(launch: int, phase: int, memory: Memory) -> None:
        try:
            record = groups.records[launch]
            if record.depth:
                return
            if phase == 0:
                for place in dynamic(record.reads):
                    if place.value in expected:
                        memory.at(place)[...] = expected[place.value]
            elif launch in chosen:
                found = [(memory.at(place), expected[place.value]) for place in record.writes]
                results.append(judge(groups, launch, found, policy))
                if not results[-1].accepted:
                    beyond[launch] = {place.value: np.array(memory.at(place)) for place in record.writes}
        except Exception as error:  # it cannot pass through C; raised below
            failures.append(error)

    program.run(case.entry, case.inputs, case.sizes, look)
    if failures:
        raise failures[0]
    for index, result in enumerate(results):
        if not result.accepted:
            widened = _reconsidered(groups, case, result, expected)
            results[index] = excused(groups, case, widened, (expected, beyond[result.launch]), policy)
            if not results[index].accepted:
                break  # one that is wrong decides
    return results


def excused(
    groups: Groups,
    case: Case,
    result: GroupResult,
    values: tuple[Mapping[int, Array], Mapping[int, Array]],
    policy: Tolerance,
) -> GroupResult:
    """A launch beyond its limit, judged by where roundings take it; `values`: those given to it, and what it wrote.

    It is accepted if every element that is off lies there. If not, how far they move all that is off counts as noise.
    """
    origin, function, record = groups.origin(), groups.module.entries[groups.entry], groups.records[result.launch]
    found = {origin.get(value, value): array for value, array in values[1].items()}
    if result.accepted or not found.keys() <= function.types.keys():
        return result
    given = {value: array for value, array in values[0].items() if value in function.types and value not in found}
    narrow = [last_places(dtype_of(array.dtype)) for array in found.values() if is_float(array)]
    tolerance = max(_tolerance(record, policy), *narrow, 0.0)
    suspect = Suspect(groups.module, groups.entry, case.inputs, given, found, tolerance)
    explained, loose = judged_by_reach(suspect)
    return replace(result, limit=result.error) if explained else replace(result, noise=max(result.noise, loose))


def _reconsidered(groups: Groups, case: Case, result: GroupResult, expected: Mapping[int, Array]) -> GroupResult:
    """A launch beyond its limit, under the limit that the conditioning of what it computes leaves."""
    origin = groups.origin()
    written = {origin.get(p.value, p.value): expected[p.value] for p in groups.records[result.launch].writes}
    floats = {value: array for value, array in written.items() if is_float(array)}
    noise = noise_of_values(groups.module, groups.entry, case.inputs, floats) if len(floats) == len(written) else {}
    largest = max(noise.values(), default=0.0)
    return replace(result, limit=widened_limit(result.limit, largest), noise=largest)


def _roundings(function: Function) -> float:
    """What roundings to types narrower than f32 inside of a group may make of its answers, whatever their own type."""
    made = {function.types[value].dtype for node in function.walk() for value in defs_of(node)}
    return max((last_places(d) for d in made if d.is_float and d.bits < F32.bits), default=0.0)


def _tolerance(record: LaunchRecord, policy: Tolerance) -> float:
    return max(policy.group, _roundings(record.schedule_function))


def judge(groups: Groups, launch: int, pairs: Sequence[tuple[Array, Array]], policy: Tolerance) -> GroupResult:
    """The worst of a launch's outputs, measured against its limit."""
    tolerance = _tolerance(groups.records[launch], policy)
    rated = [(error_of(found, wanted), limit_of(wanted, tolerance, policy)) for found, wanted in pairs]
    error, limit = max(rated, key=lambda pair: pair[0] / pair[1] if pair[1] else pair[0])
    if error > limit and quantises(groups.module) and all(is_a_step_away(found, wanted) for found, wanted in pairs):
        limit = error
    return GroupResult(launch, groups.name(launch), groups.records[launch].kernel.name, error, limit)


def choose_launches(groups: Groups, sizes: Sizes) -> frozenset[int]:
    """Launches with outputs, as many as reference values fit into memory; distinct kernels come first."""
    function, origin = groups.module.entries[groups.entry], groups.origin()
    chosen: set[int] = set()
    values: set[int] = set()
    held = 0
    for index in dict.fromkeys([*groups.representatives(sizes), *groups.running(sizes)]):
        places = groups.records[index].writes
        fresh = {origin.get(place.value, place.value) for place in places} - values
        if not places or not fresh <= function.types.keys() | values:
            continue
        size = sum(_bytes(groups, value, sizes) for value in fresh)
        if held + size <= VALUES_BYTES:
            held += size
            values |= fresh
            chosen.add(index)
    return frozenset(chosen)


def _bytes(groups: Groups, value: int, sizes: Sizes) -> int:
    type_ = groups.module.entries[groups.entry].types[value]
    total = type_.dtype.bytes
    for extent in reference.shape_at(type_, sizes):
        total *= extent
    return total


def reference_values(groups: Groups, case: Case, chosen: frozenset[int]) -> dict[int, Array]:
    """What the Graph reference gives for every value that the chosen launches read or write, copies included."""
    origin, types = groups.origin(), groups.module.entries[groups.entry].types
    places = [place for index in chosen for place in (*groups.records[index].writes, *groups.records[index].reads)]
    wanted = {place.value: origin.get(place.value, place.value) for place in dynamic(places)}
    known = {value for value in wanted.values() if value in types}
    found = reference.run_all(groups.module, case.entry, case.inputs, known)
    return {value: found[source] for value, source in wanted.items() if source in known}


def dynamic(places: Sequence[ValuePlace]) -> list[ValuePlace]:
    """Places whose content the call computes: weights are the build's own, inputs the caller's."""
    return [place for place in places if place.space in ("arena", "output", "dynamic")]
