"""Derivatives of numpy functions by central differences in float64.

Takes functions and points; gives changes and gradients. Invariant: nothing of Tessera has a part in them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def difference(function: Callable[[Doubles], Doubles], x: Doubles, direction: Doubles, step: float = 1e-6) -> Doubles:
    """The change of a function along a direction."""
    return (function(x + step * direction) - function(x - step * direction)) / (2 * step)


def gradient(function: Callable[[Doubles], Doubles], x: Doubles) -> Doubles:
    """The gradient of a number."""
    found = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        direction = np.zeros_like(x)
        direction[place] = 1
        found[place] = difference(function, x, direction)
    return found


def softmax(x: Doubles) -> Doubles:
    """exp(x) divided by its sum along the last axis."""
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
