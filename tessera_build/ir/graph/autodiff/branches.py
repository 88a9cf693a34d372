"""Derivatives through `if`: tangents go through the branch that is taken, and cotangents come back through it.

Takes a walk that has come to an `if`; adds its values and tangents. Invariant: what a branch keeps for its way back is
a result of the `if`, zeros where the other branch was taken; the way back asks the same condition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tessera_build.ir.core.node import Region
from tessera_build.ir.core.rewrite import RegionBuilder
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.autodiff.emit import Emit, Values
from tessera_build.ir.graph.autodiff.regions import (
    Backward,
    Recorded,
    Walking,
    activity,
    backward,
    outside_tangents,
    record,
    zeros,
    zeros_where_missing,
)
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import GraphNode


@dataclass(frozen=True, slots=True)
class _Branch:
    """A branch that was emitted into `block`, with its results and its way back."""

    block: RegionBuilder
    values: tuple[int, ...]
    back: Backward


def _active(walk: Walking, node: GraphNode) -> list[bool]:
    found = [activity(walk, region, (), {}) for region in node.regions]
    return [
        any(pair) and walk.type(o).dtype.is_float
        for o, pair in zip(node.outputs, zip(*found, strict=True), strict=True)
    ]


def push_if(walk: Walking, node: GraphNode) -> None:
    """Both branches give the tangents of all results that have one in either."""
    active = _active(walk, node)
    outputs = [o for o, on in zip(node.outputs, active, strict=True) if on]
    types = [walk.type(o) for o in outputs]
    regions: list[Region] = []
    for region in node.regions:
        with walk.to.region() as made:
            inner = walk.inside(None)
            inner.tangents.update(walk.tangents)
            inner.nodes(region.nodes)
            tangents = inner.tangents_of([r for r, on in zip(region.results, active, strict=True) if on])
            made.yields(*(inner.value(r) for r in region.results), *zeros_where_missing(tangents, types, walk.to))
        regions.append(made.region)
    results = walk.to.node("if", (walk.value(node.inputs[0]),), {}, regions)
    walk.values.update(zip(node.outputs, results, strict=False))
    walk.tangents.update(zip(outputs, results[len(node.outputs) :], strict=True))


def record_if(walk: Walking, node: GraphNode) -> None:
    """One step, which runs the branch that was taken backwards."""
    to, recorder = walk.to, walk.recorder
    assert recorder is not None
    active = _active(walk, node)
    outside = outside_tangents(walk, node.regions)
    branches = [_branch(walk, region, active, tuple(outside)) for region in node.regions]
    kept = [[to.type(v) for v in branch.back.residuals] for branch in branches]
    regions = [_with_residuals(to, branches, kept, position) for position in range(2)]
    condition = walk.value(node.inputs[0])
    results = to.node("if", (condition,), {}, regions)
    walk.values.update(zip(node.outputs, results, strict=False))
    rest, stacks = results[len(node.outputs) :], list[Sequence[int]]()
    for types in kept:
        stacks.append(rest[: len(types)])
        rest = rest[len(types) :]
    inputs = list(outside.values())
    types = [recorder.type(i) for i in inputs]

    def back(_: Emit, cotangents: Values) -> Values:
        shown = zeros_where_missing(cotangents, [walk.type(o) for o in outputs], to)
        return _run_back(to, condition, [(b.back, s) for b, s in zip(branches, stacks, strict=True)], shown, types)

    outputs = [o for o, on in zip(node.outputs, active, strict=True) if on]
    tangents = recorder.step("if", inputs, [walk.type(o) for o in outputs], back)
    walk.tangents.update(zip(outputs, tangents, strict=True))


def _branch(walk: Walking, region: Region, active: Sequence[bool], outside: Sequence[int]) -> _Branch:
    with walk.to.region() as block:
        found = record(walk, region, (), ())
        unread = {v: found.recorder.value(walk.type(v)) for v in outside if v not in found.outside}
        results = [_or_new(found, t, walk.type(r)) for t, r, on in
                   zip(found.tangents, region.results, active, strict=True) if on]  # fmt: skip
        inputs = [found.outside[v] if v in found.outside else unread[v] for v in outside]
        return _Branch(block, found.values, backward(found, block, results, inputs))


def _or_new(found: Recorded, tangent: int | None, type_: Type) -> int:
    """A linear value that nothing depends on, where a result has no tangent in this branch."""
    return found.recorder.value(type_) if tangent is None else tangent


def _with_residuals(
    to: GraphBuilder, branches: Sequence[_Branch], kept: Sequence[Sequence[Type]], position: int
) -> Region:
    """A branch that gives what its own way back needs, and zeros for what the other's would."""
    branch = branches[position]
    blanks = [zeros(to, t) for t in kept[1 - position]]
    own = list(branch.back.residuals)
    branch.block.yields(*branch.values, *(own + blanks if position == 0 else blanks + own))
    return branch.block.region


def _run_back(
    to: GraphBuilder,
    condition: int,
    branches: Sequence[tuple[Backward, Sequence[int]]],
    cotangents: Sequence[int],
    types: Sequence[Type],
) -> Values:
    there = [any(flags) for flags in zip(*(b.given for b, _ in branches), strict=True)]
    regions: list[Region] = []
    for branch, residuals in branches:
        with to.region() as made:
            found = branch.replay(to, cotangents, residuals)
            chosen = [(c, t) for c, t, on in zip(found, types, there, strict=True) if on]
            made.yields(*zeros_where_missing([c for c, _ in chosen], [t for _, t in chosen], to))
        regions.append(made.region)
    results = iter(to.node("if", (condition,), {}, regions) if any(there) else ())
    return [next(results) if on else None for on in there]
