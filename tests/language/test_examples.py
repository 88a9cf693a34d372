"""The examples that are written in the language: they build with proof, are right, and repeat to the last bit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

import tessera_build
import tessera_runtime

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.numerics
def test_mlp_when_built_then_reads_digits_and_gives_the_same_gradients_every_time(tmp_path: Path) -> None:
    bundle = tmp_path / "mlp.tessera"
    result = tessera_build.build(EXAMPLES / "mlp" / "model.py", ["native"], bundle, workers=1)
    assert [case.entry for case in result.verification[0].cases] == ["classify", "train", "classify", "train"]
    with np.load(EXAMPLES / "digits" / "digits_test.npz") as data:
        images, labels = data["image"].reshape(-1, 64), data["label"]
    feeds = {"x": images[:100], "label": labels[:100]}
    digests: set[str] = set()
    for threads in (1, 2):
        with tessera_runtime.load(bundle, threads=threads) as model:
            probabilities = model.entries["classify"].run({"x": images})["probabilities"]
            inputs = model.entries["train"].inputs[2:]
            weights = {v.name: np.full([int(e) for e in v.shape], 0.01, np.float32) for v in inputs}
            for _ in range(20):
                found = model.entries["train"].run({**feeds, **weights})
                digests.add(hashlib.sha256(b"".join(found[name].tobytes() for name in sorted(found))).hexdigest())
        assert float((probabilities.argmax(1) == labels).mean()) > 0.95
    assert len(digests) == 1
