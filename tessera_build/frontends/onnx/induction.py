"""What a loop's body does to the values that it carries, found by translating it once for nothing.

Takes a body and the initial values; gives which values stay as they are and which are counters. Invariant: what is said
holds in every iteration, whatever the body computes besides.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tessera_build.frontends.onnx.call import Subgraph
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.endings import Counter, Ending, ending_of
from tessera_build.frontends.onnx.order import sign_of, smaller
from tessera_build.frontends.onnx.truth import known_truth, tensors
from tessera_build.ir.core.dims import Extent, symbol, symbols_of
from tessera_build.ir.core.types import BOOL, I32, I64


@dataclass(frozen=True, slots=True)
class Counting:
    """Which carried values are counters, and `ending`: what ends the loop, where that is one of them."""

    counters: Mapping[int, Counter]
    ending: Ending | None


@dataclass(frozen=True, slots=True)
class Habits:
    """`always`: the body asks for another iteration whatever happens. `steady`: carried values that never change.

    `growing`: (axis, extent) by which an iteration makes a carried value longer.
    """

    always: bool
    steady: frozenset[int]
    growing: Mapping[int, tuple[int, Extent]]


def counting_of(c: Context, graph: Subgraph, initial: Sequence[Tensor], trips: Extent) -> Counting:
    """Translate of the body what single integers and the condition come from, over unknown values.

    The rest may be read at a counter, so that its shapes are known only when that one is.
    """
    single = [i for i, x in enumerate(initial) if _may_count(x)]
    with _unknown(c, initial, trips) as (number, carried):
        again, *results = tensors(
            "Loop", graph.chosen((number, c.scalar(True, BOOL), *carried), [0, *(1 + i for i in single)])
        )
        pairs = {i: (result, carried[i]) for i, result in zip(single, results, strict=True)}
        counters = {i: _counter(c, result, before, initial[i]) for i, (result, before) in pairs.items()}
        found = {i: counter for i, counter in counters.items() if counter is not None}
        moving = {i for i, (result, before) in pairs.items() if result.value != before.value}
        given = {
            before.value: x if i in pairs and i not in moving else None
            for i, (x, before) in enumerate(zip(initial, carried, strict=True))
            if before.value is not None
        }
        ends = ending_of(c, again, {pairs[i][0].value: counter for i, counter in found.items()}, given)
    return Counting(found, ends)


def habits_of(
    c: Context, graph: Subgraph, initial: Sequence[Tensor], trips: Extent, counters: Mapping[int, Counter]
) -> Habits:
    """Translate the body over unknown values and look at what it gives back; the graph stays as it is."""
    known = set(c.sizes)
    with _unknown(c, initial, trips) as (number, carried):
        (at,) = c.known_extents(number, "the number of an iteration")
        given = [counters[i].at(c, x, at) if i in counters else x for i, x in enumerate(carried)]
        again, *results = tensors("Loop", graph.translate((number, c.scalar(True, BOOL), *given)))
        pairs = list(enumerate(zip(results, carried, strict=False)))
        steady = frozenset(i for i, (result, before) in pairs if result.value == before.value and i not in counters)
        growing = {i: _growth(c, initial[i], result) for i, (result, _) in pairs}
        inside = {*c.indices, *(c.sizes.keys() - known)}
    return Habits(
        known_truth(again) is True,
        steady,
        {i: growth for i, growth in growing.items() if growth and symbols_of(growth[1]).isdisjoint(inside)},
    )


@contextmanager
def _unknown(c: Context, initial: Sequence[Tensor], trips: Extent) -> Generator[tuple[Tensor, list[Tensor]]]:
    """The number of an iteration and what it is given, of which nothing is known; all of it is forgotten afterwards."""
    name = c.builder.fresh_index("probe")
    with c.trial(), c.region([t.type for t in initial], {name: (0, None)}) as block:
        number = c.number(smaller(symbol(name), trips - 1, c.ranges), I64)
        yield number, [Tensor(t.type, value) for t, value in zip(initial, block.args, strict=True)]


def _may_count(x: Tensor) -> bool:
    return x.dtype in (I32, I64) and all(extent == 1 for extent in x.shape)


def _growth(c: Context, before: Tensor, after: Tensor) -> tuple[int, Extent] | None:
    """The axis along which one iteration adds elements, and how many."""
    if before.dtype != after.dtype or before.rank != after.rank:
        return None
    changed = [axis for axis, (old, new) in enumerate(zip(before.shape, after.shape, strict=True)) if old != new]
    if len(changed) != 1:
        return None
    added = after.shape[changed[0]] - before.shape[changed[0]]
    return (changed[0], added) if sign_of(added, c.ranges) == 1 else None


def _counter(c: Context, result: Tensor, before: Tensor, initial: Tensor) -> Counter | None:
    """A result that is the argument plus or minus a constant, where the first value is known."""
    node = None if result.value is None else c.builder.producer(result.value)
    if node is None or initial.content is None or initial.type != result.type:
        return None
    if node.op not in {"add", "sub"} or before.value not in node.inputs:
        return None
    if node.op == "sub" and node.inputs[0] != before.value:
        return None
    other = c.builder.array(node.inputs[1] if node.inputs[0] == before.value else node.inputs[0])
    if other is None or other.size != 1:
        return None
    (first,) = c.known_extents(initial, "the first value of a counter")
    step = int(other.reshape(()).item())
    return Counter(first, step if node.op == "add" else -step)
