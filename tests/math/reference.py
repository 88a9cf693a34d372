"""References in higher precision, points to sweep and the error in ULP.

Takes f32 arrays; gives float64 references and errors. Invariant: an error counts in units of the last place of the
exact result's own binade, denormal ones in the smallest step.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Single = NDArray[np.float32]
Double = NDArray[np.float64]

_erf = np.frompyfunc(math.erf, 1, 1)
REFERENCES: dict[str, Callable[[Double], Double]] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": lambda x: np.where(x < 0, np.exp(x) / (1 + np.exp(x)), 1 / (1 + np.exp(-x))),
    "erf": lambda x: _erf(x).astype(np.float64),
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "rsqrt": lambda x: 1 / np.sqrt(x),
}
SPECIALS = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 1e-45, -1e-45, 1e-39, -1e-39, 1.17549435e-38]
LIMITS = [3.4028235e38, -3.4028235e38, 88.72283, 88.72284, -87.33655, -103.97208, -103.97209, 9.0109, 3.92, 1e5, -1e5]


def points(stride: int) -> Single:
    """Every stride-th bit pattern, dense samples where functions bend, and the special values."""
    patterns = np.arange(0, 2**32, stride, dtype=np.uint64).astype(np.uint32).view(np.float32)
    random = np.random.default_rng(20)
    dense = [random.uniform(low, high, 60_000) for low, high in ((-12, 12), (-105, 90), (0.3, 3), (-1e5, 1e5))]
    near_pi = np.arange(1, 60_000) * (np.pi / 2)  # where sine and cosine cancel most
    parts = (*dense, near_pi, np.array(SPECIALS + LIMITS))
    return np.concatenate([patterns, *(part.astype(np.float32) for part in parts)])


def errors(actual: Single, exact: Double) -> Double:
    """|actual - exact| in ULP; infinite where one is special and the other is not."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float32)
        _, exponent = np.frexp(exact)
        unit = np.ldexp(1.0, np.maximum(exponent - 1, -126) - 23)
        distance = np.abs(actual.astype(np.float64) - exact) / unit
    same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
    distance = np.where(same & ~(np.abs(rounded) < np.inf), 0.0, distance)
    return np.where(np.isnan(distance), np.inf, distance)
