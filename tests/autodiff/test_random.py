"""Derivatives of random graphs, with symbolic extents, against differences."""

from __future__ import annotations

import numpy as np
import pytest

from tests.autodiff.checking import check
from tests.autodiff.models import widened
from tests.graph.graphs import inputs_of, random_module

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("seed", range(16))
def test_random_graph_when_differentiated_then_agrees_with_differences(seed: int) -> None:
    module = random_module(seed, length=6)
    inputs = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in inputs_of(module, seed).items()}
    check(widened(module), inputs)
