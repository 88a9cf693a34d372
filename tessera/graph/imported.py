"""Models from ONNX files as modules: called in a trace they are part of it, differentiated and fine-tuned like others.

Takes a path; gives an `OnnxModule`, whose float weights are parameters under the names that they have in the file.
Invariant: what is built, trained or exported is the graph that a build of the file itself begins with; a dimension of
the file is whatever extent the call's tensors have there.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import final

from tessera import executor
from tessera.errors import LanguageError
from tessera.executor import ForeignModel
from tessera.graph.bind import Argument
from tessera.graph.module import Entry, Module
from tessera.model.annotation import Dimension, TensorSpec
from tessera.model.numeric import Numeric
from tessera.model.parameter import Parameter
from tessera.model.site import Site, here
from tessera.model.sources import note_read
from tessera.model.tensor import Tensor, Value, described, lift
from tessera.model.trace import Trace, needed
from tessera_build.ir.core.dims import Dim, Extent, substitute
from tessera_build.ir.core.types import Type, dtype_of
from tessera_build.ir.graph.inline import inline
from tessera_build.ir.graph.nodes import Array

STATISTICS = "statistics"


def from_onnx(
    path: str | Path, *, prefix: str = "", dims: Mapping[str, int | tuple[int, int]] | None = None
) -> OnnxModule:
    """The model of an ONNX file as a module. A relative path counts from the file that says this.

    `prefix` stands before the parameters' names, where two models have equal ones; `dims` fixes or bounds the model's
    dims. Running means and variances are the group "statistics", and frozen. Raises what a build of the file raises.
    """
    site = here()
    if not isinstance(path, str | Path):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise LanguageError(
            "BAD_ARGUMENT",
            "graph.from_onnx takes the path of a file",
            site=site,
            expected='graph.from_onnx("model.onnx")',
            found=repr(path)[:200],
        )
    file = _resolved(Path(path), site)
    foreign = executor.needed("graph.from_onnx").read_onnx(file, dims)
    note_read(foreign.files)
    return OnnxModule(foreign, file.stem, prefix, site)


def _resolved(path: Path, site: Site | None) -> Path:
    beside = Path(site.path).parent / path if site is not None and Path(site.path).is_file() else path
    return beside if beside.is_file() or path.is_absolute() else path


@final
class OnnxModule(Module):
    """An imported model. `weights` are its parameters by the names of the file; a call takes its inputs in order."""

    def __init__(self, foreign: ForeignModel, name: str, prefix: str, site: Site | None) -> None:
        self._foreign = foreign
        self._site = site
        self.name = name
        (self._entry,) = foreign.module.entries
        self.weights: dict[str, Parameter] = {
            key: _parameter(prefix + key, array, foreign.groups[key], site) for key, array in foreign.weights.items()
        }

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters with the names that the file gives them."""
        yield from self.weights.items()

    def trainable(self) -> dict[str, Parameter]:
        """The parameters that are not frozen: what `graph.backward(loss, wrt=model.trainable())` asks for."""
        return {name: parameter for name, parameter in self.weights.items() if not parameter.frozen}

    def freeze(self, *patterns: str) -> OnnxModule:
        """Keep the parameters whose names fit a pattern such as `"encoder.*"` (by default all) weights of the bundle.

        They are no inputs of training steps. Raises where a pattern fits none.
        """
        return self._frozen(patterns, True)

    def unfreeze(self, *patterns: str) -> OnnxModule:
        """The opposite of `freeze`."""
        return self._frozen(patterns, False)

    def _frozen(self, patterns: Sequence[str], frozen: bool) -> OnnxModule:
        for pattern in patterns or ("*",):
            found = [p for name, p in self.weights.items() if fnmatchcase(name, pattern)]
            if not found:
                known = ", ".join(list(self.weights)[:8]) or "none"
                raise LanguageError(
                    "PARAMETER_UNKNOWN",
                    f"no parameter fits {pattern!r}",
                    site=here(),
                    expected=f"names such as {known}",
                )
            for parameter in found:
                parameter.frozen = frozen
        return self

    def forward(self, *args: object, **kwargs: object) -> object:
        """The model's result, or its results by name where there are several."""
        trace, site = needed(), here()
        given = self._matched(args, kwargs, site)
        names = self._foreign.module.input_names[self._entry]
        function = self._foreign.module.entries[self._entry]
        types = dict(zip(names, (function.types[a] for a in function.args), strict=True))
        dims = _Bound(trace, site, self.name)
        for name, tensor in given.items():
            dims.take(name, tensor, types[name])
        dims.demand(self._foreign)
        values = [lift(trace, given.get(name, self.weights.get(name)), None, site) for name in names]
        with trace.at(site):
            found = inline(trace.builder, self._foreign.module, self._entry, values, dims.extents)
        outputs = self._outputs
        results = {n: Tensor(trace, trace.note(v, site)) for n, v in zip(outputs, found, strict=True)}
        return results if len(results) > 1 else results[outputs[0]]

    def _whole(self, *args: object, **kwargs: object) -> object:
        """The results as an entry gives them: each under the name that the file gives it."""
        found = self.forward(*args, **kwargs)
        return {self._outputs[0]: found} if isinstance(found, Tensor) else found

    @property
    def _outputs(self) -> tuple[str, ...]:
        return self._foreign.module.output_names[self._entry]

    def _matched(self, args: Sequence[object], kwargs: Mapping[str, object], site: Site | None) -> dict[str, Value]:
        """The tensors of a call by the names of the model's inputs."""
        wanted = self._foreign.inputs
        given = {**dict(zip(wanted, args, strict=False)), **kwargs}
        tensors = {name: value for name, value in given.items() if isinstance(value, Value)}
        if len(args) > len(wanted) or set(tensors) != set(wanted) or len(given) != len(tensors):
            raise LanguageError(
                "ARGUMENT_MISMATCH",
                f"{self.name} takes other inputs",
                site=site,
                expected=f"tensors for {', '.join(wanted)}",
                found=f"{len(args)} by position, {', '.join(kwargs) or 'none'} by name",
            )
        return tensors

    def entry(self, name: str) -> Entry:
        """What the bundle's entry is made from: the inputs with the types that the file states."""
        return Entry(name, self._whole, self._arguments(), self._site or Site("", 0))

    def _arguments(self) -> tuple[Argument, ...]:
        module = self._foreign.module
        function = module.entries[self._entry]
        found: list[Argument] = []
        for name, value in zip(module.input_names[self._entry], function.args, strict=True):
            type_ = function.types[value]
            if name not in self.weights:
                ranges = tuple(Dimension(n, low or 0, high) for n, (low, high) in module.dims.items())
                spec = TensorSpec(type_.shape, Numeric(type_.dtype), ranges, self._site)
                found.append(Argument(name, spec, inspect.Parameter.empty, True))
        return tuple(found)


def _parameter(name: str, array: Array, group: str, site: Site | None) -> Parameter:
    parameter = Parameter(TensorSpec(array.shape, Numeric(dtype_of(array.dtype)), (), site), name, None, group)
    parameter.assign(array, site)
    parameter.frozen = group == STATISTICS
    return parameter


class _Bound:
    """What the dims of a file are in one call."""

    def __init__(self, trace: Trace, site: Site | None, name: str) -> None:
        self.trace = trace
        self.site = site
        self.name = name
        self.extents: dict[str, Extent] = {}

    def take(self, name: str, tensor: Value, wanted: Type) -> None:
        """Read dims off an input; raises where it does not fit the type that the file states."""
        fits = tensor.dtype == wanted.dtype and tensor.ndim == wanted.rank
        for extent, actual in zip(wanted.shape, tensor.shape, strict=False):
            if isinstance(extent, Dim) and extent.text.isidentifier():
                extent = self.extents.setdefault(extent.text, actual)
            fits = fits and substitute(extent, self.extents) == actual
        if not fits:
            raise LanguageError(
                "ARGUMENT_MISMATCH",
                f"input {name} of {self.name} has another type than the file states",
                site=self.site,
                expected=f"{wanted.dtype}[{', '.join(str(substitute(e, self.extents)) for e in wanted.shape)}]",
                found=described(tensor),
            )

    def demand(self, foreign: ForeignModel) -> None:
        """What the file's module assumes of its dims, of those that they are here."""
        for name, (low, high) in foreign.module.dims.items():
            extent = self.extents.get(name)
            message = f"{self.name} has {low or 0}..{'' if high is None else high} for its dimension {name}"
            if extent is not None and low:
                self.trace.require(extent, ">=", low, message)
            if extent is not None and high is not None:
                self.trace.require(high, ">=", extent, message)
        for left, relation, right, message in foreign.module.guards:
            sides = [substitute(side, self.extents) for side in (left, right)]
            self.trace.require(sides[0], relation, sides[1], message)
