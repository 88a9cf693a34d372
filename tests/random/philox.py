"""Philox4x32-10 in Python's own integers, and the statistics that draws are judged by.

Takes counters and keys, or arrays of draws; gives words and distances. Invariant: nothing here is shared with the
code under test.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_WORD = 2**32


def block(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Ten rounds over four words of 32 bits."""
    a, b, c, d = counter
    left, right = key
    for _ in range(10):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (q // _WORD) ^ b ^ left, q % _WORD, (p // _WORD) ^ d ^ right, p % _WORD
        left, right = (left + 0x9E3779B9) % _WORD, (right + 0xBB67AE85) % _WORD
    return a, b, c, d


def words(key: int, number: int) -> tuple[int, int, int, int]:
    """The block of one element."""
    return block((number % _WORD, number // _WORD, 0, 0), (key % _WORD, key // _WORD))


def distance_to_uniform(draws: NDArray[np.float64]) -> float:
    """Kolmogorov and Smirnov's distance to the uniform distribution on [0, 1), times the root of the count."""
    return _distance(np.sort(draws))


def distance_to_normal(draws: NDArray[np.float64]) -> float:
    """The same to the normal distribution."""
    below = [0.5 * math.erfc(-x / math.sqrt(2)) for x in np.sort(draws)]
    return _distance(np.asarray(below))


def _distance(probabilities: NDArray[np.float64]) -> float:
    n = probabilities.size
    steps = np.arange(n + 1) / n
    largest = max(np.max(steps[1:] - probabilities), np.max(probabilities - steps[:-1]))
    return float(largest * math.sqrt(n))


def correlations(draws: NDArray[np.float64], lags: tuple[int, ...]) -> list[float]:
    """Correlation of each draw with the one `lag` places on, times the root of the count."""
    centred = draws - draws.mean()
    found: list[float] = []
    for lag in lags:
        product = np.mean(centred[:-lag] * centred[lag:]) / np.mean(centred**2)
        found.append(float(product * math.sqrt(draws.size - lag)))
    return found
