"""Training steps, and entries that carry their gradients.

Takes the author's functions; gives entries. Invariant: the parameters of a training step are inputs, because what
trains changes them between calls; those of every other entry are weights of the bundle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from tessera.graph.module import GraphModule

P = ParamSpec("P")
R = TypeVar("R")


def training_step(module: str) -> Callable[[Callable[P, R]], GraphModule[P, R]]:
    """An entry called `module` whose parameters are inputs, because what trains changes them between calls."""

    def decorate(function: Callable[P, R]) -> GraphModule[P, R]:
        return GraphModule(function, module, free=True)

    return decorate


def jit(function: Callable[P, R]) -> GraphModule[P, R]:
    """An entry of the function's own name: everything in a bundle is compiled, ahead of time."""
    if isinstance(function, GraphModule):
        return cast("GraphModule[P, R]", function)
    return GraphModule(function, getattr(function, "__name__", "main"))


def autodiff(function: Callable[P, R]) -> GraphModule[P, R]:
    """An entry that has another one beside it, `<name>_grad`, with the gradients of its inputs and parameters."""
    entry = jit(function)
    entry.differentiated = True
    return entry
