"""How long a bundle takes, alone or beside onnxruntime.

Takes: a bundle, one of its entries, sizes of its dims, a number of threads and, to compare, the model.
Gives: `Bench`: times of single runs and the median of their ratios.
Invariant: the two are run in turns in one process, so that what else the machine does meets both; ratios count,
absolute times on a shared machine don't.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import tessera_runtime
from bundle_format.digest import Digest
from bundle_format.reader import open_bundle
from tessera_build.config import ConfigError
from tessera_build.driver.calls import Run, calls_of
from tessera_build.driver.opened import graph_of, variant_named
from tessera_build.driver.source import source_of
from tessera_build.ir.graph.nodes import Array
from tessera_build.verify.errors import VerificationError
from tessera_build.verify.inputs import Sizes
from tessera_build.verify.onnx_reference import OnnxReference

# A sample is at least this long: shorter ones measure the clock and the interpreter.
_SAMPLE_SECONDS: Final = 2e-3
_WARM_UP_RUNS: Final = 3
_LEAST_ROUNDS: Final = 5

# Gives as many runs as are asked for, to be made one after the other.
Runner = Callable[[int], Sequence[Run]]


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one run, over all rounds."""

    name: str
    median: float
    minimum: float


@dataclass(frozen=True, slots=True)
class Bench:
    """`ratio` is the peer's time over Tessera's, the median over the rounds: above 1, Tessera is faster."""

    target: str
    entry: str
    threads: int
    sizes: Sizes
    rounds: int
    times: tuple[Times, ...]
    ratio: float | None


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """What to measure. `model` is needed to compare with onnxruntime; None: look for it beside the bundle.

    `entry` None: the main one.
    """

    bundle: Path
    against: str | None = None
    model: Path | None = None
    threads: int | None = None
    dims: Mapping[str, int] | None = None
    seconds: float = 5.0
    entry: str | None = None


def bench(request: BenchRequest) -> Bench:
    """Measure a bundle on this machine."""
    with tessera_runtime.load(request.bundle, threads=request.threads) as model, open_bundle(request.bundle) as opened:
        variant = variant_named(opened, model.target)
        calls = calls_of(model, graph_of(opened, variant), request.entry, request.dims)
        runners: dict[str, Runner] = {"tessera": calls.runs}
        if request.against is not None:
            path = request.model or find_model(request.bundle, variant.config.sources.get("model"))
            runners[request.against] = _peer(path, model.threads, calls.feeds)
        samples = interleave(runners, request.seconds)
        rounds, times = len(samples["tessera"]), _times(samples)
        return Bench(model.target, calls.entry.name, model.threads, calls.sizes, rounds, times, _ratio(samples))


def _peer(path: Path, threads: int, inputs: Mapping[str, Array]) -> Runner:
    """The model's runs by onnxruntime, tried once."""
    model = source_of(path).for_onnxruntime()
    try:
        session = OnnxReference(model, threads)
        session.run(inputs)
    except VerificationError as error:
        raise ConfigError(
            "PEER_FAILED",
            "onnxruntime does not run this model on the bundle's inputs",
            where=str(path),
            found=error.found,
        ) from error
    return lambda count: [partial(session.run, inputs)] * count


def find_model(bundle: Path, digest: Digest | None) -> Path:
    """The ONNX file beside a bundle that has the digest of the model it was built from."""
    folder = bundle.absolute().parent
    for path in sorted(folder.glob("*.onnx")):
        if digest is not None and source_of(path).digest == digest:
            return path
    raise ConfigError(
        "MODEL_NEEDED",
        "onnxruntime needs the model that the bundle was built from, and it does not lie beside the bundle",
        where=str(folder),
        expected=f"an ONNX file with the digest {digest}",
        hint="name it: tessera bench model.tessera --against onnxruntime --model model.onnx",
    )


def interleave(runners: Mapping[str, Runner], seconds: float) -> dict[str, list[float]]:
    """Seconds of a single run of each, in rounds of one sample each, until the time is used."""
    repeats = {name: _repeats(run) for name, run in runners.items()}
    samples: dict[str, list[float]] = {name: [] for name in runners}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(samples.values()))) < _LEAST_ROUNDS:
        for name, run in runners.items():
            samples[name].append(_sample(run, repeats[name]))
    return samples


def _repeats(run: Runner) -> int:
    for call in run(_WARM_UP_RUNS):
        call()
    return max(1, int(_SAMPLE_SECONDS / max(_sample(run, 1), 1e-9)))


def _sample(run: Runner, repeats: int) -> float:
    calls = run(repeats)
    start = time.perf_counter()
    for call in calls:
        call()
    return (time.perf_counter() - start) / repeats


def _times(samples: Mapping[str, Sequence[float]]) -> tuple[Times, ...]:
    return tuple(Times(name, statistics.median(found), min(found)) for name, found in samples.items())


def _ratio(samples: Mapping[str, Sequence[float]]) -> float | None:
    own, *peers = samples.values()
    if not peers:
        return None
    return statistics.median(peer / mine for peer, mine in zip(peers[0], own, strict=True))
