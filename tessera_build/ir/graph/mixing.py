"""Which dims tell apart what belongs together, and which may tell requests apart.

Takes an entry; gives the dims along which it combines elements. Invariant: a dim that the first axis of an input has is
none of them, whatever an entry does along it: servers put requests together there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from tessera_build.ir.core.dims import Extent, symbols_of
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.ops.op import Attributes, axis_of, flag_of, ints_of

# The extents along which an op combines elements, by what it takes and its attributes.
_COMBINED: Final[Mapping[str, Callable[[Sequence[Type], Attributes], Sequence[Extent]]]] = {
    "attention": lambda types, _: (types[1].shape[2],),
    "matmul": lambda types, attributes: (types[0].shape[-2 if flag_of(attributes, "transpose_a") else -1],),
    "reduce": lambda types, attributes: [types[0].shape[axis] for axis in ints_of(attributes, "axes")],
    "softmax": lambda types, attributes: (types[0].shape[axis_of(attributes, types[0].rank)],),
}


def mixed_dims(function: Function) -> frozenset[str]:
    """Dims whose elements an entry combines with each other, as attention does tokens; never those of requests."""
    leading = {n for a in function.args if function.types[a].rank for n in symbols_of(function.types[a].shape[0])}
    return frozenset(name for extent in _combined(function) for name in symbols_of(extent)) - leading


def token_dims(function: Function) -> frozenset[str]:
    """Dims that the entry combines and that count rows of a product with known weights, as tokens do."""
    rows: list[Extent] = []
    known: set[int] = set()
    for node in graph_nodes(function):
        if node.op == "constant" or (node.inputs and known.issuperset(node.inputs)):
            known.update(node.outputs)
        elif node.op == "matmul" and node.inputs[1] in known:
            shape = function.types[node.inputs[0]].shape
            rows.append(shape[-1 if flag_of(node.attributes, "transpose_a") else -2])
    return frozenset(name for extent in rows for name in symbols_of(extent)) & mixed_dims(function)


def _combined(function: Function) -> Iterator[Extent]:
    for node in graph_nodes(function):
        if node.op in _COMBINED:
            yield from _COMBINED[node.op]([function.types[value] for value in node.inputs], node.attributes)
