"""From a file of the author's to a Graph IR module: finds the entries, gives the parameters their numbers, traces.

Takes a path, the dims that a build asks for and, optionally, names of entries; gives a `LoadedModel`. Invariant: all
entries share one pool of parameters, and the digest covers every file that the module was made of.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import cast

from bundle_format.canonical import canonical_bytes
from bundle_format.digest import Digest
from tessera.errors import LanguageError
from tessera.graph.entry import TracedEntry, trace_entry
from tessera.graph.module import Derived, Entry, GraphModule, Module, name_parameters
from tessera.model.parameter import Parameter
from tessera.model.site import Site
from tessera_build.frontends.python.execute import Executed, author_errors, executed
from tessera_build.frontends.python.safetensors import read_safetensors
from tessera_build.ir.core.dims import DimRequest, Range
from tessera_build.ir.core.types import dtype_of
from tessera_build.ir.graph import nodes
from tessera_build.ir.graph.autodiff.entries import with_grad, with_jvp
from tessera_build.ir.graph.builder import ConstantPool, graph_nodes, module_of


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """The module, the digest of all files that it was made of, and its traced entries."""

    module: nodes.Module
    digest: Digest
    entries: tuple[TracedEntry, ...]


def read_python(
    path: str | Path, *, dims: Mapping[str, DimRequest] | None = None, entries: Sequence[str] = ()
) -> LoadedModel:
    """The model as Graph IR; without `entries`, all whose arguments are annotated."""
    file = Path(path)
    with executed(file) as found:
        weights = file.with_suffix(".safetensors")
        _assign(found, weights)
        chosen = chosen_entries(found, entries)
        pool = ConstantPool()
        with author_errors(file):
            traced = tuple(trace_entry(entry, dims, pool) for entry in chosen)
        _check_requests(traced, dims or {})
        parts = [file, *found.imported, *([weights] if weights.is_file() else [])]
    return LoadedModel(_with_derivatives(_module(traced), chosen), _digest(parts), traced)


def _with_derivatives(module: nodes.Module, entries: Sequence[Entry]) -> nodes.Module:
    """The module with a second entry for each that asks for its derivatives."""
    for entry in entries:
        if entry.derivative is not None:
            make = with_grad if entry.derivative.mode == "reverse" else with_jvp
            module = make(module, entry.name, _wrt(module, entry, entry.derivative))
    return module


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


def _module(traced: Sequence[TracedEntry]) -> nodes.Module:
    """The entries as one module; a dimension has the range that all of them allow."""
    module = module_of([entry.trace.builder for entry in traced])
    ranges: dict[str, Range] = {}
    for entry in traced:
        for name, (low, high) in entry.trace.builder.dims.items():
            known = ranges.get(name, (low, high))
            highs = [end for end in (known[1], high) if end is not None]
            ranges[name] = max(known[0] or 0, low or 0), min(highs, default=None)
    states = {entry.trace.builder.entry: entry.states for entry in traced if entry.states}
    return replace(module, dims={name: ranges[name] for name in module.dims}, states=states)


def _digest(files: Sequence[Path]) -> Digest:
    return Digest.of(canonical_bytes({file.name: str(Digest.of(file.read_bytes())) for file in files}))


def _check_requests(traced: Sequence[TracedEntry], dims: Mapping[str, DimRequest]) -> None:
    known = {name for entry in traced for name in entry.trace.defined}
    for name in sorted(dims.keys() - known):
        near = get_close_matches(name, known)
        raise LanguageError(
            "DIM_UNKNOWN",
            f"the model has no dimension {name}",
            site=None,
            expected=", ".join(sorted(known)) or "no dimension: all extents are numbers",
            hint=f"did you mean {near[0]}?" if near else None,
        )


def chosen_entries(found: Executed, names: Sequence[str]) -> list[Entry]:
    """The entries that are asked for, in the order of the file; without names, all that can be traced by themselves."""
    known: dict[str, Entry] = {}
    for variable, value in found.names.items():
        entry = _entry(variable, value)
        if entry is None or any(entry.function == other.function for other in known.values()):
            continue
        if entry.name in known:
            raise LanguageError(
                "DUPLICATE_NAME", f"two entries are called {entry.name!r}", site=entry.site, expected="distinct names"
            )
        known[entry.name] = entry
    if names:
        return [_named(known, name, found.path) for name in names]
    whole = [e for e in known.values() if all(a.spec is not None or not a.required for a in e.arguments)]
    chosen = [e for e in whole if any(a.spec is not None for a in e.arguments)] or list(known.values())[:1]
    if not chosen:
        raise LanguageError(
            "NO_ENTRY",
            "the file offers nothing to build",
            site=Site(str(found.path), 1),
            expected='a function under @graph.module("name"), or a variable that holds a graph.Module',
        )
    return chosen


def _entry(variable: str, value: object) -> Entry | None:
    if isinstance(value, GraphModule):
        return cast("GraphModule[..., object]", value).entry()
    if isinstance(value, Module):
        return value.entry(variable)
    return None


def _named(known: Mapping[str, Entry], name: str, path: Path) -> Entry:
    if name not in known:
        near = get_close_matches(name, known)
        raise LanguageError(
            "ENTRY_UNKNOWN",
            f"the file has no entry {name!r}",
            site=Site(str(path), 1),
            expected=", ".join(known) or "an entry under @graph.module",
            hint=f"did you mean {near[0]}?" if near else None,
        )
    return known[name]


def _assign(found: Executed, weights: Path) -> None:
    """Name the parameters and give them the numbers of the file beside the model."""
    arrays = read_safetensors(weights) if weights.is_file() else {}
    named: dict[str, Parameter] = {}
    for variable, value in found.names.items():
        if inspect.isclass(value) or variable.startswith("__"):
            continue
        for parameter in name_parameters(variable, value):
            other = named.setdefault(parameter.name, parameter)
            if other is not parameter:
                raise LanguageError(
                    "DUPLICATE_NAME",
                    f"two parameters are called {parameter.name!r}",
                    site=parameter.site,
                    expected="distinct names",
                    found=f"the other one is from {other.site}",
                )
    _check_left_over(arrays, named, weights, found.path)
    for name, parameter in named.items():
        if name in arrays:
            _fill(parameter, arrays, weights)


def _check_left_over(
    arrays: Mapping[str, nodes.Array], named: Mapping[str, Parameter], weights: Path, path: Path
) -> None:
    """Refuse tensors that no parameter takes: a misspelt name would leave its parameter as it was made."""
    left = sorted(arrays.keys() - named.keys())
    if left:
        near = [f"{n} for {m}" for n in left for m in get_close_matches(n, sorted(named.keys() - arrays.keys()), 1)]
        raise LanguageError(
            "WEIGHTS_MISMATCH",
            f"{weights.name} has tensors that no parameter of the model is called by",
            site=Site(str(path), 1),
            expected=", ".join(sorted(named)[:8]) or "none: the model has no parameters",
            found=", ".join(left[:8]) + (f" and {len(left) - 8} more" if len(left) > 8 else ""),
            hint=f"did you mean {near[0]}?" if near else "graph.load(model, file, strict=False) leaves names out",
        )


def _fill(parameter: Parameter, arrays: Mapping[str, nodes.Array], weights: Path) -> None:
    array = arrays[parameter.name]
    if array.dtype != parameter.dtype.numpy:
        raise LanguageError(
            "PARAMETER_TYPE",
            f"{weights.name} has parameter {parameter.name} in another type",
            site=parameter.site,
            expected=str(parameter.spec),
            found=str(array.dtype),
            hint="convert the file, or declare the parameter with the type that is stored",
        )
    parameter.assign(array)
