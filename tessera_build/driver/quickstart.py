"""The first thing a person runs: build a small trained network, run it on images that it has never seen.

Takes: where the bundle should go.
Gives: `Quickstart`: the build, the accuracy, and the latency beside onnxruntime.
Invariant: model and images are the installation's own, so it works without a network and outside the tree.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import tessera_runtime
from tessera_build.config import resource
from tessera_build.driver.bench import Bench, BenchRequest, bench
from tessera_build.driver.build import build
from tessera_build.driver.result import BuildResult, Event

MODEL = "examples/digits/digits.onnx"
IMAGES = "examples/digits/digits_test.npz"
_BENCH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Quickstart:
    """What came of it: `right` of `images` were recognised; `benches` are for one image and for all at once."""

    result: BuildResult
    images: int
    right: int
    explanation: str
    benches: tuple[Bench, ...]

    @property
    def accuracy(self) -> float:
        """The share of images recognised."""
        return self.right / self.images


def quickstart(out: Path, target: str = "native", progress: Callable[[Event], None] | None = None) -> Quickstart:
    """Build, run and measure the digits network."""
    model_file = resource(MODEL)
    result = build(model_file, [target], out, progress=progress)
    with np.load(resource(IMAGES)) as data:
        images, labels = data["image"], data["label"]
    with tessera_runtime.load(out) as model:
        (output,) = model.run(image=images).values()
        explanation = model.explain()
    right = int(np.sum(output.argmax(axis=1) == labels))
    benches = tuple(
        bench(BenchRequest(out, "onnxruntime", model_file, 1, {"batch": size}, _BENCH_SECONDS))
        for size in (1, len(images))
    )
    return Quickstart(result, len(images), right, explanation, benches)
