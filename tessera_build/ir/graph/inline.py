"""The entry of one module written into another function, as a call would have it.

Takes a builder, a module's entry, values for its inputs and extents for its dims; gives the values of its results.
Invariant: symbols that the entry binds itself, sizes from data and indices of loops, have names of their own in each
copy; spans stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

from tessera_build.ir.core.dims import Dim, Extent, substitute, symbol
from tessera_build.ir.core.node import Function, Node, Region
from tessera_build.ir.core.types import Type, tensor
from tessera_build.ir.graph.builder import GraphBuilder, graph_nodes
from tessera_build.ir.graph.nodes import Attribute, GraphNode, Module
from tessera_build.ir.graph.ops.sizes import names_of
from tessera_build.ir.graph.regions import index_range


def inline(
    to: GraphBuilder, module: Module, entry: str, values: Sequence[int], dims: Mapping[str, Extent]
) -> tuple[int, ...]:
    """The results of `entry` over `values`; `dims` says what its dims are in the other function."""
    function = module.entries[entry]
    copy = _Copy(to, module, function, {**dims, **_own_sizes(to, function, dims)})
    copy.values.update(zip(function.args, values, strict=True))
    copy.block(function.nodes)
    return tuple(copy.values[result] for result in function.results)


def _own_sizes(to: GraphBuilder, function: Function, dims: Mapping[str, Extent]) -> dict[str, Extent]:
    """New symbols for the sizes that the function reads from data."""
    if not any(_sizes_of(node) for node in graph_nodes(function)):
        return {}
    taken = {*to.dims, *dims, *(n for node in to.function().nodes for n in _sizes_of(node))}
    renamed: dict[str, Extent] = {}
    for node in graph_nodes(function):
        for name in _sizes_of(node):
            fresh = next(f"{name}_{i}" for i in count(1) if f"{name}_{i}" not in taken) if name in taken else name
            taken.add(fresh)
            renamed[name] = symbol(fresh)
    return renamed


def _sizes_of(node: Node) -> tuple[str, ...]:
    return names_of(node.attributes) if isinstance(node, GraphNode) and node.op == "sizes" else ()


class _Copy:
    """One copy on its way; `symbols` says what the function's symbols are there."""

    def __init__(self, to: GraphBuilder, module: Module, function: Function, symbols: Mapping[str, Extent]) -> None:
        self.to = to
        self.module = module
        self.function = function
        self.symbols: dict[str, Extent] = dict(symbols)
        self.values: dict[int, int] = {}

    def block(self, nodes: Sequence[Node]) -> None:
        """Write nodes in order."""
        for node in nodes:
            assert isinstance(node, GraphNode), "a function of this level has nodes of this level"
            with self.to.at(self.function.locations.get(node) or self.to.span):
                self._node(node)

    def _node(self, node: GraphNode) -> None:
        if node.op == "constant":
            digest = str(node.attributes["digest"])
            array, name = self.module.constants[digest], self.module.constant_names.get(digest, "")
            self.values[node.output] = self.to.constant(array, name)
            return
        if isinstance(index := node.attributes.get("index"), str) and node.regions:
            self.symbols[index] = symbol(self.to.fresh_index())
        attributes = {name: self._attribute(name, value) for name, value in node.attributes.items()}
        regions = [self._region(node, attributes, region) for region in node.regions]
        inputs = tuple(self.values[i] for i in node.inputs)
        self.values.update(zip(node.outputs, self.to.node(node.op, inputs, attributes, regions), strict=True))

    def _attribute(self, name: str, value: Attribute) -> Attribute:
        """An attribute over the other function's symbols; what binds symbols has their new names."""
        if isinstance(value, tuple):
            return tuple(self._attribute(name, part) for part in value)
        if isinstance(value, str) and name in (*GraphNode.binds, *GraphNode.defines) and value in self.symbols:
            return str(self.symbols[value])
        return substitute(value, self.symbols) if isinstance(value, Dim) else value

    def _region(self, node: GraphNode, attributes: Mapping[str, Attribute], region: Region) -> Region:
        types = [self._type(self.function.types[a]) for a in region.args]
        outline = GraphNode(node.op, (), (), attributes, node.regions)
        with self.to.region(types, index_range(outline, self.to.dims)) as made:
            self.values.update(zip(region.args, made.args, strict=True))
            self.block(region.nodes)
            made.yields(*(self.values[r] for r in region.results))
        return made.region

    def _type(self, type_: Type) -> Type:
        return tensor(type_.dtype, *(substitute(extent, self.symbols) for extent in type_.shape))
