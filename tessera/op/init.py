"""Initialisers of parameters, each with an explicit seed.

Takes a seed and the spread of the numbers; gives functions from shapes to arrays. Invariant: the same seed and shape
give the same bits on every machine: uniform numbers are exact fractions, and normal ones are sums of them.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from tessera.errors import LanguageError
from tessera.model.arguments import Finite, Inside, door
from tessera.model.parameter import Initialiser
from tessera.model.site import here
from tessera_build.ir.graph.nodes import Array

Seed = Annotated[int, Inside()]
# Twelve uniform numbers have a variance of one together: a normal distribution up to six deviations, by additions of
# exact fractions alone, whereas a logarithm would bring in the bits of one machine's library.
_TERMS = 12


@door
def zeros() -> Initialiser:
    """All zeros."""
    return constant(0.0)


@door
def ones() -> Initialiser:
    """All ones."""
    return constant(1.0)


@door
def constant(value: float) -> Initialiser:
    """All the same number."""

    def make(shape: tuple[int, ...]) -> Array:
        return np.full(shape, value)

    return make


@door
def uniform(seed: Seed, low: Finite = -1.0, high: Finite = 1.0) -> Initialiser:
    """Numbers between two bounds, all equally likely."""
    key = _key(seed)

    def make(shape: tuple[int, ...]) -> Array:
        return _fractions(key, shape) * (high - low) + low

    return make


@door
def normal(seed: Seed, scale: Finite = 1.0, mean: Finite = 0.0) -> Initialiser:
    """Numbers around a mean with a standard deviation of `scale`, at most six of them away."""
    key = _key(seed)

    def make(shape: tuple[int, ...]) -> Array:
        total = np.zeros(shape)
        for part in _fractions(key, (_TERMS, *shape)):
            total = total + part
        return (total - _TERMS / 2) * scale + mean

    return make


@door
def glorot(seed: Seed) -> Initialiser:
    """Uniform numbers that keep the variance of what a matrix is multiplied with, forward and backward."""

    def make(shape: tuple[int, ...]) -> Array:
        inputs, outputs = _fans(shape)
        bound = math.sqrt(6.0 / (inputs + outputs))
        return uniform(seed, -bound, bound)(shape)

    return make


@door
def he(seed: Seed) -> Initialiser:
    """Normal numbers that keep the variance through a matrix and the rectifier behind it."""

    def make(shape: tuple[int, ...]) -> Array:
        return normal(seed, math.sqrt(2.0 / _fans(shape)[0]))(shape)

    return make


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many numbers meet in one output, and how many outputs one number reaches: of [in, out] or [out, in, ...]."""
    if len(shape) < 2:
        inputs = outputs = math.prod(shape)
    elif len(shape) == 2:
        inputs, outputs = shape
    else:
        window = math.prod(shape[2:])
        inputs, outputs = shape[1] * window, shape[0] * window
    return max(inputs, 1), max(outputs, 1)  # of no numbers nothing is drawn


def _key(seed: object) -> int:
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 1 << 64:
        raise LanguageError(
            "BAD_SEED", "a seed is none", site=here(), expected="an integer from 0 to 2**64 - 1", found=repr(seed)
        )
    return seed


def _fractions(key: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Numbers of 32 bits in [0, 1)."""
    bits = np.random.Philox(key=key).random_raw(math.prod(shape))
    return ((np.asarray(bits, np.uint64) >> np.uint64(32)).astype(np.float64) * 2.0**-32).reshape(shape)
