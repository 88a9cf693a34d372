"""The error function of numpy arrays, which numpy does not have.

Takes an array of floats; gives erf of each element, computed in float64 and rounded to the array's type. Invariant:
within 4e-16 of the exact value, and within as much of it relatively where it is small. Python's own function, called
for each element, took a third of the processor time of proving a network with Gelu.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

_NEAR_ONE = 6.0  # erf is 1 from here on, in float64
_STEPS = 16  # expansions a unit: one is used at most 1/32 away from its centre
_DEGREE = 11
_BLOCK = 1 << 14  # elements at once, so that what is between lies in the caches


def erf(values: Array) -> Array:
    """erf, element by element."""
    wide = np.asarray(values, np.float64).reshape(-1)
    result = np.empty_like(wide)
    for first in range(0, wide.size, _BLOCK):
        result[first : first + _BLOCK] = _block(wide[first : first + _BLOCK])
    return result.reshape(values.shape).astype(values.dtype)


def _block(values: NDArray[np.float64]) -> NDArray[np.float64]:
    size = np.minimum(np.abs(values), _NEAR_ONE)
    centre = np.rint(np.fmin(size, _NEAR_ONE) * _STEPS).astype(np.intp)  # a NaN takes any: the distance stays a NaN
    distance = size - centre / _STEPS
    total = _COEFFICIENTS[_DEGREE][centre]
    for coefficients in _COEFFICIENTS[_DEGREE - 1 :: -1]:
        total = total * distance + coefficients[centre]
    return np.copysign(total, values)


def _taylor(centre: float) -> list[float]:
    """The Taylor coefficients of erf around `centre`, from those of its derivative, 2/√π·exp(-x²)."""
    slope = [2 / math.sqrt(math.pi) * math.exp(-centre * centre)]
    slope.append(-2 * centre * slope[0])
    for degree in range(1, _DEGREE - 1):
        slope.append(-2 * (centre * slope[degree] + slope[degree - 1]) / (degree + 1))
    return [math.erf(centre), *(value / (degree + 1) for degree, value in enumerate(slope))]


_COEFFICIENTS = np.asarray([_taylor(index / _STEPS) for index in range(int(_NEAR_ONE) * _STEPS + 1)]).T.copy()
