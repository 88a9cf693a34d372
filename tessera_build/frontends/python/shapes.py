"""What every value of a model looks like: its shape, its element type and the author's line that makes it.

Takes a path and dims; gives rows, one for each expression of the author's. Invariant: rows stand in the order in which
values are made, and a value that an expression makes on the way to another is no row of its own unless asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tessera.graph.module import Entry
from tessera.model.site import Site
from tessera.model.trace import Trace
from tessera_build.frontends.python.reader import read_python
from tessera_build.ir.core.dims import DimRequest
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.structure import defs_of
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Module


@dataclass(frozen=True, slots=True)
class ShapeRow:
    """One value: where it is made, by which expression, by which op, and what it is."""

    entry: str
    where: str
    expression: str
    op: str
    dtype: str
    shape: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelShapes:
    """All rows of a model, the range of each dimension, and what calls must satisfy."""

    rows: tuple[ShapeRow, ...]
    dims: Mapping[str, str]
    guards: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Source:
    """One entry's function, the names of its inputs, and the author's places and names of its values."""

    entry: str
    function: Function
    inputs: tuple[str, ...]
    sites: Mapping[int, Site | None]
    labels: Mapping[int, str]


def shapes_of(
    path: str | Path,
    *,
    dims: Mapping[str, DimRequest] | None = None,
    entries: Sequence[str] = (),
    all_values: bool = False,
) -> ModelShapes:
    """The shapes of a model's values; its parameters may still be without numbers."""
    loaded = read_python(path, dims=dims, entries=entries, without_values=True)
    rows: list[ShapeRow] = []
    traced = {entry.trace.builder.entry: entry.trace for entry in loaded.entries}
    for name in loaded.module.entries:
        origin = loaded.derived.get(name)
        if origin is None:
            rows += _rows(_source(traced[name]), all_values)
        elif all_values:
            rows += _rows(_derived(loaded.module, name, (origin, traced[origin.name])), True)
        else:
            rows += _added(loaded.module, name, (origin, traced[origin.name]))
    ranges = {n: f"{low}..{'' if high is None else high}" for n, (low, high) in loaded.module.dims.items()}
    guards = tuple(f"{left} {relation} {right}" for left, relation, right, _ in loaded.module.guards)
    return ModelShapes(tuple(rows), ranges, guards)


def _source(trace: Trace) -> _Source:
    builder = trace.builder
    return _Source(builder.entry, builder.function(), builder.input_names, trace.sites, trace.labels)


def _derived(module: Module, name: str, origin: tuple[Entry, Trace]) -> _Source:
    """An entry of derivatives: what it makes of a place is of that place, and the rest is of the entry's own line."""
    entry, trace = origin
    function = module.entries[name]
    by_span = {site.span: site for site in trace.sites.values() if site is not None}
    sites: dict[int, Site | None] = dict.fromkeys(function.args, entry.site)
    sites |= {new: trace.sites.get(old) for new, old in zip(function.args, trace.builder.function().args, strict=False)}
    labels: dict[int, str] = {}
    named = {label: trace.sites.get(value) for value, label in trace.labels.items()}
    for node in graph_nodes(function):
        span = function.locations.get(node)
        sites |= dict.fromkeys(defs_of(node), by_span.get(span, entry.site) if span is not None else entry.site)
        if node.op == "constant" and (label := module.constant_names.get(str(node.attributes["digest"]))):
            labels[node.output], sites[node.output] = label, named.get(label, entry.site)
    return _Source(name, function, module.input_names[name], sites, labels)


def _added(module: Module, name: str, origin: tuple[Entry, Trace]) -> list[ShapeRow]:
    """An entry of derivatives computes everything that its origin does: its rows, new inputs and new results."""
    entry, trace = origin
    function = module.entries[name]
    makers = {value: node.op for node in graph_nodes(function) for value in defs_of(node)}
    known, old = trace.builder.input_names, trace.builder.output_names

    def row(word: str, value: int) -> ShapeRow:
        type_ = function.types[value]
        shape = tuple(str(extent) for extent in type_.shape)
        return ShapeRow(name, str(entry.site), word, makers.get(value, "input"), str(type_.dtype), shape)

    inputs = [row(n, v) for n, v in zip(module.input_names[name], function.args, strict=True) if n not in known]
    results = [row(n, v) for n, v in zip(module.output_names[name], function.results, strict=True) if n not in old]
    same = [replace(row, entry=name) for row in _rows(_source(trace), False)]
    place = sum(row.op == "input" for row in same)
    return [*same[:place], *inputs, *same[place:], *results]


def _rows(source: _Source, all_values: bool) -> list[ShapeRow]:
    """Inputs first; then the last value of each place in the source, or every value."""
    function = source.function
    rows: dict[object, tuple[Site, ShapeRow]] = {}
    names = dict(zip(function.args, source.inputs, strict=True))
    made = [(value, "input") for value in function.args]
    made += [(value, node.op) for node in graph_nodes(function) for value in defs_of(node)]
    for value, op in made:
        site = source.sites.get(value)
        if site is None or (op == "constant" and not all_values and value not in source.labels):
            continue
        key: object = value if all_values or op in ("input", "constant") else site
        type_ = function.types[value]
        expression = names.get(value) or (source.labels.get(value) if op == "constant" else None)
        rows.pop(key, None)
        rows[key] = (
            site,
            ShapeRow(
                source.entry,
                str(site),
                expression or site.expression,
                "parameter" if op == "constant" and value in source.labels else op,
                str(type_.dtype),
                tuple(str(extent) for extent in type_.shape),
            ),
        )
    return [row for _, row in rows.values()]
