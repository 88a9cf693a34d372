"""Where the coefficients of this folder come from: weighted minimax fits by Remez exchange.

Takes a function, a weight, the powers of the polynomial and an interval; gives coefficients in the working precision.
Invariant: the polynomials in `coefficients.py` are those of `fit`, up to the last digit that a linear solver leaves
open (a test refits them).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

_GRID = 20001
_ROUNDS = 40
_TINY = 1e-30


@dataclass(frozen=True, slots=True)
class Problem:
    """Find c minimising max |(sum c_k x^k - function(x)) * weight(x)| over the interval; `fixed` coefficients stay."""

    function: Function
    weight: Function
    powers: tuple[int, ...]
    low: float
    high: float
    fixed: Mapping[int, float] = field(default_factory=dict[int, float])


def minimax(problem: Problem) -> tuple[dict[int, float], float]:
    """Coefficients by power (fixed ones included) and the largest weighted error."""
    x = _nodes(problem.low, problem.high, _GRID)
    weight = problem.weight(x)
    target = problem.function(x) - evaluate(problem.fixed, x)
    free = [power for power in problem.powers if power not in problem.fixed]
    basis = np.stack([x**power for power in free], axis=1)
    reference = np.linspace(0, len(x) - 1, len(free) + 1).round().astype(np.int64)
    best: tuple[Array, float] = (np.zeros(len(free)), float("inf"))
    for _ in range(_ROUNDS):
        # Rows are weighted, not their errors: points that hardly count must not spoil the others' digits.
        rows, signs = weight[reference], (-1.0) ** np.arange(len(reference))
        system = np.column_stack([basis[reference] * rows[:, None], signs])
        solution = np.linalg.solve(system, target[reference] * rows)[:-1]
        error = (basis @ solution - target) * weight
        worst = float(np.max(np.abs(error)))
        if worst < best[1]:
            best = np.asarray(solution, np.float64), worst
        following = _extrema(error, len(reference))
        if following is None or np.array_equal(following, reference):
            break
        reference = following
    return {**problem.fixed, **dict(zip(free, best[0].tolist(), strict=True))}, best[1]


def _nodes(low: float, high: float, count: int) -> Array:
    """Chebyshev nodes, dense at both ends where the extrema crowd."""
    angles = np.linspace(np.pi, 0, count)
    return low + (high - low) * (1 + np.cos(angles)) / 2


def _extrema(error: Array, count: int) -> NDArray[np.int64] | None:
    """The largest point of each run of one sign; the `count` consecutive ones that hold the largest errors."""
    changes = np.flatnonzero(np.diff(np.sign(error)) != 0) + 1
    runs = np.split(np.arange(len(error)), changes)
    peaks = np.array([run[np.argmax(np.abs(error[run]))] for run in runs])
    if len(peaks) < count:
        return None
    windows = [peaks[start : start + count] for start in range(len(peaks) - count + 1)]
    return max(windows, key=lambda window: float(np.min(np.abs(error[window]))))


def evaluate(coefficients: Mapping[int, float], x: Array) -> Array:
    """The polynomial at x."""
    return sum((value * x**power for power, value in coefficients.items()), np.zeros_like(x))


def _exp_over(x: Array) -> Array:
    return np.exp(-x)


def _expm1_ratio(x: Array) -> Array:
    """(e**x - 1) / x."""
    safe = np.where(np.abs(x) < _TINY, 1.0, x)
    return np.where(np.abs(x) < _TINY, 1.0 + x / 2, np.expm1(safe) / safe)


def _erf(x: Array) -> Array:
    return np.array([math.erf(value) for value in x.tolist()])


def _erf_exponent(x: Array) -> Array:
    """-log(1 - erf(x)) / x."""
    safe = np.maximum(x, _TINY)
    values = [-math.log(math.erfc(v)) if v > 0.5 else -math.log1p(-math.erf(v)) for v in safe.tolist()]
    return np.array(values) / safe


def _erf_weight(x: Array) -> Array:
    """How much a change of `_erf_exponent` changes erf, relative to erf."""
    safe = np.maximum(x, _TINY)
    return safe * (1.0 - _erf(safe)) / _erf(safe)


def _atanh_tail(s: Array) -> Array:
    """(2 atanh(s) - 2 s) / s**3 as a function of z = s*s, the argument being z."""
    root = np.sqrt(np.maximum(s, _TINY))
    return np.where(s < 1e-4, 2 / 3 + s * (2 / 5 + s * (2 / 7)), (2 * np.arctanh(root) - 2 * root) / root**3)


def _sin_tail(z: Array) -> Array:
    """(sin(r) - r) / r**3 as a function of z = r*r."""
    root = np.sqrt(np.maximum(z, _TINY))
    return np.where(z < 1e-3, -1 / 6 + z / 120 - z * z / 5040, (np.sin(root) - root) / root**3)


def _cos_tail(z: Array) -> Array:
    """(cos(r) - 1 + r*r/2) / r**4 as a function of z = r*r."""
    root = np.sqrt(np.maximum(z, _TINY))
    return np.where(z < 0.02, 1 / 24 - z / 720 + z * z / 40320, (np.cos(root) - 1 + z / 2) / np.maximum(z * z, _TINY))


def _one(x: Array) -> Array:
    return np.ones_like(x)


def _powers(count: int) -> tuple[int, ...]:
    return tuple(range(count))


_HALF_LN2 = math.log(2) / 2 * 1.001
_S_LIMIT = ((math.sqrt(2) - 1) / (math.sqrt(2) + 1)) ** 2 * 1.001
_R_LIMIT = (math.pi / 4 * 1.001) ** 2
# name -> the fit of its f32 polynomial
PROBLEMS = {
    "EXP": Problem(np.exp, _exp_over, _powers(7), -_HALF_LN2, _HALF_LN2, {0: 1.0, 1: 1.0}),
    "EXPM1": Problem(_expm1_ratio, _one, _powers(7), -_HALF_LN2, _HALF_LN2, {0: 1.0, 1: 0.5}),
    "ERF": Problem(_erf_exponent, _erf_weight, _powers(9), 0.0, 3.95),
    "LOG": Problem(_atanh_tail, _one, _powers(4), 0.0, _S_LIMIT),
    "SIN": Problem(_sin_tail, _one, _powers(4), 0.0, _R_LIMIT),
    "COS": Problem(_cos_tail, _one, _powers(4), 0.0, _R_LIMIT),
}


def fit(name: str) -> tuple[float, ...]:
    """The coefficients of a row of `PROBLEMS`, rounded to f32."""
    coefficients, _ = minimax(PROBLEMS[name])
    return tuple(float(np.float32(coefficients[power])) for power in PROBLEMS[name].powers)
