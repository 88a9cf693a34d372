"""Derivatives through `loop`: tangents are carried along, and cotangents are carried back through the same iterations.

Takes a walk that has come to a loop; adds its values and tangents. Invariant: the way back runs the iterations that
were run, in the opposite order; it reads what each of them kept from stacks with one slice for each iteration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent, Range, symbol, symbols_of
from tessera_build.ir.core.node import Region
from tessera_build.ir.core.types import BOOL, I64, Type, tensor
from tessera_build.ir.graph.autodiff.derivative import not_differentiable
from tessera_build.ir.graph.autodiff.emit import Emit, Values
from tessera_build.ir.graph.autodiff.program import Step
from tessera_build.ir.graph.autodiff.regions import (
    Backward,
    Recorded,
    Walking,
    activity,
    backward,
    record,
    zeros,
    zeros_where_missing,
)
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.graph.ops.control import index_of
from tessera_build.ir.graph.ops.op import extent_of, extents_of, flag_of
from tessera_build.ir.graph.regions import index_range

UNLIMITED = 2**31 - 1  # iterations of a loop that a condition ends alone


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop of the function under differentiation: `carried` operands, and which of them have tangents."""

    node: GraphNode
    carried: tuple[int, ...]
    active: tuple[bool, ...]
    stacked: tuple[bool, ...]  # which results that are stacked have tangents
    index: dict[str, Range]

    @property
    def region(self) -> Region:
        """The body."""
        return self.node.regions[0]

    @property
    def name(self) -> str:
        """The index."""
        return index_of(self.node.attributes)

    @property
    def conditional(self) -> bool:
        """Whether a condition may end it."""
        return flag_of(self.node.attributes, "conditional")

    @property
    def trips(self) -> Extent:
        """The largest number of iterations."""
        return extent_of(self.node.attributes["trips"])

    @property
    def following(self) -> tuple[int, ...]:
        """The body's results that are carried on."""
        return self.region.results[self.conditional :][: len(self.carried)]

    @property
    def slices(self) -> tuple[int, ...]:
        """The body's results that are stacked."""
        return self.region.results[self.conditional + len(self.carried) :]

    @property
    def outputs(self) -> tuple[int, ...]:
        """The results that have tangents."""
        flags = (*self.active, *self.stacked)
        return tuple(o for o, on in zip(self.node.outputs, flags, strict=True) if on)


def chosen(values: Sequence[int], flags: Sequence[bool]) -> list[int]:
    """The values whose flag is set."""
    return [v for v, on in zip(values, flags, strict=True) if on]


def loop_at(walk: Walking, node: GraphNode) -> Loop:
    """Which carried values have tangents: those that start with one, and those that get one from others."""
    conditional, index = flag_of(node.attributes, "conditional"), index_range(node, walk.to.dims)
    carried = node.inputs[conditional:]
    active = [v in walk.tangents for v in carried]
    while True:
        found = activity(walk, node.regions[0], active, index)[conditional:]
        grown = [a or f for a, f in zip(active, found, strict=False)]
        if grown == active:
            return Loop(node, carried, tuple(active), tuple(found[len(carried) :]), index)
        active = grown


def push_loop(walk: Walking, node: GraphNode) -> None:
    """The loop with the tangents as carried and stacked values beside those they belong to."""
    loop, to = loop_at(walk, node), walk.to
    args = loop.region.args
    types = [walk.type(a) for a in (*args, *chosen(args, loop.active))]
    with to.region(types, loop.index) as made:
        inner = walk.inside(None)
        inner.tangents.update(walk.tangents)
        inner.values.update(zip(args, made.args, strict=False))
        inner.tangents.update(zip(chosen(args, loop.active), made.args[len(args) :], strict=True))
        inner.nodes(loop.region.nodes)
        following, slices = chosen(loop.following, loop.active), chosen(loop.slices, loop.stacked)
        carried = zeros_where_missing(inner.tangents_of(following), [walk.type(v) for v in following], to)
        stacked = zeros_where_missing(inner.tangents_of(slices), [walk.type(v) for v in slices], to)
        before = loop.region.results[: len(loop.region.results) - len(loop.slices)]
        made.yields(*(inner.value(r) for r in before), *carried, *(inner.value(r) for r in loop.slices), *stacked)
    starts = chosen(loop.carried, loop.active)
    tangents = zeros_where_missing(walk.tangents_of(starts), [walk.type(v) for v in starts], to)
    operands = (*(walk.value(v) for v in node.inputs), *tangents)
    attributes = {**node.attributes, "scans": len(loop.slices) + len(slices)}
    results = to.node("loop", operands, attributes, (made.region,))
    number, scans = len(loop.carried), len(loop.slices)
    own = (*results[:number], *results[number + len(starts) :][:scans])
    changes = (*results[number:][: len(starts)], *results[number + len(starts) + scans :])
    walk.values.update(zip(node.outputs, own, strict=True))
    walk.tangents.update(zip(loop.outputs, changes, strict=True))


@dataclass(frozen=True, slots=True)
class Taken:
    """A captured value `of` which each iteration takes the slice at its index; `part` is the slice, a linear value."""

    of: int
    part: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A loop that was emitted with all that its way back reads."""

    loop: Loop
    back: Backward
    outside: tuple[int, ...]  # captured values that have tangents
    taken: tuple[Taken, ...]
    stacks: tuple[int, ...]  # what iterations kept
    count: int | None  # how many iterations were run, where a condition decided
    types: tuple[Type, ...]  # of the slices that are taken


def record_loop(walk: Walking, node: GraphNode) -> None:
    """One step, which runs the iterations backwards."""
    loop, recorder, to = loop_at(walk, node), walk.recorder, walk.to
    assert recorder is not None
    kept = _emit(walk, loop)
    starts = [t for t in walk.tangents_of(chosen(loop.carried, loop.active)) if t is not None]
    present = [v in walk.tangents for v in chosen(loop.carried, loop.active)]
    outside = [walk.tangents[v] for v in kept.outside]
    types = [walk.type(o) for o in loop.outputs]

    def back(_: Emit, cotangents: Values) -> Values:
        first, rest = _run_back(walk, kept, zeros_where_missing(cotangents, types, to))
        return [*chosen(first, present), *rest]

    changes = recorder.step("loop", [*starts, *outside], types, back)
    walk.tangents.update(zip(loop.outputs, changes, strict=True))


def _emit(walk: Walking, loop: Loop) -> Kept:
    """The loop with one more stacked result for each value that the way back reads."""
    to, args = walk.to, loop.region.args
    counter = [tensor(I64)] if loop.conditional else []
    with to.region([*(walk.type(a) for a in args), *counter], loop.index) as block:
        found = record(walk, loop.region, block.args, loop.active)
        taken = _take_slices(found, loop)
        outputs = [*_tangents(found, loop, walk), *_slices(found, loop)]
        inputs = [*(a for a in found.args if a is not None), *found.outside.values(), *(t.part for t in taken)]
        way = backward(found, block, outputs, inputs)
        fixed = len(found.values) - len(loop.slices)
        step = [to.op("add", block.args[-1], to.scalar(1, I64))] if loop.conditional else []
        block.yields(*found.values[:fixed], *step, *found.values[fixed:], *way.residuals)
    _check(walk, loop, way)
    operands = (*(walk.value(v) for v in loop.node.inputs), *(to.scalar(0, I64) for _ in counter))
    attributes = {**loop.node.attributes, "scans": len(loop.slices) + len(way.residuals)}
    results = to.node("loop", operands, attributes, (block.region,))
    number = len(loop.carried)
    own = (*results[:number], *results[number + len(counter) :][: len(loop.slices)])
    walk.values.update(zip(loop.node.outputs, own, strict=True))
    stacks = results[len(results) - len(way.residuals) :]
    types = tuple(found.recorder.type(t.part) for t in taken)
    count = results[number] if counter else None
    return Kept(loop, way, tuple(found.outside), tuple(taken), stacks, count, types)


def _tangents(found: Recorded, loop: Loop, walk: Walking) -> list[int]:
    """The tangents of what is carried on; a value that nothing depends on where an iteration sets it to no tangent."""
    carried = found.tangents[loop.conditional :][: len(loop.carried)]
    pairs = [(t, v) for t, v, on in zip(carried, loop.following, loop.active, strict=True) if on]
    return [t if t is not None else found.recorder.value(walk.type(v)) for t, v in pairs]


def _slices(found: Recorded, loop: Loop) -> list[int]:
    tangents = found.tangents[loop.conditional + len(loop.carried) :]
    return [t for t, on in zip(tangents, loop.stacked, strict=True) if on and t is not None]


def _check(walk: Walking, loop: Loop, way: Backward) -> None:
    """Refuse what changes its shape from iteration to iteration: it cannot be stacked or carried back.

    What is kept has a place for each iteration that there may be, and the way back asks each whether it was run.
    """
    if isinstance(loop.trips, int) and loop.trips >= UNLIMITED:
        where = str(walk.to.span) if walk.to.span else None
        raise not_differentiable("loop", "nothing but data bounds its iterations: state max_iter", where)
    values = [walk.type(a) for a in chosen(loop.region.args, loop.active)]
    for type_ in (*values, *(walk.to.type(v) for v in way.residuals)):
        if any(loop.name in symbols_of(extent) for extent in type_.shape):
            where = str(walk.to.span) if walk.to.span else None
            raise not_differentiable("loop", f"{type_} changes its shape from iteration to iteration", where)


def _take_slices(found: Recorded, loop: Loop) -> list[Taken]:
    """Drop the steps that take slices of captured values at the index: their cotangents are stacked, not added up."""
    known = {linear: value for value, linear in found.outside.items()}
    taken: list[Taken] = []
    for step in list(found.recorder.steps):
        if step.op == "slice" and step.inputs[0] in known and _at_index(step, found, loop):
            found.recorder.steps.remove(step)
            taken.append(Taken(known[step.inputs[0]], step.outputs[0]))
    return taken


def _at_index(step: Step, found: Recorded, loop: Loop) -> bool:
    assert step.node is not None
    starts, stops, steps = (extents_of(step.node.attributes, name) for name in ("starts", "stops", "steps"))
    shape, at = found.recorder.type(step.inputs[0]).shape, symbol(loop.name)
    whole = all(s == 0 for s in starts[1:]) and stops[1:] == shape[1:] and all(s == 1 for s in steps)
    return bool(shape) and whole and starts[0] == at and stops[0] == at + 1


def _run_back(walk: Walking, kept: Kept, cotangents: Sequence[int]) -> tuple[list[int], list[int | None]]:
    """Cotangents of active carried operands, and of captured values."""
    to, loop = walk.to, kept.loop
    number = sum(loop.active)
    added = _added(kept)
    sums = [zeros(to, walk.type(v)) for v in added]
    operands = (*cotangents[:number], *sums)
    with to.region([to.type(v) for v in operands], loop.index) as body:
        body.yields(*_iteration(walk, kept, body.args, cotangents[number:]))
    downward = not flag_of(loop.node.attributes, "downward")
    attributes = {"index": loop.name, "trips": loop.trips, "scans": len(_arriving(kept)), "downward": downward}
    results = to.node("loop", operands, attributes, (body.region,))
    totals = dict(zip(added, results[number:], strict=False))
    parts = dict(zip(_arriving(kept), results[len(operands) :], strict=True))
    return list(results[:number]), [_whole(walk, kept, value, totals.get(value), parts) for value in kept.outside]


def _added(kept: Kept) -> list[int]:
    """The captured values whose cotangents are added up over the iterations."""
    number = sum(kept.loop.active)
    return chosen(kept.outside, kept.back.given[number : number + len(kept.outside)])


def _arriving(kept: Kept) -> list[Taken]:
    """The slices whose cotangents are stacked."""
    return [
        t
        for t, there in zip(kept.taken, kept.back.given[len(kept.back.given) - len(kept.taken) :], strict=True)
        if there
    ]


def _iteration(walk: Walking, kept: Kept, args: Sequence[int], stacked: Sequence[int]) -> list[int]:
    """What one iteration of the way back carries on and stacks."""
    to, loop = walk.to, kept.loop
    number = sum(loop.active)
    types = [
        *(to.type(a) for a in args),
        *(t for p, t in zip(kept.taken, kept.types, strict=True) if p in _arriving(kept)),
    ]

    def run() -> list[int]:
        parts = [_slice_at(to, v, loop.name) for v in stacked]
        residuals = [_slice_at(to, v, loop.name) for v in kept.stacks]
        found = kept.back.replay(to, [*args[:number], *parts], residuals)
        carried = zeros_where_missing(found[:number], types[:number], to)
        rest = [c for c in found[number:] if c is not None]
        sums = [to.op("add", a, c) for a, c in zip(args[number:], rest, strict=False)]
        return [*carried, *sums, *rest[len(sums) :]]

    if kept.count is None:
        return run()
    with to.region() as then:
        then.yields(*run())
    with to.region() as otherwise:
        otherwise.yields(*args, *(zeros(to, t) for t in types[len(args) :]))
    return list(to.node("if", (_was_run(to, kept, kept.count),), {}, (then.region, otherwise.region)))


def _was_run(to: GraphBuilder, kept: Kept, count: int) -> int:
    """Whether the iteration of this index was run before a condition ended the loop."""
    index: Extent = symbol(kept.loop.name)
    if flag_of(kept.loop.node.attributes, "downward"):
        index = kept.loop.trips - 1 - index
    found = to.op("lt", to.op("dimension", value=index, dtype=I64), count)
    assert to.type(found) == tensor(BOOL)
    return found


def _slice_at(to: GraphBuilder, stack: int, index: str) -> int:
    """The slice of one iteration."""
    shape, at = to.type(stack).shape, symbol(index)
    zeros_ = (0,) * (len(shape) - 1)
    part = to.op("slice", stack, starts=(at, *zeros_), stops=(at + 1, *shape[1:]), steps=(1,) * len(shape))
    return to.op("reshape", part, shape=shape[1:])


def _whole(walk: Walking, kept: Kept, value: int, total: int | None, parts: dict[Taken, int]) -> int | None:
    """The cotangent of a captured value: what was added up, and the slices in their places."""
    emit, shape = Emit(walk.to), walk.type(value).shape
    found = [] if total is None else [total]
    for taken, stack in parts.items():
        if taken.of == value:
            joined = emit.reshape(stack, (kept.loop.trips, *shape[1:]))
            found.append(emit.placed(joined, (0,) * len(shape), shape))
    return emit.total(found) if found else None
