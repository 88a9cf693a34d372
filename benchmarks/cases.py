"""Models that other people ship beside onnxruntime, each on its own inputs, in turns in one process, one thread.

    python -m benchmarks.cases FOLDER [--rounds 40] [--models NAME,NAME]

FOLDER holds NAME.onnx, NAME.caseK.in.npz and NAME.caseK.ort.npz, as `tests/models/test_public_cases.py` describes them.
Builds every model for this machine with proof, compares each answer with the one that onnxruntime gave, and prints one
line for each input set: the median over rounds of onnxruntime's time over ours, above 1 where ours is faster. Ends with
status 1 if an answer is off by more than 1e-4 of the output's largest number.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

import tessera_build
import tessera_runtime

_SAMPLE_SECONDS = 4e-3  # a sample of a small model is as many runs as last this long
_MOST_RUNS = 200
_TOLERANCE = 1e-4
Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One input set. `ratio`: onnxruntime's time over ours, the median over rounds; `seconds`: our median run.

    `error`: the largest difference from onnxruntime's answer as a share of the output's largest number.
    """

    case: str
    ratio: float
    seconds: float
    error: float

    def line(self) -> str:
        """The outcome in one line."""
        return f"{self.case}: {self.ratio:.2f}, ours {1e3 * self.seconds:.4g} ms, error {self.error:.1e}"


def archived(path: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of an archive by their names: its keys, or those in `names`, beside i00, i01, ... or o00, o01, ..."""
    with np.load(path) as archive:
        if "names" not in archive.files:
            return dict(archive)
        arrays = [archive[key] for key in sorted(set(archive.files) - {"names"})]
        return {str(name): array for name, array in zip(archive["names"], arrays, strict=True)}


def measured(path: Path, folder: Path, rounds: int) -> Iterator[Outcome]:
    """Builds the model into `folder`; one outcome for each of its input sets."""
    bundle = folder / f"{path.stem}.tessera"
    tessera_build.build(path, targets=["native"], out=bundle)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    peer = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    asked = {given.name for given in peer.get_inputs()}
    with tessera_runtime.load(bundle, threads=1) as model:
        taken = {spec.name for spec in model.inputs}
        for case in sorted(path.parent.glob(f"{path.stem}.case*.in.npz")):
            given = archived(case)
            feeds = {name: array for name, array in given.items() if name in taken}
            known = {name: array for name, array in given.items() if name in asked}
            error = _error(model.run(feeds), archived(Path(str(case).replace(".in.npz", ".ort.npz"))))
            ratio, seconds = _turns(lambda k=known: peer.run(None, k), lambda f=feeds: model.run(f), rounds)
            yield Outcome(case.name.removesuffix(".in.npz"), ratio, seconds, error)


def _error(found: Arrays, wanted: Arrays) -> float:
    worst = 0.0
    for name, expected in wanted.items():
        if found[name].shape != expected.shape:
            return float("inf")
        wide = expected.astype(np.float64)
        scale = max(float(np.abs(wide).max(initial=0)), 1e-6)
        worst = max(worst, float(np.abs(found[name].astype(np.float64) - wide).max(initial=0)) / scale)
    return worst


def _turns(peer: Callable[[], object], own: Callable[[], object], rounds: int) -> tuple[float, float]:
    """The median ratio of one round's samples, and the median of our seconds a run."""
    counts = [max(1, min(_MOST_RUNS, int(_SAMPLE_SECONDS / _seconds(call, 3)))) for call in (peer, own)]
    samples = [(_seconds(peer, counts[0]), _seconds(own, counts[1])) for _ in range(rounds)]
    return statistics.median(p / o for p, o in samples), statistics.median(o for _, o in samples)


def _seconds(call: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def main() -> None:
    """Print a line for each input set as it is measured, and the smallest ratio last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=40, help="samples of each side, in turns (default 40)")
    parser.add_argument("--models", help="names without .onnx; default: all in the folder")
    options = parser.parse_args()
    names = options.models.split(",") if options.models else [p.stem for p in sorted(options.folder.glob("*.onnx"))]
    missing = [name for name in names if not (options.folder / f"{name}.onnx").exists()]
    if missing or not names:
        parser.error(f"{options.folder} holds no {', '.join(f'{name}.onnx' for name in missing) or 'model'}")
    found: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            for outcome in measured(options.folder / f"{name}.onnx", Path(folder), options.rounds):
                found.append(outcome)
                print(outcome.line(), flush=True)
    wrong = [o.case for o in found if o.error > _TOLERANCE]
    print(f"{len(found) - len(wrong)} of {len(found)} right; smallest ratio {min(o.ratio for o in found):.2f}")
    if wrong:
        sys.exit(f"wrong: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
