"""Folded constants are the same bytes whatever vector instructions numpy may use and however strings hash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.graph.folded import folded_digest, folded_module
from tests.graph.graphs import ops_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.unit
def test_fold_when_ops_are_ordered_then_nothing_is_left() -> None:
    assert ops_of(folded_module()) == []


@pytest.mark.numerics
def test_fold_when_vector_instructions_are_switched_off_then_bytes_are_the_same() -> None:
    config = np.show_config(mode="dicts")
    assert config is not None
    features = " ".join(config.get("SIMD Extensions", {}).get("found", []))
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": features, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "from tests.graph.folded import folded_digest; print(folded_digest())"]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == folded_digest()
