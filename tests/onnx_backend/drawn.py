"""Cases of onnx's suite whose results are random: judged by what every generator's draws have in common.

Takes a case's name; raises `AssertionError` where the results do not have the stated types and shapes, or where they
are no draws of the operator. Invariant: such cases are written out by name, so none is let off by accident.
"""

from __future__ import annotations

import numpy as np

from tessera_build.ir.graph.nodes import Array
from tessera_build.onnx_backend import TesseraBackend
from tests.frontends_onnx import backend_suite as cases

DRAWN = frozenset(f"{name}_cpu" for name in cases.DRAWN)


def judge_draws(name: str) -> None:
    """Run one case of `DRAWN`."""
    case = cases.collect()[name.removesuffix("_cpu")]
    assert case.model is not None
    assert case.data_sets
    for inputs, outputs in case.data_sets:
        found = [np.asarray(result) for result in TesseraBackend.prepare(case.model).run(inputs)]
        expected = [np.asarray(output) for output in outputs]
        assert [(a.dtype, a.shape) for a in found] == [(a.dtype, a.shape) for a in expected]
        if "bernoulli" in name:
            assert np.isin(found[0], (0, 1)).all(), "a draw is neither 0 nor 1"
        else:
            _check_dropped([np.asarray(value) for value in inputs], found)


def _check_dropped(inputs: list[Array], found: list[Array]) -> None:
    """Each element is dropped or stands for those that are; about as many as asked for, and as the mask says."""
    x, y = inputs[0].astype(np.float64), found[0].astype(np.float64)
    ratio = float(inputs[1]) if len(inputs) > 1 else 0.5
    kept = y != 0
    np.testing.assert_allclose(y[kept] * (1 - ratio), x[kept], rtol=1e-5)
    assert abs(kept.mean() - (1 - ratio)) * np.sqrt(kept.size) < 4 * np.sqrt(ratio * (1 - ratio))
    if len(found) > 1:
        np.testing.assert_array_equal(found[1], kept)
