"""Text to operations: names resolved to value ids, types complete, classes not yet known.

Takes text in MLIR's generic syntax; gives a tree of `Operation`s and the type of every value. Invariant: a value is
defined before it is used and once in its scope, and every use states the type that the definition gave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from tessera_build.ir.core.attributes import Attr
from tessera_build.ir.core.dims import Dim
from tessera_build.ir.core.node import Span
from tessera_build.ir.core.text.lexer import Lexer
from tessera_build.ir.core.text.literals import print_type
from tessera_build.ir.core.text.printer import ARGUMENT_SHAPES, RESULT_SHAPES
from tessera_build.ir.core.text.values import UNKNOWN, ValueParser
from tessera_build.ir.core.types import Type


@dataclass(slots=True)
class Block:
    """A parsed region: its arguments and operations."""

    args: tuple[int, ...]
    operations: list[Operation]


@dataclass(slots=True)
class Operation:
    """A parsed operation, not yet a node."""

    name: str
    offset: int
    operands: tuple[int, ...] = ()
    results: tuple[int, ...] = ()
    attributes: Mapping[str, Attr] = field(default_factory=dict[str, Attr])
    regions: tuple[Block, ...] = ()
    span: Span | None = None


class Parser:
    """Parses one text; `types` collects the type of every value."""

    def __init__(self, text: str) -> None:
        self.lexer = Lexer(text)
        self.types: dict[int, Type] = {}
        self._values = ValueParser(self.lexer)
        self._names: dict[str, int] = {}
        self._scopes: list[list[str]] = [[]]

    def fail(self, message: str, offset: int, code: str = "TEXT_SYNTAX") -> NoReturn:
        """Raise a `TextError` at `offset`."""
        self.lexer.fail(message, offset, code=code)

    def whole(self) -> Operation:
        """The only operation of the text."""
        operation = self.operation()
        if self.lexer.token.kind != "end":
            self.lexer.fail("the text ends after its first operation")
        return operation

    def operation(self) -> Operation:
        """`%results = "name"(%operands) <{properties}> ({regions}) {extras} : type loc(...)`."""
        lexer, values = self.lexer, self._values
        names: list[str] = []
        while lexer.token.kind == "value":
            names.append(lexer.advance().text)
            lexer.expect("," if lexer.at(",") else "=")
        offset = lexer.token.offset
        operation = Operation(values.string(), offset)
        lexer.expect("(")
        operation.operands = tuple(values.list_until(")", self._used))
        if lexer.accept("<"):
            operation.attributes = values.dictionary()
            lexer.expect(">")
        if lexer.accept("("):
            operation.regions = tuple(values.list_until(")", self._region))
        extras = values.dictionary() if lexer.at("{") else {}
        self._argument_shapes(operation, extras)
        lexer.expect(":")
        self._signature(operation, names)
        self._set_shapes(operation.results, extras.get(RESULT_SHAPES, ()), offset)
        operation.span = self._location()
        return operation

    def _argument_shapes(self, operation: Operation, extras: Mapping[str, Attr]) -> None:
        unknown = extras.keys() - {RESULT_SHAPES, ARGUMENT_SHAPES}
        if unknown:
            self.fail(f"unknown extra {', '.join(sorted(unknown))}", operation.offset)
        listed = extras.get(ARGUMENT_SHAPES, ())
        for position, block in enumerate(operation.regions):
            shapes = listed[position] if isinstance(listed, tuple) and position < len(listed) else ()
            self._set_shapes(block.args, shapes, operation.offset)

    def _set_shapes(self, values: Sequence[int], shapes: Attr, offset: int) -> None:
        """Put the symbolic extents from the extras into the types that printed them as `?`."""
        for value, shape in zip(values, shapes if isinstance(shapes, tuple) else (), strict=False):
            extents = tuple(e for e in shape if isinstance(e, Dim | int)) if isinstance(shape, tuple) else ()
            whole = replace(self.types[value], shape=extents)
            if print_type(whole) != print_type(self.types[value]):
                self.fail("the listed shape does not fit the type", offset)
            self.types[value] = whole
        if any(UNKNOWN in self.types[value].shape for value in values):
            self.fail("no extent is listed for a ? in a type", offset)

    def _signature(self, operation: Operation, names: Sequence[str]) -> None:
        lexer, values = self.lexer, self._values
        lexer.expect("(")
        operands = values.list_until(")", values.type)
        lexer.expect("->")
        results = values.list_until(")", values.type) if lexer.accept("(") else [values.type()]
        if len(operands) != len(operation.operands) or len(results) != len(names):
            self.fail("as many types as operands and results belong here", operation.offset)
        for value, type_ in zip(operation.operands, operands, strict=True):
            if print_type(self.types[value]) != print_type(type_):
                self.fail(f"an operand is {print_type(self.types[value])}, not {print_type(type_)}", operation.offset)
        operation.results = tuple(self._define(n, t, operation.offset) for n, t in zip(names, results, strict=True))

    def _region(self) -> Block:
        self._values.enter()
        self._scopes.append([])
        self.lexer.expect("{")
        args: list[int] = []
        if self.lexer.token.kind == "block":
            self.lexer.advance()
            if self.lexer.accept("("):
                args = self._values.list_until(")", self._argument)
            self.lexer.expect(":")
        operations: list[Operation] = []
        while not self.lexer.accept("}"):
            operations.append(self.operation())
        for name in self._scopes.pop():
            del self._names[name]
        self._values.leave()
        return Block(tuple(args), operations)

    def _argument(self) -> int:
        offset = self.lexer.token.offset
        name = self.lexer.take("value")
        self.lexer.expect(":")
        return self._define(name, self._values.type(), offset)

    def _define(self, name: str, type_: Type, offset: int) -> int:
        if name in self._names:
            self.fail(f"{name} is defined twice", offset)
        value = self._names[name] = len(self.types)
        self._scopes[-1].append(name)
        self.types[value] = type_
        return value

    def _used(self) -> int:
        offset = self.lexer.token.offset
        name = self.lexer.take("value")
        if name not in self._names:
            self.fail(f"{name} is not defined here", offset)
        return self._names[name]

    def _location(self) -> Span | None:
        if not self.lexer.accept("loc"):
            return None
        self.lexer.expect("(")
        origin, line, column = self._values.string(), 0, 0
        if self.lexer.accept(":"):
            line = self._values.integer()
            self.lexer.expect(":")
            column = self._values.integer()
        self.lexer.expect(")")
        return Span(origin, line, column)
