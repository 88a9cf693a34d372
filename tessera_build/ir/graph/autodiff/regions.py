"""What differentiation through regions needs: which results depend on tangents, and a region run backwards.

Takes a walk that has come to a node with regions; gives activity, and `Backward`, a block of nodes that computes the
cotangents of one pass through a region. Invariant: what a backward block reads of its forward block is listed, so that
it can be kept; everything else it reads is visible around both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tessera_build.ir.core.dims import Range
from tessera_build.ir.core.node import Function, Node, Region
from tessera_build.ir.core.rewrite import RegionBuilder
from tessera_build.ir.core.structure import captured, defs_of
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.autodiff.emit import Values
from tessera_build.ir.graph.autodiff.program import Recorder
from tessera_build.ir.graph.autodiff.replay import Replay, live_part
from tessera_build.ir.graph.builder import GraphBuilder


class Walking(Protocol):
    """A sweep over a function: see `walk.Walk`."""

    to: GraphBuilder
    function: Function
    recorder: Recorder | None
    written: bool
    values: dict[int, int]
    tangents: dict[int, int]
    kept: frozenset[int]

    def inside(self, recorder: Recorder | None) -> Walking:
        """A sweep over a region."""
        ...

    def type(self, value: int) -> Type:
        """The type of a value of the function."""
        ...

    def value(self, value: int) -> int:
        """A value of the function as it was emitted."""
        ...

    def tangents_of(self, values: Sequence[int]) -> list[int | None]:
        """The tangents of values of the function."""
        ...

    def nodes(self, nodes: Sequence[Node]) -> None:
        """Go through nodes."""
        ...


def outside_tangents(walk: Walking, regions: Sequence[Region]) -> dict[int, int]:
    """The values that regions capture and that have tangents, with these."""
    return {v: walk.tangents[v] for v in captured(regions) if v in walk.tangents}


@dataclass(frozen=True, slots=True)
class Recorded:
    """A region that was emitted, with the linear values of its program."""

    recorder: Recorder
    args: tuple[int | None, ...]  # for each argument of the region
    outside: Mapping[int, int]  # for each captured value of the function
    values: tuple[int, ...]  # the region's results as they were emitted
    tangents: tuple[int | None, ...]  # and their tangents


def record(walk: Walking, region: Region, given: Sequence[int], active: Sequence[bool]) -> Recorded:
    """Emit a region into the block that is open, with these arguments; those that are `active` have tangents."""
    recorder = Recorder(walk.to)
    inner = walk.inside(recorder)
    inner.values.update(zip(region.args, given, strict=False))
    args = tuple(recorder.value(walk.type(a)) if on else None for a, on in zip(region.args, active, strict=True))
    outside = {v: recorder.value(walk.type(v)) for v in outside_tangents(walk, (region,))}
    inner.tangents.update({a: t for a, t in zip(region.args, args, strict=True) if t is not None})
    inner.tangents.update(outside)
    inner.nodes(region.nodes)
    values = tuple(inner.value(r) for r in region.results)
    return Recorded(recorder, args, outside, values, tuple(inner.tangents_of(region.results)))


def activity(walk: Walking, region: Region, active: Sequence[bool], index: Mapping[str, Range]) -> list[bool]:
    """Which results of a region have tangents; what is emitted to find it out is thrown away."""
    with walk.to.region([walk.type(a) for a in region.args], index) as block:
        found = record(walk, region, block.args, active)
    return [t is not None for t in found.tangents]


@dataclass(frozen=True, slots=True)
class Backward:
    """A block that takes cotangents and gives those of linear inputs, `given` saying which of them there are."""

    region: Region
    given: tuple[bool, ...]
    residuals: tuple[int, ...]  # values of the forward block that it reads

    def replay(self, to: GraphBuilder, cotangents: Sequence[int], residuals: Sequence[int]) -> list[int | None]:
        """Write the block once more where residuals have other names; gives a cotangent or None for each input."""
        values = dict(zip(self.region.args, cotangents, strict=True)) | dict(
            zip(self.residuals, residuals, strict=True)
        )
        again = Replay(to, values, to.type, to.span_of)
        again.nodes(self.region.nodes)
        results = iter(again.values.get(r, r) for r in self.region.results)
        return [next(results) if there else None for there in self.given]


def backward(found: Recorded, block: RegionBuilder, outputs: Values, inputs: Sequence[int]) -> Backward:
    """The transposition of a region's program, while its block is still open: from cotangents of `outputs` that are
    there to those of `inputs`."""
    to, there = found.recorder.to, [o for o in outputs if o is not None]
    with to.region([found.recorder.type(o) for o in there]) as scratch:
        cotangents = found.recorder.transposed(there, scratch.args, inputs)
        results = [c for c in cotangents if c is not None]
    region = live_part(scratch.region, results)
    inside = {v for node in block.nodes for v in defs_of(node)} | set(block.args)
    residuals = tuple(v for v in captured((region,)) if v in inside)
    return Backward(region, tuple(c is not None for c in cotangents), residuals)


def zeros_where_missing(found: Values, types: Sequence[Type], to: GraphBuilder) -> list[int]:
    """Cotangents or tangents with zeros of these types for those that are not there."""
    return [v if v is not None else zeros(to, t) for v, t in zip(found, types, strict=True)]


def zeros(to: GraphBuilder, type_: Type) -> int:
    """A tensor of zeros."""
    zero = to.scalar(0.0, type_.dtype)
    return to.op("broadcast_to", zero, shape=type_.shape) if type_.rank else zero
