"""Text of Tile IR.

Takes a function; gives text in MLIR's generic syntax, and back. Invariant: `parse_function(print_function(f))` has the
same hash and the same text as `f`.
"""

from __future__ import annotations

from tessera_build.ir.core.node import Function
from tessera_build.ir.core.structure import class_table
from tessera_build.ir.core.text import printer, reader
from tessera_build.ir.tile import nodes

DIALECT = nodes.TileNode.dialect
CLASSES = class_table(
    (
        nodes.Alloc,
        nodes.View,
        nodes.Load,
        nodes.Store,
        nodes.Copy,
        nodes.Wait,
        nodes.For,
        nodes.If,
        nodes.Let,
        nodes.Contract,
        nodes.Map,
        nodes.Reduce,
        nodes.Permute,
        nodes.Iota,
    )
)


def print_function(function: Function, *, locations: bool = False) -> str:
    """The function as text; with `locations`, every node's span too."""
    return printer.print_function(function, DIALECT, locations=locations)


def parse_function(text: str) -> Function:
    """Read what `print_function` printed; raises `TextError` with line, column and a caret."""
    return reader.parse_function(text, DIALECT, CLASSES)
