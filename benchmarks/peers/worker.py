"""A process with one runner in it, loaded from its artifact.

Takes requests of `requests`: {"do": "load" | "answers" | "sample", ...}. Invariant: what builds artifacts is not
imported, so that start-up and memory are the runner's.
"""

from __future__ import annotations

import gc
import importlib
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.peers.case import Case
from benchmarks.peers.limits import LIMITS
from benchmarks.peers.requests import Answer, Request, serve
from benchmarks.peers.runners import RUNNERS, Run

_KIB = 1024
_CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
_RUNNERS = {**RUNNERS, **LIMITS}


class Worker:
    """One runner and one case."""

    def __init__(self, runner: str, case: Case) -> None:
        self._runner = _RUNNERS[runner]
        self._case = case
        self._run: Run = list

    def load(self, request: Request) -> Answer:
        """Seconds to import, to load and to the first result, and the peak of resident memory in MB after it."""
        start = time.perf_counter()
        importlib.import_module(self._runner.module)
        imported = time.perf_counter()
        self._run = self._runner.load(self._case, Path(str(request["artifact"])))
        loaded = time.perf_counter()
        self._run()
        first = time.perf_counter()
        gc.collect()
        gc.disable()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB
        times = {"import": imported - start, "load": loaded - imported, "first": first - loaded}
        return {**times, "peak_mb": peak}

    def answers(self, request: Request) -> Answer:
        """Write what the model answers, for the parent to compare."""
        with Path(str(request["path"])).open("wb") as file:
            np.savez(file, *[np.asarray(value) for value in self._run()])
        return {}

    def sample(self, request: Request) -> Answer:
        """Seconds of a run by `clock`: the mean over `runs`, after one that warms the caches again."""
        runs, clock = int(str(request["runs"])), _CLOCKS[str(request["clock"])]
        self._run()
        start = clock()
        for _ in range(runs):
            self._run()
        return {"seconds": (clock() - start) / runs}


def main() -> None:
    """Answer requests until the input ends."""

    def made(runner: str, case: Case) -> dict[str, Callable[[Request], Answer]]:
        worker = Worker(runner, case)
        return {"load": worker.load, "answers": worker.answers, "sample": worker.sample}

    serve(made)


if __name__ == "__main__":
    main()
