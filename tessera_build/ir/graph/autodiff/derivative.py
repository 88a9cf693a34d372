"""What the derivative of one op is: a rule for tangents, and rules for cotangents where they are needed.

Takes nothing; gives `Derivative`, `NotDifferentiable`, the `Site` that rules are shown, and makers of common rules.
Invariant: a rule writes ordinary graph ops, linear in the tangents or cotangents it is given; None stands for zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bundle_format.errors import TesseraError
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.autodiff.emit import Emit, Values
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.graph.ops.op import Attributes


@dataclass(frozen=True, slots=True)
class Site:
    """A node under differentiation: its operands and, for rules of tangents and `vjp`, its results.

    In a transposition an operand below zero is one of the linear program: it has a type and no value.
    """

    emit: Emit
    node: GraphNode
    inputs: tuple[int, ...]
    outputs: tuple[int, ...] = ()

    @property
    def attributes(self) -> Attributes:
        """The node's attributes."""
        return self.node.attributes

    def type(self, operand: int) -> Type:
        """The type of an operand."""
        return self.emit.type(self.inputs[operand])

    def linear(self, operand: int) -> bool:
        """In a transposition: whether an operand is one that cotangents go to."""
        return self.inputs[operand] < 0

    def again(self, *inputs: int) -> int:
        """The same op with the same attributes over other operands."""
        (result,) = self.emit.to.node(self.node.op, inputs, self.attributes)
        return result


Jvp = Callable[[Site, Values], Values]  # tangents of operands -> tangents of results
Transpose = Callable[[Site, Values], Values]  # cotangents of results -> cotangents of operands that are linear
Vjp = Callable[[Site, Values], Values]  # cotangents of results -> cotangents of operands


@dataclass(frozen=True, slots=True)
class Derivative:
    """How an op is differentiated. Reverse mode uses `vjp` where it is given, else it transposes what `jvp` writes.

    `transpose` is there for the ops that rules write: it may be asked for an op that is linear in some operands.
    """

    jvp: Jvp
    transpose: Transpose | None = None
    vjp: Vjp | None = None


@dataclass(frozen=True, slots=True)
class NotDifferentiable:
    """The reason why an op has no derivative, in place of one."""

    reason: str


def not_differentiable(op: str, reason: str, where: str | None = None) -> TesseraError:
    """The error of a derivative that does not exist."""
    return TesseraError(
        "NOT_DIFFERENTIABLE",
        f"{op} has no derivative here: {reason}",
        where=where,
        expected="ops that have derivatives between what is differentiated and what it is differentiated by",
        found=op,
    )


def first(values: Values) -> int:
    """The tangent or cotangent of an op that has one alone."""
    value = values[0]
    assert value is not None
    return value


def flat() -> Derivative:
    """The derivative of an op whose results change by jumps alone: zero, with no error."""
    return Derivative(lambda site, _: [None] * len(site.node.outputs))


def linear(transpose: Transpose) -> Derivative:
    """An op of one operand that is linear in it, or linear in its first operand with integers behind it."""
    return Derivative(lambda site, tangents: [site.again(first(tangents), *site.inputs[1:])], transpose)
