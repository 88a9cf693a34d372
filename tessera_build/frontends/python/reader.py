"""From a file of the author's to a Graph IR module: finds the entries, gives the parameters their numbers, traces.

Takes a path, the dims that a build asks for and, optionally, names of entries; gives a `LoadedModel`. Invariant: all
entries share one pool of parameters, and the digest covers every file that the module was made of.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from bundle_format.canonical import canonical_bytes
from bundle_format.digest import Digest
from tessera.errors import LanguageError
from tessera.graph.entry import TracedEntry, trace_entry
from tessera.graph.module import Entry, name_parameters
from tessera.model.parameter import Parameter
from tessera.model.site import Site
from tessera.model.trace import Trace
from tessera_build.frontends.python.entries import chosen_entries, with_derivatives
from tessera_build.frontends.python.execute import Executed, author_errors, executed
from tessera_build.frontends.python.safetensors import read_safetensors
from tessera_build.ir.core.dims import DimRequest, Range
from tessera_build.ir.graph import nodes
from tessera_build.ir.graph.builder import ConstantPool, module_of


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """The module, the digest of all files that it was made of, and the entries that were traced for it.

    `derived` says which entry one of derivatives was made from.
    """

    module: nodes.Module
    digest: Digest
    entries: tuple[TracedEntry, ...]
    derived: Mapping[str, Entry]


def read_python(
    path: str | Path,
    *,
    dims: Mapping[str, DimRequest] | None = None,
    entries: Sequence[str] = (),
    without_values: bool = False,
) -> LoadedModel:
    """The model as Graph IR; without `entries`, all whose arguments are annotated, and those of their derivatives.

    `without_values`: parameters that have no numbers are zeros, for who looks at shapes alone.
    """
    file = Path(path)
    with executed(file) as found:
        weights = file.with_suffix(".safetensors")
        named = _assign(found, weights)
        for parameter in named.values() if without_values else ():
            if parameter.array is None:
                parameter.assign(np.zeros(parameter.static_shape))
        chosen = chosen_entries(found, entries)
        pool = ConstantPool()
        with author_errors(file):
            traced = [trace_entry(entry, dims, pool) for entry in chosen.traced]  # a generator swallows StopIteration
        _check_requests(traced, dims or {})
        parts = [file, *found.imported, *([weights] if weights.is_file() else [])]
    traces = {entry.trace.builder.entry: entry.trace for entry in traced}
    return LoadedModel(with_derivatives(_module(traced), chosen, traces), _digest(parts), tuple(traced), chosen.derived)


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
    magnitudes = {entry.trace.builder.entry: found for entry in traced if (found := _magnitudes(entry.trace, module))}
    return replace(module, dims={name: ranges[name] for name in module.dims}, states=states, magnitudes=magnitudes)


def _magnitudes(trace: Trace, module: nodes.Module) -> dict[str, float]:
    """How large the numbers of parameters are that are inputs: the power of two next to their root mean square.

    Twelve layers of a transformer on weights of 1 lose all digits: a proof of their gradients was good to 1.3e-1.
    """
    arrays = {value: weight.array for weight, value in trace.weights.values()}
    entry, found = trace.builder.entry, dict[str, float]()
    for name, value in zip(module.input_names[entry], module.entries[entry].args, strict=True):
        array = arrays.get(value)
        if array is None or array.dtype.kind != "f":
            continue
        size = math.sqrt(np.mean(np.square(array, dtype=np.float64))) if array.size else 0.0
        if math.isfinite(size) and size > 0.0 and round(math.log2(size)):
            found[name] = 2.0 ** round(math.log2(size))
    return found


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


def _assign(found: Executed, weights: Path) -> dict[str, Parameter]:
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
    return named


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
