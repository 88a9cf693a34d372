"""Does a process that serves for long stay as it was: the same answers, the same memory, nothing left open?

    python -m benchmarks.soak MODEL.tessera --runs 1000000 --threads 8 --cycles 1000 --requests 20000

Takes: a bundle; every symbolic dim of its main entry is varied. Gives: figures for runs from many threads, for loading
and closing again and again, and for a server with two workers; the exit code is 1 when an answer or memory changed.
Invariant: every answer is compared, byte by byte, with the one that a single thread got before.
"""

from __future__ import annotations

import argparse
import gc
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np

import tessera_runtime
from tessera_runtime.arrays import Array
from tessera_runtime.entry import EntryPoint
from tessera_runtime.serve.datatypes import datatype_name

WARM_RUNS = 1000
# Pages that the allocator touches late: each thread has an arena of its own.
GROWTH_BYTES = 4 << 20
GROWTH_MAPPINGS = 32
ROOT = Path(__file__).parents[1]

Feeds = dict[str, Array]


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds of the system."""

    resident_bytes: int
    descriptors: int
    threads: int
    mappings: int


@dataclass(frozen=True, slots=True)
class Soak:
    """What happened. `wrong` counts answers that differed; before and after are the process's own figures."""

    what: str
    count: int
    seconds: float
    wrong: int
    before: Held
    after: Held

    @property
    def sound(self) -> bool:
        """Whether nothing changed that should not."""
        same = (self.before.descriptors, self.before.threads) == (self.after.descriptors, self.after.threads)
        grown = self.after.resident_bytes - self.before.resident_bytes
        more = self.after.mappings - self.before.mappings
        return not self.wrong and same and grown <= GROWTH_BYTES and more <= GROWTH_MAPPINGS


def held(pid: int | str = "self") -> Held:
    """What a process holds now."""
    folder = Path("/proc") / str(pid)
    resident = int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    threads, descriptors = len(list((folder / "task").iterdir())), len(list((folder / "fd").iterdir()))
    return Held(resident, descriptors, threads, (folder / "maps").read_text().count("\n"))


def varied_feeds(entry: EntryPoint, count: int = 12) -> list[Feeds]:
    """Inputs of `count` sizes, small random numbers; integers are 0 or 1, which are indices of almost anything."""
    random, found = np.random.default_rng(0), list[Feeds]()
    for number in range(count):
        sizes = {
            dim.name: min(max(dim.min, 1 + number % 7), dim.max if dim.max is not None else 1 << 30)
            for dim in entry.dims
        }
        feeds: Feeds = {}
        for spec in entry.inputs:
            shape = [extent if isinstance(extent, int) else sizes[extent] for extent in spec.shape]
            floats = spec.dtype in ("f64", "f32", "f16")
            values = random.standard_normal(shape) if floats else random.integers(0, 2, shape)
            feeds[spec.name] = values.astype(spec.numpy)
        found.append(feeds)
    return found


def answer_bytes(results: dict[str, Array]) -> bytes:
    """All outputs, one after another."""
    return b"".join(array.tobytes() for array in results.values())


def soak_runs(path: Path, runs: int, threads: int) -> Soak:
    """Run a dynamic model from many threads; memory is compared from the first thousand runs on."""
    with tessera_runtime.load(path, threads=2) as model:
        feeds = varied_feeds(model.main)
        expected = [answer_bytes(model.run(each)) for each in feeds]
        wrong, gate = [0] * threads, threading.Barrier(threads + 1)

        def work(index: int) -> None:
            for phase in (WARM_RUNS // threads, (runs - WARM_RUNS) // threads):
                for number in range(index, index + phase):
                    place = number % len(feeds)
                    wrong[index] += answer_bytes(model.run(feeds[place])) != expected[place]
                gate.wait()  # all threads are between two runs
                gate.wait()

        workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
        for worker in workers:
            worker.start()
        gate.wait()
        before, began = held(), time.monotonic()
        gate.wait()
        gate.wait()
        after, seconds = held(), time.monotonic() - began
        gate.wait()
        for worker in workers:
            worker.join()
    return Soak(f"runs over {threads} threads", runs, seconds, sum(wrong), before, after)


def soak_cycles(path: Path, cycles: int) -> Soak:
    """Load, run and close again and again; the first tenth of the cycles is not counted."""
    wrong, expected, before, began = 0, b"", held(), time.monotonic()
    for cycle in range(cycles + cycles // 10):
        if cycle == cycles // 10:
            gc.collect()
            before, began = held(), time.monotonic()
        with tessera_runtime.load(path, threads=2) as model:
            found = answer_bytes(model.run(varied_feeds(model.main, 1)[0], timeout=600))
        expected = expected or found
        wrong += found != expected
    seconds = time.monotonic() - began
    gc.collect()
    return Soak("load and close", cycles, seconds, wrong, before, held())


def soak_server(path: Path, requests: int, clients: int = 8) -> list[Soak]:
    """A server with two workers, asked from many connections; one report for each worker."""
    command = [sys.executable, "-m", "tessera_runtime.serve", str(path), "--port", "0", "--workers", "2", "--name", "m"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as server:
        port, workers = _ready(server)
        drain = threading.Thread(target=lambda: cast("object", server.stderr and server.stderr.read()))
        drain.start()
        with tessera_runtime.load(path, threads=1) as model:
            asked = [(_body(model.main, each), answer_bytes(model.run(each))) for each in varied_feeds(model.main)]
        _ask(port, asked, WARM_RUNS, clients)
        time.sleep(0.5)  # the threads of closed connections end
        before, began = [held(worker) for worker in workers], time.monotonic()
        wrong = _ask(port, asked, requests, clients)
        seconds = time.monotonic() - began
        time.sleep(0.5)
        after = [held(worker) for worker in workers]
        server.send_signal(signal.SIGTERM)
        wrong += server.wait(60) != 0
        drain.join()
    return [
        Soak(f"requests to worker {index} of 2", requests, seconds, wrong, *both)
        for index, both in enumerate(zip(before, after, strict=True))
    ]


def _ready(server: subprocess.Popen[str]) -> tuple[int, list[int]]:
    port, workers = 0, list[int]()
    while len(workers) < 2:
        facts = json.loads(server.stderr.readline() if server.stderr else "")
        port = facts["port"] if facts["event"] == "listening" else port
        workers += [facts["pid"]] if facts["event"] == "ready" else []
    return port, workers


def _body(entry: EntryPoint, feeds: Feeds) -> tuple[bytes, int]:
    """A request with its tensors as bytes, and how much of it is JSON."""
    tensors = [
        {
            "name": spec.name,
            "datatype": datatype_name(spec.dtype),
            "shape": list(feeds[spec.name].shape),
            "parameters": {"binary_data_size": feeds[spec.name].nbytes},
        }
        for spec in entry.inputs
    ]
    head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    return head + answer_bytes({spec.name: feeds[spec.name] for spec in entry.inputs}), len(head)


def _ask(port: int, asked: Sequence[tuple[tuple[bytes, int], bytes]], requests: int, clients: int) -> int:
    """Send requests over connections that are kept; the number of wrong answers."""
    wrong = [0] * clients

    def client(index: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for number in range(index, index + requests // clients):
            (body, size), expected = asked[number % len(asked)]
            headers = {"Inference-Header-Content-Length": str(size)}
            connection.request("POST", "/v2/models/m/infer", body, headers)
            response = connection.getresponse()
            answer, length = response.read(), response.getheader("Inference-Header-Content-Length")
            wrong[index] += response.status != 200 or answer[int(length or 0) :] != expected
        connection.close()

    threads = [threading.Thread(target=client, args=(index,)) for index in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(wrong)


def main(words: Sequence[str] | None = None) -> int:
    """Soak one bundle and print what was found."""
    parser = argparse.ArgumentParser(description="Serve for long and look for changes.")
    parser.add_argument("bundle", type=Path)
    for name, count in (("runs", 1_000_000), ("threads", 8), ("cycles", 1000), ("requests", 20_000)):
        parser.add_argument(f"--{name}", type=int, default=count)
    chosen = parser.parse_args(words)
    reports = [
        soak_runs(chosen.bundle, chosen.runs, chosen.threads),
        soak_cycles(chosen.bundle, chosen.cycles),
        *soak_server(chosen.bundle.absolute(), chosen.requests),
    ]
    for report in reports:
        print(f"{report.what}: {report.count} in {report.seconds:.1f} s, {report.wrong} wrong")
        print(f"  before {asdict(report.before)}\n  after  {asdict(report.after)}")
        print("  sound" if report.sound else "  CHANGED")
    return 0 if all(report.sound for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
