"""Where the elements of a small integer tensor come from: a target shape is often computed only in part.

Takes the graph under construction and one of its values; gives, for each element, an extent where it is known at build
time, else the place where it is found at run time. Invariant: what is looked through keeps every element exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tessera_build.frontends.onnx.errors import unsupported
from tessera_build.ir.core.dims import Dim, Extent
from tessera_build.ir.core.types import I32, I64
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.graph.ops.op import ints_of

ELEMENTS = 256  # operands that are shapes are shorter


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
    count = math.prod(type_.static_shape)
    whole = tuple(Place(value, i) for i in range(count))
    array, node = builder.array(value), builder.producer(value)
    if array is not None:
        return tuple(int(element) for element in array.reshape(-1).tolist())
    if node is None or count > ELEMENTS or type_.dtype not in (I32, I64):
        return whole
    found = _looked_through(builder, node, type_.rank)
    return whole if found is None else found


def _looked_through(builder: GraphBuilder, node: GraphNode, rank: int) -> tuple[Piece, ...] | None:
    sources = [builder.type(v) for v in node.inputs]
    if any(not isinstance(e, int) for t in sources for e in t.shape) or any(t.dtype not in (I32, I64) for t in sources):
        return None
    match node.op:
        case "dimension":
            value = node.attributes["value"]
            return (value,) if isinstance(value, (int, Dim)) else None
        case "reshape":
            return pieces_of(builder, node.inputs[0])
        case "cast" if sources[0].dtype == I32:
            return pieces_of(builder, node.inputs[0])
        case "concat" if rank == 1:
            return tuple(piece for v in node.inputs for piece in pieces_of(builder, v))
        case "slice" if rank == 1:
            (start,), (stop,) = ints_of(node.attributes, "starts"), ints_of(node.attributes, "stops")
            (step,) = ints_of(node.attributes, "steps")
            return pieces_of(builder, node.inputs[0])[start:stop:step]
        case "gather" if sources[0].rank == 1 and (indices := builder.array(node.inputs[1])) is not None:
            elements = pieces_of(builder, node.inputs[0])
            return tuple(elements[i] for i in indices.reshape(-1).tolist())
        case _:
            return None
