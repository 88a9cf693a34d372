"""Loops over sequences, carried out by the importer: their bodies once for each iteration.

Takes calls whose bodies carry or map sequences; gives containers and tensors. Invariant: nothing of a sequence is left
to run, so the number of iterations is known at build time, and a bound keeps a small file from asking for any number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tessera_build.frontends.onnx.call import Call, Subgraph, Translator
from tessera_build.frontends.onnx.containers import TensorSequence, Value
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.truth import known_truth, tensors
from tessera_build.ir.core.types import BOOL, I64

LONGEST = 1024


def is_decided(c: Context, graph: Subgraph, trips: int, carried: Sequence[Value]) -> bool:
    """Whether there are few iterations, and the build knows after the first if there is a second: tried for nothing."""
    if not 2 <= trips <= LONGEST:
        return trips < 2
    with c.trial(), c.region(), c.iteration(0):
        again, *_ = graph.translate((c.scalar(0, I64), c.scalar(True, BOOL), *carried))
        return known_truth(*tensors("Loop", (again,))) is not None


def unrolled(c: Context, graph: Subgraph, trips: int, carried: Sequence[Value]) -> tuple[Value, ...]:
    """The results of a Loop of `trips` iterations over values of any kind: final values, then stacked slices."""
    values, count = list(carried), len(carried)
    slices: list[tuple[Tensor, ...]] = []
    for index in range(trips):
        number, going = c.scalar(index, I64), c.scalar(True, BOOL)
        with c.iteration(index):
            again, *given = graph.translate((number, going, *values))
        values = given[:count]
        slices.append(tensors("Loop", given[count:]))
        (condition,) = tensors("Loop", (again,))
        truth = known_truth(condition) if index + 1 < trips else False
        if truth is None:
            raise unsupported("a Loop over a sequence ends by a condition that only a run knows")
        if not truth:
            break
    if not slices and graph.outputs - 1 > count:
        raise unsupported("a Loop over a sequence stacks the values of no iteration")
    return (*values, *(_stacked(c, parts) for parts in zip(*slices, strict=True)))


def _stacked(c: Context, parts: Sequence[Tensor]) -> Tensor:
    rows = [c.reshape(part, (1, *part.shape)) for part in parts]
    return rows[0] if len(rows) == 1 else c.op("concat", *rows, axis=0)


def _sequence_map(c: Context, n: Call) -> tuple[Value, ...]:
    first, graph = n.sequence(0).members, n.graph("body")
    others = [n.operand(i) for i in range(1, len(n.inputs))]
    if any(isinstance(v, TensorSequence) and len(v.members) != len(first) for v in others):
        raise ill_formed("SequenceMap's sequences have different lengths")
    rows: list[tuple[Tensor, ...]] = []
    for index, member in enumerate(first[: LONGEST + 1]):
        rest = [v.members[index] if isinstance(v, TensorSequence) else v for v in others]
        with c.iteration(index):
            rows.append(tensors("SequenceMap", graph.translate((member, *rest))))
    if len(rows) > LONGEST:
        raise unsupported(f"SequenceMap over {len(first)} tensors", hint=f"at most {LONGEST} are built")
    columns = zip(*rows, strict=True) if rows else [()] * graph.outputs
    return tuple(TensorSequence(tuple(column)) for column in columns)


UNROLLED_OPERATORS: Mapping[str, Translator] = {"SequenceMap": _sequence_map}
