"""Where the elements of a small integer tensor come from: a target shape is often computed only in part.

Takes the graph under construction and one of its values; gives, for each element, an extent where it is known at build
time, else the place where it is found at run time. Invariant: what is looked through keeps every element exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.ir.core.dims import Dim, Extent
from tessera_build.ir.core.types import I32, I64, Type
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.graph.ops.op import ints_of

LONGEST = 256  # operands that are shapes are shorter; one that is not may have any number of elements


@dataclass(frozen=True, slots=True)
class Place:
    """Element `index`, in row-major order, of a value."""

    value: int
    index: int


Piece = Extent | Place


def pieces_of(builder: GraphBuilder, value: int) -> tuple[Piece, ...]:
    """The elements of a value, in row-major order; refused where their number is a dim, as of a shape of any rank."""
    type_ = builder.type(value)
    if not all(isinstance(extent, int) for extent in type_.shape):
        raise unsupported("an operand that says a shape has a symbolic shape itself", found=str(type_))
    if math.prod(type_.static_shape) > LONGEST:
        raise ill_formed("an operand that says a shape is too long", expected=f"at most {LONGEST}", found=str(type_))
    return _Tracer(builder, {}).pieces(value)


@dataclass(frozen=True, slots=True)
class _Tracer:
    """One look; values that it comes to again, it knows: there may be any number of ways to one."""

    builder: GraphBuilder
    known: dict[int, tuple[Piece, ...]]

    def pieces(self, value: int) -> tuple[Piece, ...]:
        """The elements of a short value."""
        if value not in self.known:
            self.known[value] = self._pieces(value)
        return self.known[value]

    def _pieces(self, value: int) -> tuple[Piece, ...]:
        type_, array, node = self.builder.type(value), self.builder.array(value), self.builder.producer(value)
        if array is not None:
            return tuple(int(element) for element in array.reshape(-1).tolist())
        found = None if node is None or type_.dtype not in (I32, I64) else self._looked_through(node, type_.rank)
        return tuple(Place(value, i) for i in range(math.prod(type_.static_shape))) if found is None else found

    def _looked_through(self, node: GraphNode, rank: int) -> tuple[Piece, ...] | None:
        sources = [self.builder.type(v) for v in node.inputs]
        if not all(_is_short(type_) and type_.dtype in (I32, I64) for type_ in sources):
            return None
        match node.op:
            case "dimension":
                value = node.attributes["value"]
                return (value,) if isinstance(value, (int, Dim)) else None
            case "reshape":
                return self.pieces(node.inputs[0])
            case "cast" if sources[0].dtype == I32:
                return self.pieces(node.inputs[0])
            case "concat" if rank == 1:
                return tuple(piece for v in node.inputs for piece in self.pieces(v))
            case "slice" if rank == 1:
                (start,), (stop,) = ints_of(node.attributes, "starts"), ints_of(node.attributes, "stops")
                (step,) = ints_of(node.attributes, "steps")
                return self.pieces(node.inputs[0])[start:stop:step]
            case "gather" if sources[0].rank == 1 and (indices := self.builder.array(node.inputs[1])) is not None:
                elements = self.pieces(node.inputs[0])
                return tuple(elements[i] for i in indices.reshape(-1).tolist())
            case _:
                return None


def _is_short(type_: Type) -> bool:
    return all(isinstance(e, int) for e in type_.shape) and math.prod(type_.static_shape) <= LONGEST
