"""Compares built bundles, run by the runtime, with onnxruntime on the very same model.

Takes small models; gives assertions. Invariant: what runs is compiled code, never the reference interpreter.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

import tessera_build
import tessera_runtime
from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.oracle import expected


def run_built(model: onnx.ModelProto, cases: Sequence[Mapping[str, Array]]) -> list[list[Array]]:
    """Build once for this machine, then run every case: its outputs in the model's order."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.tessera"
        tessera_build.build(model, targets=["native"], out=path, verify=False, workers=1)
        with tessera_runtime.load(path, threads=1) as loaded:
            return [_outputs(loaded, model, case) for case in cases]


def _outputs(loaded: tessera_runtime.Model, model: onnx.ModelProto, case: Mapping[str, Array]) -> list[Array]:
    found = loaded.run({name: np.array(array, order="C") for name, array in case.items()})
    return [np.array(found[info.name]) for info in model.graph.output]


def assert_built_agrees(model: onnx.ModelProto, *cases: Mapping[str, Array], tolerance: float = 1e-5) -> None:
    """Equal types, shapes and integers; floats within `tolerance` of each output's maximum."""
    for results, case in zip(run_built(model, cases), cases, strict=True):
        for result, reference in zip(results, expected(model, case), strict=True):
            assert (result.dtype, result.shape) == (reference.dtype, reference.shape)
            if reference.dtype.kind in "iub":
                np.testing.assert_array_equal(result, reference)
                continue
            wide = reference.astype(np.float64)
            scale = float(np.max(np.abs(wide), initial=1e-30, where=np.isfinite(wide)))
            np.testing.assert_allclose(result.astype(np.float64), wide, rtol=0, atol=tolerance * scale)
