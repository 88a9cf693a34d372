"""Which entries a file offers, which of them are asked for, and those of derivatives beside them.

Takes what running the file defined, and names; gives the entries to trace and, of these as a module, the module that
was asked for. Invariant: an entry of derivatives has a name like any other: it can be asked for alone, and two entries
never have one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar, cast

from bundle_format.errors import TesseraError
from tessera.derive.place import placed
from tessera.errors import LanguageError
from tessera.graph.module import Derived, Entry, GraphModule, Module
from tessera.model.parameter import Parameter
from tessera.model.site import Site
from tessera.model.trace import Trace
from tessera_build.frontends.python.execute import Executed
from tessera_build.ir.core.types import dtype_of
from tessera_build.ir.graph import nodes
from tessera_build.ir.graph.autodiff.entries import with_grad, with_jvp
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.sweep import drop_dead

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The entries to trace, those that are derived from them, by name, and the names of all that are asked for."""

    traced: tuple[Entry, ...]
    derived: Mapping[str, Entry]
    names: tuple[str, ...]


def chosen_entries(found: Executed, names: Sequence[str]) -> Chosen:
    """The entries that are asked for, in that order; without names, all that can be traced by themselves.

    An entry brings its derivatives along; asked for by its own name, one of derivatives comes alone.
    """
    known = _offered(found)
    derived = {entry.derived_name: entry for entry in known.values() if entry.derived_name}
    for name in names:
        _check_known([*known, *derived], name, found.path)
    asked = [known[n] if n in known else derived[n] for n in names] or _whole(known, found.path)
    traced = {entry.name: entry for entry in asked}
    bases = [known[n] for n in names if n in known] if names else asked
    beside = [entry.derived_name for entry in bases if entry.derived_name]
    wanted = tuple(dict.fromkeys([*(names or traced), *beside]))
    return Chosen(tuple(traced.values()), {n: derived[n] for n in wanted if n in derived}, wanted)


def _offered(found: Executed) -> dict[str, Entry]:
    """All entries of the file, in its order, by name."""
    known: dict[str, Entry] = {}
    for variable, value in found.names.items():
        entry = _entry(variable, value)
        if entry is None or any(entry.function == other.function for other in known.values()):
            continue
        _check_free(entry, known)
        known[entry.name] = entry
    for entry in known.values():
        if entry.derived_name in known:
            _check_free(known[entry.derived_name], {entry.derived_name: entry})
    return known


def _check_free(entry: Entry, known: Mapping[str, Entry]) -> None:
    if entry.name in known:
        raise LanguageError(
            "DUPLICATE_NAME", f"two entries are called {entry.name!r}", site=entry.site, expected="distinct names"
        )


def _entry(variable: str, value: object) -> Entry | None:
    if isinstance(value, GraphModule):
        return cast("GraphModule[..., object]", value).entry()
    if isinstance(value, Module):
        return value.entry(variable)
    return None


def _check_known(known: Sequence[str], name: str, path: Path) -> None:
    if name not in known:
        near = get_close_matches(name, known)
        raise LanguageError(
            "ENTRY_UNKNOWN",
            f"the file has no entry {name!r}",
            site=Site(str(path), 1),
            expected=", ".join(known) or "an entry under @graph.module",
            hint=f"did you mean {near[0]}?" if near else None,
        )


def _whole(known: Mapping[str, Entry], path: Path) -> list[Entry]:
    """The entries that can be traced by themselves; the first one of all where none has an input."""
    whole = [e for e in known.values() if all(a.spec is not None or not a.required for a in e.arguments)]
    chosen = [e for e in whole if any(a.spec is not None for a in e.arguments)] or list(known.values())[:1]
    if not chosen:
        raise LanguageError(
            "NO_ENTRY",
            "the file offers nothing to build",
            site=Site(str(path), 1),
            expected='a function under @graph.module("name"), or a variable that holds a graph.Module',
        )
    return chosen


def with_derivatives(module: nodes.Module, chosen: Chosen, traces: Mapping[str, Trace]) -> nodes.Module:
    """The module of what was traced, with the entries of derivatives and without what was traced for them alone."""
    for name, entry in chosen.derived.items():
        assert entry.derivative is not None
        make = with_grad if entry.derivative.mode == "reverse" else with_jvp
        names = _wrt(module, entry, entry.derivative)
        try:
            module = make(module, entry.name, names, name)
        except TesseraError as error:
            raise placed(error, traces[entry.name], "graph.autodiff", entry.site) from error
    return _only(module, chosen.names)


def _only(module: nodes.Module, names: Sequence[str]) -> nodes.Module:
    """The module with these entries, in this order."""
    if list(module.entries) == list(names):
        return module

    def kept(rows: Mapping[str, T]) -> dict[str, T]:
        return {name: rows[name] for name in names if name in rows}

    return drop_dead(
        replace(
            module,
            entries=kept(module.entries),
            input_names=kept(module.input_names),
            output_names=kept(module.output_names),
            states=kept(module.states),
            results=kept(module.results),
            magnitudes=kept(module.magnitudes),
            derivatives=module.derivatives.intersection(names),
        )
    )


def _wrt(module: nodes.Module, entry: Entry, derivative: Derived) -> list[str]:
    """The names of what an entry is differentiated by: floating-point inputs and parameters."""
    function = module.entries[entry.name]
    inputs = zip(module.input_names[entry.name], function.args, strict=True)
    known = [name for name, value in inputs if function.types[value].dtype.is_float]
    used = {str(n.attributes["digest"]) for n in graph_nodes(function) if n.op == "constant"}
    floats = {d for d, array in module.constants.items() if dtype_of(array.dtype).is_float}
    known += [name for digest, name in module.constant_names.items() if digest in used & floats]
    if not any(function.types[result].dtype.is_float for result in function.results):
        raise LanguageError(
            "NOT_DIFFERENTIABLE",
            f"the entry {entry.name} gives no floating-point number that could be differentiated",
            site=entry.site,
            expected="a floating-point result",
        )
    if derivative.wrt is None and known:
        return known
    if derivative.wrt is None or not derivative.wrt:
        raise LanguageError(
            "NOT_DIFFERENTIABLE",
            f"the entry {entry.name} has nothing that it is differentiated by",
            site=entry.site,
            expected="a floating-point input or parameter",
        )
    wanted = [item.name if isinstance(item, Parameter) else item for item in derivative.wrt]
    for name in wanted:
        if name not in known:
            raise LanguageError(
                "NOT_DIFFERENTIABLE",
                f"the entry {entry.name} has no floating-point input or parameter {name!r}",
                site=entry.site,
                expected=", ".join(known) or "one that is floating-point",
                found=name,
            )
    return wanted
