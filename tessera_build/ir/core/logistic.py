"""The logistic function as a rational one: what ONNX models call Sigmoid, in f32.

Takes arrays; gives arrays of their type. Invariant: every step is one rounding, so that a reference and a machine with
fused multiply-add give the same bits. The error is at most 1.7e-7, in units of 1 and not of the result: below -12 the
result loses its digits (docs/adr/0013 says why that is wanted). The coefficients are those of Eigen's float kernel.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.rounding import fma
from tessera_build.ir.core.types import F32

Array = NDArray[np.generic]
Single = NDArray[np.float32]

LIMIT: Final = 18.0
# Of x * P(x²) / Q(x²) + 1/2, from the constant term upwards.
NUMERATOR: Final = (
    2.48287947061529e-01, 8.51377133304701e-03, 6.08574864600143e-05, 1.15627324459942e-07, 4.37031012579801e-11,
)  # fmt: skip
DENOMINATOR: Final = (
    9.93151921023180e-01, 1.16817656904453e-01, 1.70198817374094e-03, 6.29106785017040e-06, 5.76102136993427e-09,
    6.10247389755681e-13,
)  # fmt: skip


def logistic(x: Array) -> Array:
    """The function, computed in f32 and rounded to the operand's type."""
    bounded = np.clip(x.astype(np.float32), np.float32(-LIMIT), np.float32(LIMIT))
    square = bounded * bounded
    ratio = _horner(square, NUMERATOR) * bounded / _horner(square, DENOMINATOR)
    return np.clip(ratio + np.float32(0.5), np.float32(0), np.float32(1)).astype(x.dtype)


def _horner(x: Single, coefficients: tuple[float, ...]) -> Single:
    result: Array = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = fma(result, x, np.asarray(np.float32(coefficient)), F32)
    return result.astype(np.float32)
