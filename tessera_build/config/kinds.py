"""What a value in a settings file may be.

Takes: a YAML node. Gives: the value, or None where the node is of another kind.
Invariant: YAML's own guesses are not trusted: `1e-4` is a number (YAML 1.1 takes it for text), and `no` or `12` where
a word is wanted is refused, never silently turned into one.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from yaml.nodes import Node, ScalarNode, SequenceNode

_TEXT: Final = "tag:yaml.org,2002:str"
_INTEGER: Final = re.compile(r"[-+]?\d+")
_NUMBER: Final = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_FLAGS: Final = {"true": True, "false": False}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A kind of value: `expected` says it in words, `read` gives None for a node that is not of it.

    `placeholder` stands in for a value that was refused, so that reading goes on and finds every problem of a file.
    """

    expected: str
    placeholder: T
    read: Callable[[Node], T | None]


def integer(minimum: int) -> Kind[int]:
    """A whole number of at least `minimum`."""

    def read(node: Node) -> int | None:
        text = _plain(node, _INTEGER)
        return int(text) if text is not None and int(text) >= minimum else None

    return Kind(f"a whole number of at least {minimum}", minimum, read)


def number(low: float, high: float) -> Kind[float]:
    """A number from `low` to `high`, both included."""

    def read(node: Node) -> float | None:
        text = _plain(node, _NUMBER)
        return float(text) if text is not None and low <= float(text) <= high else None

    return Kind(f"a number from {low:g} to {high:g}", low, read)


def choice(*allowed: str) -> Kind[str]:
    """One of the words `allowed`."""

    def read(node: Node) -> str | None:
        word = _word(node)
        return word if word in allowed else None

    return Kind("one of " + ", ".join(allowed), allowed[0], read)


def words(item: Kind[str]) -> Kind[tuple[str, ...]]:
    """A list of words, each of the kind `item` and none twice."""

    def read(node: Node) -> tuple[str, ...] | None:
        if not isinstance(node, SequenceNode):
            return None
        found = [word for word in map(item.read, node.value) if word is not None]
        return tuple(found) if len(found) == len(node.value) == len(set(found)) else None

    return Kind(f"a list, each item {item.expected}, none twice", (), read)


def _word(node: Node) -> str | None:
    """The text of a scalar that YAML takes for text."""
    return node.value if isinstance(node, ScalarNode) and node.tag == _TEXT and node.value else None


def _plain(node: Node, pattern: re.Pattern[str]) -> str | None:
    """The text of an unquoted scalar of the given form."""
    if isinstance(node, ScalarNode) and node.style is None and pattern.fullmatch(node.value):
        return node.value
    return None


def _flag(node: Node) -> bool | None:
    """`true` or `false`, unquoted."""
    return _FLAGS.get(node.value) if isinstance(node, ScalarNode) and node.style is None else None


WORD: Final = Kind("a word (put it in quotes where YAML reads something else into it)", "", _word)
FLAG: Final = Kind("true or false", False, _flag)
