"""Models that other people ship, with inputs and onnxruntime's outputs, from a folder that TESSERA_CASES names.

The folder holds NAME.onnx, NAME.caseK.in.npz and NAME.caseK.ort.npz; each archive has `names` and one array for each
name (i00, i01, ... and o00, o01, ...). The models belong to their makers and are not part of this tree.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import tessera_build
import tessera_runtime

FOLDER = os.environ.get("TESSERA_CASES", "")
MODELS = sorted(Path(FOLDER).glob("*.onnx")) if FOLDER else []


def _arrays(path: Path, letter: str) -> dict[str, np.ndarray]:
    archive = np.load(path)
    return {str(name): archive[f"{letter}{index:02d}"] for index, name in enumerate(archive["names"])}


@pytest.mark.slow
@pytest.mark.numerics
@pytest.mark.skipif(not MODELS, reason="TESSERA_CASES names no folder with models")
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_public_model_when_built_with_proof_then_answers_as_onnxruntime(path: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "m.tessera"
    tessera_build.build(path, targets=["native"], out=bundle)
    cases = sorted(path.parent.glob(f"{path.stem}.case*.in.npz"))
    assert cases
    with tessera_runtime.load(bundle) as model:
        taken = {spec.name for spec in model.inputs}
        for case in cases:
            feeds = {name: array for name, array in _arrays(case, "i").items() if name in taken}
            wanted = _arrays(Path(str(case).replace(".in.npz", ".ort.npz")), "o")
            found = model.run(feeds)
            for name, reference in wanted.items():
                assert (found[name].dtype, found[name].shape) == (reference.dtype, reference.shape)
                scale = max(float(np.abs(reference).max(initial=0)), 1e-6)
                error = np.abs(found[name].astype(np.float64) - reference.astype(np.float64)).max(initial=0)
                assert error / scale <= 1e-4, name
