"""One node of Graph IR on its way to ONNX: what a writer of an operator is given.

Takes a node, its function and its operands; gives `Site`. Invariant: a writer asks its site for everything, so that it
is a function from operands to operands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tessera_build.frontends.onnx.export.extents import Extents
from tessera_build.frontends.onnx.export.writer import Operand, Writer
from tessera_build.ir.core.node import Function, Region
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.nodes import Array, GraphNode
from tessera_build.ir.graph.ops.op import Attributes

# Writes the nodes of a region whose arguments are these; gives its results.
WriteRegion = Callable[[Region, Sequence[Operand]], tuple[Operand, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A node with its operands; `used` says which of its results anyone reads."""

    node: GraphNode
    function: Function
    writer: Writer
    extents: Extents
    inputs: tuple[Operand, ...]
    used: tuple[bool, ...]
    write: WriteRegion
    producer: Callable[[int], GraphNode | None]
    constant: Callable[[GraphNode], Array]

    @property
    def attributes(self) -> Attributes:
        """The node's attributes."""
        return self.node.attributes

    def array(self, value: int) -> Array | None:
        """The numbers of a value of the function; None unless it is a constant."""
        node = self.producer(value)
        return self.constant(node) if node is not None and node.op == "constant" else None

    @property
    def arrays(self) -> tuple[Array | None, ...]:
        """The operands that are constants."""
        return tuple(self.array(value) for value in self.node.inputs)

    @property
    def types(self) -> tuple[Type, ...]:
        """The types of the operands."""
        return self.types_of(self.node.inputs)

    @property
    def results(self) -> tuple[Type, ...]:
        """The types of the results."""
        return self.types_of(self.node.outputs)

    @property
    def result(self) -> Type:
        """The type of the only result."""
        (only,) = self.results
        return only

    def types_of(self, values: Sequence[int]) -> tuple[Type, ...]:
        """The types of values of the function."""
        return tuple(self.function.types[value] for value in values)


WriteNode = Callable[[Site], Operand | tuple[Operand, ...]]
