"""What two threads gain, beside what two independent multiply-add loops gain on the same cores in the same rounds.

    python -m benchmarks.scaling MODEL.tessera... [--threads 2] [--seconds 20]

Prints, for each bundle, the time on one thread over the time on all (median of the rounds' ratios), the same for the
loops, and the share of the second that the first reaches. Two cores of one processor may share what a loop needs, so
the loops and not the number of threads are what a model is held to. Of the loops, too, the time is that from the first
one's start to the last one's end: where a scheduler gives both threads one core, each of them runs as fast as alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tessera_runtime
from bundle_format.reader import open_bundle
from tessera_build.backends.llvm.variant import codegen_options
from tessera_build.config import load_target
from tessera_build.driver.machine import machine_of, options_of
from tessera_build.driver.opened import graph_of, requested_sizes, variant_named
from tessera_build.driver.roofline import peak_gflops
from tessera_build.verify.check import FIRST_SEED
from tessera_build.verify.inputs import accepted_inputs

_SAMPLE_SECONDS = 5e-3
_LOOP_REPEATS = 8


def _seconds(run: Callable[[], object], repeats: int) -> float:
    run()  # after the other's turn the caches are cold
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def _repeats(run: Callable[[], object]) -> int:
    _seconds(run, 1)
    return max(1, int(_SAMPLE_SECONDS / _seconds(run, 1)))


class Loops:
    """Multiply-adds on one core, or on several at once."""

    def __init__(self, threads: int) -> None:
        config = load_target("native")
        lanes, options = machine_of(config).lanes, codegen_options(options_of(config, ()))
        self._loops = [peak_gflops(lanes, options) for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads)

    def gain(self) -> float:
        """Time of one loop alone, as often as there are threads, over the time of all loops at once."""
        alone = _timed(lambda: _repeat(self._loops[0]))
        together = _timed(lambda: list(self._pool.map(_repeat, self._loops)))
        return len(self._loops) * alone / together


def _repeat(loop: Callable[[], object]) -> None:
    """Some milliseconds, beside which it matters little that threads start one after the other."""
    for _ in range(_LOOP_REPEATS):
        loop()


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(path: Path, threads: int, seconds: float) -> tuple[float, float, float]:
    """(gain of the model, gain of the loops, share): medians over the rounds."""
    with (
        open_bundle(path) as opened,
        tessera_runtime.load(path, threads=1) as one,
        tessera_runtime.load(path, threads=threads) as all_,
    ):
        module = graph_of(opened, variant_named(opened, one.target))
        feeds = accepted_inputs(module, one.main.name, requested_sizes(module, {}), FIRST_SEED, one.run)
        runs = [lambda: one.run(feeds), lambda: all_.run(feeds)]
        repeats, loops = [_repeats(run) for run in runs], Loops(threads)
        gains: list[float] = []
        ceilings: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(gains) < 15:
            ceilings.append(loops.gain())
            alone, together = (_seconds(run, n) for run, n in zip(runs, repeats, strict=True))
            gains.append(alone / together)
    shares = [gain / ceiling for gain, ceiling in zip(gains, ceilings, strict=True)]
    return statistics.median(gains), statistics.median(ceilings), statistics.median(shares)


def main() -> None:
    """Measure every bundle and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    print(f"{'bundle':<40}{'gain':>8}{'loops':>8}{'share':>8}")
    for path in arguments.bundles:
        gain, ceiling, share = measure(path, arguments.threads, arguments.seconds)
        print(f"{path.name:<40}{gain:>8.2f}{ceiling:>8.2f}{share:>8.1%}", flush=True)


if __name__ == "__main__":
    main()
