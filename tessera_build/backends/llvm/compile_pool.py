"""Compiles many units of LLVM IR, in parallel and once each.

Takes: units (a name and IR text), `CodegenOptions`, a number of workers, optionally a cache and a progress callback.
Gives: `compile_all`, whose result has the objects in the order of the units and where each one's time went.
Invariant: the objects depend on the units and options only, not on workers, cache or scheduling. All failures are
collected and raised once; a worker that LLVM ends becomes the failure of the unit that it was compiling.
"""

import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from tessera_build.backends.llvm.cache import ObjectCache, object_key
from tessera_build.backends.llvm.errors import CompileError
from tessera_build.backends.llvm.messages import read_message, write_message
from tessera_build.backends.llvm.objects import CodegenOptions, compile_ir

_IN_PROCESS_UNITS = 2  # a worker starts in 0.1 s; for so few units that is lost time
_STDERR_TAIL_BYTES = 2000
_WORKER_MODULE = "tessera_build.backends.llvm.worker"
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[3])

Progress = Callable[[int, int, str], None]
"""Called with (units done, units in all, name of the unit just done), always from the calling thread."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A module to compile. `name` is for people: errors, progress, reports."""

    name: str
    ir_text: str


@dataclass(frozen=True, slots=True)
class UnitStatistics:
    """Where a unit's object came from: `source` is "compiled", "cache" or "duplicate" (of an earlier unit)."""

    name: str
    source: str
    seconds: float
    object_bytes: int


@dataclass(frozen=True, slots=True)
class CompiledUnits:
    """The objects in the order of the units, and a record for each."""

    objects: tuple[bytes, ...]
    statistics: tuple[UnitStatistics, ...]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one unit."""

    unit: Unit
    code: bytes = b""
    seconds: float = 0.0
    source: str = "compiled"
    error: CompileError | None = None


def compile_all(
    units: Sequence[Unit],
    options: CodegenOptions,
    workers: int | None = None,
    cache: ObjectCache | None = None,
    progress: Progress | None = None,
) -> CompiledUnits:
    """Compile `units`. `workers` None: as many as this process has processors; 1: in this process.

    Raises `CompileError`; with several failures its `found` lists each unit with its reason.
    """
    options.check()
    distinct = list({unit.ir_text: unit for unit in reversed(units)}.values())[::-1]
    keys = {unit.ir_text: object_key(unit.ir_text, options) for unit in distinct}
    report = _Reporter(len(distinct), progress)
    outcomes: dict[str, _Outcome] = {}
    for unit in distinct:
        stored = cache.get(keys[unit.ir_text]) if cache else None
        if stored is not None:
            outcomes[unit.ir_text] = report(_Outcome(unit, stored, source="cache"))
    missing = [unit for unit in distinct if unit.ir_text not in outcomes]
    for outcome in _compile(missing, options, workers, report):
        outcomes[outcome.unit.ir_text] = outcome
        if cache and outcome.error is None:
            cache.put(keys[outcome.unit.ir_text], outcome.code)
    if cache and missing:
        cache.prune()
    _raise_failures([outcomes[unit.ir_text] for unit in distinct])
    return CompiledUnits(
        tuple(outcomes[unit.ir_text].code for unit in units),
        tuple(_statistics(unit, outcomes[unit.ir_text]) for unit in units),
    )


class _Reporter:
    """Counts finished units and tells the callback."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._done, self._progress = total, 0, progress

    def __call__(self, outcome: _Outcome) -> _Outcome:
        self._done += 1
        if self._progress:
            self._progress(self._done, self._total, outcome.unit.name)
        return outcome


def _compile(
    units: Sequence[Unit], options: CodegenOptions, workers: int | None, report: "_Reporter"
) -> list[_Outcome]:
    count = min(workers or _processors(), len(units))
    if count <= 1 or (workers is None and len(units) <= _IN_PROCESS_UNITS):
        return [report(_compile_here(unit, options)) for unit in units]
    # Longest first, so that no worker begins a long unit when the others have finished.
    waiting: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
    for unit in sorted(units, key=lambda unit: -len(unit.ir_text)):
        waiting.put(unit)
    finished: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
    threads = [
        threading.Thread(target=_drive_worker, args=(waiting, finished, options), daemon=True) for _ in range(count)
    ]
    for thread in threads:
        waiting.put(None)
        thread.start()
    outcomes = [report(finished.get()) for _ in units]
    for thread in threads:
        thread.join()
    return outcomes


def _processors() -> int:
    return len(os.sched_getaffinity(0))


def _compile_here(unit: Unit, options: CodegenOptions) -> _Outcome:
    start = time.perf_counter()
    try:
        code = compile_ir(unit.ir_text, options)
    except CompileError as error:
        return _Outcome(unit, error=error)
    return _Outcome(unit, code, time.perf_counter() - start)


def _drive_worker(
    waiting: "queue.SimpleQueue[Unit | None]", finished: "queue.SimpleQueue[_Outcome]", options: CodegenOptions
) -> None:
    """One thread a worker process: feed it units, replace it when it dies. Puts one outcome for each unit taken."""
    worker: _Worker | None = None
    while (unit := waiting.get()) is not None:
        try:
            worker = worker or _Worker()
            outcome = worker.compile(unit, options)
        except Exception as error:
            outcome = _Outcome(unit, error=CompileError("a compile worker could not be used", found=repr(error)))
        if worker and outcome.error and worker.is_dead:
            worker.close()
            worker = None
        finished.put(outcome)
    if worker:
        worker.close()


class _Worker:
    """A child process running `worker.py`."""

    def __init__(self) -> None:
        # Not multiprocessing: it would run the user's main module again in each child. -P keeps the working
        # directory out of the module path; the package's own root is put in front of it instead.
        search = [_PACKAGE_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._messages: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _WORKER_MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
        )

    @property
    def is_dead(self) -> bool:
        """Whether the process has ended (`compile` has waited for it then)."""
        return self._process.returncode is not None

    def compile(self, unit: Unit, options: CodegenOptions) -> _Outcome:
        """What became of the unit; if the process died of it, the error says how."""
        answer = self._ask(unit, options)
        if answer is None:
            return _Outcome(unit, error=self._obituary())
        head, code = answer
        if isinstance(facts := head.get("error"), dict):
            return _Outcome(unit, error=CompileError(**facts))
        return _Outcome(unit, code, float(str(head["seconds"])))

    def close(self) -> None:
        """End the worker."""
        self._end()
        self._messages.close()

    def _ask(self, unit: Unit, options: CodegenOptions) -> tuple[dict[str, object], bytes] | None:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("a worker without pipes")
        try:
            write_message(self._process.stdin, asdict(options), unit.ir_text.encode())
        except OSError:  # it died while reading
            return None
        return read_message(self._process.stdout)

    def _obituary(self) -> CompileError:
        """Why the worker died, from its exit status and the end of what it printed."""
        status = self._end()
        self._messages.seek(0, os.SEEK_END)
        self._messages.seek(max(0, self._messages.tell() - _STDERR_TAIL_BYTES))
        tail = self._messages.read().decode(errors="replace").strip()
        ending = f"signal {-status}" if status < 0 else f"status {status}"
        return CompileError("LLVM ended its process while compiling", found=f"{ending}; {tail or 'no message'}")

    def _end(self) -> int:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(OSError):  # unsent bytes of a unit that a dead worker will not read
                    pipe.close()
        return self._process.wait()


def _raise_failures(outcomes: Sequence[_Outcome]) -> None:
    failures = [(outcome.unit.name, outcome.error) for outcome in outcomes if outcome.error is not None]
    if not failures:
        return
    if len(failures) == 1:
        name, error = failures[0]
        raise CompileError(
            error.message, where=name, expected=error.expected, found=error.found, hint=error.hint
        ) from error
    listing = "; ".join(
        f"{name}: {error.message}" + (f" ({error.found})" if error.found else "") for name, error in failures
    )
    raise CompileError(f"{len(failures)} units cannot be compiled", where=failures[0][0], found=listing)


def _statistics(unit: Unit, outcome: _Outcome) -> UnitStatistics:
    source = outcome.source if outcome.unit is unit else "duplicate"
    seconds = outcome.seconds if outcome.unit is unit else 0.0
    return UnitStatistics(unit.name, source, seconds, len(outcome.code))
