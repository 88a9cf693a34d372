"""Angles of f64 beyond where parts of pi/2 cancel: the digits of 2/pi, the hardest numbers, and vectors that mix sizes.

Takes compiled code and numpy runs; compares with long double, and with rational numbers where none other is sure.
Invariant: skipped where long double is no wider than f64.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

from tessera_build.ir.core.math.expand import DOUBLE_ULP, EXPANSIONS, expand
from tessera_build.ir.core.math.large_double_angle import TWO_OVER_PI_DIGITS
from tessera_build.ir.core.math.numpy_emitter import NumpyEmitter
from tessera_build.ir.core.math.trigonometric import LIMIT
from tests.frontends_onnx.built import run_built
from tests.frontends_onnx.oracle import make_model
from tests.math.reference import REFERENCES, Double, errors, points
from tests.math.test_double import compiled, worst

pytestmark = [
    pytest.mark.numerics,
    pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than f64 here"),
]
MEANINGS: dict[str, Callable[..., NDArray[np.longdouble]]] = {"sin": np.sin, "cos": np.cos, "tan": np.tan}
NEAREST = 6381956970095103 * 2.0**797  # of all doubles, the nearest to a multiple of pi/2


def bound(name: str) -> float:
    found = DOUBLE_ULP.get(name, EXPANSIONS[name].ulp)
    assert found is not None
    return found


def exact_pi(bits: int) -> Fraction:
    """Machin's formula in integers."""

    def arctangent(n: int) -> int:
        total, power, k = 0, (1 << (bits + 32)) // n, 1
        while power:
            total += power // k if k % 4 == 1 else -(power // k)
            power, k = power // (n * n), k + 2
        return total

    return Fraction(4 * (4 * arctangent(5) - arctangent(239)), 1 << (bits + 32))


def large(random: np.random.Generator) -> Double:
    """Numbers of every size from the limit on, and those nearest to multiples of pi/2."""
    sizes = np.exp(random.uniform(np.log(LIMIT["f64"]), 709.78, 40_000))
    near = random.integers(1, 2**52, 40_000) * (np.pi / 2)
    ends = [NEAREST, np.finfo(np.float64).max, 2.0**1023, LIMIT["f64"], np.nextafter(LIMIT["f64"], 1e9), 2.0**53, 1e22]
    values = np.concatenate([sizes, near, random.uniform(1e5, 2.0**23, 40_000), np.array(ends)])
    values = np.concatenate([values, -values])
    return np.asarray(values[: values.size // 8 * 8], np.float64)


@pytest.mark.parametrize("name", MEANINGS)
def test_double_angle_when_large_then_keeps_every_digit(name: str, tmp_path: Path) -> None:
    x = large(np.random.default_rng(6))
    assert worst(compiled(name, tmp_path, [x]), MEANINGS[name](x.astype(np.longdouble))) <= bound(name)


def test_digits_of_two_over_pi_when_derived_again_then_are_those_in_the_table() -> None:
    bits = 4 * len(TWO_OVER_PI_DIGITS)
    assert int(2 / exact_pi(bits + 64) * (1 << bits)) == int(TWO_OVER_PI_DIGITS, 16)


def test_sine_of_the_hardest_double_when_computed_then_is_what_rational_numbers_say(tmp_path: Path) -> None:
    turns = Fraction(NEAREST) / exact_pi(1400) * 2
    rest = (turns - round(turns)) * exact_pi(1400) / 2
    cosine, sine = (compiled(name, tmp_path, [np.full(8, NEAREST)])[0] for name in ("cos", "sin"))
    small, one = (cosine, sine) if round(turns) % 2 else (sine, cosine)
    assert abs(Fraction(abs(float(small))) / abs(rest) - 1) < Fraction(1, 2**51)
    assert abs(float(one)) == 1.0


@pytest.mark.parametrize("name", MEANINGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_vector_when_few_of_its_lanes_are_large_then_each_is_right(name: str, dtype: type[np.floating]) -> None:
    random = np.random.default_rng(7)
    x = random.uniform(-3, 3, (40, 33)).astype(dtype)
    x[::3, ::11], x[1::3, 5] = 1e19, -7e30
    x[5, 6:9] = np.inf, -np.inf, np.nan
    node = helper.make_node(name.title(), ["x"], ["y"])
    ((found,),) = run_built(make_model([node], {"x": (dtype, ("N", 33))}, ["y"], opset=22), [{"x": x}])
    with np.errstate(invalid="ignore"):
        exact = MEANINGS[name](x.astype(np.longdouble))
    np.testing.assert_allclose(found.astype(np.longdouble), exact, rtol=4 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_angle_when_products_and_sums_round_apart_then_loses_no_digits(name: str) -> None:
    """As on processors without fused multiply-add."""
    x = points(stride=400_009)
    emitter = NumpyEmitter(fused=False)
    with np.errstate(all="ignore"):
        exact = REFERENCES[name](x.astype(np.float64))
    found = emitter.values[expand(name, emitter, emitter.add(x))].astype(np.float32)
    assert np.max(errors(found, exact)) <= bound(name)
    wide = large(np.random.default_rng(8))
    emitter = NumpyEmitter(fused=False)
    found = emitter.values[expand(name, emitter, emitter.add(wide))]
    assert worst(found, MEANINGS[name](wide.astype(np.longdouble))) <= bound(name) + 0.5
