"""Text to attributes and types.

Takes a lexer that stands before an attribute or a type; gives the `Attr` or `Type` and steps over it. Invariant:
nesting is limited to `MAX_DEPTH`, and an extent printed as `?` is `UNKNOWN` until the operation's extras name it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import TypeVar

from tessera_build.ir.core.attributes import Attr
from tessera_build.ir.core.dims import Dim, Extent, parse_extent, symbol
from tessera_build.ir.core.text.lexer import Lexer, string_value
from tessera_build.ir.core.types import DType, Type, dtype_from_mlir, memref, scalar, tensor

MAX_DEPTH = 64
UNKNOWN: Extent = symbol("__unknown_extent")
_SHAPED = re.compile(r"(tensor|vector|memref)<((?:(?:\?|[0-9]+)x)*)([a-zA-Z]\w*)>")
Item = TypeVar("Item")


class ValueParser:
    """Reads attributes and types from a lexer."""

    def __init__(self, lexer: Lexer) -> None:
        self.lexer = lexer
        self._depth = 0

    def enter(self) -> None:
        """Go one level deeper; too deep is a `TextError`."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self.lexer.fail(f"more than {MAX_DEPTH} levels of nesting")

    def leave(self) -> None:
        """Come back one level."""
        self._depth -= 1

    def list_until(self, end: str, item: Callable[[], Item]) -> list[Item]:
        """`item, item, ... end`, possibly empty."""
        items: list[Item] = []
        while not self.lexer.accept(end):
            if items:
                self.lexer.expect(",")
            items.append(item())
        return items

    def string(self) -> str:
        """A quoted string."""
        offset = self.lexer.token.offset
        return string_value(self.lexer.take("string"), self.lexer, offset)

    def integer(self) -> int:
        """A decimal integer of at most 64 bits."""
        offset = self.lexer.token.offset
        digits = self.lexer.take("int")
        if len(digits) > 20:
            self.lexer.fail("the integer does not fit into 64 bits", offset)
        return int(digits)

    def dictionary(self) -> dict[str, Attr]:
        """`{key = attribute, ...}`."""
        self.enter()
        self.lexer.expect("{")
        found: dict[str, Attr] = {}
        for key, value in self.list_until("}", self._entry):
            if key in found:
                self.lexer.fail(f"{key} is given twice")
            found[key] = value
        self.leave()
        return found

    def _entry(self) -> tuple[str, Attr]:
        key = self.string() if self.lexer.token.kind == "string" else self.lexer.take("word")
        self.lexer.expect("=")
        return key, self.attribute()

    def attribute(self) -> Attr:
        """Any attribute."""
        match self.lexer.token.kind:
            case "string":
                return self.string()
            case "int":
                value = self.integer()
                return self._typed(value, ("i64", "ui64"))
            case "float":
                return self._typed(float(self.lexer.advance().text), ("f64",))
            case "hex":
                return self._bits()
            case "word":
                return self._word()
            case _:
                return self.dictionary() if self.lexer.at("{") else self._array()

    def _array(self) -> tuple[Attr, ...]:
        self.enter()
        self.lexer.expect("[")
        items = tuple(self.list_until("]", self.attribute))
        self.leave()
        return items

    def _typed(self, value: int | float, names: tuple[str, ...]) -> int | float:
        if self.lexer.accept(":") and not any(self.lexer.accept(name) for name in names):
            self.lexer.fail(f"a number here is of type {' or '.join(names)}")
        return value

    def _bits(self) -> float:
        offset = self.lexer.token.offset
        digits = self.lexer.take("hex")[2:]
        if len(digits) != 16:
            self.lexer.fail("a hexadecimal number is a float of 64 bits, 16 digits", offset)
        (value,) = struct.unpack(">d", bytes.fromhex(digits))
        self.lexer.expect(":")
        self.lexer.expect("f64")
        return value

    def _word(self) -> bool | DType | Dim:
        word = self.lexer.advance()
        if word.text in {"true", "false"}:
            return word.text == "true"
        if word.text == "#tessera.dim":
            self.lexer.expect("<")
            extent = self._dim()
            self.lexer.expect(">")
            return extent
        return self._dtype(word.text, word.offset)

    def _dim(self) -> Dim:
        offset = self.lexer.token.offset
        text = self.string()
        try:
            # The expression parser is recursive; no printed expression comes near this length.
            extent = parse_extent(text) if len(text) <= 4096 else 0
        except (ValueError, RecursionError, ZeroDivisionError) as error:
            self.lexer.fail(f"not a dimension expression: {error}", offset)
        if not isinstance(extent, Dim):
            self.lexer.fail("a dimension expression has a symbol and at most 4096 characters", offset)
        return extent

    def _dtype(self, name: str, offset: int) -> DType:
        try:
            return dtype_from_mlir(name)
        except KeyError:
            self.lexer.fail(f"{name} is not an element type", offset)

    def type(self) -> Type:
        """A value's type."""
        if self.lexer.token.kind == "word":
            word = self.lexer.advance()
            return scalar(self._dtype(word.text, word.offset))
        offset = self.lexer.token.offset
        text = self.lexer.take("shaped")
        match = _SHAPED.fullmatch(text)
        if match is None:
            self.lexer.fail("not a type", offset)
        extents = [UNKNOWN if e == "?" else int(e) for e in match[2].split("x")[:-1]]
        dtype = self._dtype(match[3], offset)
        if match[1] == "vector":
            return Type("vector", dtype, tuple(extents))
        return (tensor if match[1] == "tensor" else memref)(dtype, *extents)
