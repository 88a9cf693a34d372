"""Feeds hostile files to the build or to the runtime, and says what came of each.

Takes a kind (`onnx` or `bundle`) and a range of seeds; gives one verdict a seed. Invariant: a file is read in a process
of its own, forked from one that has done nothing but a sound build. Also a command:
`python -m tests.hostile.attack onnx 0 10000`, with a third number for processes at a time.
"""

from __future__ import annotations

import collections
import functools
import gc
import json
import math
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

import tessera_runtime
from bundle_format.errors import TesseraError
from tessera_build.driver.build import build
from tessera_build.ir.core.types import DTYPES
from tests.hostile import bundles, models
from tests.hostile.judge import Attack, Verdict, judged

ROOT = Path(__file__).parents[2]
_LARGEST_RUN = 1 << 24  # elements of an input or a result that is worth a run
_PATIENCE = 3.0  # seconds: a sound loop may have any number of iterations, so a caller who cannot wait says so
_SLOWEST = 8


def attack_model(seed: int, folder: Path) -> None:
    """Build a hostile model and, if there is a bundle, run it once."""
    path = models.mutated(seed, folder)
    out = folder / "out.tessera"
    try:
        build(path, ["x86-64-v3"], out, verify=seed % 8 == 0, workers=1, cache=folder / "cache")
    except TesseraError as error:
        if error.code == "OUT_OF_MEMORY":  # only for the limit on addresses: a larger machine would have gone on
            raise MemoryError("a build took more than a process of the attack may") from error
        raise
    _run(out)


def attack_bundle(sound: Path, seed: int, folder: Path) -> None:
    """Load a hostile bundle, made from a sound one, and run it once."""
    _run(bundles.mutated(sound, seed, folder))


def _run(path: Path) -> None:
    with tessera_runtime.load(path, threads=1) as model:
        shapes = [tuple(e if isinstance(e, int) else 2 for e in s.shape) for s in (*model.inputs, *model.outputs)]
        if any(math.prod(shape) > _LARGEST_RUN for shape in shapes):
            return
        feeds = {s.name: np.ones(shape, DTYPES[s.dtype].numpy) for s, shape in zip(model.inputs, shapes, strict=False)}
        model.run(feeds, timeout=_PATIENCE)


def _model_attack(folder: Path) -> Attack:
    """What every seed needs is made once: the sources, and whatever a build initialises."""
    models.sources()
    models.all_sources()
    build(ROOT / "examples/digits/digits.onnx", ["x86-64-v3"], folder / "s.tessera", workers=1, cache=False)
    return attack_model


def _bundle_attack(folder: Path) -> Attack:
    sound = folder / "sound"
    sound.mkdir()
    build(ROOT / "examples/digits/digits.onnx", ["x86-64-v3"], folder / "s.tessera", verify=False, workers=1)
    tessera_runtime.load(folder / "s.tessera").close()
    with tarfile.open(folder / "s.tessera") as tar:
        tar.extractall(sound, filter="data")
    return functools.partial(attack_bundle, sound)


_ATTACKS: dict[str, Callable[[Path], Attack]] = {"onnx": _model_attack, "bundle": _bundle_attack}


def _serve(kind: str, seeds: Sequence[int], workers: int) -> None:
    """One line of JSON a verdict."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        attack = _ATTACKS[kind](Path(name))
        gc.collect()
        gc.freeze()  # what is here already is shared by all children
        for verdict in judged(attack, seeds, workers):
            print(json.dumps(asdict(verdict)), flush=True)


def run(
    kind: str, first: int, last: int, workers: int = 2, seen: Callable[[Verdict], None] = lambda _: None
) -> list[Verdict]:
    """Attack with all seeds; in processes apart from this one, whose threads a fork would not take along."""
    words = [sys.executable, "-m", "tests.hostile.attack", "--serve", kind, str(first), str(last), str(workers)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        verdicts: list[Verdict] = []
        for line in process.stdout:
            verdicts.append(Verdict(**json.loads(line)))
            seen(verdicts[-1])
    if process.returncode:
        raise RuntimeError(f"the attack itself ended with {process.returncode} after {len(verdicts)} verdicts")
    return sorted(verdicts, key=lambda verdict: verdict.seed)


def bad(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Those that are neither an answer nor a refusal of any kind."""
    return [v for v in verdicts if v.outcome not in ("worked", "refused", "blamed")]


def _main(kind: str, first: int, last: int, workers: int = 2) -> None:
    start = time.monotonic()
    verdicts = run(kind, first, last, workers, _print_if_bad)
    processor = sum(v.seconds for v in verdicts)
    print(collections.Counter(v.outcome for v in verdicts), f"{time.monotonic() - start:.0f} s")
    print(f"{len(verdicts) / max(processor, 1e-9):.2f} seeds per second of one core")
    print(collections.Counter(v.reason for v in verdicts if v.outcome == "refused").most_common(20))
    for what, key in (("slowest", lambda v: v.seconds), ("largest", lambda v: v.mebibytes)):
        print(what, "; ".join(_line(v) for v in sorted(verdicts, key=key)[: -_SLOWEST - 1 : -1]))


def _print_if_bad(verdict: Verdict) -> None:
    if bad([verdict]) or verdict.outcome == "blamed":
        print(f"{_line(verdict)}: {verdict.reason}", flush=True)


def _line(verdict: Verdict) -> str:
    times = f"{verdict.seconds:.1f} s of the processor in {verdict.elapsed:.1f} s, {verdict.mebibytes} MiB"
    return f"{verdict.seed} {verdict.outcome} {times}"


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        _serve(sys.argv[2], range(int(sys.argv[3]), int(sys.argv[4])), int(sys.argv[5]))
    else:
        _main(sys.argv[1], *map(int, sys.argv[2:5]))
