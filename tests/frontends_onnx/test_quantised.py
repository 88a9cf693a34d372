"""Quantised operators against onnxruntime, bit for bit, as the reference computes them and as machine code does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from tessera_build.frontends.onnx import read_onnx
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.reference import run
from tests.frontends_onnx import contrib_cases, quantised_cases
from tests.frontends_onnx.built import run_built
from tests.frontends_onnx.oracle import expected, make_model
from tests.frontends_onnx.quantised_cases import Draw

CASES = {**quantised_cases.CASES, **contrib_cases.CASES}
# One step of the result: a sum divided by its count, where we multiply by the reciprocal, and another order of a sum.
STEPS = {"ms_average_pool": 1, "ms_add": 1}
_REFUSED = (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.NotImplemented, errors.RuntimeException)


def _drawn(name: str, seed: int) -> tuple[Draw, list[Array], onnx.ModelProto]:
    """The first case from a seed on that onnxruntime runs: it has no kernels for some types."""
    for attempt in range(seed, seed + 9000, 1000):
        draw = Draw(np.random.default_rng([attempt, sum(map(ord, name))]))
        model = CASES[name](draw)
        try:
            return draw, expected(model, draw.data), model
        except _REFUSED:
            continue
    raise AssertionError(f"onnxruntime runs no {name}")


def _assert_equal(found: list[Array], wanted: list[Array], steps: int) -> None:
    for result, reference in zip(found, wanted, strict=True):
        assert (result.dtype, result.shape) == (reference.dtype, reference.shape)
        if reference.dtype.kind in "iu":
            difference = np.abs(result.astype(np.int64) - reference.astype(np.int64))
            assert difference.max(initial=0) <= steps
        else:
            most = float(np.max(np.abs(reference.astype(np.float64)), initial=1e-30))
            np.testing.assert_allclose(
                result.astype(np.float64), reference.astype(np.float64), rtol=0, atol=1e-6 * most
            )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(20))
def test_quantised_when_redrawn_then_the_reference_gives_the_bits_of_onnxruntime(name: str, seed: int) -> None:
    draw, wanted, model = _drawn(name, seed)
    found = run(read_onnx(model), "main", draw.data)
    _assert_equal(list(found.values()), wanted, STEPS.get(name, 0))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(100, 104))
def test_quantised_when_redrawn_then_machine_code_gives_the_bits_of_onnxruntime(name: str, seed: int) -> None:
    draw, wanted, model = _drawn(name, seed)
    (found,) = run_built(model, [draw.data])
    _assert_equal(found, wanted, STEPS.get(name, 0))


def test_scale_of_a_range_when_built_then_has_the_bits_of_onnxruntimes() -> None:
    """A scale that is off by one rounding sends what lies half way to the next step; later layers magnify that."""
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    model = make_model([node], {"x": (np.float32, (64,))}, ["q", "s", "z"])
    draws = [{"x": np.random.default_rng(seed).normal(size=64).astype(np.float32)} for seed in range(200)]
    for found, data in zip(run_built(model, draws), draws, strict=True):
        for result, wanted in zip(found, expected(model, data), strict=True):
            np.testing.assert_array_equal(result, wanted)
