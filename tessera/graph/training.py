"""Training steps, and entries that carry their gradients.

Takes the author's functions; gives entries. Invariant: the parameters of a training step are inputs, because what
trains changes them between calls; those of every other entry are weights of the bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar, cast, overload

from tessera.errors import LanguageError
from tessera.graph.module import Derived, GraphModule, check_function, check_name, site_of
from tessera.model.expect import expect_functions
from tessera.model.parameter import Parameter
from tessera.model.site import here

P = ParamSpec("P")
R = TypeVar("R")


def training_step(module: str) -> Callable[[Callable[P, R]], GraphModule[P, R]]:
    """An entry called `module` whose parameters are inputs, because what trains changes them between calls."""

    if callable(module):
        raise LanguageError(
            "BAD_ARGUMENT",
            "graph.training_step takes a name",
            site=site_of(module),
            expected='@graph.training_step(module="train")',
        )
    check_name(module)

    def decorate(function: Callable[P, R]) -> GraphModule[P, R]:
        check_function(function, "graph.training_step")
        return GraphModule(function, module, free=True)

    return decorate


def jit(function: Callable[P, R]) -> GraphModule[P, R]:
    """An entry of the function's own name: everything in a bundle is compiled, ahead of time.

    Called on arrays it is traced once for each signature: shapes, element types, and everything that is no array.
    """
    expect_functions("graph.jit", "@graph.jit above a function", function)
    made = isinstance(function, GraphModule)
    entry = cast("GraphModule[P, R]", function) if made else GraphModule(function, _name(function))
    entry.known = {}
    return entry


def _name(function: object) -> str:
    return str(getattr(function, "__name__", "main"))


@overload
def autodiff(function: Callable[P, R]) -> GraphModule[P, R]: ...


@overload
def autodiff(
    *, wrt: Sequence[str | Parameter] | str | Parameter | None = None, mode: str = "reverse"
) -> Callable[[Callable[P, R]], GraphModule[P, R]]: ...


def autodiff(
    function: Callable[P, R] | None = None,
    *,
    wrt: Sequence[str | Parameter] | str | Parameter | None = None,
    mode: str = "reverse",
) -> GraphModule[P, R] | Callable[[Callable[P, R]], GraphModule[P, R]]:
    """An entry that has another one beside it: `<name>_grad`, or `<name>_jvp` where `mode` is "forward".

    Its derivatives are by `wrt`, names of arguments and parameters; without, by all that are floating-point.
    """
    if mode not in ("reverse", "forward"):
        raise LanguageError(
            "BAD_ARGUMENT", "autodiff has no such mode", site=here(), expected="reverse or forward", found=repr(mode)
        )
    names = (wrt,) if isinstance(wrt, str | Parameter) else wrt
    listed = names is None or isinstance(names, tuple | list)
    if not listed or not all(isinstance(name, str | Parameter) for name in names or ()):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise LanguageError(
            "BAD_ARGUMENT",
            "autodiff is asked by something that is neither a name nor a parameter",
            site=here(),
            expected='wrt="x", a parameter, or several of these',
            found=repr(wrt)[:200],
        )
    if function is not None:
        expect_functions("graph.autodiff", "@graph.autodiff above a function", function)

    def decorate(function: Callable[P, R]) -> GraphModule[P, R]:
        entry: GraphModule[P, R] = jit(function)
        entry.derivative = Derived(mode, None if names is None else tuple(names))
        return entry

    return decorate if function is None else decorate(function)
