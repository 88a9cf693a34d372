"""Feeds hostile files to the build or to the runtime, and says what came of each.

Takes a kind (`onnx` or `bundle`) and a range of seeds; gives one verdict a seed: `worked`, `refused`, or what is wrong.
Invariant: files are read in child processes that a parent watches for time, memory, writes outside their folder and
death. Also a command: `python -m tests.hostile.attack onnx 0 10000`.
"""

from __future__ import annotations

import collections
import faulthandler
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import tessera_runtime
from bundle_format.errors import TesseraError
from tessera_build.driver.build import build
from tessera_build.ir.core.types import DTYPES
from tests.hostile import bundles, models

ROOT = Path(__file__).parents[2]
SECONDS, BYTES = 10.0, 2 << 30
# Beyond what counts as too much, but before the machine's own memory is gone.
_ADDRESSES = 8 << 30
_LARGEST_RUN = 1 << 24  # elements of an input that is worth a run


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one file."""

    seed: int
    outcome: str
    reason: str = ""
    seconds: float = 0.0


def attack_model(seed: int, folder: Path) -> None:
    """Build a hostile model and, if there is a bundle, run it once."""
    path = models.mutated(seed, folder)
    out = folder / "out.tessera"
    build(path, ["x86-64-v3"], out, verify=seed % 8 == 0, workers=1, cache=folder / "cache")
    _run(out)


def attack_bundle(seed: int, folder: Path) -> None:
    """Load a hostile bundle and run it once."""
    _run(bundles.mutated(Path(os.environ["SOUND_BUNDLE"]), seed, folder))


def _run(path: Path) -> None:
    with tessera_runtime.load(path, threads=1) as model:
        feeds: dict[str, np.ndarray] = {}
        for spec in model.inputs:
            shape = tuple(e if isinstance(e, int) else 2 for e in spec.shape)
            if int(np.prod(np.array(shape, dtype=object), initial=1)) > _LARGEST_RUN:
                return
            feeds[spec.name] = np.ones(shape, DTYPES[spec.dtype].numpy)
        model.run(feeds)


ATTACKS: dict[str, Callable[[int, Path], None]] = {"onnx": attack_model, "bundle": attack_bundle}


def judge(attack: Callable[[int, Path], None], seed: int) -> Verdict:
    """One file, here."""
    start = time.monotonic()
    outcome, reason = "worked", ""
    with tempfile.TemporaryDirectory() as name:
        _ALLOWED[:] = [name, "/dev/null", "/dev/shm", "/proc/self"]
        try:
            attack(seed, Path(name))
        except TesseraError as error:
            outcome, reason = "refused", error.code
            error.diagnostics()
            if error.code in ("INTERNAL", "CODE_CRASHED"):
                outcome, reason = "crash", _innermost(error.__cause__ or error)
        except BaseException as error:
            outcome, reason = "crash", _innermost(error)
        _ALLOWED.clear()
        for folder, _, files in os.walk(name):
            for file in files:
                if not Path(folder, file).is_symlink():
                    Path(folder, file).chmod(0o600)
    seconds = time.monotonic() - start
    if seconds > SECONDS:
        outcome, reason = "slow", f"{outcome} {reason} after {seconds:.0f} s"
    if _ESCAPES:
        outcome, reason = "escape", _ESCAPES.pop()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if peak > BYTES:
        outcome, reason = "large", f"{outcome} {reason}, {peak >> 20} MiB"
    return Verdict(seed, outcome, reason, seconds)


def _innermost(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)[-3:])[-600:]


_ALLOWED: list[str] = []
_ESCAPES: list[str] = []


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook: whatever opens a file for writing outside the case's folder is an escape."""
    if event != "open" or not _ALLOWED:
        return
    path, mode, flags = arguments
    writes = (isinstance(mode, str) and any(c in mode for c in "wax+")) or (
        isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    )
    if writes and isinstance(path, str) and not path.startswith(tuple(_ALLOWED)):
        _ESCAPES.append(path)


def _serve(kind: str, first: int, last: int, step: int, report: Path) -> None:
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
    models.sources()  # its import computes for seconds
    sys.addaudithook(_watch)
    with report.open("a", encoding="utf-8", buffering=1) as file:
        for seed in range(first, last, step):
            faulthandler.dump_traceback_later(3 * SECONDS, exit=True)
            verdict = judge(ATTACKS[kind], seed)
            file.write(json.dumps(asdict(verdict)) + "\n")
            if verdict.outcome == "large":  # the peak of a process never falls: go on in a new one
                return


def run(kind: str, first: int, last: int, workers: int = 2) -> list[Verdict]:
    """Attack with all seeds in child processes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = dict(os.environ)
        if kind == "bundle":
            sound = folder / "sound"
            sound.mkdir()
            build(ROOT / "examples/digits/digits.onnx", ["x86-64-v3"], folder / "s.tessera", verify=False)
            tessera_runtime.load(folder / "s.tessera").close()
            _unpack(folder / "s.tessera", sound)
            environment["SOUND_BUNDLE"] = str(sound)
        children = [
            _Child(kind, (first + i, last, workers), folder / f"{i}.jsonl", environment) for i in range(workers)
        ]
        while any(not child.finished() for child in children):
            time.sleep(0.05)
        return [verdict for child in children for verdict in child.verdicts()]


def _unpack(bundle: Path, folder: Path) -> None:
    with tarfile.open(bundle) as tar:
        tar.extractall(folder, filter="data")


class _Child:
    """One process over every n-th seed; started again behind a seed that killed or stopped it."""

    def __init__(self, kind: str, seeds: tuple[int, int, int], report: Path, environment: dict[str, str]) -> None:
        self._kind, self._environment, self._report = kind, environment, report
        self._next, self._last, self._step = seeds
        self._start()

    def _start(self) -> None:
        words = [self._kind, str(self._next), str(self._last), str(self._step), str(self._report)]
        self._log = self._report.with_suffix(".log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.hostile.attack", "--child", *words],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        self._seen, self._changed = len(self.verdicts()), time.monotonic()

    def verdicts(self) -> list[Verdict]:
        """All so far."""
        if not self._report.exists():
            return []
        return [Verdict(**json.loads(line)) for line in self._report.read_text(encoding="utf-8").splitlines()]

    def finished(self) -> bool:
        """True when every seed has its verdict."""
        code = self._process.poll()
        found = self.verdicts()
        if len(found) != self._seen:
            self._seen, self._changed = len(found), time.monotonic()
        late = time.monotonic() - self._changed > 6 * SECONDS
        if code is None and not late:
            return False
        if late:
            self._process.kill()
            code = self._process.wait()
        seed = found[-1].seed + self._step if found else self._next
        if found and found[-1].seed < self._next - self._step:
            seed = self._next
        if code == 0:
            if seed >= self._last:
                return True
        else:
            tail = self._log.read_text(encoding="utf-8", errors="replace")[-1500:]
            verdict = Verdict(seed, "hang" if late else "death", f"the process ended with {code}: {tail}")
            with self._report.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(verdict)) + "\n")
            seed += self._step
        self._next = seed
        self._start()
        return False


def bad(verdicts: list[Verdict]) -> list[Verdict]:
    """Those that are neither an answer nor a refusal."""
    return [v for v in verdicts if v.outcome not in ("worked", "refused")]


def _main(kind: str, first: str, last: str) -> None:
    start = time.monotonic()
    verdicts = run(kind, int(first), int(last))
    for verdict in bad(verdicts):
        print(f"{verdict.seed} {verdict.outcome} {verdict.seconds:.1f} s: {verdict.reason}")
    print(collections.Counter(v.outcome for v in verdicts), f"{time.monotonic() - start:.0f} s")
    print(collections.Counter(v.reason for v in verdicts if v.outcome == "refused").most_common(20))


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        _serve(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), Path(sys.argv[6]))
    else:
        _main(*sys.argv[1:4])
