"""If, Loop and Scan as choices and loops of the graph, or as the branch that is known to be taken.

Takes calls with subgraphs; gives their results. Invariant: a condition or a trip count that is known at build time
leaves no choice behind, the iteration number is a dim inside the body, and a value whose shape would differ between
branches or iterations is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bundle_format.errors import TesseraError
from tessera_build.frontends.onnx.appending import appended
from tessera_build.frontends.onnx.call import Call, Subgraph, Translator, normalise_axis
from tessera_build.frontends.onnx.containers import Value
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ReportedError, UnsupportedError, ill_formed, unsupported
from tessera_build.frontends.onnx.induction import counting_of, habits_of
from tessera_build.frontends.onnx.loops import Course, element, loop, reversed_along
from tessera_build.frontends.onnx.order import larger, smaller
from tessera_build.frontends.onnx.restarts import Undecided
from tessera_build.frontends.onnx.tracing import Place, pieces_of
from tessera_build.frontends.onnx.truth import known_truth, tensors
from tessera_build.frontends.onnx.unrolled import is_decided, unrolled
from tessera_build.ir.core.dims import Extent, symbols_of
from tessera_build.ir.core.node import Region
from tessera_build.ir.core.types import BOOL, I64

Shape = tuple[Extent, ...]
# Iterations of a loop without a trip count; a run that long does not end.
ENDLESS = (1 << 62) - 1


# -- If ---------------------------------------------------------------------------------------------------------------


def _if(c: Context, n: Call) -> tuple[Value, ...]:
    condition = n.input(0)
    if any(extent != 1 for extent in condition.shape):
        raise ill_formed("the condition of If is not one truth value", found=str(condition.type))
    chosen, relation = known_truth(condition), relation_over_dims(c, condition)
    decision = c.decisions.get(n.outputs[0])
    if chosen is not None and decision not in (None, chosen):
        raise ill_formed("what the model demands of its dims contradicts the branch of If that was tried")
    if chosen is None and relation is not None and decision is not None:
        chosen = decision
        _demand(c, relation, chosen)
    if chosen is not None:
        return n.graph("then_branch" if chosen else "else_branch").translate(())
    try:
        return _choice(c, n, condition)
    except (ReportedError, UnsupportedError) as error:
        if relation is None:
            raise
        raise Undecided(n.outputs[0], _undecided(relation)) from error


def _choice(c: Context, n: Call, condition: Tensor) -> tuple[Tensor, ...]:
    """Both branches, of which a run takes one; results that differ in extents come in a buffer for the larger."""
    graphs = [n.graph(f"{name}_branch") for name in ("then", "else")]
    then, otherwise = (_branch(c, graph) for graph in graphs)
    wanted = [_common(c, left, right) for left, right in zip(then.results, otherwise.results, strict=True)]
    if any(shape is not None for shape in wanted):
        then, otherwise = (_branch(c, graph, wanted) for graph in graphs)
    values = c.builder.node("if", (c.value(c.reshape(condition, ())),), {}, (then.region, otherwise.region))
    found = iter([Tensor(c.builder.type(value), value) for value in values])
    return tuple(next(found) if shape is None else _cut(c, next(found), next(found)) for shape in wanted)


@dataclass(frozen=True, slots=True)
class _Branch:
    """A branch as a region, with the results that the model gives it."""

    region: Region
    results: tuple[Tensor, ...]


def _branch(c: Context, graph: Subgraph, wanted: Sequence[Shape | None] = ()) -> _Branch:
    """A branch; where a shape is wanted, it gives a buffer of that shape and the extents of the part that counts."""
    known = set(c.sizes)
    with c.branch() as block:
        results = tensors("a branch of If", graph.translate(()))
        given: list[Tensor] = []
        for result, shape in zip(results, wanted or [None] * len(results), strict=True):
            given += [result] if shape is None else [_padded(c, result, shape), c.extents(result.shape)]
        block.yields(*(c.value(t) for t in given))
    inside = {name for t in results for extent in t.shape for name in symbols_of(extent)} & (c.sizes.keys() - known)
    if inside:
        raise unsupported("the size of a result is read from data in a branch of If that may not be taken")
    return _Branch(block.region, results)


def _common(c: Context, left: Tensor, right: Tensor) -> Shape | None:
    """None for equal types, else the shape that holds either."""
    if left.type == right.type:
        return None
    if left.rank != right.rank or left.dtype != right.dtype:
        raise unsupported(
            "the branches of If give tensors of different types, and which one is taken is known only at run time",
            found=f"{left.type} and {right.type}",
            hint="fix the dims or inputs that decide it, by `--dims` or when the model is exported",
        )
    return tuple(larger(a, b, c.ranges) for a, b in zip(left.shape, right.shape, strict=True))


def _padded(c: Context, x: Tensor, shape: Shape) -> Tensor:
    high = tuple(extent - own for extent, own in zip(shape, x.shape, strict=True))
    return x if x.shape == shape else c.op("pad", x, low=(0,) * x.rank, high=high, value=0.0)


def _cut(c: Context, buffer: Tensor, extents: Tensor) -> Tensor:
    """The part of a buffer that counts."""
    return c.slice(buffer, (0,) * buffer.rank, c.extents_of(extents, buffer.shape))


def relation_over_dims(c: Context, condition: Tensor) -> tuple[Extent, Extent] | None:
    """The two extents whose equality is the condition, where it is one."""
    value = condition.value
    node = None if value is None else c.builder.producer(value)
    while node is not None and node.op in {"reshape", "cast"}:
        node = c.builder.producer(node.inputs[0])
    if node is None or node.op != "eq":
        return None
    found = [pieces_of(c.builder, v) for v in node.inputs]
    sides = [pieces[0] for pieces in found if len(pieces) == 1]
    left, right = sides if len(sides) == 2 else (None, None)
    if left is None or right is None or isinstance(left, Place) or isinstance(right, Place):
        return None
    return left, right


def _demand(c: Context, relation: tuple[Extent, Extent], chosen: bool) -> None:
    """Hold a decision to every call: its dims must make the condition what it was taken to be."""
    left, right = relation
    if chosen:
        c.unify(left, right, f"the model is built for {left} = {right}, which decides an If")
    else:
        c.require(left, ">=", right + 1, f"the model is built for {left} > {right}, which decides an If")
        c.excluded.append(left - right)


def _undecided(relation: tuple[Extent, Extent]) -> TesseraError:
    left, right = relation
    return unsupported(
        "which branch of If is taken depends on dims, and the branches differ in more than values",
        found=f"the condition {left} = {right}",
        hint="fix the dims that decide it: tessera build --dims NAME=SIZE",
    )


# -- Loop -------------------------------------------------------------------------------------------------------------


def _loop(c: Context, n: Call) -> tuple[Value, ...]:
    graph = n.graph("body")
    trips, first = _trips(c, n.inputs[0] if n.inputs else None), n.optional(1)
    start = True if first is None else known_truth(first)
    given = [n.operand(i) for i in range(2, len(n.inputs))]
    if graph.inputs != 2 + len(given) or graph.outputs < 1 + len(given):
        raise ill_formed("the body of Loop does not fit its operands", found=f"{graph.inputs} inputs")
    if start is False:
        trips = 0
    of_tensors = all(isinstance(value, Tensor) for value in given)
    if not of_tensors and start is not None and isinstance(trips, int) and is_decided(c, graph, trips, given):
        return unrolled(c, graph, trips, given)
    asked = first if start is None else None
    return appended(c, graph, given, lambda body, initial: _repeated(c, body, initial, trips, asked))


def _repeated(
    c: Context, graph: Subgraph, initial: Sequence[Tensor], trips: Extent, first: Tensor | None
) -> tuple[Tensor, ...]:
    """A Loop over tensors: values that never change and counters need no carrying, as far as their ends are known."""
    counting = counting_of(c, graph, initial, trips)
    most = counting.ending.trips(c) if counting.ending is not None else None
    if most is not None:
        trips = most if trips == ENDLESS else smaller(trips, most, c.ranges)
    habits = habits_of(c, graph, initial, trips, counting.counters)
    always = habits.always or (counting.ending is not None and most is not None and counting.ending.alone)
    endless = always and first is None
    known = habits.steady | (counting.counters.keys() if endless else frozenset[int]())
    kept = [i for i in range(len(initial)) if i not in known]
    # A count beside the carried values tells how many slices a loop with a condition has stacked.
    counted = not endless and graph.outputs > 1 + len(initial)
    if counted and trips == ENDLESS:
        raise unsupported("a Loop without a trip count stacks values, so that nothing bounds the size of its result")
    carried = [*(initial[i] for i in kept), *([c.scalar(0, I64)] if counted else [])]
    growing = {kept.index(i): growth for i, growth in habits.growing.items() if i in kept and endless}
    with loop(c, trips, carried, Course(first, growing=growing)) as body:
        # The iterations that there are, said so that slices at the number are seen to be inside.
        inside = body.index if isinstance(trips, int) else smaller(body.index, trips - 1, c.ranges)
        found = dict(enumerate(initial)) | dict(zip(kept, body.carried, strict=False))
        found |= {i: counter.at(c, initial[i], inside) for i, counter in counting.counters.items()}
        arguments = [found[i] for i in range(len(initial))]
        again, *given = tensors("Loop", graph.translate((c.number(inside, I64), c.scalar(True, BOOL), *arguments)))
        body.condition = None if endless or known_truth(again) else c.reshape(again, ())
        count = [c.op("add", body.carried[-1], c.scalar(1, I64))] if counted else []
        body.results = (*(given[i] for i in kept), *count, *given[len(initial) :])
    ends = dict(enumerate(initial)) | dict(zip(kept, body.outputs, strict=False))
    ends |= {i: counter.at(c, initial[i], trips) for i, counter in counting.counters.items() if i not in kept}
    stacked = body.outputs[len(carried) :]
    slices = [c.counted(whole, body.outputs[len(kept)]) for whole in stacked] if counted else stacked
    return (*(ends[i] for i in range(len(initial))), *slices)


def _trips(c: Context, stated: Value | None) -> Extent:
    """The trip count: absent, known, over dims, or read from data; a negative one is none."""
    if stated is None:
        return ENDLESS
    (value,) = tensors("Loop", (stated,))
    if value.content is None:
        return c.size(c.op("max", c.reshape(c.cast(value, I64), ()), c.scalar(0, I64)))
    (trips,) = c.known_extents(value, "the trip count of Loop")
    return min(max(trips, 0), ENDLESS) if isinstance(trips, int) else larger(trips, 0, c.ranges)


# -- Scan -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scan:
    """How a Scan walks: the axis and the direction of each scanned operand and result."""

    graph: Subgraph
    states: int
    input_axes: tuple[int, ...]
    input_directions: tuple[int, ...]
    output_axes: tuple[int, ...]
    output_directions: tuple[int, ...]

    def run(self, c: Context, initial: Sequence[Tensor], scanned: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Final states, then stacked results."""
        axes = [normalise_axis(axis, x.rank) for axis, x in zip(self.input_axes, scanned, strict=True)]
        trips = scanned[0].shape[axes[0]]
        for axis, x in zip(axes, scanned, strict=True):
            trips = c.unify(trips, x.shape[axis], "Scan's operands have different lengths")
        with loop(c, trips, initial) as body:
            slices = [
                element(c, x, axis, trips - 1 - body.index if reverse else body.index)
                for x, axis, reverse in zip(scanned, axes, self.input_directions, strict=True)
            ]
            body.results = tensors("Scan", self.graph.translate((*body.carried, *slices)))
        stacked = body.outputs[self.states :]
        ways = zip(stacked, self.output_axes, self.output_directions, strict=True)
        return (*body.outputs[: self.states], *(_arranged(c, x, axis, reverse) for x, axis, reverse in ways))


def _arranged(c: Context, x: Tensor, axis: int, reverse: int) -> Tensor:
    """A stacked result in the direction and with the axis that were asked for."""
    x = reversed_along(c, x, 0) if reverse else x
    place = normalise_axis(axis, x.rank)
    perm = list(range(1, x.rank))
    perm.insert(place, 0)
    return c.transpose(x, perm)


def _scan(c: Context, n: Call) -> tuple[Tensor, ...]:
    graph, count = n.graph("body"), n.integer("num_scan_inputs")
    offset = 1 if n.opset < 9 else 0
    states = len(n.inputs) - offset - count
    outputs = graph.outputs - states
    if states < 0 or outputs < 0 or graph.inputs != states + count:
        raise ill_formed("the body of Scan does not fit its operands", found=f"{graph.inputs} inputs")
    operands = tensors("Scan", [n.operand(offset + i) for i in range(states + count)])
    zeros = (0,) * count
    if n.opset < 9:
        scan = _Scan(graph, states, zeros, n.integers("directions", zeros), (0,) * outputs, (0,) * outputs)
        return _scan_batches(c, n, scan, operands)
    scan = _Scan(
        graph,
        states,
        n.integers("scan_input_axes", zeros),
        n.integers("scan_input_directions", zeros),
        n.integers("scan_output_axes", (0,) * outputs),
        n.integers("scan_output_directions", (0,) * outputs),
    )
    return scan.run(c, operands[:states], operands[states:])


def _scan_batches(c: Context, n: Call, scan: _Scan, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Scan of opset 8: every operand and result has the batch as its first axis, and examples are independent."""
    lengths = n.optional(0)
    if lengths is not None:
        known = set(c.known_extents(lengths, "the lengths of Scan"))
        if known != {operands[scan.states].shape[1]}:
            raise unsupported("Scan over sequences of different lengths", hint="use Scan of opset 9")
    batch = operands[0].shape[0]
    for x in operands:
        batch = c.unify(batch, x.shape[0], "Scan's operands have different batches")
    with loop(c, batch, ()) as body:
        parts = [element(c, x, 0, body.index) for x in operands]
        body.results = scan.run(c, parts[: scan.states], parts[scan.states :])
    return body.outputs


CONTROL_OPERATORS: Mapping[str, Translator] = {"If": _if, "Loop": _loop, "Scan": _scan}
