"""What the definitions of every operator are written with: types of values, typed attributes, plain movement.

Takes graph nodes and the context of a task; gives axes, index symbols and the pieces of `Compute` nodes. Invariant:
nothing here knows an operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.scalar import ScalarBuilder, ScalarProgram
from tessera_build.ir.core.types import DType, Type
from tessera_build.ir.graph.nodes import Array, Attribute, GraphNode
from tessera_build.ir.schedule.nodes import Access, Axis, Compute


@dataclass(slots=True)
class Context:
    """What definitions may look at: types of values, small constants, and a source of new value ids."""

    types: dict[int, Type]
    constants: Mapping[int, Array]
    next_id: int = field(default=0)

    def fresh(self, value_type: Type) -> int:
        """A new value between two definitions of one operator."""
        self.next_id = max(self.next_id, max(self.types, default=-1) + 1)
        value = self.next_id
        self.types[value] = value_type
        self.next_id += 1
        return value


def axes_of(shape: Sequence[Extent], prefix: str = "_d") -> tuple[Axis, ...]:
    """Axes d0, d1, ... with a tensor's extents."""
    return tuple(Axis(f"{prefix}{i}", extent) for i, extent in enumerate(shape))


def symbols_of_axes(axes: Sequence[Axis]) -> list[Extent]:
    """The index symbol of each axis; 0 for an axis of extent 1."""
    return [0 if axis.extent == 1 else symbol(axis.name) for axis in axes]


def aligned(shape: Sequence[Extent], indices: Sequence[Extent]) -> tuple[Extent, ...]:
    """Indices of a numpy-broadcast operand under the result's indices."""
    skip = len(indices) - len(shape)
    return tuple(0 if extent == 1 else index for extent, index in zip(shape, indices[skip:], strict=True))


def integer_of(value: Attribute) -> int:
    """An attribute that is an integer."""
    if isinstance(value, int):
        return value
    raise TypeError(f"{value!r} is not an integer")


def integers(node: GraphNode, name: str) -> tuple[int, ...]:
    """An attribute that is one integer or a tuple of them, as a tuple."""
    value = node.attributes[name]
    return tuple(integer_of(v) for v in value) if isinstance(value, tuple) else (integer_of(value),)


def extents(node: GraphNode, name: str) -> tuple[Extent, ...]:
    """An attribute that is a tuple of extents."""
    value = node.attributes[name]
    if not isinstance(value, tuple):
        raise TypeError(f"{name} of {node.op} is not a tuple")
    return tuple(v for v in value if not isinstance(v, (float, str, DType, tuple)))


def copy_program(dtype: DType) -> ScalarProgram:
    """The program that gives its only input."""
    return ScalarBuilder((dtype,)).finish(0)


def movement(node: GraphNode, context: Context, indices: Sequence[Extent], pad: float | None = None) -> Compute:
    """A definition that copies the element of the first operand at `indices`."""
    kind = context.types[node.output]
    access = Access(tuple(indices), pad)
    return Compute(node.output, node.inputs[:1], (access,), axes_of(kind.shape), (), "none", copy_program(kind.dtype))
