"""The door to the compiler: what the language must read, write or execute, it asks an `Executor`.

Takes nothing; gives the executor that is in use. Invariant: the language knows the compiler by this protocol alone. The
one that ships with the language is looked up by its name when it is first needed, for it lies above the language and
importing it would turn the house upside down (docs/adr/0020); without it, or inside `using(None)`, models can be traced
and run by the reference interpreter, and files are refused.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol, cast

from tessera.errors import LanguageError
from tessera.model.site import here
from tessera_build.ir.graph.nodes import Array, Module

_SHIPPED: Final = "tessera_build.driver.executor"


class ForeignModel(Protocol):
    """A model of another language: `module` has one entry, which takes `inputs` and then the `weights`."""

    @property
    def module(self) -> Module:
        """The model as Graph IR."""
        ...

    @property
    def inputs(self) -> tuple[str, ...]:
        """The model's own inputs."""
        ...

    @property
    def weights(self) -> Mapping[str, Array]:
        """The arrays of the other inputs, by name."""
        ...

    @property
    def groups(self) -> Mapping[str, str]:
        """What each weight is: `weights` are trained, `statistics` measured."""
        ...

    @property
    def files(self) -> tuple[Path, ...]:
        """What was read."""
        ...


class Compiled(Protocol):
    """An entry that runs."""

    def __call__(self, feeds: Mapping[str, Array], /) -> dict[str, Array]:
        """The outputs by name."""
        ...


class Executor(Protocol):
    """What a compiler does for the language."""

    def read_onnx(self, path: Path, dims: Mapping[str, int | tuple[int, int]] | None = None) -> ForeignModel:
        """An ONNX model whose float weights are inputs."""
        ...

    def read_weights(self, path: Path) -> Mapping[str, Array]:
        """The tensors of a safetensors file."""
        ...

    def write_weights(self, path: Path, arrays: Mapping[str, Array]) -> None:
        """A safetensors file."""
        ...

    def compiled(self, module: Module, entry: str) -> Compiled:
        """The entry as machine code of this process; equal modules are compiled once."""
        ...


_chosen: ContextVar[tuple[Executor | None] | None] = ContextVar("tessera_executor", default=None)


@contextmanager
def using(executor: Executor | None) -> Generator[None]:
    """Ask this executor inside the `with`; None: none, so that the reference interpreter runs what is called."""
    token = _chosen.set((executor,))
    try:
        yield
    finally:
        _chosen.reset(token)


def in_use() -> Executor | None:
    """The executor that is asked; None where no compiler is installed. One that is broken is an error, not none."""
    chosen = _chosen.get()
    if chosen is not None:
        return chosen[0]
    try:
        # The name and not the module: what the compiler needs (LLVM, onnx) is optional for those who only trace.
        return cast("Executor", import_module(_SHIPPED).EXECUTOR)
    except ModuleNotFoundError:
        return None


def needed(what: str) -> Executor:
    """The executor; raises where there is none."""
    found = in_use()
    if found is None:
        raise LanguageError(
            "NO_COMPILER",
            f"{what} needs the compiler, which is not installed",
            site=here(),
            hint="pip install tessera-build",
        )
    return found
