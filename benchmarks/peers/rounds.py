"""Turns: workers that run one after the other, round by round, and what their times say of each other.

Takes workers and seconds; gives samples by runner and the statistics of their ratios. Invariant: a ratio compares two
samples of one round; its interval comes from a seeded bootstrap over rounds, so that a report can be made again.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from benchmarks.peers.case import Case

ROOT: Final = Path(__file__).parents[2]
_SAMPLE_SECONDS: Final = 4e-3
_REST_SECONDS: Final = 0.05  # onnxruntime's spin a million times, OpenMP's for some milliseconds
_LEAST_ROUNDS: Final = 15
_MOST_ROUNDS: Final = 400
_RESAMPLES: Final = 2000


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median over rounds of peer / Tessera, with its 95 % interval: above 1, Tessera is faster."""

    median: float
    low: float
    high: float


class Child:
    """A process of `program`, a module beside this one that answers requests; a context manager that ends it."""

    def __init__(self, program: str, runner: str, case: Case) -> None:
        names = [runner, case.name, str(case.folder), str(case.threads)]
        threads = {name: str(case.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.peers.{program}", *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env={**os.environ, **threads},
        )

    def ask(self, do: str, **details: object) -> dict[str, object]:
        """One request; a worker that died answers with an error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **details}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        return json.loads(line) if line else {"error": f"the process died with {self._process.wait()}"}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def take_turns(
    samplers: Mapping[str, Callable[[int], float]], seconds: float, beside: Callable[[], float], threads: int = 1
) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds per run of each, one sample a round; and what `beside` measured in the same rounds.

    Between two turns of several threads there is a rest, until threads that spin while they wait for work sleep.
    """
    runs = {name: max(1, min(200, int(_SAMPLE_SECONDS / max(sample(1), 1e-9)))) for name, sample in samplers.items()}
    samples: dict[str, list[float]] = {name: [] for name in samplers}
    ceilings: list[float] = []
    end = time.perf_counter() + seconds
    while len(ceilings) < _LEAST_ROUNDS or (time.perf_counter() < end and len(ceilings) < _MOST_ROUNDS):
        ceilings.append(beside())
        for name, sample in samplers.items():
            samples[name].append(sample(runs[name]))
            if threads > 1:
                time.sleep(_REST_SECONDS)
    return samples, ceilings


def ratio(peer: Sequence[float], own: Sequence[float]) -> Ratio:
    """The median of the rounds' ratios, and the percentiles 2.5 and 97.5 of medians of resampled rounds."""
    found = np.asarray([a / b for a, b in zip(peer, own, strict=True)])
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(found, (_RESAMPLES, found.size)), axis=1)
    low, high = np.percentile(medians, (2.5, 97.5))
    return Ratio(float(np.median(found)), float(low), float(high))


def best_peer(samples: Mapping[str, Sequence[float]]) -> str | None:
    """The peer with the smallest median, if there is one."""
    medians = {name: statistics.median(found) for name, found in samples.items() if name != "tessera"}
    return min(medians, key=lambda name: medians[name], default=None)
