"""A process with one runner in it, told by its standard input what to do and when.

Takes lines of JSON: {"do": "build" | "load" | "sample" | "answers", ...}; gives one line of JSON for each.
Invariant: it does nothing between two requests, so that only one worker of a group is ever busy.
"""

from __future__ import annotations

import gc
import importlib
import json
import mmap
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.peers.limits import LIMITS
from benchmarks.peers.runners import RUNNERS, Case, Run, Runner

_KIB = 1024
_CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
_RUNNERS = {**RUNNERS, **LIMITS}


def _read_again(path: Path) -> None:
    """Have the system hold a file as it holds one that was installed: read from the disk.

    Of one that was just written, memory that is in use for long gives small pages: 77 of GPT-2's 488 MB could be mapped
    in huge ones, after reading it 598 of 640; a token took 22.3 ms in the first state, and 19.4 all in huge pages.
    """
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            mapped.madvise(mmap.MADV_HUGEPAGE)
            for start in range(0, len(mapped), mmap.PAGESIZE):
                _ = mapped[start]


class Worker:
    """One runner and one case."""

    def __init__(self, runner: str, case: Case) -> None:
        self._runner: Runner = _RUNNERS[runner]()
        self._case = case
        self._run: Run = list

    def build(self, _request: dict[str, object]) -> dict[str, object]:
        """Seconds and bytes of the artifact."""
        start = time.perf_counter()
        path = self._runner.build(self._case)
        seconds = time.perf_counter() - start
        _read_again(path)
        return {"seconds": seconds, "bytes": path.stat().st_size, "artifact": str(path)}

    def load(self, request: dict[str, object]) -> dict[str, object]:
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

    def answers(self, request: dict[str, object]) -> dict[str, object]:
        """Write what the model answers, for the parent to compare."""
        with Path(str(request["path"])).open("wb") as file:
            np.savez(file, *[np.asarray(value) for value in self._run()])
        return {}

    def sample(self, request: dict[str, object]) -> dict[str, object]:
        """Seconds of a run by `clock`: the mean over `runs`, after one that warms the caches again."""
        runs, clock = int(str(request["runs"])), _CLOCKS[str(request["clock"])]
        self._run()
        start = clock()
        for _ in range(runs):
            self._run()
        return {"seconds": (clock() - start) / runs}


def main() -> None:
    """Answer requests until the input ends; an exception is an answer, too."""
    runner, name, folder, threads = sys.argv[1:5]
    # Libraries print to standard output; the answers go to where it was.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker(runner, Case(name, Path(folder), int(threads)))
    doings = {"build": worker.build, "load": worker.load, "answers": worker.answers, "sample": worker.sample}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = doings[request["do"]](request)
        except Exception as error:  # a peer may fail in any way; its row then says how
            answer = {"error": f"{type(error).__name__}: {error}".partition("\n")[0][:300]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
