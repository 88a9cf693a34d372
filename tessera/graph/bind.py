"""Arguments of the author's functions: what their annotations say, and whether a call fits them.

Takes a function's signature; gives an `Argument` for each parameter. Invariant: a name of a dimension means one extent
within one call, so `inner(x: Tensor["N", "D"], y: Tensor["D"])` refuses operands whose extents differ.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import TypeGuard, cast

import numpy as np

from tessera.errors import LanguageError, Note
from tessera.model.annotation import TensorSpec
from tessera.model.elements import elements
from tessera.model.explain import element_number
from tessera.model.site import Site, here
from tessera.model.tensor import Tensor, Value, described, lift
from tessera.model.trace import Trace
from tessera.model.tree import leaves, rebuild
from tessera.state import KVCache, State, StateSpec, rolling_window
from tessera_build.ir.core.dims import Dim, Extent, substitute, symbol
from tessera_build.ir.graph.nodes import Array

Call = tuple[Sequence[object], Mapping[str, object]]
Spec = TensorSpec | StateSpec


@dataclass(frozen=True, slots=True)
class Argument:
    """One parameter of a function: its specification where it holds tensors, its default where it has one.

    A specification is of one tensor or state, or of several in a nesting: `{"m": State[3], "v": State[3]}`. A
    `variadic` one, `*xs` or `**xs`, takes any number of them. `unread`: why the annotations say nothing.
    """

    name: str
    spec: object
    default: object
    positional: bool
    variadic: bool = False
    unread: str | None = None

    @property
    def required(self) -> bool:
        """Whether a call must give it."""
        return self.default is inspect.Parameter.empty

    def parts(self) -> list[tuple[str, Spec]]:
        """Its tensors and states with the names that they have as inputs: `adam.m`; none where it holds none."""
        return [(".".join((self.name, *path)), leaf) for path, leaf in leaves(self.spec) if _states(leaf)]


def arguments_of(function: Callable[..., object]) -> tuple[Argument, ...]:
    """The parameters of a function, in order; `self` of a bound method is none, nor what takes any others untyped."""
    signature = inspect.signature(function)
    unread: str | None = None
    try:
        notes = inspect.get_annotations(plain(function), eval_str=True)
    except (NameError, SyntaxError) as error:
        notes, unread = {}, f"an annotation that cannot be read: {error}"
    found: list[Argument] = []
    for parameter in signature.parameters.values():
        note = notes.get(parameter.name)
        noted = leaves(note)
        spec = note if noted and all(_states(leaf) for _, leaf in noted) else None
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if variadic and spec is None:
            continue
        positional = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        found.append(Argument(parameter.name, spec, parameter.default, positional, variadic, unread))
    return tuple(found)


def _states(leaf: object) -> TypeGuard[Spec]:
    return isinstance(leaf, TensorSpec | StateSpec)


def plain(function: Callable[..., object]) -> Callable[..., object]:
    """The function that the author wrote: of a bound method, of `functools.partial`, of what wraps another one."""
    while isinstance(function, partial):
        function = cast("partial[object]", function).func
    return inspect.unwrap(cast("Callable[..., object]", getattr(function, "__func__", function)))


def check_call(name: str, arguments: Sequence[Argument], call: Call) -> None:
    """Raise unless the tensors of a call have the types that the function's annotations state."""
    site = here()
    bound: dict[str, tuple[Extent, str]] = {}
    for part, spec, given in tensors_of(name, arguments, call):
        _check_tensor(f"{part} of {name}", spec, given, (bound, site))


def tensors_of(name: str, arguments: Sequence[Argument], call: Call) -> list[tuple[str, TensorSpec, Value]]:
    """The tensors of a call, those of states too, by name with what annotations state of them; raises for another
    state than is stated.
    """
    found: list[tuple[str, TensorSpec, Value]] = []
    for argument, given in matched(arguments, call):
        there = {".".join((argument.name, *path)): leaf for path, leaf in leaves(given, whole=True)}
        for part, spec in argument.parts():
            value = there.get(part)
            if isinstance(spec, TensorSpec) and isinstance(value, Value):
                found.append((part, spec, value))
            if isinstance(spec, StateSpec) and isinstance(value, State | KVCache):
                _check_state(f"{part} of {name}", spec, value)
                rows = zip(spec.parts, cast("Iterable[Value]", value.parts().values()), strict=True)
                found += [(".".join(filter(None, (part, own))), stated, tensor) for (own, stated), tensor in rows]
    return found


def _check_state(name: str, spec: StateSpec, given: State | KVCache) -> None:
    wanted = ("cache", rolling_window.name in spec.suffixes) if spec.kind == "cache" else ("state", False)
    found = ("cache", given.rolling) if isinstance(given, KVCache) else ("state", False)
    if wanted != found:
        words = {False: "KVCache(keys, values, length)", True: "KVCache(keys, values, length, rolling=True)"}
        texts = [words[rolling] if kind == "cache" else "State(value)" for kind, rolling in (wanted, found)]
        raise LanguageError(
            "ARGUMENT_MISMATCH",
            f"argument {name} is another state than its annotation states",
            site=here(),
            expected=texts[0],
            found=texts[1],
        )


def arrays_of(arguments: Sequence[Argument], call: Call) -> Call:
    """A call on arrays with its numbers as arrays too where annotations state tensors: numpy's of their own type,
    Python's of the stated one. They are then inputs of what is traced, and not parts of it.
    """
    site = here()
    return _changed(arguments, call, lambda value, spec: _array_of(value, spec, site))


def values_of(trace: Trace, arguments: Sequence[Argument], call: Call) -> Call:
    """A call inside a trace with its numbers as tensors where annotations state tensors: of the types that a call on
    arrays gives them. They stay numbers of the text.
    """
    site = here()

    def value_of(value: object, spec: object) -> object:
        if not isinstance(spec, TensorSpec) or not isinstance(value, int | float | np.generic | Dim):
            return value
        return Tensor(trace, lift(trace, cast(object, value), spec.dtype, site))

    return _changed(arguments, call, value_of)


def _changed(arguments: Sequence[Argument], call: Call, change: Callable[[object, object], object]) -> Call:
    """A call whose values were changed, each by what its annotation states."""

    def changed(value: object, spec: object) -> object:
        if spec is None or _states(spec):
            return change(value, spec)
        specs = dict(leaves(spec))
        return rebuild(value, [change(leaf, specs.get(path)) for path, leaf in leaves(value)])

    specs = [argument.spec for argument in arguments if argument.positional]
    by_name = {argument.name: argument.spec for argument in arguments if not argument.variadic}
    args = [changed(value, spec) for value, spec in zip_longest(call[0], specs[: len(call[0])])]
    return args, {key: changed(value, by_name.get(key)) for key, value in call[1].items()}


def _array_of(value: object, spec: object, site: Site | None) -> object:
    if not isinstance(spec, TensorSpec):
        return value
    if isinstance(value, int | float):
        return elements(element_number(value, spec.dtype, site), spec.dtype, site)
    return np.asarray(cast(Array, value)) if isinstance(value, np.generic) else value


def matched(arguments: Sequence[Argument], call: Call) -> list[tuple[Argument, object]]:
    """Arguments with what a call gives them."""
    positional = [argument for argument in arguments if argument.positional]
    pairs: list[tuple[Argument, object]] = list(zip(positional, call[0], strict=False))
    by_name = {argument.name: argument for argument in arguments if not argument.variadic}
    return [*pairs, *((by_name[key], value) for key, value in call[1].items() if key in by_name)]


def _check_tensor(
    name: str, spec: TensorSpec, given: Value, known: tuple[dict[str, tuple[Extent, str]], Site | None]
) -> None:
    bound, site = known
    fits = given.dtype == spec.dtype and given.ndim == len(spec.shape)
    reason = f"argument {name} has another type than its annotation states"
    for axis, (wanted, actual) in enumerate(zip(spec.shape, given.shape, strict=False) if fits else ()):
        if isinstance(wanted, Dim) and wanted.text.isidentifier() and wanted.text not in bound:
            bound[wanted.text] = actual, f"axis {axis} of {name.partition(' ')[0]}"
        meant = substitute(wanted, {symbol_name: extent for symbol_name, (extent, _) in bound.items()})
        if meant != actual and not _open(wanted, bound):
            fits = False
            source = bound[str(wanted)][1] if str(wanted) in bound else "the annotation"
            reason = f"axis {axis} of argument {name} is {actual}, but {meant} by {source}"
            break
    if not fits:
        made = given.site if isinstance(given, Tensor) else None
        raise LanguageError(
            "ARGUMENT_MISMATCH",
            reason,
            site=site,
            expected=str(spec),
            found=described(given),
            notes=(Note("given", described(given), made), Note("declared", str(spec), spec.site)),
        )


def _open(wanted: Extent, bound: Mapping[str, object]) -> bool:
    """Whether an expression has names that nothing in this call stands for."""
    return isinstance(wanted, Dim) and not wanted.symbols <= bound.keys() and wanted != symbol(min(wanted.symbols))
