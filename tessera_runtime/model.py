"""A loaded model: what a serving process holds.

Takes: an open bundle and the variant chosen for this machine.
Gives: `Model`: its signature, `run`, an explanation of the choice.
Invariant: immutable but for `close`, and re-entrant: any number of threads may run it at once, with equal results.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Final, Self, final

from bundle_format.digest import Digest
from tessera_runtime.arrays import Array, TensorSpec
from tessera_runtime.choice import Choice
from tessera_runtime.cpu.frame import Program
from tessera_runtime.cpu.pool import Look
from tessera_runtime.entry import EntryPoint
from tessera_runtime.limits import CancelHandle
from tessera_runtime.observe import Reporter
from tessera_runtime.state import State

MAIN = "main"


@final
class Model:
    """A model ready to run. `entries` has all its functions; `run`, `inputs` and `outputs` are those of `main`."""

    def __init__(self, program: Program, choice: Choice, identity: Digest, reporter: Reporter | None = None) -> None:
        config = program.config
        points = (EntryPoint(program, index, reporter) for index in range(len(config.entries)))
        self.entries: Final[Mapping[str, EntryPoint]] = {point.name: point for point in points}
        self._main = self.entries.get(MAIN) or self.entries[config.entries[0].name]
        self._choice = choice
        self._pool = program.pool
        self.identity: Final = identity
        self.target: Final = config.target.name
        self.threads: Final = program.pool.threads
        self.inputs: Final[tuple[TensorSpec, ...]] = self._main.inputs
        self.outputs: Final[tuple[TensorSpec, ...]] = self._main.outputs

    @property
    def main(self) -> EntryPoint:
        """The entry that `run` runs."""
        return self._main

    def run(
        self,
        feeds: Mapping[str, object] | None = None,
        /,
        *,
        out: Mapping[str, Array] | None = None,
        state: State | None = None,
        timeout: float | None = None,
        cancel: CancelHandle | None = None,
        **named: object,
    ) -> dict[str, Array]:
        """Run the main entry: inputs by name in `feeds` or as keywords, outputs by name in the result.

        Inputs are numpy arrays, or speak DLPack or the buffer protocol; dtypes must match. An output that `out` names
        is written into the array given, which must fit and share no memory with an input. Misuse is a `RunError`.
        After `timeout` seconds, or when another thread calls `cancel.cancel()`, the run ends between two launches with
        `DeadlineError` or `CancelledError`; a state stays as it was. An input of one of these names goes into `feeds`.
        """
        if feeds is None:
            feeds = named
        elif named:
            feeds = {**feeds, **named}
        return self._main.run(feeds, out, state, timeout=timeout, cancel=cancel)

    def profiled(self, look: Look) -> AbstractContextManager[None]:
        """A block in which `look(launch, phase)` is called before (0) and after (1) each launch of its entries.

        The threads belong to the process: launches of other models with as many threads call it, too.
        """
        return self._pool.profiled(look)

    def new_state(self, initial: Mapping[str, object] | None = None) -> State:
        """A state for the main entry, if it has one: the arrays given, zeros for the rest."""
        return self._main.new_state(initial)

    def explain(self) -> str:
        """Why this variant runs, one line for each variant of the bundle."""
        return "\n".join((*self._choice.reasons, f"threads: {self.threads}", f"bundle: {self.identity}"))

    def close(self) -> None:
        """Refuse further calls and let go of code, weights and memory as soon as calls in flight have ended."""
        for entry in self.entries.values():
            entry.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
