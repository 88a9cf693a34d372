"""Which axes tiles run along where the sizes of both are only known at run time."""

from __future__ import annotations

import numpy as np
import pytest

from tessera_build.frontends.onnx import read_onnx
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.lower.program.assemble import lower_module
from tests.frontends_onnx.oracle import one_node
from tests.lower.execution import AVX512


@pytest.mark.unit
def test_convolution_when_batch_and_length_are_dynamic_then_tiles_run_along_the_length() -> None:
    """A batch is often one: with tiles of four of its members, each frame of a spectrogram read all weights alone."""
    weights = np.zeros((402, 1, 400), np.float32)
    model = one_node("Conv", {"x": ("B", 1, "L")}, {"w": weights}, strides=[160])
    lowered = lower_module(run_passes(read_onnx(model)), AVX512)
    found = [r.schedule.factors() for records in lowered.launches for r in records if r.kind == "contraction"]
    assert all(factors.get("_d0", 1) == 1 for factors in found)
    assert max(factors.get("_d1", 1) for factors in found) > 1
