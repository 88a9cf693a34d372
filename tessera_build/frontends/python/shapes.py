"""What every value of a model looks like: its shape, its element type and the author's line that makes it.

Takes a path and dims; gives rows, one for each expression of the author's. Invariant: rows stand in the order in which
values are made, and a value that an expression makes on the way to another is no row of its own unless asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tessera.graph.entry import TracedEntry
from tessera.model.site import Site
from tessera_build.frontends.python.reader import read_python
from tessera_build.ir.core.dims import DimRequest
from tessera_build.ir.core.structure import defs_of
from tessera_build.ir.graph.builder import graph_nodes


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


def shapes_of(
    path: str | Path,
    *,
    dims: Mapping[str, DimRequest] | None = None,
    entries: Sequence[str] = (),
    all_values: bool = False,
) -> ModelShapes:
    """The shapes of a model's values."""
    loaded = read_python(path, dims=dims, entries=entries)
    rows = tuple(row for entry in loaded.entries for row in _rows(entry, all_values))
    ranges = {n: f"{low}..{'' if high is None else high}" for n, (low, high) in loaded.module.dims.items()}
    guards = tuple(f"{left} {relation} {right}" for left, relation, right, _ in loaded.module.guards)
    return ModelShapes(rows, ranges, guards)


def _rows(entry: TracedEntry, all_values: bool) -> list[ShapeRow]:
    """Inputs first; then the last value of each place in the source, or every value."""
    builder = entry.trace.builder
    function = builder.function()
    rows: dict[object, tuple[Site, ShapeRow]] = {}
    names = dict(zip(function.args, builder.input_names, strict=True))
    made = [(value, "input") for value in function.args]
    made += [(value, node.op) for node in graph_nodes(function) for value in defs_of(node)]
    for value, op in made:
        site = entry.trace.sites.get(value)
        if site is None or (op == "constant" and not all_values and value not in entry.trace.labels):
            continue
        key: object = value if all_values or op in ("input", "constant") else site
        type_ = function.types[value]
        expression = names.get(value) or (entry.trace.labels.get(value) if op == "constant" else None)
        rows.pop(key, None)
        rows[key] = (
            site,
            ShapeRow(
                builder.entry,
                str(site),
                expression or site.expression,
                "parameter" if op == "constant" and value in entry.trace.labels else op,
                str(type_.dtype),
                tuple(str(extent) for extent in type_.shape),
            ),
        )
    return [row for _, row in rows.values()]
