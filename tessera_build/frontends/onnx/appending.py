"""Loops that append a tensor to sequences in each iteration, without a number of iterations that the build knows.

Takes a Loop's body and what it carries, some of it sequences; gives the loop over tensors alone that stacks what is
appended, and afterwards the sequences. Invariant: every iteration appends one tensor at the end, and all are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tessera_build.frontends.onnx.call import Subgraph
from tessera_build.frontends.onnx.containers import AppendedSequence, StackedSequence, TensorSequence, Value
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import unsupported
from tessera_build.frontends.onnx.movement import joined
from tessera_build.frontends.onnx.truth import tensors

# Over a body without sequences and its initial values: final values, then stacked slices.
Repeat = Callable[[Subgraph, Sequence[Tensor]], Sequence[Tensor]]


def appended(c: Context, graph: Subgraph, given: Sequence[Value], repeat: Repeat) -> tuple[Value, ...]:
    """The results of a Loop over tensors and sequences: final values, then stacked slices."""
    places = tuple(i for i, value in enumerate(given) if not isinstance(value, Tensor))
    initial = [value for value in given if isinstance(value, Tensor)]
    found = repeat(_Appending(graph, len(given), places), initial)
    stacks = found[len(found) - len(places) :]
    ends: list[Value] = list(found[: len(initial)])
    for place, stack in zip(places, stacks, strict=True):
        ends.insert(place, _behind(c, given[place], stack))
    return (*ends, *found[len(initial) : len(found) - len(places)])


def _behind(c: Context, start: Value, stack: Tensor) -> StackedSequence:
    """The sequence that a loop began with, followed by what it appended."""
    if isinstance(start, TensorSequence) and not start.members:
        return StackedSequence(stack)
    if isinstance(start, StackedSequence):
        parts = (start.stack, stack)
    elif isinstance(start, TensorSequence) and all(m.type.shape == stack.shape[1:] for m in start.members):
        parts = (*(c.reshape(member, (1, *member.shape)) for member in start.members), stack)
    else:
        raise unsupported("a Loop appends to a sequence of other tensors", found=str(start))
    return StackedSequence(joined(c, parts, 0, "Loop"))


@dataclass(frozen=True, slots=True)
class _Appending:
    """A body of `count` carried values, sequences at `places`, as one over tensors: what it appends comes last."""

    graph: Subgraph
    count: int
    places: tuple[int, ...]

    @property
    def inputs(self) -> int:
        """How many values it takes."""
        return self.graph.inputs - len(self.places)

    @property
    def outputs(self) -> int:
        """How many values it gives: an appended tensor for each sequence."""
        return self.graph.outputs

    def translate(self, arguments: Sequence[Value]) -> tuple[Value, ...]:
        """The results of one iteration."""
        return self.chosen(arguments, range(self.outputs))

    def chosen(self, arguments: Sequence[Value], outputs: Sequence[int]) -> tuple[Value, ...]:
        """Some of the results of one iteration."""
        around, carried = arguments[:2], list(arguments[2:])
        starts = {1 + place: AppendedSequence() for place in self.places}
        for output, start in starts.items():
            carried.insert(output - 1, start)
        own = [number for number in range(self.outputs) if number not in starts] + list(starts)
        numbers = [own[output] for output in outputs]
        found = zip(numbers, self.graph.chosen((*around, *carried), numbers), strict=True)
        return tensors("Loop", [_only_addition(starts[n], x) if n in starts else x for n, x in found])


def _only_addition(start: AppendedSequence, result: Value) -> Tensor:
    """What an iteration appends; another sequence, such as that of a Loop around, is none of its own."""
    if isinstance(result, AppendedSequence) and result.start is start and len(result.added) == 1:
        return result.added[0]
    raise unsupported(
        "a Loop whose iterations only a run counts does more to a sequence than append one tensor in each",
        found=str(result),
        hint="fix the dim that counts them with `--dims`, or stack the tensors in the model",
    )
