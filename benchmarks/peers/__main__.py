"""`python -m benchmarks.peers`: build, load, compare and time every model with every peer that is installed."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

import benchmarks.peers
from benchmarks.peers.case import Case
from benchmarks.peers.goals import BATCHED, GOALS, SETS, STREAMED, share_of_memory, standing
from benchmarks.peers.html import page
from benchmarks.peers.limits import LIMITS
from benchmarks.peers.record import CaseRecord, Report, RunnerRecord
from benchmarks.peers.reference import unoptimised
from benchmarks.peers.rounds import Child, best_peer, ratio, take_turns
from benchmarks.peers.runners import RUNNERS
from benchmarks.peers.traffic import least_bytes
from tessera_build.backends.llvm.variant import codegen_options
from tessera_build.config import load_target
from tessera_build.driver.machine import machine_of, options_of
from tessera_build.driver.profile import ProfileRequest, profile
from tessera_build.driver.roofline import measure_roofline, memory_gbps, peak_gflops
from tessera_build.ir.graph.nodes import Array

_CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


@dataclasses.dataclass(frozen=True, slots=True)
class _Settings:
    """What holds for every case; `peak` measures multiply-adds a second, in GFLOP/s, `memory` bytes read, in GB/s."""

    runners: list[str]
    seconds: float
    reuse: bool
    clock: str
    peak: Callable[[], float]
    memory: Callable[[], float]


def main() -> None:
    """Measure what the arguments name; write the report after every model, so that nothing is lost."""
    arguments = _arguments()
    folder = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-arguments.threads :])
    names = _models(_wanted(arguments), folder)
    runners = [name for name in arguments.runners.split(",") if _installed(name)]
    config = load_target("native")
    machine, options = machine_of(config), codegen_options(options_of(config, ()))
    report = Report(arguments.threads, measure_roofline(machine, options), [])
    peak = peak_gflops(machine.lanes, options, _CLOCKS[arguments.clock])
    memory = memory_gbps(machine.lanes, options, arguments.threads)
    settings = _Settings(runners, arguments.seconds, arguments.reuse, arguments.clock, peak, memory)
    for name in names:
        record = _measure(Case(name, folder, arguments.threads), settings)
        report.cases.append(record)
        print(record.line(), flush=True)
        (folder / "peers.json").write_text(json.dumps(dataclasses.asdict(report), indent=1))
        (folder / "peers.html").write_text(page(report))
    print(f"geometric mean of ratios to the best peer: {report.geometric_mean():.3f}")
    print(f"written {folder / 'peers.json'} and {folder / 'peers.html'}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=benchmarks.peers.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--set", choices=tuple(SETS), default="models", help="of recipes; default models")
    parser.add_argument("--models", help="names of recipes or ONNX files, in place of a set")
    parser.add_argument("--runners", default=",".join(RUNNERS), help="default: all that are installed")
    parser.add_argument("--threads", type=int, default=1, help="of each runner, inside its operators; default 1")
    parser.add_argument("--batch", type=int, default=1, help=f"of recipes; without --models those of {BATCHED}")
    parser.add_argument("--clock", choices=tuple(_CLOCKS), default="wall", help="processor: where others are busy")
    parser.add_argument("--seconds", type=float, default=30.0, help="of rounds, for each model")
    parser.add_argument("--reuse", action="store_true", help="do not build the peers' artifacts again")
    parser.add_argument("--out", type=Path, default=Path("peers"), help="folder for models, artifacts and the report")
    return parser.parse_args()


def _wanted(arguments: argparse.Namespace) -> list[str]:
    """Names of recipes or files; a batch is part of a recipe's name."""
    named = arguments.models.split(",") if arguments.models else []
    if arguments.batch == 1:
        return named or list(SETS[arguments.set])
    return [name if name.endswith(".onnx") else f"{name}_batch{arguments.batch}" for name in named or BATCHED]


def _models(names: list[str], folder: Path) -> list[str]:
    """Export recipes; copy files, whose inputs (NAME.npz) must lie beside them."""
    recipes = [name for name in names if not name.endswith(".onnx")]
    if recipes and not all((folder / f"{name}.onnx").exists() for name in recipes):
        if importlib.util.find_spec("torch") is None:
            sys.exit("recipes need PyTorch: pip install '.[bench]', or name ONNX files with a NAME.npz beside each")
        importlib.import_module("benchmarks.peers.export").export(recipes, folder)
    for path in (Path(name) for name in names if name.endswith(".onnx")):
        for suffix in (".onnx", ".npz"):
            (folder / path.with_suffix(suffix).name).write_bytes(path.with_suffix(suffix).read_bytes())
    return [Path(name).stem if name.endswith(".onnx") else name for name in names]


def _installed(name: str) -> bool:
    if importlib.util.find_spec(RUNNERS[name].module) is not None:
        return True
    print(f"{name}: not installed, left out")
    return False


def _measure(case: Case, settings: _Settings) -> CaseRecord:
    """One model: artifacts first, each by a process that ends; then all runners loaded, in turns."""
    goal = GOALS.get(case.name)
    limits = LIMITS if goal is not None and goal.kind == "limit" else ()
    records = {name: _built(name, case, settings.reuse) for name in (*settings.runners, *limits)}
    expected = list(unoptimised(case.model, case.feeds()).values())
    with contextlib.ExitStack() as stack:
        children: dict[str, Child] = {}
        for name, record in records.items():
            if not record.error:
                child = stack.enter_context(Child("worker", name, case))
                records[name] = _loaded(child, record, case, expected)
                if not records[name].error:
                    children[name] = child
        samplers = {name: _sampler(child, settings.clock) for name, child in children.items()}
        gbps: list[float] = []

        def ceilings() -> float:
            if case.name in STREAMED:
                gbps.append(settings.memory())
            return settings.peak()

        turns = take_turns(samplers, settings.seconds, ceilings, case.threads) if samplers else None
        samples, peaks = turns or ({}, [])
    found = _record(case, records, samples, peaks)
    if not gbps or "tessera" not in samples:
        return found
    read = least_bytes(case.model, case.feeds())
    streaming = share_of_memory(STREAMED[case.name], samples["tessera"], read, gbps)
    return dataclasses.replace(found, streaming=streaming, memory_gbps=statistics.median(gbps))


def _record(
    case: Case, records: Mapping[str, RunnerRecord], samples: Mapping[str, list[float]], ceilings: list[float]
) -> CaseRecord:
    own, best = samples.get("tessera"), best_peer({n: s for n, s in samples.items() if n not in LIMITS})
    ratios = {n: ratio(s, own) for n, s in samples.items() if n != "tessera"} if own else {}
    held = standing(GOALS.get(case.name), samples, ceilings)
    timed = tuple(
        dataclasses.replace(record, median=statistics.median(samples[name]), minimum=min(samples[name]))
        if name in samples else record
        for name, record in records.items()
    )  # fmt: skip
    bundle = case.artifact("tessera", "tessera")
    rows = profile(ProfileRequest(bundle, threads=case.threads, seconds=2.0)).rows if own else ()
    peak = statistics.median(ceilings) if ceilings else 0.0
    return CaseRecord(case.name, timed, ratios, best, len(ceilings), peak, tuple(rows), held)


def _built(name: str, case: Case, reuse: bool) -> RunnerRecord:
    """A fresh artifact; with `reuse`, a peer's from before with the figures that were noted beside it."""
    note = case.artifact(name, "json")
    if reuse and name != "tessera" and note.exists():
        found = json.loads(note.read_text())
    else:
        with Child("builders", name, case) as child:
            found = child.ask("build")
        if "error" in found:
            return RunnerRecord(name, error=str(found["error"]))
        note.write_text(json.dumps(found))
    seconds, size = float(str(found["seconds"])), int(str(found["bytes"]))
    return RunnerRecord(name, artifact=str(found["artifact"]), build_seconds=seconds, artifact_bytes=size)


def _loaded(child: Child, record: RunnerRecord, case: Case, expected: list[Array]) -> RunnerRecord:
    found = child.ask("load", artifact=record.artifact)
    path = case.artifact(record.name, "answers.npz")
    answered = found if "error" in found else child.ask("answers", path=str(path))
    if "error" in answered:
        return dataclasses.replace(record, error=str(answered["error"]))
    times = {f"{key}_seconds": float(str(found[key])) for key in ("import", "load", "first")}
    if record.name in LIMITS:  # another function than the case's
        return dataclasses.replace(record, peak_mb=float(str(found["peak_mb"])), **times)
    with np.load(path) as answers:
        difference = max(_difference(answers[f"arr_{i}"], array) for i, array in enumerate(expected))
    return dataclasses.replace(record, peak_mb=float(str(found["peak_mb"])), difference=difference, **times)


def _difference(found: Array, expected: Array) -> float:
    """Largest difference, relative to the largest value."""
    largest = float(np.abs(np.asarray(expected, np.float64)).max(initial=0.0)) or 1.0
    return float(np.abs(np.subtract(found.reshape(expected.shape), expected, dtype=np.float64)).max()) / largest


def _sampler(child: Child, clock: str) -> Callable[[int], float]:
    def sample(runs: int) -> float:
        return float(str(child.ask("sample", runs=runs, clock=clock)["seconds"]))

    return sample


if __name__ == "__main__":
    main()
