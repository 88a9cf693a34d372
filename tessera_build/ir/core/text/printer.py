"""Functions as text: one operation a line, values numbered in order of appearance.

Takes a function of any level and the level's dialect name; gives text. Invariant: equal structure gives equal text,
whatever the value ids were; without `locations` nothing of where a node came from is printed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tessera_build.ir.core.attributes import Attr, encode
from tessera_build.ir.core.node import Function, Node, Region, Span, walk
from tessera_build.ir.core.structure import defs_of, name_of, regions_of, to_generic, uses_of
from tessera_build.ir.core.text.literals import is_symbolic, print_dictionary, print_string, print_type, print_types
from tessera_build.ir.core.types import Type

RESULT_SHAPES = "tessera.result_shapes"
ARGUMENT_SHAPES = "tessera.argument_shapes"


def print_function(function: Function, dialect: str, *, locations: bool = False) -> str:
    """`"dialect.func"() <{sym_name = ..., attributes...}> ({...}) : () -> ()`, ending in a line break."""
    printer = _Printer(function.types, function.locations if locations else {})
    attributes = {"sym_name": function.name} | _mapping(function.attributes)
    body = Region(function.args, function.nodes, function.results)
    printer.operation(f"{dialect}.func", attributes, [body], dialect)
    return "\n".join(printer.lines) + "\n"


def print_nodes(nodes: Sequence[Node]) -> str:
    """Nodes that use and define no values, one a line."""
    printer = _Printer({}, {})
    for node in nodes:
        printer.node(node, 0)
    return "".join(line + "\n" for line in printer.lines)


def print_node(node: Node, types: Mapping[int, Type]) -> str:
    """The first line of the node, for messages, also where it is wrong: values keep their ids."""
    printer = _Printer(types, {})
    inner = tuple(walk((node,)))
    blocks = [values for n in inner for r in regions_of(n) for values in (r.args, r.results)]
    printer.names = {v: v for values in (*map(uses_of, inner), *map(defs_of, inner), *blocks) for v in values}
    try:
        printer.node(node, 0)
    except (KeyError, ValueError):  # a block argument without a type, or an attribute without a plain form
        return f'"{name_of(type(node))}"({printer.use(uses_of(node))})'
    return printer.lines[0]


def print_container(name: str, attributes: Mapping[str, Attr], parts: Sequence[str]) -> str:
    """An operation with one region that holds the operations of `parts`, each already text."""
    inner = "".join(f"  {line}\n" for part in parts for line in part.splitlines())
    return f'"{name}"(){_properties(attributes)} ({{\n{inner}}}) : () -> ()\n'


def _mapping(attributes: Mapping[str, object]) -> dict[str, Attr]:
    return {key: encode(value) for key, value in sorted(attributes.items())}


def _properties(attributes: Mapping[str, Attr]) -> str:
    return f" <{print_dictionary(attributes)}>" if attributes else ""


class _Printer:
    """Collects lines; `names` maps value ids to printed numbers."""

    def __init__(self, types: Mapping[int, Type], locations: Mapping[Node, Span]) -> None:
        self.types = types
        self.locations = locations
        self.names: dict[int, int] = {}
        self.lines: list[str] = []

    def define(self, values: Sequence[int]) -> str:
        """Number new values and list them."""
        for value in values:
            self.names.setdefault(value, len(self.names))
        return self.use(values)

    def use(self, values: Sequence[int]) -> str:
        """List values that have numbers."""
        return ", ".join(f"%{self.names[value]}" for value in values)

    def node(self, node: Node, indent: int) -> None:
        """Print one node and its regions."""
        generic = to_generic(node)
        operands = [self.types[v] for v in generic.operands if v in self.types]
        results = [self.types[v] for v in generic.results if v in self.types]
        used = self.use(generic.operands)
        defined = f"{self.define(generic.results)} = " if generic.results else ""
        head = f'{defined}"{generic.name}"({used}){_properties(generic.attributes)}'
        extras: dict[str, Attr] = {}
        if any(is_symbolic(t) for t in results):
            extras[RESULT_SHAPES] = tuple(t.shape for t in results)
        arrow = print_type(results[0]) if len(results) == 1 else print_types(results)
        tail = f" : {print_types(operands)} -> {arrow}{_location(self.locations.get(node))}"
        dialect = type(node).dialect
        self._regions(head, generic.regions, f"{dialect}.yield", extras, (tail, indent))

    def operation(self, name: str, attributes: Mapping[str, Attr], regions: Sequence[Region], dialect: str) -> None:
        """Print an operation without operands and results."""
        self._regions(f'"{name}"(){_properties(attributes)}', regions, f"{dialect}.return", {}, (" : () -> ()", 0))

    def _regions(
        self, head: str, regions: Sequence[Region], terminator: str, extras: dict[str, Attr], end: tuple[str, int]
    ) -> None:
        tail, indent = end
        margin = " " * indent
        shapes = tuple(tuple(self.types[a].shape for a in r.args) for r in regions)
        if any(is_symbolic(self.types[a]) for r in regions for a in r.args):
            extras[ARGUMENT_SHAPES] = shapes
        discardable = f" {print_dictionary(extras)}" if extras else ""
        if not regions:
            self.lines.append(f"{margin}{head}{discardable}{tail}")
            return
        self.lines.append(f"{margin}{head} ({{")
        for position, region in enumerate(regions):
            if position:
                self.lines.append(f"{margin}}}, {{")
            self._block(region, terminator, indent)
        self.lines.append(f"{margin}}}){discardable}{tail}")

    def _block(self, region: Region, terminator: str, indent: int) -> None:
        margin = " " * indent
        if region.args:
            self.define(region.args)
            args = ", ".join(f"{self.use([a])}: {print_type(self.types[a])}" for a in region.args)
            self.lines.append(f"{margin}^bb0({args}):")
        for node in region.nodes:
            self.node(node, indent + 2)
        results = print_types([self.types[r] for r in region.results if r in self.types])
        self.lines.append(f'{margin}  "{terminator}"({self.use(region.results)}) : {results} -> ()')


def _location(span: Span | None) -> str:
    if span is None:
        return ""
    position = f":{span.line}:{span.column}" if span.line else ""
    return f" loc({print_string(span.origin)}{position})"
