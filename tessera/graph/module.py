"""Modules: functions and classes of the author's that become entries of a bundle.

Takes a function under `@graph.module("name")`, or a class derived from `Module` with a `forward` method; gives objects
that are called like the function itself: inside a trace they are part of it, outside they are compiled for the arrays
that they are given. Invariant: decorating changes nothing of what a function computes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, ParamSpec, TypeVar, cast

from tessera.errors import LanguageError
from tessera.graph.bind import Argument, arguments_of, check_call, plain, values_of
from tessera.graph.eager import Traced, run_eagerly
from tessera.model.expect import expect_functions
from tessera.model.parameter import Parameter
from tessera.model.site import Site, definition_site, here
from tessera.model.trace import current

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Derived:
    """An entry of derivatives beside another one: its mode, "reverse" or "forward", and by what (None: all)."""

    mode: str
    wrt: tuple[str | Parameter, ...] | None

    @property
    def suffix(self) -> str:
        """What stands behind the other entry's name."""
        return "_grad" if self.mode == "reverse" else "_jvp"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a bundle's entry is made from. `free`: parameters are inputs instead of weights.

    `derivative`: an entry with its derivatives is made, too.
    """

    name: str
    function: Callable[..., object]
    arguments: tuple[Argument, ...]
    site: Site
    free: bool = False
    derivative: Derived | None = None

    @property
    def derived_name(self) -> str:
        """What the entry of derivatives beside this one is called; empty where there is none."""
        return f"{self.name}{self.derivative.suffix}" if self.derivative is not None else ""


class GraphModule(Generic[P, R]):
    """A function that can be an entry."""

    def __init__(self, function: Callable[P, R], name: str, free: bool = False) -> None:
        self.function = function
        self.name = name
        self.free = free
        self.derivative: Derived | None = None
        self.known: dict[Hashable, Traced] | None = None  # what calls on arrays traced, where that is kept
        self.__name__ = name
        self.__doc__ = function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Part of the trace that grows; outside of one, run on arrays."""
        entry = self.entry()
        trace = current()
        if trace is None:
            return cast(R, run_eagerly(entry.name, self.function, entry.arguments, (args, kwargs), self.known))
        given = values_of(trace, entry.arguments, (args, kwargs))
        check_call(entry.name, entry.arguments, given)
        return cast("Callable[..., R]", self.function)(*given[0], **given[1])

    def entry(self) -> Entry:
        """What the bundle's entry is made from."""
        site = site_of(self.function)
        return Entry(self.name, self.function, arguments_of(self.function), site, self.free, self.derivative)


def check_name(name: object) -> None:
    """Raise unless an entry can be called so: names stand in headers, in commands and in paths."""
    if name is not None and (not isinstance(name, str) or re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name) is None):
        raise LanguageError(
            "BAD_NAME",
            "an entry cannot be called so",
            site=here(),
            expected="a letter, then letters, digits, _ . -",
            found=repr(name)[:200],
        )


def module(name: str | None = None) -> Callable[[Callable[P, R]], GraphModule[P, R]]:
    """Make a function an entry of the bundle, called `name`; annotations say what its inputs are."""
    if callable(name):
        raise LanguageError(
            "BAD_ARGUMENT", "graph.module takes a name", site=site_of(name), expected='@graph.module("name")'
        )

    check_name(name)

    def decorate(function: Callable[P, R]) -> GraphModule[P, R]:
        check_function(function, "graph.module")
        return GraphModule(function, name or getattr(function, "__name__", "main"))

    return decorate


def check_function(function: object, name: str) -> None:
    """Raise unless the decorator `name` can make an entry of it: a function that is none yet."""
    expect_functions(name, f'@{name}("name") above a function', function)
    if isinstance(function, GraphModule):
        raise LanguageError(
            "BAD_ARGUMENT",
            f"the function is an entry already, called {cast('GraphModule[..., object]', function).name!r}",
            site=here(),
            expected=f"one @{name}",
        )


class Module:
    """Base of models as classes: parameters and other modules are attributes, `forward` is what they compute."""

    def forward(self, *args: object, **kwargs: object) -> object:  # noqa: ARG002  stated by each class
        """What the module computes; every class states its own."""
        raise LanguageError(
            "NO_FORWARD",
            f"the class {type(self).__name__} has no forward method",
            site=site_of(type(self)),
            expected="def forward(self, x: Tensor[...])",
        )

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Part of the trace that grows; outside of one, run on arrays."""
        arguments = arguments_of(self.forward)
        trace = current()
        if trace is None:
            return run_eagerly(type(self).__name__, self.forward, arguments, (args, kwargs))
        given = values_of(trace, arguments, (args, kwargs))
        check_call(type(self).__name__, arguments, given)
        return self.forward(*given[0], **given[1])

    def entry(self, name: str) -> Entry:
        """What the bundle's entry is made from."""
        return Entry(name, self.forward, arguments_of(self.forward), site_of(self.forward))

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their paths: attribute names and places in lists, joined by dots.

        What is reached in several ways, as a shared module or a parent, has the path by which it is reached first.
        """
        yield from _parameters("", self, {})


def _parameters(path: str, holder: object, seen: dict[int, object]) -> Iterator[tuple[str, Parameter]]:
    """Parameters below a place, by path; `seen` is what was met on the way, by identity, and is not met again."""
    identity = id(holder)
    if identity in seen or not isinstance(holder, Parameter | Module | Mapping | list | tuple):
        return
    seen[identity] = cast(object, holder)
    if isinstance(holder, Parameter):
        yield path, holder
        return
    for key, item in _below(cast(object, holder)).items():
        yield from _parameters(f"{path}.{key}" if path else str(key), item, seen)


def _below(holder: object) -> Mapping[object, object]:
    """What a module, a mapping or a sequence holds, by attribute, key or place."""
    if isinstance(holder, Module):
        return cast("Mapping[object, object]", vars(holder))
    if isinstance(holder, Mapping):
        return cast("Mapping[object, object]", holder)
    return dict(enumerate(cast("Sequence[object]", holder)))


def name_parameters(path: str, holder: object) -> Iterator[Parameter]:
    """Give every parameter below a variable its path as its name, where the author gave none."""
    for name, parameter in _parameters(path, holder, {}):
        if not parameter.name:
            parameter.name = name
        yield parameter


def site_of(function: object) -> Site:
    """Where a function or a class is defined."""
    if inspect.isclass(function):
        lines, first = inspect.getsourcelines(function)
        del lines
        return Site(inspect.getsourcefile(function) or "", first)
    function = plain(cast("Callable[..., object]", function))
    code = getattr(function, "__code__", None)
    return definition_site(code) if inspect.iscode(code) else Site("", 0)
