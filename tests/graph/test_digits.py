"""The repository's own trained network through all passes: what is left, and that it says the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tessera_build.frontends.onnx.reader import read_onnx
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.reference import run
from tests.graph.graphs import assert_close, ops_of

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


@pytest.mark.numerics
def test_digits_when_passed_through_the_pipeline_then_norms_and_transposes_are_gone() -> None:
    module = read_onnx(DIGITS / "digits.onnx")
    after = run_passes(module, verify_each=True)
    block, pooled = ["conv", "add", "max"], "reduce_window"
    # One grey channel, so even the input is reshaped, not transposed; the third block adds its residual.
    residual = ["conv", "add", "add", "max", pooled]
    assert ops_of(after) == ["reshape", *block, *block, pooled, *residual, "reshape", "matmul", "add", "softmax"]
    with np.load(DIGITS / "digits_test.npz") as held_out:
        images, labels = held_out["image"], held_out["label"]
    (before_scores,) = run(module, "main", {"image": images}).values()
    (scores,) = run(after, "main", {"image": images}).values()
    assert_close(scores, before_scores, atol=1e-6)
    assert float(np.mean(np.argmax(scores, 1) == labels)) > 0.97
