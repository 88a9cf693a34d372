"""Calls on arrays: a function is traced for the arrays' own shapes, compiled once, and run.

Takes arrays, or whatever speaks DLPack; gives arrays in the nesting that the function returns. Invariant: parameters
are inputs of what is compiled, so that a changed one needs no compiler; Python runs in every call, but for `graph.jit`,
which traces once for each signature. Without a compiler the reference interpreter runs the same graph.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from bundle_format.foreign import Exports, lent_bits
from tessera import executor
from tessera.errors import LanguageError
from tessera.executor import Compiled
from tessera.graph.bind import Argument, Call, arrays_of, check_call, tensors_of
from tessera.model.annotation import TensorSpec
from tessera.model.numeric import Numeric, numeric_of
from tessera.model.site import Site, here
from tessera.model.tensor import Tensor, Value
from tessera.model.trace import Trace, Weight, numbers_of, tracing
from tessera.model.tree import leaves, rebuild, structure
from tessera_build.ir.core.types import DTYPES
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.nodes import Array, Module


@dataclass(frozen=True, slots=True, eq=False)
class Traced:
    """A function over arrays of one signature: what runs, the parameters it reads, and how results are nested."""

    run: Compiled
    weights: Mapping[str, Weight]
    nesting: object
    outputs: tuple[str, ...]

    def call(self, arrays: Sequence[Array]) -> object:
        """The results for the arrays of a call, in order."""
        feeds = {_label(index): array for index, array in enumerate(arrays)}
        feeds |= {name: numbers_of(weight) for name, weight in self.weights.items()}
        found = self.run(feeds)
        return rebuild(self.nesting, [found[name] for name in self.outputs])


def run_eagerly(
    name: str,
    function: Callable[..., object],
    arguments: Sequence[Argument],
    call: Call,
    known: dict[Hashable, Traced] | None = None,
) -> object:
    """The function's results for arrays; `known` keeps what was traced, by signature."""
    site = here()
    arrays: list[Array] = []
    given = arrays_of(arguments, call)
    args = [_taken(value, arrays, site) for value in given[0]]
    kwargs = {key: _taken(value, arrays, site) for key, value in given[1].items()}
    signature = _signature(args, kwargs, arrays) if known is not None else None
    if known is not None and signature in known:
        return known[signature].call(arrays)
    traced = _trace(name, function, arguments, (args, kwargs), arrays)
    if known is not None and signature is not None:
        known[signature] = traced
    return traced.call(arrays)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an array stands in a call."""

    index: int


def _taken(value: object, arrays: list[Array], site: Site | None) -> object:
    """The value with places instead of arrays, which are collected."""

    def taken(leaf: object) -> object:
        array = to_array(leaf, site)
        if array is None:
            return leaf
        arrays.append(array)
        return _Place(len(arrays) - 1)

    return rebuild(value, [taken(leaf) for _, leaf in leaves(value)])


def _signature(args: Sequence[object], kwargs: Mapping[str, object], arrays: Sequence[Array]) -> Hashable:
    """What decides how a call is traced; None where that cannot be told, as of arguments that have no hash."""
    parts: list[Hashable] = [(array.dtype.str, array.dtype.name, array.shape) for array in arrays]
    for key, value in (*enumerate(args), *kwargs.items()):
        parts.append((key, structure(value)))
        for _, leaf in leaves(value):
            if not isinstance(leaf, Hashable):
                return None
            parts.append((type(leaf), leaf))
    return tuple(parts)


def _trace(
    name: str, function: Callable[..., object], arguments: Sequence[Argument], call: Call, arrays: Sequence[Array]
) -> Traced:
    site = here()
    trace = Trace(name, free=True)
    with tracing(trace):
        inputs = [_input(trace, index, array, site) for index, array in enumerate(arrays)]
        args = [_placed(value, inputs) for value in call[0]]
        kwargs = {key: _placed(value, inputs) for key, value in call[1].items()}
        check_call(name, arguments, (args, kwargs))
        for _, spec, given in tensors_of(name, arguments, (args, kwargs)):
            if isinstance(given, Tensor):
                trace.note(given.value_in(trace), site, spec.numeric.policy)
        result = function(*args, **kwargs)
        values: list[int] = []
        for _, leaf in leaves(result):
            if not isinstance(leaf, Value):
                raise LanguageError("NOT_A_TENSOR", f"{name} returns no tensor", site=site, found=repr(leaf)[:200])
            values.append(leaf.value_in(trace))
        outputs = tuple(f"output{index}" for index in range(len(values)))
        for output, value in zip(outputs, values, strict=True):
            trace.builder.output(output, trace.own(value))
    names = dict(zip(trace.builder.function().args, trace.builder.input_names, strict=True))
    weights = {names[value]: weight for weight, value in trace.weights.values() if value in names}
    nesting = rebuild(result, [True] * len(outputs))
    return Traced(_runner(trace.builder.finish(), name), weights, nesting, outputs)


def _runner(module: Module, entry: str) -> Compiled:
    """What runs an entry: the compiler's code, or the reference interpreter."""
    compiler = executor.in_use()
    if compiler is not None:
        return compiler.compiled(module, entry)
    return lambda feeds: reference.run(module, entry, feeds)


def _input(trace: Trace, index: int, array: Array, site: Site | None) -> Tensor:
    spec = TensorSpec(array.shape, Numeric(numeric_of(str(array.dtype)).dtype), (), site)
    return Tensor(trace, trace.input(_label(index), spec, site))


def _placed(value: object, inputs: Sequence[Tensor]) -> object:
    return rebuild(value, [inputs[leaf.index] if isinstance(leaf, _Place) else leaf for _, leaf in leaves(value)])


def _label(index: int) -> str:
    return f"argument{index}"


def to_array(value: object, site: Site | None = None) -> Array | None:
    """An array of what is one, without a copy; None for numbers and everything else."""
    if isinstance(value, np.ndarray):
        return cast(Array, value)
    if not hasattr(value, "__dlpack__") or isinstance(value, np.generic | Value):
        return None
    try:
        return _from_dlpack(cast(Exports, value))
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise LanguageError(
            "ARRAY_NOT_SPOKEN",
            "a tensor cannot be read through DLPack",
            site=site or here(),
            expected="one in the memory of the CPU, of an element type of the language, that no gradient is kept for",
            found=f"{type(value).__name__}: {error}"[:200],
            hint="for a torch tensor: tensor.detach().cpu()",
        ) from error


def _from_dlpack(value: Exports) -> Array:
    try:
        return cast(Array, np.from_dlpack(value))  # pyright: ignore[reportArgumentType]  for numpy's own types
    except (BufferError, RuntimeError):
        lent = lent_bits(value)
        if lent is None:
            raise
        return np.asarray(lent).view(DTYPES[lent.name].numpy)
