"""`python -m benchmarks.derivatives`: build the model, run its entries in turns, print what they take."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import benchmarks.derivatives
import tessera_build
import tessera_runtime
from tessera_runtime.model import Model
from tessera_runtime.observe import LoadRecord, RunRecord

ENTRIES = ("gradient", "checkpointed", "curvature")


class _Workspaces:
    """An observer that keeps the workspace of each entry."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    def loaded(self, record: LoadRecord) -> None:
        """Nothing is kept of a load."""

    def ran(self, record: RunRecord) -> None:
        """Keep the workspace."""
        self.of[record.entry] = record.workspace_bytes


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.derivatives",
        description=benchmarks.derivatives.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of rounds (default 10)")
    seconds: float = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "layers.tessera"
        tessera_build.build(Path(__file__).with_name("model.py"), targets=["native"], out=bundle)
        sizes = _workspaces(bundle)
        with tessera_runtime.load(bundle, threads=1) as model:
            times = _turns(model, seconds)
    plain, again, second = (times[entry] for entry in ENTRIES)
    print(f"workspace {sizes['gradient']} and {sizes['checkpointed']} bytes, ", end="")
    print(f"{sizes['gradient'] / sizes['checkpointed']:.2f} times as much without checkpoints")
    print(f"gradient {1e3 * statistics.median(plain):.3f} ms, {len(plain)} rounds")
    for name, taken in (("with checkpoints", again), ("Hessian-vector product", second)):
        print(f"{name} {statistics.median(t / p for t, p in zip(taken, plain, strict=True)):.3f} times the gradient")


def _feeds(model: Model, entry: str) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    rng = np.random.default_rng(0)
    shapes = {spec.name: [int(extent) for extent in spec.shape] for spec in model.entries[entry].inputs}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def _workspaces(bundle: Path) -> dict[str, int]:
    found = _Workspaces()
    with tessera_runtime.load(bundle, threads=1, observers=(found,)) as model:
        for entry in ENTRIES:
            model.entries[entry].run(_feeds(model, entry))
    return found.of


def _turns(model: Model, seconds: float) -> dict[str, list[float]]:
    """Seconds a run of every entry, one sample a round."""
    feeds, times = {entry: _feeds(model, entry) for entry in ENTRIES}, {entry: list[float]() for entry in ENTRIES}
    for entry in ENTRIES:
        model.entries[entry].run(feeds[entry])
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for entry in ENTRIES:
            begin = time.perf_counter()
            model.entries[entry].run(feeds[entry])
            times[entry].append(time.perf_counter() - begin)
    return times


if __name__ == "__main__":
    main()
