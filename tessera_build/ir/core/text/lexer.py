"""Tokens of the text form, and errors that point at them.

Takes text; gives one token after the other with its offset. Invariant: every character belongs to a token, to white
space or to a `//` comment; anything else is a `TextError` at its line and column.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from bundle_format.errors import TesseraError

_TOKEN = re.compile(
    r"""(?:\s|//[^\n]*)*(?:
      (?P<shaped>(?:tensor|vector|memref)<[0-9?x]*[a-zA-Z][a-zA-Z0-9]*>)
    | (?P<string>"(?:[^"\\\n]|\\[^\n])*")
    | (?P<value>%[A-Za-z0-9_$.-]+)
    | (?P<block>\^[A-Za-z0-9_$.]+)
    | (?P<hex>0x[0-9A-Fa-f]+)
    | (?P<float>-?[0-9]+\.[0-9]*(?:[eE][+-]?[0-9]+)?)
    | (?P<int>-?[0-9]+)
    | (?P<word>\#?[A-Za-z_][A-Za-z0-9_$.]*)
    | (?P<sign>->|[(){}\[\]<>,:=])
    | (?P<end>\Z)
    )""",
    re.VERBOSE,
)


class TextError(TesseraError):
    """IR text that does not parse; `where` is line:column, and the message shows the line with a caret."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text, its kind and where it begins."""

    kind: str
    text: str
    offset: int


class Lexer:
    """A cursor over the tokens of one text, one token ahead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._end = 0
        self.token = Token("end", "", 0)
        self.advance()

    def advance(self) -> Token:
        """Step to the next token; gives the one left behind."""
        previous = self.token
        match = _TOKEN.match(self.text, self._end)
        if match is None:
            blank = re.compile(r"(?:\s|//[^\n]*)*").match(self.text, self._end)
            self.fail("this is not a token", blank.end() if blank else self._end)
        kind = match.lastgroup or "end"
        self._end = match.end()
        self.token = Token(kind, match[kind], match.start(kind))
        return previous

    def at(self, text: str) -> bool:
        """True when the next token is this sign or word."""
        return self.token.text == text and self.token.kind in {"sign", "word"}

    def accept(self, text: str) -> bool:
        """Step over the sign or word if it comes next."""
        if not self.at(text):
            return False
        self.advance()
        return True

    def expect(self, text: str) -> None:
        """Step over the sign or word, which must come next."""
        if not self.accept(text):
            self.fail(f"{text!r} belongs here")

    def take(self, kind: str) -> str:
        """The text of the next token, which must be of this kind."""
        if self.token.kind != kind:
            self.fail(f"a {kind} belongs here")
        return self.advance().text

    def fail(self, message: str, offset: int | None = None, *, code: str = "TEXT_SYNTAX") -> NoReturn:
        """Raise a `TextError` at `offset`, or at the next token."""
        offset = self.token.offset if offset is None else offset
        line = self.text.count("\n", 0, offset) + 1
        start = self.text.rfind("\n", 0, offset) + 1
        whole = self.text[start:].partition("\n")[0]
        column = offset - start
        # A window, so that a message about one column of a very long line stays readable.
        left = max(0, column - 80)
        shown = whole[left : column + 40]
        where = f"{line}:{column + 1}"
        raise TextError(code, f"{message}\n    {shown}\n    {' ' * (column - left)}^", where=where)


def string_value(literal: str, lexer: Lexer, offset: int) -> str:
    """The string that a quoted literal stands for."""
    out = bytearray()
    position, body = 0, literal[1:-1]
    while position < len(body):
        character = body[position]
        position += 1
        if character != "\\":
            out += character.encode()
            continue
        escape = body[position]
        if escape in _ESCAPES:
            out += _ESCAPES[escape]
            position += 1
            continue
        digits = body[position : position + 2]
        if not re.fullmatch("[0-9A-Fa-f]{2}", digits):
            lexer.fail(f"\\{escape} is not an escape sequence", offset)
        out.append(int(digits, 16))
        position += 2
    try:
        return out.decode()
    except UnicodeDecodeError:
        lexer.fail("the string is not UTF-8", offset)


_ESCAPES = {"n": b"\n", "t": b"\t", '"': b'"', "\\": b"\\"}
