"""Building and rewriting functions: each rewrite is one sweep that makes the next tuple of nodes.

Takes functions of any level; gives new ones. Invariant: a node that does not change stays the same object, and a node
that replaces another takes over its span.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from tessera_build.ir.core.node import Function, Node, Region, Span, walk
from tessera_build.ir.core.structure import (
    defs_of,
    regions_of,
    rename,
    symbols_defined_by,
    symbols_used_by,
    uses_of,
    with_regions,
)
from tessera_build.ir.core.types import Type


@dataclass(slots=True)
class RegionBuilder:
    """A region under construction: `args` are its block arguments; `region` is valid once its `with` block is left."""

    args: tuple[int, ...]
    nodes: list[Node] = field(default_factory=list[Node])
    results: tuple[int, ...] = ()

    def yields(self, *values: int) -> None:
        """State what the region gives back."""
        self.results = values

    @property
    def region(self) -> Region:
        """The finished region."""
        return Region(self.args, tuple(self.nodes), self.results)


class FunctionBuilder:
    """Builds one function: hands out fresh value ids with their types and keeps nodes in order.

    b = FunctionBuilder("copy")
    source = b.arg(memref(F32, 4))
    x = b.value(tile(F32, 4))
    b.add(Load(x, source))
    with b.region([tile(F32, 4)]) as body:
        body.yields(*body.args)
    b.add(For(..., body=body.region))
    function = b.finish([x], {"dims": ()})
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.types: dict[int, Type] = {}
        self.span: Span | None = None  # the span of nodes added without one
        self._next = 0
        self._args: list[int] = []
        self._blocks: list[list[Node]] = [[]]
        self._locations: dict[Node, Span] = {}

    @classmethod
    def resume(cls, function: Function) -> FunctionBuilder:
        """A builder with the arguments, types and spans of `function` but none of its nodes; its ids stay valid."""
        builder = cls(function.name)
        builder.types = dict(function.types)
        builder._args = list(function.args)
        builder._next = max(function.types, default=-1) + 1
        builder._locations = dict(function.locations)
        return builder

    def value(self, type_: Type) -> int:
        """A fresh value id of this type."""
        self._next += 1
        self.types[self._next - 1] = type_
        return self._next - 1

    def values(self, types: Sequence[Type]) -> tuple[int, ...]:
        """One fresh value id a type."""
        return tuple(self.value(t) for t in types)

    def arg(self, type_: Type) -> int:
        """Append an argument of the function."""
        self._args.append(self.value(type_))
        return self._args[-1]

    def add(self, node: Node, span: Span | None = None) -> tuple[int, ...]:
        """Append a node to the innermost open region; gives the values it defines."""
        self._blocks[-1].append(node)
        where = span or self.span
        if where is not None:
            self._locations.setdefault(node, where)
        return defs_of(node)

    def emit(self, make: Callable[[int], Node], type_: Type, span: Span | None = None) -> int:
        """Append `make(result)` for a fresh result of this type; gives the result."""
        result = self.value(type_)
        self.add(make(result), span)
        return result

    @contextmanager
    def region(self, types: Sequence[Type] = ()) -> Generator[RegionBuilder]:
        """Open a region with block arguments of these types; nodes added inside the `with` block go into it."""
        builder = RegionBuilder(self.values(types))
        self._blocks.append(builder.nodes)
        try:
            yield builder
        finally:
            self._blocks.pop()

    def finish(self, results: Sequence[int] = (), attributes: Mapping[str, object] | None = None) -> Function:
        """The function; types and spans of values and nodes that did not make it are dropped."""
        nodes = tuple(self._blocks[0])
        function = Function(self.name, tuple(self._args), nodes, tuple(results), self.types, dict(attributes or {}))
        return tidy(replace(function, locations=self._locations))


def tidy(function: Function) -> Function:
    """Drop the types of values that no longer exist and the spans of nodes that are gone."""
    alive = set(function.args)
    locations: dict[Node, Span] = {}
    for node in function.walk():
        alive.update(defs_of(node))
        for region in regions_of(node):
            alive.update(region.args)
        if node in function.locations:
            locations[node] = function.locations[node]
    types = {value: t for value, t in function.types.items() if value in alive}
    return replace(function, types=types, locations=locations)


def map_nodes(function: Function, change: Callable[[Node], Node]) -> Function:
    """Rebuild every node, innermost first, by `change`, which keeps the values that a node defines."""
    locations = dict(function.locations)

    def visit(node: Node) -> Node:
        regions = regions_of(node)
        inner = tuple(_with_nodes(r, tuple(visit(n) for n in r.nodes)) for r in regions)
        new = change(with_regions(node, inner))
        if node in locations and new is not node:
            locations[new] = locations[node]
        return new

    return tidy(replace(function, nodes=tuple(visit(n) for n in function.nodes), locations=locations))


def _with_nodes(region: Region, nodes: tuple[Node, ...]) -> Region:
    unchanged = len(nodes) == len(region.nodes) and all(a is b for a, b in zip(nodes, region.nodes, strict=True))
    return region if unchanged else replace(region, nodes=nodes)


def substitute(function: Function, values: Mapping[int, int]) -> Function:
    """Replace uses of the keys by the values they map to (chains are followed), everywhere."""
    final = {value: _follow(values, value) for value in values}
    locations = dict(function.locations)
    nodes: list[Node] = []
    for node in function.nodes:
        new = rename(node, final, defs=False)
        nodes.append(new)
        if new is not node:
            inherit_spans(locations, node, new)
    results = tuple(final.get(r, r) for r in function.results)
    return tidy(replace(function, nodes=tuple(nodes), results=results, locations=locations))


def _follow(values: Mapping[int, int], value: int) -> int:
    for _ in range(len(values)):
        if value not in values:
            return value
        value = values[value]
    return value


def inherit_spans(locations: dict[Node, Span], old: Node, new: Node) -> None:
    """Give `new` and the nodes inside it the spans of their counterparts in `old`, which has the same structure."""
    for before, after in zip(walk((old,)), walk((new,)), strict=True):
        if before in locations:
            locations[after] = locations[before]


def has_effects(node: Node) -> bool:
    """True for a node whose order matters by its class."""
    return type(node).effects


def eliminate_dead(function: Function, keep: Callable[[Node], bool] = has_effects) -> Function:
    """Remove nodes whose results nobody reads, except those that `keep` names; one backward sweep."""
    live = Live(function, function.results)
    locations = dict(function.locations)
    nodes = _sweep(function.nodes, live, keep, locations)
    return tidy(replace(function, nodes=nodes, locations=locations))


class Live:
    """What a backward walk over nodes has found to be needed so far: values, and the symbols that extents mention."""

    def __init__(self, function: Function, values: Iterable[int], symbols: Iterable[str] = ()) -> None:
        self._types = function.types
        self._values = set(values)
        self._symbols = set(symbols)
        # Most functions define no symbols; looking for them in every node would be most of the walk's time.
        self._follows = any(symbols_defined_by(node) for node in function.walk())

    def needs(self, node: Node) -> bool:
        """Whether a node makes a needed value or defines a needed symbol."""
        return not self._values.isdisjoint(defs_of(node)) or (
            self._follows and not self._symbols.isdisjoint(symbols_defined_by(node))
        )

    def add(self, node: Node, values: Iterable[int] = ()) -> None:
        """A node is kept: what it reads and mentions is needed, and so are these values."""
        self._values.update(uses_of(node))
        self._values.update(values)
        if self._follows:
            self._symbols |= symbols_used_by(node, self._types)


def _sweep(
    nodes: tuple[Node, ...], live: Live, keep: Callable[[Node], bool], locations: dict[Node, Span]
) -> tuple[Node, ...]:
    kept: list[Node] = []
    for node in reversed(nodes):
        if not keep(node) and not live.needs(node):
            continue
        live.add(node, (r for region in regions_of(node) for r in region.results))
        inner: list[Region] = []
        for region in regions_of(node):
            inner.append(_with_nodes(region, _sweep(region.nodes, live, keep, locations)))
        new = with_regions(node, tuple(inner))
        if new is not node and node in locations:
            locations[new] = locations[node]
        kept.append(new)
    return tuple(reversed(kept))
