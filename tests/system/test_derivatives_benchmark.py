"""What checkpoints and second derivatives cost, as the benchmark of them says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_derivatives_when_measured_then_memory_falls_fourfold_and_curvature_costs_four_gradients_at_most() -> None:
    words = [sys.executable, "-m", "benchmarks.derivatives", "--seconds", "2"]
    told = subprocess.run(words, cwd=ROOT, check=True, timeout=300, capture_output=True, text=True).stdout
    memory, again, curvature = (
        float(re.search(pattern, told).group(1))  # type: ignore[union-attr]
        for pattern in (r"([\d.]+) times as much", r"checkpoints ([\d.]+) times", r"product ([\d.]+) times")
    )
    assert memory >= 4
    assert again <= 1.35
    assert curvature <= 4
