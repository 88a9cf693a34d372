"""Linear programs: what is linear in tangents, recorded instead of emitted, so that it can be run backwards.

Takes nodes from derivative rules; what reads no tangent goes on to the builder at once. Gives steps over values below
zero, and cotangents of the program's inputs by transposition. Invariant: a step comes after those it reads; zeros are
never made; the contributions to one value are added pair by pair, in the order in which the steps run backwards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from tessera_build.ir.core.node import Span
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.autodiff.derivative import Derivative, Site, not_differentiable
from tessera_build.ir.graph.autodiff.emit import Emit, Values
from tessera_build.ir.graph.autodiff.rules.table import DERIVATIVES
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.infer import complete, infer, op_named
from tessera_build.ir.graph.nodes import Array, Attribute, GraphNode


@dataclass(frozen=True, slots=True)
class Step:
    """Linear results of linear operands (those below zero), and how cotangents pass from the ones to the others."""

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    back: Callable[[Emit, Values], Values]
    span: Span | None
    node: GraphNode | None = None


class Recorder:
    """An emitter that keeps what reads tangents and passes on what does not."""

    def __init__(self, to: GraphBuilder) -> None:
        self.to = to
        self.steps: list[Step] = []
        self._types: dict[int, Type] = {}

    def value(self, type_: Type) -> int:
        """A new linear value."""
        value = -1 - len(self._types)
        self._types[value] = type_
        return value

    def type(self, value: int) -> Type:
        """The type of a linear value or of one of the builder's."""
        return self._types[value] if value < 0 else self.to.type(value)

    def constant(self, array: ArrayLike) -> int:
        """A constant of the builder's."""
        return self.to.constant(array)

    def array(self, value: int) -> Array | None:
        """The array of a constant."""
        return self.to.array(value) if value >= 0 else None

    def is_number(self, value: int) -> bool:
        """Whether a value is what the model's text states."""
        return value >= 0 and self.to.is_number(value)

    def node(self, op: str, inputs: tuple[int, ...], attributes: Mapping[str, Attribute]) -> tuple[int, ...]:
        """Record a node that reads linear values; emit any other."""
        if all(i >= 0 for i in inputs):
            return self.to.node(op, inputs, attributes)
        row = DERIVATIVES.get(op)
        if not isinstance(row, Derivative) or row.transpose is None:
            raise not_differentiable(op, "it is not linear, and a rule has applied it to a tangent")
        full = complete(op_named(op), attributes)
        types = infer(op, [self.type(i) for i in inputs], full, self.to.span)
        outputs = tuple(self.value(t) for t in types)
        node, transpose = GraphNode(op, inputs, outputs, full), row.transpose

        def back(emit: Emit, cotangents: Values) -> Values:
            return transpose(Site(emit, node, inputs), cotangents)

        self.steps.append(Step(op, inputs, outputs, back, self.to.span, node))
        return outputs

    def step(
        self, op: str, inputs: Sequence[int], types: Sequence[Type], back: Callable[[Emit, Values], Values]
    ) -> tuple[int, ...]:
        """Record a step of its own kind; `back` gives a cotangent for each of the inputs."""
        outputs = tuple(self.value(t) for t in types)
        self.steps.append(Step(op, tuple(inputs), outputs, back, self.to.span))
        return outputs

    def transposed(self, outputs: Values, cotangents: Values, inputs: Sequence[int]) -> list[int | None]:
        """Cotangents of linear `inputs` from those of linear `outputs`; None where nothing arrives."""
        emit = Emit(self)
        waiting: defaultdict[int, list[int]] = defaultdict(list)
        for output, cotangent in zip(outputs, cotangents, strict=True):
            if output is not None and cotangent is not None:
                waiting[output].append(cotangent)
        for step in reversed(self.steps):
            with self.to.at(step.span):
                found = [emit.total(waiting.pop(o)) if o in waiting else None for o in step.outputs]
                if all(c is None for c in found):
                    continue
                for operand, cotangent in zip(step.inputs, step.back(emit, found), strict=True):
                    if operand < 0 and cotangent is not None:
                        waiting[operand].append(cotangent)
        return [emit.total(waiting[i]) if i in waiting else None for i in inputs]
