"""Quotients by one number, which are products by its reciprocal in two parts: the bits of a division."""

from __future__ import annotations

import numpy as np
import pytest

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tests.lower.compiled import compile_module

SPECIAL = (0.0, -0.0, 1.0, 41.0, 3e38, -3e38, 1e-38, 1e-44, -1e-45, np.inf, -np.inf, np.nan)
COUNT = 100_003


def divided(divisor: float) -> Module:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, symbol("n")))
    b.output("y", b.op("div", x, b.scalar(divisor, F32)))
    return run_passes(b.finish())


@pytest.mark.numerics
@pytest.mark.parametrize("divisor", [6, 3, -7, 41, 0.1, 255, 1e-3, np.sqrt(2), -1e20, 1e-30, 1e-40, 3e38, np.inf, 0])
def test_quotient_when_the_divisor_is_one_number_then_has_the_bits_of_a_division(divisor: float) -> None:
    rng, number = np.random.default_rng(2), np.float32(divisor)
    random = rng.integers(0, 1 << 32, COUNT, np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        multiples = (rng.integers(-999, 999, 999) * number).astype(np.float32)
        x = np.concatenate([np.asarray(SPECIAL, np.float32), multiples, random])
        expected = x / number
    found = compile_module(divided(float(number))).run({"x": x}, {"n": x.size})["y"]
    small = np.abs(expected) < 2.0**-100
    np.testing.assert_array_equal(found[~small], expected[~small])
    exact, given = (array[small].astype(np.float64) for array in (expected, found))
    assert np.all(np.abs(given - exact) <= 1.2e-7 * np.abs(exact) + 1.5e-45)
    np.testing.assert_array_equal(np.signbit(found[~np.isnan(x)]), np.signbit(expected[~np.isnan(x)]))
