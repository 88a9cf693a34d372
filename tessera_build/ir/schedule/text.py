"""Text of Schedule IR's tasks (a trace has its own text in `trace.py`).

Takes a function of compute definitions; gives text in MLIR's generic syntax, and back. Invariant:
`parse_function(print_function(f))` has the same hash and the same text as `f`.
"""

from __future__ import annotations

from tessera_build.ir.core.node import Function
from tessera_build.ir.core.structure import class_table
from tessera_build.ir.core.text import printer, reader
from tessera_build.ir.schedule.nodes import Compute, KernelCall

DIALECT = Compute.dialect
CLASSES = class_table((Compute, KernelCall))


def print_function(function: Function, *, locations: bool = False) -> str:
    """The task as text; with `locations`, every node's span too."""
    return printer.print_function(function, DIALECT, locations=locations)


def parse_function(text: str) -> Function:
    """Read what `print_function` printed; raises `TextError` with line, column and a caret."""
    return reader.parse_function(text, DIALECT, CLASSES)
