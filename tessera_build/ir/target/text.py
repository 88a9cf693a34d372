"""Text of Target IR: kernels, host programs of entries, and whole variants.

Takes a kernel or a variant; gives text in MLIR's generic syntax, and back. Invariant: parsing what was printed gives
the same hash and the same text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from tessera_build.ir.core.attributes import Attr
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.structure import class_table
from tessera_build.ir.core.text import printer, reader
from tessera_build.ir.core.text.parser import Operation, Parser
from tessera_build.ir.target import group, host, kernel

DIALECT = kernel.TargetNode.dialect
HOST = host.HostNode.dialect
CLASSES = class_table(
    (
        kernel.Const,
        kernel.Op,
        kernel.Splat,
        kernel.LaneIndex,
        kernel.Extract,
        kernel.Insert,
        kernel.Shuffle,
        kernel.Load,
        kernel.Gather,
        kernel.Store,
        kernel.Scatter,
        kernel.Prefetch,
        kernel.Alloca,
        kernel.Loop,
        kernel.Branch,
        kernel.Check,
        *group.NODES,
    )
)
HOST_CLASSES = class_table(
    (host.Guard, host.Launch, host.Read, host.Allocate, host.Release, host.Repeat, host.Choose, host.Apart)
)


def print_function(function: Function, *, locations: bool = False) -> str:
    """A kernel as text; with `locations`, every node's span too."""
    return printer.print_function(function, DIALECT, locations=locations)


def parse_function(text: str) -> Function:
    """Read what `print_function` printed; raises `TextError` with line, column and a caret."""
    return reader.parse_function(text, DIALECT, CLASSES)


def print_variant(variant: host.Variant) -> str:
    """A variant as text: its entries, then its kernels."""
    parts = [print_entry(entry) for entry in variant.entries] + [print_function(k) for k in variant.kernels]
    return printer.print_container(f"{HOST}.variant", {"weights": variant.weights}, parts)


def parse_variant(text: str) -> host.Variant:
    """Read what `print_variant` printed; raises `TextError`."""
    parser = Parser(text)
    operation = _checked(parser, parser.whole(), "variant")
    inner = operation.regions[0].operations
    entries = tuple(_entry(parser, part) for part in inner if part.name == f"{HOST}.entry")
    kernels = tuple(
        reader.read_function(parser, part, DIALECT, CLASSES) for part in inner if part.name != f"{HOST}.entry"
    )
    weights = operation.attributes.get("weights")
    if not isinstance(weights, int):
        parser.fail("a variant needs its number of weights", operation.offset)
    return host.Variant(entries, kernels, weights)


def print_entry(entry: host.Entry) -> str:
    """The host program of one entry as text."""
    attributes: dict[str, Attr] = {
        "name": entry.name,
        "dims": entry.dims,
        "arena_bytes": entry.arena_bytes,
        "outputs": entry.outputs,
        "slots": entry.slots,
    }
    return printer.print_container(f"{HOST}.entry", attributes, [printer.print_nodes(entry.nodes)])


def parse_entry(text: str) -> host.Entry:
    """Read what `print_entry` printed; raises `TextError`."""
    parser = Parser(text)
    return _entry(parser, parser.whole())


def _entry(parser: Parser, operation: Operation) -> host.Entry:
    _checked(parser, operation, "entry")
    nodes = reader.read_nodes(parser, operation.regions[0].operations, HOST, HOST_CLASSES)
    attributes: Mapping[str, Attr] = operation.attributes
    if set(attributes) != {"name", "dims", "arena_bytes", "outputs", "slots"}:
        parser.fail("an entry has name, dims, arena_bytes, outputs and slots", operation.offset)
    return host.Entry(
        str(attributes["name"]),
        cast("tuple[str, ...]", attributes["dims"]),
        nodes,
        cast("Extent", attributes["arena_bytes"]),
        cast("tuple[tuple[Extent, ...], ...]", attributes["outputs"]),
        cast("int", attributes["slots"]),
    )


def _checked(parser: Parser, operation: Operation, what: str) -> Operation:
    if operation.name != f"{HOST}.{what}" or len(operation.regions) != 1:
        parser.fail(f'"{HOST}.{what}" with one region belongs here', operation.offset)
    return operation
