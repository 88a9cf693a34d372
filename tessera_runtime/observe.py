"""What a process may learn of its models: one record for each load and each run.

Takes: observers, objects with two methods. Gives: records with everything that a log line or a counter needs.
Invariant: without observers nothing is measured; a record never holds values of a tensor. `tessera_runtime.logs` and
`tessera_runtime.metrics` are observers, which who wants them imports.
"""

import time
from collections.abc import Iterable
from typing import NamedTuple, Protocol, final

from bundle_format.errors import TesseraError
from tessera_runtime.arrays import Array
from tessera_runtime.limits import Stop


class LoadRecord(NamedTuple):
    """A bundle was loaded."""

    identity: str
    variant: str
    path: str
    threads: int
    seconds: float


class RunRecord(NamedTuple):
    """A run has ended. `code` is that of the error, None for an answer."""

    identity: str
    variant: str
    entry: str
    seconds: float
    code: str | None
    input_bytes: int
    output_bytes: int
    workspace_bytes: int


class Observer(Protocol):
    """Is told of loads and runs, in the thread that made them; it must be quick and must not raise."""

    def loaded(self, record: LoadRecord) -> None:
        """A bundle was loaded."""
        ...

    def ran(self, record: RunRecord) -> None:
        """A run has ended."""
        ...


@final
class Watch:
    """One call that is limited, observed, or both. The sizes are filled in as the call goes along."""

    def __init__(self) -> None:
        self.stop: Stop | None = None
        self.input_bytes = 0
        self.output_bytes = 0
        self.workspace_bytes = 0

    def sizes(self, inputs: Iterable[Array], outputs: Iterable[Array], workspace_bytes: int) -> None:
        """The call's arrays are known."""
        self.input_bytes = sum(array.nbytes for array in inputs)
        self.output_bytes = sum(array.nbytes for array in outputs)
        self.workspace_bytes = workspace_bytes


@final
class Reporter:
    """Tells the observers of one loaded model."""

    def __init__(self, identity: str, variant: str, observers: tuple[Observer, ...]) -> None:
        self._identity, self._variant, self._observers = identity, variant, observers

    def loaded(self, path: str, threads: int, seconds: float) -> None:
        """The model is ready."""
        record = LoadRecord(self._identity, self._variant, path, threads, seconds)
        for observer in self._observers:
            observer.loaded(record)

    def ran(self, entry: str, began: float, watch: Watch, error: BaseException | None) -> None:
        """A run that began at `time.perf_counter() == began` has ended."""
        seconds = time.perf_counter() - began
        sizes = (watch.input_bytes, watch.output_bytes, watch.workspace_bytes)
        record = RunRecord(self._identity, self._variant, entry, seconds, _code(error), *sizes)
        for observer in self._observers:
            observer.ran(record)


def _code(error: BaseException | None) -> str | None:
    if error is None:
        return None
    return error.code if isinstance(error, TesseraError) else type(error).__name__
