"""Runs every CPU test of the onnx package's backend suite through `TesseraBackend`, each with a verdict.

Takes names (all by default); gives `right`, `refused` (a TesseraError), `wrong` (another answer) or `crash` (anything
else, or a process that died) for each. Invariant: tests run in child processes, so that a crash costs one verdict, not
the run. Also a command: `python -m tests.onnx_backend.suite [part of a name ...]`.
"""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import unittest
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from onnx.backend.test.runner import Runner

from bundle_format.errors import TesseraError
from tessera_build.onnx_backend import TesseraBackend
from tests.onnx_backend.drawn import DRAWN, judge_draws

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one test and, unless it was right, why."""

    name: str
    outcome: str
    reason: str = ""
    seconds: float = 0.0


def collect() -> dict[str, Callable[[], None]]:
    """Every test for the CPU by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = Runner(TesseraBackend, __name__).test_cases
    found: dict[str, Callable[[], None]] = {}
    for case in cases.values():
        for name in dir(case):
            if name.startswith("test_") and name.endswith("_cpu"):
                found[name] = lambda c=case, n=name: getattr(c(n), n)()
    # Their expected values are one generator's; the stock runner would have them bit for bit.
    found |= {name: lambda n=name: judge_draws(n) for name in DRAWN & found.keys()}
    return found


def judge(name: str, test: Callable[[], None]) -> Verdict:
    """Run one test here."""
    start = time.perf_counter()
    outcome, reason = "right", ""
    try:
        test()
    except unittest.SkipTest as skipped:
        outcome, reason = "skipped", str(skipped)
    except TypeError as error:
        # The runner asks for the length of every result, which an array without axes does not have.
        outcome = "skipped" if "Unable to compare" in str(error) else "crash"
        reason = str(error)
    except AssertionError as error:
        outcome, reason = "wrong", str(error)
    except TesseraError as error:
        outcome = "crash" if error.code == "INTERNAL" else "refused"
        reason = error.diagnostics() if hasattr(error, "diagnostics") else str(error)
        if error.__cause__ is not None and outcome == "crash":
            reason += "".join(traceback.format_exception(error.__cause__)[-3:])
    except Exception as error:
        outcome, reason = "crash", "".join(traceback.format_exception(error)[-4:])
    return Verdict(name, outcome, reason, time.perf_counter() - start)


def run(names: Sequence[str], workers: int = 2) -> list[Verdict]:
    """Judge tests in `workers` child processes; one that dies is started again after the test that it died in."""
    with tempfile.TemporaryDirectory() as folder:
        parts = [list(names[i::workers]) for i in range(workers)]
        children = [_Child(part, Path(folder, str(i))) for i, part in enumerate(parts)]
        while any(not child.finished() for child in children):
            time.sleep(0.05)
        return [verdict for child in children for verdict in child.verdicts]


class _Child:
    """One process that judges a list of names; its verdicts come as lines of a file."""

    def __init__(self, names: list[str], base: Path) -> None:
        base.mkdir()
        self._names, self._base, self._done = names, base, False
        self.verdicts: list[Verdict] = []
        self._start()

    def _start(self) -> None:
        done = {v.name for v in self.verdicts}
        self._left = [n for n in self._names if n not in done]
        self._report = self._base / f"{len(self.verdicts)}.jsonl"
        (self._base / "names").write_text("\n".join(self._left), encoding="utf-8")
        environment = {**os.environ, "ONNX_HOME": str(self._base / "onnx"), "TESSERA_CACHE": str(self._base / "cache")}
        command = [sys.executable, "-m", "tests.onnx_backend.suite", "--child", str(self._base / "names")]
        with (self._base / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, str(self._report)], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        self._changed = time.monotonic()
        self._lines = 0

    def finished(self) -> bool:
        """True when every name has its verdict."""
        if self._done:
            return True
        code = self._process.poll()
        lines = self._report.read_text(encoding="utf-8").splitlines() if self._report.exists() else []
        if len(lines) != self._lines:
            self._lines, self._changed = len(lines), time.monotonic()
        if code is None and time.monotonic() - self._changed > TIMEOUT_SECONDS:
            self._process.kill()
            code = self._process.wait()
        if code is None:
            return False
        self.verdicts += [Verdict(**json.loads(line)) for line in lines]
        if len(lines) < len(self._left):
            self.verdicts.append(Verdict(self._left[len(lines)], "crash", f"the process ended with {code}"))
            self._start()
        else:
            self._done = True
        return self._done


def _child(names: Path, report: Path) -> None:
    tests = collect()
    with report.open("w", encoding="utf-8", buffering=1) as file:
        for name in names.read_text(encoding="utf-8").split():
            file.write(json.dumps(asdict(judge(name, tests[name]))) + "\n")


def _main(patterns: Iterable[str]) -> None:
    wanted = list(patterns)
    names = [n for n in sorted(collect()) if not wanted or any(p in n for p in wanted)]
    start = time.monotonic()
    verdicts = run(names, 1 if len(names) < 40 else 2)
    for verdict in verdicts:
        if verdict.outcome != "right":
            print(f"{verdict.outcome} {verdict.name}: {verdict.reason[:1000]}")
    print(collections.Counter(v.outcome for v in verdicts), f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        _main(sys.argv[1:])
