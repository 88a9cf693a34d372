"""Traces one entry: the author's function runs once, with tensors for its annotated arguments.

Takes an `Entry` and the dims that a build asks for; gives a `TracedEntry`: the builder, the state pairs and where every
value came from. Invariant: what the author returns is what the entry gives, under names that the source tells.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tessera.errors import LanguageError
from tessera.graph.bind import Argument
from tessera.graph.module import Entry
from tessera.model.annotation import TensorSpec
from tessera.model.tensor import Tensor, Value, described
from tessera.model.trace import Trace, tracing
from tessera.model.tree import leaves, rebuild
from tessera.state import KVCache, State, StateSpec, state_of
from tessera_build.ir.core.dims import DimRequest, symbol
from tessera_build.ir.graph.builder import ConstantPool
from tessera_build.ir.graph.nodes import StatePair


@dataclass(frozen=True, slots=True)
class TracedEntry:
    """One entry as Graph IR under construction, with its state pairs."""

    trace: Trace
    states: tuple[StatePair, ...]


def trace_entry(
    entry: Entry,
    dims: Mapping[str, DimRequest] | None = None,
    pool: ConstantPool | None = None,
    name: str | None = None,
) -> TracedEntry:
    """Run the function once; raises `LanguageError` at the author's line."""
    trace = Trace(name or entry.name, dims, free=entry.free, pool=pool)
    given: dict[str, object] = {}
    incoming: dict[str, tuple[int, ...]] = {}
    with tracing(trace):
        for argument in entry.arguments:
            if argument.spec is None and not argument.required:
                continue
            given[argument.name] = _input(trace, argument, entry, incoming)
        _check_dims(trace)
        result = _called(entry, given)
        try:
            pairs = _Outputs(trace, entry, incoming).add(result)
        except LanguageError as error:  # the author's function has ended: no line of it is running
            raise error.at(entry.site) from None
    return TracedEntry(trace, pairs)


def _input(trace: Trace, argument: Argument, entry: Entry, incoming: dict[str, tuple[int, ...]]) -> object:
    if argument.variadic:
        raise LanguageError(
            "INPUT_WITHOUT_NAME",
            f"the inputs that {argument.name} of the entry {entry.name} takes have no names",
            site=entry.site,
            expected=f"{argument.name}_1: Tensor[...], {argument.name}_2: Tensor[...]",
            hint="name each input: how many an entry has, and what they are called, is part of the bundle",
        )
    parts = argument.parts()
    if not parts:
        raise LanguageError(
            "INPUT_WITHOUT_TYPE",
            f"argument {argument.name} of the entry {entry.name} has no type",
            site=entry.site,
            expected=f'{argument.name}: Tensor["B", 784, f32]',
            found=argument.unread,
            hint="or give it a default, which then is part of the model",
        )
    return rebuild(argument.spec, [_given(trace, name, spec, (entry, incoming)) for name, spec in parts])


def _given(
    trace: Trace, name: str, spec: TensorSpec | StateSpec, into: tuple[Entry, dict[str, tuple[int, ...]]]
) -> Tensor | State | KVCache:
    """One tensor or state that comes in, as inputs of the entry."""
    entry, incoming = into
    if isinstance(spec, TensorSpec):
        return Tensor(trace, trace.input(name, spec, spec.site or entry.site))
    values = tuple(
        trace.input(f"{name}.{part}" if part else name, tensor, tensor.site or entry.site)
        for part, tensor in spec.parts
    )
    incoming[name] = values
    return state_of(spec, tuple(Tensor(trace, value) for value in values), name)


def _called(entry: Entry, given: Mapping[str, object]) -> object:
    positional = [given[a.name] for a in entry.arguments if a.positional and a.name in given]
    if any(a.positional and a.name not in given for a in entry.arguments[: len(positional)]):
        return entry.function(**given)
    named = {a.name: given[a.name] for a in entry.arguments if not a.positional and a.name in given}
    return entry.function(*positional, **named)


def _check_dims(trace: Trace) -> None:
    """Every dimension must stand alone somewhere, so that a call's arrays tell its size."""
    shapes = [trace.builder.type(value).shape for value in trace.builder.function().args]
    alone = {str(extent) for shape in shapes for extent in shape}
    for name, site in trace.defined.items():
        if not isinstance(trace.requests.get(name), int) and name not in alone:
            raise LanguageError(
                "DIM_NOT_BOUND",
                f"no input tells the size of dimension {name}",
                site=site,
                expected=f"an input with {symbol(name)} alone as one of its extents",
                found=", ".join(str(list(map(str, shape))) for shape in shapes),
                hint=f"fix it with --dims {name}=SIZE, or name the whole extent and demand of it what must hold: "
                'graph.require(x.shape[0] % 2, "==", 0)',
            )


class _Outputs:
    """Names what a function returned and makes it outputs."""

    def __init__(self, trace: Trace, entry: Entry, incoming: Mapping[str, tuple[int, ...]]) -> None:
        self.trace = trace
        self.entry = entry
        self.incoming = incoming
        self.pairs: list[StatePair] = []
        self._used: set[str] = set()

    def add(self, result: object) -> tuple[StatePair, ...]:
        """Make every leaf an output; raises where there is none, or where one is no tensor."""
        found = leaves(result, whole=True)
        if not found:
            raise LanguageError(
                "NO_RESULT",
                f"the entry {self.entry.name} returns nothing",
                site=self.entry.site,
                expected="a tensor, or tensors in tuples, lists and dicts",
            )
        names = returned_names(self.entry.function)
        for path, leaf in found:
            self._leaf(_name(path, leaf, names), leaf)
        missing = self.incoming.keys() - self._stated
        if missing:
            raise LanguageError(
                "STATE_NOT_RETURNED",
                f"the entry {self.entry.name} does not return the next {min(missing)}",
                site=self.entry.site,
                expected="every state among the results; one that does not change, too",
            )
        return tuple(self.pairs)

    @property
    def _stated(self) -> set[str]:
        paired = {pair.incoming for pair in self.pairs}
        return {name for name, values in self.incoming.items() if set(values) <= paired}

    def _leaf(self, name: str, leaf: object) -> None:
        match leaf:
            case State() | KVCache() if leaf.is_derivative or not leaf.incoming:
                for part, tensor in leaf.parts().items():
                    self._leaf(name if isinstance(leaf, State) else f"{name}.{part}", tensor)
            case State() | KVCache():
                self._state(leaf)
            case Value():
                value = leaf.value_in(self.trace)
                self.trace.builder.output(self._unique(name), self.trace.own(value))
            case _:
                raise LanguageError(
                    "NOT_A_TENSOR",
                    f"the entry {self.entry.name} returns something that is no tensor",
                    site=self.entry.site,
                    expected="tensors in tuples, lists and dicts",
                    found=f"{name}: {leaf!r}"[:200],
                )

    def _state(self, state: State | KVCache) -> None:
        if state.incoming in self._stated:
            raise LanguageError(
                "STATE_TWICE",
                f"the entry {self.entry.name} returns two next states of {state.incoming}",
                site=self.entry.site,
                expected="one next state for each that came in",
            )
        values = self.incoming.get(state.incoming, ())
        names = [f"{state.incoming}.{part}" for part in ("keys", "values", "length")]
        if len(values) == 1:
            names = [state.incoming]
        for name, old, new in zip(names, values, state.parts().values(), strict=True):
            assert isinstance(new, Value)
            value = new.value_in(self.trace)
            if self.trace.builder.type(old) != self.trace.builder.type(value):
                raise LanguageError(
                    "STATE_CHANGES_TYPE",
                    f"the next {name} has another type than the one that came in",
                    site=self.entry.site,
                    expected=str(self.trace.builder.type(old)),
                    found=described(new),
                )
            value = self.trace.own(value)
            self.trace.builder.output(self._unique(f"{name}.next"), value)
            self.pairs.append(StatePair(old, value))

    def _unique(self, name: str) -> str:
        taken, number = name, 2
        while taken in self._used:
            taken, number = f"{name}_{number}", number + 1
        self._used.add(taken)
        return taken


def _name(path: tuple[str, ...], leaf: object, names: Sequence[str]) -> str:
    """The name of a result: the tensor's own, the dict's key, or what the return statement calls it."""
    own = leaf.name if isinstance(leaf, Tensor) else ""
    if not path:
        return own or (names[0] if len(names) == 1 else "output")
    first = path[0]
    if first.isdigit():
        first = names[int(first)] if int(first) < len(names) else f"output_{first}"
    words = [first, *path[1:]] if first else list(path[1:])
    return own or ".".join(word for word in words if word) or "output"


def returned_names(function: Callable[..., object]) -> tuple[str, ...]:
    """The variables of the only return statement; empty words where an element is a display or a computation."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    except (OSError, TypeError, SyntaxError):
        return ()
    top = next((n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.Lambda)), None)
    values = [] if top is None or isinstance(top, ast.Lambda) else [n.value for n in _returns(top) if n.value]
    if len(values) != 1:
        return ()
    elements = values[0].elts if isinstance(values[0], ast.Tuple) else [values[0]]
    return tuple(_word(element, index, len(elements)) for index, element in enumerate(elements))


def _word(element: ast.expr, index: int, count: int) -> str:
    if isinstance(element, ast.Name):
        return element.id
    if isinstance(element, ast.Dict | ast.List | ast.Tuple):
        return ""
    return "output" if count == 1 else f"output_{index}"


def _returns(function: ast.FunctionDef) -> list[ast.Return]:
    """The return statements of a function, those of functions inside it left out."""
    found: list[ast.Return] = []
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Return):
            found.append(node)
        elif not isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)
    return found
