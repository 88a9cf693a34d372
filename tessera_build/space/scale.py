"""What errors of an algorithm are measured against: outputs as they are without weights of another order.

Takes weights, and outputs in f64; gives weights and a number. Invariant: weights of one order are looked at as they
are. A weight a thousand times as large as the others is multiplied by zero wherever its input is zero, as behind a
rectifier; an algorithm that mixes inputs then leaves errors of its order beside outputs of theirs.
"""

from __future__ import annotations

import math
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

Real = TypeVar("Real", np.float32, np.float64)
_PEAK: Final = 256.0  # times the median, of weights that are not zero; trained ones, scales folded in, stay below


def with_peak(weights: NDArray[Real], count: int) -> NDArray[Real]:
    """At most `count` columns of the last axis, evenly, and the one with the largest weight if that is a peak."""
    columns = weights.shape[-1]
    step = max(1, columns // count)
    chosen = weights[..., ::step][..., :count]
    if without_peaks(weights) is weights:
        return chosen
    largest = int(np.abs(weights).reshape(-1, columns).max(0).argmax())
    peak: NDArray[Real] = weights[..., largest : largest + 1]
    return np.concatenate([chosen, peak], axis=-1)


def without_peaks(weights: NDArray[Real]) -> NDArray[Real]:
    """The weights, those of another order cut off; the very same array where there are none."""
    sizes = np.abs(weights)
    largest = float(sizes.max(initial=0))
    if largest <= _PEAK * float(sizes.mean()):
        return weights
    limit = _PEAK * float(np.median(sizes[sizes > 0]))
    return weights if largest <= limit else np.clip(weights, -limit, limit)


def deviation_of(outputs: NDArray[np.float64]) -> float:
    """The standard deviation, with sums in a fixed order."""
    values = [float(value) for value in outputs.ravel()]
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
