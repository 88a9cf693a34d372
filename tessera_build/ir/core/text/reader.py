"""Operations to functions: the last step of parsing, where names become node classes.

Takes parsed operations and the node classes of a level; gives functions. Invariant: what the printer printed comes
back with the same structure, attributes and types; what does not fit a class is refused at its line and column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tessera_build.ir.core.attributes import decode
from tessera_build.ir.core.node import Function, Node, Region, Span
from tessera_build.ir.core.structure import Generic, from_generic
from tessera_build.ir.core.text.parser import Block, Operation, Parser


def parse_function(text: str, dialect: str, classes: Mapping[str, type[Node]]) -> Function:
    """The function that `print_function` printed; raises `TextError`."""
    parser = Parser(text)
    return read_function(parser, parser.whole(), dialect, classes)


def read_function(parser: Parser, operation: Operation, dialect: str, classes: Mapping[str, type[Node]]) -> Function:
    """A parsed `func` operation as a function."""
    if operation.name != f"{dialect}.func" or len(operation.regions) != 1:
        parser.fail(f'"{dialect}.func" with one region belongs here', operation.offset)
    attributes = {key: decode(value) for key, value in operation.attributes.items()}
    name = attributes.pop("sym_name", None)
    if not isinstance(name, str):
        parser.fail("a function needs a sym_name", operation.offset)
    reader = _Reader(parser, dialect, classes)
    body = reader.region(operation.regions[0], operation, f"{dialect}.return")
    types = {value: parser.types[value] for value in reader.defined}
    return Function(name, body.args, body.nodes, body.results, types, attributes, reader.locations)


def read_nodes(
    parser: Parser, operations: Sequence[Operation], dialect: str, classes: Mapping[str, type[Node]]
) -> tuple[Node, ...]:
    """Parsed operations without values as nodes."""
    reader = _Reader(parser, dialect, classes)
    return tuple(reader.node(operation) for operation in operations)


class _Reader:
    def __init__(self, parser: Parser, dialect: str, classes: Mapping[str, type[Node]]) -> None:
        self.parser = parser
        self.dialect = dialect
        self.classes = classes
        self.locations: dict[Node, Span] = {}
        self.defined: list[int] = []

    def region(self, block: Block, owner: Operation, terminator: str) -> Region:
        """A block whose last operation is the terminator."""
        if not block.operations or block.operations[-1].name != terminator:
            self.parser.fail(f'a region here ends in "{terminator}"', owner.offset)
        self.defined.extend(block.args)
        nodes = tuple(self.node(operation) for operation in block.operations[:-1])
        return Region(block.args, nodes, block.operations[-1].operands)

    def node(self, operation: Operation) -> Node:
        """One operation as a node of its class."""
        regions = tuple(self.region(b, operation, f"{self.dialect}.yield") for b in operation.regions)
        self.defined.extend(operation.results)
        generic = Generic(operation.name, operation.operands, operation.results, operation.attributes, regions)
        try:
            node = from_generic(generic, self.classes)
        except ValueError as error:
            self.parser.fail(str(error), operation.offset, "TEXT_NODE")
        if operation.span is not None:
            self.locations[node] = operation.span
        return node
