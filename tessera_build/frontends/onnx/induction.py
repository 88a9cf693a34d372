"""What a loop's body does to the values that it carries, found by translating it once for nothing.

Takes a body and the initial values; gives which values stay as they are and which are counters. Invariant: what is said
holds in every iteration, whatever the body computes besides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tessera_build.frontends.onnx.call import Subgraph
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.endings import Counter, Ending, ending_of
from tessera_build.frontends.onnx.order import sign_of, smaller
from tessera_build.frontends.onnx.truth import known_truth, tensors
from tessera_build.ir.core.dims import Extent, symbol, symbols_of
from tessera_build.ir.core.types import BOOL, I32, I64


@dataclass(frozen=True, slots=True)
class Habits:
    """`always`: the body asks for another iteration whatever happens. `steady`: carried values that never change.

    `growing`: (axis, extent) by which an iteration makes a carried value longer. `ending`: what ends the loop, where
    that is a counter.
    """

    always: bool
    steady: frozenset[int]
    counters: Mapping[int, Counter]
    growing: Mapping[int, tuple[int, Extent]]
    ending: Ending | None


def habits_of(c: Context, graph: Subgraph, initial: Sequence[Tensor], trips: Extent) -> Habits:
    """Translate the body over unknown values and look at what it gives back; the graph stays as it is."""
    name, known = c.builder.fresh_index("probe"), set(c.sizes)
    with c.trial(), c.region([t.type for t in initial], {name: (0, None)}) as block:
        carried = [Tensor(t.type, value) for t, value in zip(initial, block.args, strict=True)]
        number = c.number(smaller(symbol(name), trips - 1, c.ranges), I64)
        again, *results = tensors("Loop", graph.translate((number, c.scalar(True, BOOL), *carried)))
        pairs = list(enumerate(zip(results, block.args, strict=False)))
        steady = frozenset(i for i, (result, argument) in pairs if result.value == argument)
        counters = {i: _counter(c, result, argument, initial[i]) for i, (result, argument) in pairs}
        growing = {i: _growth(c, initial[i], result) for i, (result, _) in pairs}
        inside = {*c.indices, *(c.sizes.keys() - known)}
        found = {i: counter for i, counter in counters.items() if counter is not None}
        given = {
            argument: x if i in steady else None
            for i, (x, argument) in enumerate(zip(initial, block.args, strict=True))
        }
        ends = ending_of(c, again, {results[i].value: counter for i, counter in found.items()}, given)
    return Habits(
        known_truth(again) is True,
        steady,
        found,
        {i: growth for i, growth in growing.items() if growth and symbols_of(growth[1]).isdisjoint(inside)},
        ends,
    )


def _growth(c: Context, before: Tensor, after: Tensor) -> tuple[int, Extent] | None:
    """The axis along which one iteration adds elements, and how many."""
    if before.dtype != after.dtype or before.rank != after.rank:
        return None
    changed = [axis for axis, (old, new) in enumerate(zip(before.shape, after.shape, strict=True)) if old != new]
    if len(changed) != 1:
        return None
    added = after.shape[changed[0]] - before.shape[changed[0]]
    return (changed[0], added) if sign_of(added, c.ranges) == 1 else None


def _counter(c: Context, result: Tensor, argument: int, initial: Tensor) -> Counter | None:
    """A result that is the argument plus or minus a constant, where the first value is known."""
    node = None if result.value is None else c.builder.producer(result.value)
    single = initial.type == result.type and all(extent == 1 for extent in initial.shape)
    if node is None or initial.content is None or initial.dtype not in (I32, I64) or not single:
        return None
    if node.op not in {"add", "sub"} or argument not in node.inputs:
        return None
    if node.op == "sub" and node.inputs[0] != argument:
        return None
    other = c.builder.array(node.inputs[1] if node.inputs[0] == argument else node.inputs[0])
    if other is None or other.size != 1:
        return None
    (first,) = c.known_extents(initial, "the first value of a counter")
    step = int(other.reshape(()).item())
    return Counter(first, step if node.op == "add" else -step)
