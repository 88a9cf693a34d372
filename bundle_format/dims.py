"""Dimension expressions: the text that stands in a shape where an extent is not a constant.

Takes: text such as `N`, `2*S+1` or `floordiv(T, 2)`.
Gives: `DimExpression`, which knows its symbols and can be evaluated with values for them.
Invariant: parsing ends in time and depth bounded by the text's length, so hostile text cannot hang or crash a reader.

    sum     := ["-"] product (("+" | "-") product)*
    product := factor ("*" factor)*
    factor  := integer | symbol | "(" sum ")" | function "(" sum "," sum ")"
    function := "floordiv" | "mod" | "min" | "max"
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, NoReturn, final

from bundle_format.errors import BundleError

MAX_TEXT: Final = 512
MAX_DEPTH: Final = 32
_TOKEN: Final = re.compile(r"\s*(?:(?P<integer>\d{1,18})(?!\w)|(?P<name>[^\W\d]\w*)|(?P<sign>[-+*(),]))")


def _floordiv(left: int, right: int) -> int:
    return left // right


def _mod(left: int, right: int) -> int:
    return left % right


_FUNCTIONS: Final[Mapping[str, Callable[[int, int], int]]] = {
    "floordiv": _floordiv,
    "mod": _mod,
    "min": min,
    "max": max,
    "+": int.__add__,
    "-": int.__sub__,
    "*": int.__mul__,
}

_Step = int | str | Callable[[int, int], int]


class DimExpression(NamedTuple):
    """An expression as a postfix program: an integer or a symbol is pushed, a function takes two and pushes one."""

    text: str
    program: tuple[_Step, ...]

    @property
    def symbols(self) -> frozenset[str]:
        """The names that need a value."""
        return frozenset(step for step in self.program if isinstance(step, str))

    @property
    def plain_symbol(self) -> str | None:
        """The name, when the expression is nothing but one name."""
        first = self.program[0]
        return first if len(self.program) == 1 and isinstance(first, str) else None

    def evaluate(self, values: Mapping[str, int]) -> int:
        """The extent; division by zero is a `BundleError`, a symbol without a value a `KeyError`."""
        stack: list[int] = []
        for step in self.program:
            if isinstance(step, int):
                stack.append(step)
            elif isinstance(step, str):
                stack.append(values[step])
            else:
                right, left = stack.pop(), stack.pop()
                stack.append(self._apply(step, left, right))
        return stack[0]

    def _apply(self, function: Callable[[int, int], int], left: int, right: int) -> int:
        try:
            return function(left, right)
        except ZeroDivisionError as error:
            raise BundleError("DIM_DIVISION", "a dimension expression divides by zero", where=self.text) from error


def parse_dim(text: str) -> DimExpression:
    """Read an expression; anything outside the grammar is a `BundleError`."""
    if len(text) > MAX_TEXT:
        raise BundleError("DIM_MALFORMED", f"a dimension expression is longer than {MAX_TEXT} characters")
    return DimExpression(text, _Parser(text).parse())


@final
class _Parser:
    """Recursive descent over the grammar of the module docstring; writes the postfix program as it goes."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._program: list[_Step] = []
        self._kind, self._value = "", ""
        self._advance()

    def parse(self) -> tuple[_Step, ...]:
        self._sum(0)
        if self._kind != "end":
            self._fail()
        return tuple(self._program)

    def _advance(self) -> None:
        match = _TOKEN.match(self._text, self._position)
        if match is not None:
            self._kind, self._value = match.lastgroup or "", match[match.lastgroup or 0]
            self._position = match.end()
        elif self._text[self._position :].strip():
            self._fail()
        else:
            self._kind, self._value = "end", ""

    def _sum(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            self._fail()
        if self._value == "-":
            self._program.append(0)
        else:
            self._product(depth)
        while self._value in ("+", "-"):
            sign = self._value
            self._advance()
            self._product(depth)
            self._program.append(_FUNCTIONS[sign])

    def _product(self, depth: int) -> None:
        self._factor(depth)
        while self._value == "*":
            self._advance()
            self._factor(depth)
            self._program.append(_FUNCTIONS["*"])

    def _factor(self, depth: int) -> None:
        kind, value = self._kind, self._value
        if kind == "integer":
            self._program.append(int(value))
            self._advance()
        elif kind == "name":
            self._advance()
            if self._value == "(":
                self._call(value, depth)
            else:
                self._program.append(value)
        else:
            self._expect("(")
            self._sum(depth + 1)
            self._expect(")")

    def _call(self, name: str, depth: int) -> None:
        if name not in _FUNCTIONS:
            self._fail()
        self._expect("(")
        self._sum(depth + 1)
        self._expect(",")
        self._sum(depth + 1)
        self._expect(")")
        self._program.append(_FUNCTIONS[name])

    def _expect(self, sign: str) -> None:
        if self._value != sign:
            self._fail()
        self._advance()

    def _fail(self) -> NoReturn:
        raise BundleError(
            "DIM_MALFORMED",
            "a dimension expression does not parse",
            expected="integers, names, + - * ( ), floordiv, mod, min, max",
            found=repr(self._text),
        )
