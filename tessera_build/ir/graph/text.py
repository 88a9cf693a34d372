"""Text of Graph IR: functions and whole modules.

Takes a function or a module; gives text in MLIR's generic syntax, and back. Invariant: parsing what was printed gives
the same hash and the same text. A module's constants are named by digest; their arrays travel apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from tessera_build.ir.core.attributes import Attr
from tessera_build.ir.core.dims import Extent, Range
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.structure import class_table
from tessera_build.ir.core.text import printer, reader
from tessera_build.ir.core.text.parser import Operation, Parser
from tessera_build.ir.graph.nodes import Array, GraphNode, Module, Result, StatePair

DIALECT = GraphNode.dialect
CLASSES = class_table((GraphNode,))


def print_function(function: Function, *, locations: bool = False) -> str:
    """The function as text; with `locations`, every node's span too."""
    return printer.print_function(function, DIALECT, locations=locations)


def parse_function(text: str) -> Function:
    """Read what `print_function` printed; raises `TextError` with line, column and a caret."""
    return reader.parse_function(text, DIALECT, CLASSES)


def print_module(module: Module, *, locations: bool = False) -> str:
    """The module as text: entries in their order, ranges of dims, names; with `locations`, source names as well."""
    attributes: dict[str, Attr] = {
        "entries": tuple(module.entries),
        "constants": tuple(sorted(module.constants)),
        "dims": {name: _print_range(bounds) for name, bounds in sorted(module.dims.items())},
        "inputs": dict(sorted(module.input_names.items())),
        "outputs": dict(sorted(module.output_names.items())),
        "states": {entry: _positions(module.entries[entry], pairs) for entry, pairs in sorted(module.states.items())},
    }
    if module.guards:
        attributes["guards"] = module.guards
    if module.results:
        attributes["results"] = {entry: tuple(map(_print_result, rows)) for entry, rows in module.results.items()}
    if module.magnitudes:
        attributes["magnitudes"] = {entry: dict(sorted(m.items())) for entry, m in sorted(module.magnitudes.items())}
    if module.derivatives:
        attributes["derivatives"] = tuple(sorted(module.derivatives))
    if locations:
        attributes["constant_names"] = dict(sorted(module.constant_names.items()))
    functions = [print_function(f, locations=locations) for f in module.entries.values()]
    return printer.print_container(f"{DIALECT}.module", attributes, functions)


def parse_module(text: str, constants: Mapping[str, Array]) -> Module:
    """Read what `print_module` printed; `constants` holds at least the arrays that the text names.

    Raises `TextError`, also when a constant's array is not given.
    """
    parser = Parser(text)
    operation = parser.whole()
    if operation.name != f"{DIALECT}.module" or len(operation.regions) != 1:
        parser.fail(f'"{DIALECT}.module" with one region belongs here', operation.offset)
    try:
        return _module(parser, operation, constants)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        parser.fail(f"the module's attributes do not fit: {error!r}", operation.offset, "TEXT_NODE")


def _module(parser: Parser, operation: Operation, constants: Mapping[str, Array]) -> Module:
    attributes = operation.attributes
    blocks = operation.regions[0].operations
    functions = [reader.read_function(parser, inner, DIALECT, CLASSES) for inner in blocks]
    entries = dict(zip(_names(attributes["entries"]), functions, strict=True))
    states = _record(attributes["states"])
    return Module(
        entries,
        {digest: constants[digest] for digest in _names(attributes["constants"])},
        {name: _read_range(_record(bounds)) for name, bounds in _record(attributes["dims"]).items()},
        {entry: _names(names) for entry, names in _record(attributes["inputs"]).items()},
        {entry: _names(names) for entry, names in _record(attributes["outputs"]).items()},
        {entry: _pairs(entries[entry], pairs) for entry, pairs in states.items()},
        {digest: str(name) for digest, name in _record(attributes.get("constant_names", {})).items()},
        cast("tuple[tuple[Extent, str, Extent, str], ...]", attributes.get("guards", ())),
        {entry: _results(rows) for entry, rows in _record(attributes.get("results", {})).items()},
        magnitudes={
            entry: cast("Mapping[str, float]", _record(rows))
            for entry, rows in _record(attributes.get("magnitudes", {})).items()
        },
        derivatives=frozenset(_names(attributes.get("derivatives", ()))),
    )


def _print_range(bounds: Range) -> Attr:
    return {name: bound for name, bound in zip(("low", "high"), bounds, strict=True) if bound is not None}


def _read_range(bounds: Mapping[str, Attr]) -> Range:
    low, high = (cast("int | None", bounds.get(name)) for name in ("low", "high"))
    return low, high


def _positions(function: Function, pairs: tuple[StatePair, ...]) -> Attr:
    """State pairs as positions among arguments and results, which do not change when values are renumbered."""
    return tuple((function.args.index(p.incoming), function.results.index(p.outgoing)) for p in pairs)


def _pairs(function: Function, positions: Attr) -> tuple[StatePair, ...]:
    listed = cast("tuple[tuple[int, int], ...]", positions)
    return tuple(StatePair(function.args[i], function.results[o]) for i, o in listed)


def _print_result(result: Result) -> Attr:
    return {"name": result.name, "kind": result.kind, "outputs": result.outputs, "labels": result.labels}


def _results(rows: Attr) -> tuple[Result, ...]:
    listed = [_record(row) for row in cast("tuple[Attr, ...]", rows)]
    return tuple(Result(str(r["name"]), str(r["kind"]), _names(r["outputs"]), _names(r["labels"])) for r in listed)


def _names(attribute: Attr) -> tuple[str, ...]:
    return tuple(str(name) for name in cast("tuple[Attr, ...]", attribute))


def _record(attribute: Attr) -> Mapping[str, Attr]:
    return cast("Mapping[str, Attr]", attribute)
