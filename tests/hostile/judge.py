"""Judges what an attack with one seed comes to, each in a process of its own.

Takes an attack (a function of a seed and a folder) and seeds; gives one `Verdict` a seed: `worked`, `refused`, or what
is wrong. Invariant: time is the processor's, so that a busy machine makes no hangs, and memory is what one seed took:
the kernel accounts for both when the process of the seed ends, its own children included.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bundle_format.errors import TesseraError

SECONDS, BYTES = 10.0, 2 << 30
# Beyond what counts as too much, but before the machine's own memory is gone.
_ADDRESSES = 8 << 30
_KILLED_AFTER = 2 * SECONDS  # of processor time, so that a verdict can say more than that there was no end
_ASLEEP_AFTER = 20 * SECONDS  # of any time: what waits for nothing takes no processor time
# Exit codes by which Tessera says that the fault is its own: still a refusal, but one to look into.
OUR_OWN = (1, 5)
# Proofs that could not be made, where that says nothing of what was built: onnxruntime refuses the model, for one.
UNPROVED = (
    "ILL_CONDITIONED",
    "INPUTS_NOT_FOUND",
    "PROOF_TOO_LARGE",
    "PROOF_TOO_LONG",
    "REFERENCES_DISAGREE",
    "REFERENCE_FAILED",
    "TOO_MANY_STEPS",
)
Attack = Callable[[int, Path], None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one file; `seconds` are of the processor, `elapsed` of the wall clock.

    `blamed` is a refusal in which Tessera says that the fault is its own, as a proof that failed.
    """

    seed: int
    outcome: str
    reason: str = ""
    seconds: float = 0.0
    elapsed: float = 0.0
    mebibytes: int = 0


def judged(attack: Attack, seeds: Sequence[int], workers: int) -> Iterator[Verdict]:
    """Verdicts in the order in which they are reached, `workers` at a time."""
    waiting, running = list(reversed(seeds)), dict[int, _Case]()
    while waiting or running:
        while waiting and len(running) < workers:
            case = _Case(waiting.pop(), Path(tempfile.mkdtemp(prefix="hostile-")), time.monotonic())
            running[_started(attack, case)] = case
        for process, case in list(running.items()):
            found, status, usage = os.wait4(process, os.WNOHANG)
            if found:
                yield _verdict(running.pop(process), status, usage)
            elif case.elapsed() > _ASLEEP_AFTER:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process, signal.SIGKILL)
        time.sleep(0.005)


@dataclass(frozen=True, slots=True)
class _Case:
    """A seed under judgement: its process writes into `folder`, the files of the attack into a folder inside."""

    seed: int
    folder: Path
    start: float

    def elapsed(self) -> float:
        return time.monotonic() - self.start

    @property
    def report(self) -> Path:
        return self.folder / "report.json"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def files(self) -> Path:
        return self.folder / "files"


def _started(attack: Attack, case: _Case) -> int:
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        try:
            _confine(case)
            case.report.write_text(json.dumps(asdict(_outcome(attack, case))), encoding="utf-8")
        finally:
            os._exit(0)  # nothing of the parent's may run here
    return process


def _confine(case: _Case) -> None:
    """Limits of this process, which is one seed's."""
    os.setpgid(0, 0)
    with case.log.open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CPU, (int(_KILLED_AFTER), int(_KILLED_AFTER) + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Where it is when its time is over is what one wants to know.
    faulthandler.enable(sys.__stderr__ or 2)
    faulthandler.register(signal.SIGPROF, sys.__stderr__ or 2)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)


def _outcome(attack: Attack, case: _Case) -> Verdict:
    case.files.mkdir()
    escapes = _watched((str(case.files), "/dev/null", "/dev/shm", "/proc/self"))
    outcome, reason = "worked", ""
    os.environ["TMPDIR"] = tempfile.tempdir = str(case.files)
    try:
        attack(case.seed, case.files)
    except TesseraError as error:
        outcome, reason = "refused", error.code
        text = error.diagnostics()
        if error.exit_code in OUR_OWN and error.code not in UNPROVED:
            outcome, reason = "blamed", text[:1500]
        if error.code in ("INTERNAL", "CODE_CRASHED"):
            outcome, reason = "crash", _innermost(error.__cause__ or error)
    except BaseException as error:
        outcome, reason = "crash", _innermost(error)
    if escapes:
        outcome, reason = "escape", escapes[0]
    escapes.watching = False
    return Verdict(case.seed, outcome, reason)


def _innermost(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)[-3:])[-600:]


class _Escapes(list[str]):
    watching = True


def _watched(allowed: tuple[str, ...]) -> _Escapes:
    """From now on, whatever opens a file for writing elsewhere is in the list."""
    escapes = _Escapes()

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event != "open" or not escapes.watching:
            return
        path, mode, flags = arguments
        writes = (isinstance(mode, str) and any(c in mode for c in "wax+")) or (
            isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if writes and isinstance(path, str) and not path.startswith(allowed):
            escapes.append(path)

    sys.addaudithook(watch)
    return escapes


def _verdict(case: _Case, status: int, usage: resource.struct_rusage) -> Verdict:
    """What the process reported, unless how it ended or what it took says otherwise."""
    seconds, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
    tail = case.log.read_text(encoding="utf-8", errors="replace")[-1500:] if case.log.exists() else ""
    if case.report.exists() and status == 0:
        found = Verdict(**json.loads(case.report.read_text(encoding="utf-8")))
    else:
        outcome = "hang" if seconds > SECONDS or case.elapsed() > _ASLEEP_AFTER else "death"
        found = Verdict(case.seed, outcome, f"ended with {os.waitstatus_to_exitcode(status)}: {tail}")
    if seconds > SECONDS and found.outcome != "hang":
        found = replace(found, outcome="slow", reason=f"{found.outcome} {found.reason}: {tail}")
    if peak > BYTES:
        found = replace(found, outcome="large", reason=f"{found.outcome} {found.reason}")
    _remove(case.folder)
    return replace(found, seconds=seconds, elapsed=case.elapsed(), mebibytes=peak >> 20)


def _remove(folder: Path) -> None:
    """Whatever is in it; an attack may have taken away the right to read."""
    for inner, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(inner, name)
            if not path.is_symlink():
                path.chmod(0o700)
    shutil.rmtree(folder)
