"""The f64 expansions against numpy's long double, as compiled code: its fma is exact, an emulated one is not.

Takes samples of the whole range; gives errors in ULP. Invariant: skipped where long double is no wider than f64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tessera_build.ir.core.types import F64
from tessera_build.lower.math.expand import EXPANSIONS, can_expand, expand
from tests.backend_llvm_emit.tools import KernelBuilder, run_kernel
from tests.math.test_expansions import KernelEmitter

Wide = NDArray[np.longdouble]
Double = NDArray[np.float64]

pytestmark = [
    pytest.mark.numerics,
    pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than f64 here"),
]

ONE = np.longdouble(1)
REFERENCES: dict[str, Callable[..., Wide]] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": lambda x: np.where(x < 0, np.exp(x) / (ONE + np.exp(x)), ONE / (ONE + np.exp(-x))),
    "sin": np.sin,
    "cos": np.cos,
    "pow": np.power,
}
SPECIALS = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 5e-324, -5e-324, 1e-310, 709.78, 709.79, -745.13, -745.14]
RANGES = {"exp": (-750, 712), "log": (1e-300, 3), "tanh": (-22, 22), "sigmoid": (-750, 40), "sin": (-1e5, 1e5)}


def compiled(name: str, folder: Path, operands: Sequence[Double]) -> Double:
    builder = KernelBuilder([F64] * (len(operands) + 1))

    def body(position: int) -> Sequence[int]:
        loaded = [builder.load(pointer, position, 8) for pointer in builder.buffers[:-1]]
        builder.store(builder.buffers[-1], position, expand(name, KernelEmitter(builder), *loaded))
        return []

    builder.loop(builder.number(0), builder.number(operands[0].size), 8, [], body)
    out = np.zeros_like(operands[0])
    assert run_kernel(builder.finish(), folder, [*operands, out]) == 0
    return out


def worst(actual: Double, exact: Wide) -> float:
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float64)
        _, exponent = np.frexp(exact)
        unit = np.ldexp(ONE, np.maximum(exponent - 1, -1022) - 52)
        distance = np.abs(actual - exact) / unit
    same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
    distance = np.where(same & ~(np.abs(rounded) < np.inf), 0, distance)
    return float(np.max(np.where(np.isnan(distance), np.inf, distance)))


def samples(name: str) -> Double:
    random = np.random.default_rng(3)
    low, high = RANGES.get(name, (-1e5, 1e5))
    sizes = np.exp(random.uniform(-700, 11, 60_000)) * random.choice([-1, 1], 60_000)
    parts = (random.uniform(low, high, 120_000), random.uniform(-2, 2, 60_000), sizes, np.array(SPECIALS))
    values = np.concatenate(parts)
    return values[: values.size // 8 * 8]


@pytest.mark.parametrize("name", [name for name in REFERENCES if name != "pow"])
def test_double_expansion_when_swept_then_stays_within_its_bound(name: str, tmp_path: Path) -> None:
    x, bound = samples(name), EXPANSIONS[name].ulp
    assert bound is not None
    with np.errstate(all="ignore"):
        exact = REFERENCES[name](x.astype(np.longdouble))
    assert worst(compiled(name, tmp_path, [x]), exact) <= bound


def test_double_power_when_swept_then_stays_within_its_bound(tmp_path: Path) -> None:
    random, bound = np.random.default_rng(4), EXPANSIONS["pow"].ulp
    assert bound is not None
    x = np.concatenate([random.uniform(0, 4, 40_000), np.exp(random.uniform(-600, 600, 40_000))])
    y = random.uniform(-700, 700, x.size) / np.log(x)
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.longdouble), y.astype(np.longdouble))
    assert worst(compiled("pow", tmp_path, [x, y]), exact) <= bound


def test_erf_when_asked_in_double_then_has_no_expansion() -> None:
    assert can_expand("erf", "f32")
    assert not can_expand("erf", "f64")
