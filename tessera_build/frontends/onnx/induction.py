"""What a loop's body does to the values that it carries, found by translating it once for nothing.

Takes a body and the initial values; gives which values stay as they are and which are counters. Invariant: what is said
holds in every iteration, whatever the body computes besides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tessera_build.frontends.onnx.call import Subgraph
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.truth import known_truth, tensors
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import BOOL, I32, I64


@dataclass(frozen=True, slots=True)
class Counter:
    """A carried integer that is `first` + `step` * the number of the iteration."""

    first: Extent
    step: int

    def at(self, c: Context, like: Tensor, number: Extent) -> Tensor:
        """The counter's content when as many iterations are over, in the type of `like`."""
        return c.reshape(c.number(self.first + number * self.step, like.dtype), like.shape)


@dataclass(frozen=True, slots=True)
class Habits:
    """`always`: the body asks for another iteration whatever happens. `steady`: carried values that never change."""

    always: bool
    steady: frozenset[int]
    counters: Mapping[int, Counter]


def habits_of(c: Context, graph: Subgraph, initial: Sequence[Tensor]) -> Habits:
    """Translate the body over unknown values and look at what it gives back; the graph stays as it is."""
    outside = c.value(c.scalar(0, I64))
    with c.trial(), c.region([t.type for t in initial], {c.builder.fresh_index("probe"): (0, None)}) as block:
        carried = [Tensor(t.type, value) for t, value in zip(initial, block.args, strict=True)]
        number = Tensor(c.builder.type(outside), outside)
        again, *results = tensors("Loop", graph.translate((number, c.scalar(True, BOOL), *carried)))
        pairs = list(enumerate(zip(results, block.args, strict=False)))
        steady = frozenset(i for i, (result, argument) in pairs if result.value == argument)
        counters = {i: _counter(c, result, argument, initial[i]) for i, (result, argument) in pairs}
    found = {i: counter for i, counter in counters.items() if counter is not None}
    return Habits(known_truth(again) is True, steady, found)


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
