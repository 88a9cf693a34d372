"""`python -m benchmarks.gradients`: build, compare and time every model's gradient entry beside PyTorch's eager one."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

import benchmarks.gradients
import tessera_runtime
from benchmarks.cases import archived
from benchmarks.gradients.eager import Eager, of_graph, of_recipe
from benchmarks.gradients.entry import build, differentiated
from benchmarks.peers.export import recipe, write
from benchmarks.peers.recipes import Recipe
from benchmarks.peers.reference import unoptimised
from benchmarks.peers.rounds import Ratio, ratio
from tessera_build.ir.graph.nodes import Array

_LEAST_ROUNDS = 9
_SAMPLE_SECONDS = 4e-3
_AVERAGES = (3, 4)  # operands of BatchNormalization that PyTorch does not differentiate by
# A gradient that is this much smaller than the largest is zero but for rounding, as in the tests of public models.
_SMALL = 1e-3
_APART = 0.02

Arrays = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Record:
    """One model. Ratios are PyTorch's time over ours: above 1, ours is faster; `processor` by seconds of the processor.

    `differences`: of our gradients from PyTorch's, relative to the largest element of each: the median gradient's and
    the worst one's, which is that of a rectifier whose operand is zero but for rounding, where there is one. `forward`:
    of PyTorch's outputs from onnxruntime's. `error`: of the proof, 0 where it was left out. `peer`: PyTorch's version.
    """

    name: str
    gradients: int
    wall: Ratio
    processor: Ratio
    own: float
    torch: float
    rounds: int
    differences: tuple[float, float]
    forward: float
    error: float
    bundle_bytes: int
    build_seconds: float
    peer: str

    def line(self) -> str:
        """The outcome in one line."""
        wall, used, (middle, worst) = self.wall, self.processor, self.differences
        return (
            f"{self.name}: {wall.median:.3f} ({wall.low:.3f} to {wall.high:.3f}), processor {used.median:.3f} "
            f"({used.low:.3f} to {used.high:.3f}); ours {1e3 * self.own:.4g} ms, torch {1e3 * self.torch:.4g} ms, "
            f"{self.rounds} rounds; {self.gradients} gradients differ by {middle:.1e}, {worst:.1e} at most"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A model under measurement: its file, its inputs, PyTorch's side, and what is not differentiated by."""

    name: str
    path: Path
    feeds: Arrays
    eager: Callable[[tuple[str, ...]], Eager]
    without: frozenset[str]


def main() -> None:
    """Measure what the arguments name; the report is written after every model."""
    arguments = _arguments()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    arguments.out.mkdir(parents=True, exist_ok=True)
    records: list[Record] = []
    for name in arguments.models.split(","):
        subject = _of_file(Path(name)) if name.endswith(".onnx") else _of_recipe(name, arguments.out)
        records.append(_measure(subject, arguments.out, arguments.seconds, verify=arguments.verify))
        print(records[-1].line(), flush=True)
        (arguments.out / "gradients.json").write_text(json.dumps([asdict(r) for r in records], indent=1))
    mean = statistics.geometric_mean(r.wall.median for r in records)
    print(f"geometric mean: {mean:.3f} of PyTorch {torch.__version__}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gradients",
        description=benchmarks.gradients.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", default="mlp,mobilenetv2,resnet50,bert_base", help="recipes or ONNX files")
    parser.add_argument("--seconds", type=float, default=30.0, help="of rounds, for each model")
    parser.add_argument("--verify", action="store_true", help="prove each entry against the Graph reference first")
    parser.add_argument("--out", type=Path, default=Path("gradients"), help="folder for models, bundles, the report")
    return parser.parse_args()


def _of_recipe(name: str, folder: Path) -> Subject:
    made = recipe(name)
    _told_apart(made.module)
    path = folder / f"{name}.onnx"
    if not path.exists():
        _export(made, path)
    buffers = frozenset(n for n, _ in made.module.named_buffers())
    return Subject(name, path, made.feeds(), lambda wrt: of_recipe(made, wrt), buffers)


def _told_apart(module: nn.Module) -> None:
    """Move every vector of parameters a little: equal constants of a file are one constant, with one gradient."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=_APART)


def _export(made: Recipe, path: Path) -> None:
    """The module as it stands: parameters keep their names, nothing is folded.

    The exporter folds normalisations into convolutions unless it is told that the model trains; then it sets the
    module's mode, which normalisations are kept from following.
    """
    for part in made.module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.train = partial(_unmoved, part)  # type: ignore[method-assign]
    write(made, path, trains=True)
    made.module.eval()


def _unmoved(module: nn.Module, _mode: bool = True) -> nn.Module:
    """What `train` is for a module that stays in the mode it has."""
    return module


def _of_file(path: Path) -> Subject:
    feeds = _feeds(path)
    nodes = onnx.load(str(path)).graph.node
    averages = [n.input[i] for n in nodes if n.op_type == "BatchNormalization" for i in _AVERAGES]
    return Subject(path.stem, path, feeds, lambda wrt: of_graph(path, feeds, wrt), frozenset(averages))


def _feeds(path: Path) -> dict[str, Array]:
    for suffix in (".npz", ".case0.in.npz"):
        beside = path.parent / f"{path.stem}{suffix}"
        if beside.exists():
            return archived(beside)
    sys.exit(f"{path}: no inputs beside it, neither {path.stem}.npz nor {path.stem}.case0.in.npz")


def _measure(subject: Subject, folder: Path, seconds: float, *, verify: bool) -> Record:
    start = time.perf_counter()
    made, bundle = differentiated(subject.path, subject.without), folder / f"{subject.name}.tessera"
    error = build(made, subject.path, bundle, verify=verify)
    built, eager = time.perf_counter() - start, subject.eager(made.wrt)
    outputs, rng = eager.outputs(), np.random.default_rng(0)
    asked = [n.removesuffix("_cotangent") for n in made.module.input_names["main"] if n not in subject.feeds]
    cotangents = {n: rng.standard_normal(outputs[n].shape).astype(np.float32) for n in asked}
    given = {n: torch.from_numpy(c) for n, c in cotangents.items()}
    feeds = {**subject.feeds, **{f"{n}_cotangent": c for n, c in cotangents.items()}}
    with tessera_runtime.load(bundle, threads=1) as model:
        wanted = {spec.name: feeds[spec.name] for spec in model.inputs}
        eager.run(given)
        found, expected = model.run(wanted), eager.gradients()
        gradients = {w: found[f"{w}_gradient"] for w in made.wrt}
        apart = _differences(gradients, expected)
        del found, gradients, expected
        turns = _turns((lambda: model.run(wanted), lambda: eager.run(given)), seconds)
    (own, own_used), (peer, peer_used) = turns
    return Record(
        name=subject.name,
        gradients=len(made.wrt),
        wall=ratio(peer, own),
        processor=ratio(peer_used, own_used),
        own=statistics.median(own),
        torch=statistics.median(peer),
        rounds=len(own),
        differences=(statistics.median(apart), max(apart)),
        forward=max(_differences(outputs, unoptimised(subject.path, subject.feeds))),
        error=error,
        bundle_bytes=bundle.stat().st_size,
        build_seconds=built,
        peer=f"torch {torch.__version__}",
    )


def _differences(found: Arrays, expected: Arrays) -> list[float]:
    """The largest difference of each array, relative to its largest element."""
    scales = {name: float(np.abs(array.astype(np.float64)).max(initial=0.0)) for name, array in expected.items()}
    least = _SMALL * max(scales.values(), default=0.0) or 1.0
    return [
        float(np.abs(np.subtract(found[n], expected[n], dtype=np.float64)).max(initial=0.0)) / max(scale, least)
        for n, scale in scales.items()
    ]


_Samples = tuple[list[float], list[float]]


def _turns(runs: tuple[Callable[[], object], Callable[[], object]], seconds: float) -> tuple[_Samples, _Samples]:
    """Seconds a run, by the clock and of the processor, of each; one sample of each a round."""
    found: tuple[_Samples, _Samples] = (([], []), ([], []))
    counts = [max(1, min(200, int(_SAMPLE_SECONDS / max(_timed(run, 1)[0], 1e-9)))) for run in runs]
    end = time.perf_counter() + seconds
    while len(found[0][0]) < _LEAST_ROUNDS or time.perf_counter() < end:
        for run, count, samples in zip(runs, counts, found, strict=True):
            for times, taken in zip(samples, _timed(run, count), strict=True):
                times.append(taken)
    return found


def _timed(run: Callable[[], object], count: int) -> tuple[float, float]:
    start, used = time.perf_counter(), time.thread_time()
    for _ in range(count):
        run()
    return (time.perf_counter() - start) / count, (time.thread_time() - used) / count


if __name__ == "__main__":
    main()
