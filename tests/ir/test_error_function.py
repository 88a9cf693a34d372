"""erf of arrays beside Python's own."""

import math

import numpy as np

from tessera_build.ir.core.error_function import erf


def test_erf_when_compared_with_python_then_agrees_to_the_last_digits() -> None:
    draw = np.random.default_rng(7)
    values = np.concatenate(
        [draw.normal(0, 2, 50_000), 10.0 ** draw.uniform(-300, 0, 10_000), np.arange(-7, 7, 1 / 32)]
    )
    exact = np.asarray([math.erf(value) for value in values])
    assert np.all(np.abs(erf(values) - exact) <= 4e-16 * np.maximum(np.abs(exact), np.finfo(np.float64).tiny))


def test_erf_when_inputs_are_special_then_keeps_signs_ends_and_nan() -> None:
    found = erf(np.asarray([[0.0, -0.0, np.inf], [-np.inf, np.nan, -9.0]], np.float32))
    np.testing.assert_array_equal(found, np.asarray([[0.0, -0.0, 1.0], [-1.0, np.nan, -1.0]], np.float32))
    assert np.signbit(found[0, 1])
    assert found.dtype == np.float32


def test_erf_when_the_array_is_empty_or_has_no_axes_then_keeps_its_shape() -> None:
    assert erf(np.zeros((0, 3), np.float16)).shape == (0, 3)
    assert erf(np.asarray(0.5)).shape == ()
