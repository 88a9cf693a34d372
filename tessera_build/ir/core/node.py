"""Nodes, regions and functions: the flat form that all four IR levels share.

Takes node classes that declare their fields with `Use`, `Def`, `Region` or attribute types; gives functions as tuples
of nodes over value ids. Invariant: nodes are frozen and compared by identity, a value is defined before it is used,
and source spans live in `Function.locations`, never in equality or hash.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, cast

from tessera_build.ir.core.types import Type

Use = Annotated[int, "use"]
Def = Annotated[int, "def"]
Symbol = Annotated[str, "symbol"]  # an attribute that names an index for the extents inside the node's regions
OpName = Annotated[str, "name"]  # the node's own name in text, after the dialect


@dataclass(frozen=True, slots=True)
class Span:
    """Where a node came from: an ONNX node's name, or a Python file with line and column."""

    origin: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.origin}:{self.line}:{self.column}" if self.line else self.origin


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """Base of all nodes. `dialect` is the level's prefix in text; `effects` marks nodes whose order matters.

    `binds` lists the entries of a node's mapping of attributes that name an index for the extents inside its regions,
    `defines` those that list symbols for the nodes after it in its block.
    """

    dialect: ClassVar[str] = "core"
    effects: ClassVar[bool] = False
    binds: ClassVar[tuple[str, ...]] = ()
    defines: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A block nested in a node: its arguments, its nodes and the values it yields."""

    args: tuple[int, ...]
    nodes: tuple[Node, ...]
    results: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """One function of one level: arguments, topologically ordered nodes, results, and the type of every value."""

    name: str
    args: tuple[int, ...]
    nodes: tuple[Node, ...]
    results: tuple[int, ...]
    types: Mapping[int, Type]
    attributes: Mapping[str, object] = field(default_factory=dict[str, object])
    locations: Mapping[Node, Span] = field(default_factory=dict[Node, Span])

    def names(self, attribute: str) -> tuple[str, ...]:
        """An attribute that holds a tuple of names, such as `dims`; empty where it is not there."""
        value = self.attributes.get(attribute, ())
        return tuple(str(name) for name in cast(tuple[object, ...], value)) if isinstance(value, tuple) else ()

    def walk(self) -> Iterator[Node]:
        """Every node, nested ones included, in text order."""
        yield from walk(self.nodes)


def walk(nodes: tuple[Node, ...]) -> Iterator[Node]:
    """Every node of a block and of the regions inside it, in text order."""
    # structure.py imports this file, so regions are found by their type here rather than through its tables.
    for node in nodes:
        yield node
        for name in node.__dataclass_fields__:
            value: object = getattr(node, name)
            for part in cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,):
                if isinstance(part, Region):
                    yield from walk(part.nodes)
