"""The f64 expansions against numpy's long double, as compiled code: its fma is exact, an emulated one is not.

Takes samples of the whole range; gives errors in ULP. Invariant: skipped where long double is no wider than f64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from tessera_build.ir.core.math import coefficients_double, derive_double
from tessera_build.ir.core.math.expand import DOUBLE_ULP, EXPANSIONS, expand
from tessera_build.ir.core.types import F32, F64, DType, dtype_of
from tests.backend_llvm_emit.tools import KernelBuilder, run_kernel
from tests.math import reference
from tests.math.test_expansions import ROOT_PI_DIGITS, KernelEmitter

Wide = NDArray[np.longdouble]
Double = NDArray[np.float64]
Array = NDArray[np.generic]

pytestmark = [
    pytest.mark.numerics,
    pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than f64 here"),
]

ONE = np.longdouble(1)
# The same functions of long doubles; the others of the table are no functions of theirs, or not expanded in f64.
REFERENCES = {
    name: cast("Callable[[Wide], Wide]", function)
    for name, function in reference.REFERENCES.items()
    if name not in ("erf", "rsqrt")
}
SPECIALS = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 5e-324, -5e-324, 1e-310, 709.78, 709.79, -745.13, -745.14]
RANGES = {
    "exp": (-750, 712),
    "log": (1e-300, 3),
    "tanh": (-22, 22),
    "sigmoid": (-750, 40),
    "sin": (-1e5, 1e5),
    "asin": (-1, 1),
    "acos": (-1, 1),
    "atanh": (-1, 1),
    "sinh": (-711, 711),
    "cosh": (-711, 711),
}


def compiled(name: str, folder: Path, operands: Sequence[Array]) -> Array:
    builder = KernelBuilder([dtype_of(operands[0].dtype)] * (len(operands) + 1))

    def body(position: int) -> Sequence[int]:
        loaded = [builder.load(pointer, position, 8) for pointer in builder.buffers[:-1]]
        builder.store(builder.buffers[-1], position, expand(name, KernelEmitter(builder), *loaded))
        return []

    builder.loop(builder.number(0), builder.number(operands[0].size), 8, [], body)
    out = np.zeros_like(operands[0])
    assert run_kernel(builder.finish(), folder, [*operands, out]) == 0
    return out


def worst(actual: Array, exact: Wide) -> float:
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float64)
        _, exponent = np.frexp(exact)
        unit = np.ldexp(ONE, np.maximum(exponent - 1, -1022) - 52)
        distance = np.abs(actual.astype(np.longdouble) - exact) / unit
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


@pytest.mark.parametrize("name", REFERENCES)
def test_double_expansion_when_swept_then_stays_within_its_bound(name: str, tmp_path: Path) -> None:
    x, bound = samples(name), DOUBLE_ULP.get(name, EXPANSIONS[name].ulp)
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


def exact_erf(x: float) -> np.longdouble:
    """The series in rational numbers."""
    square, power, total = Fraction(x) ** 2, Fraction(x), Fraction(0)
    for n in range(300):
        total += power * (-1) ** n / (2 * n + 1)
        power = Fraction(round(power * square / (n + 1) * (1 << 400)), 1 << 400)
    scaled = round(total * 2 / ROOT_PI_DIGITS * (1 << 63))
    return np.ldexp(np.longdouble(scaled >> 32) * np.longdouble(2.0**32) + np.longdouble(scaled & 0xFFFFFFFF), -63)


def test_double_erf_when_swept_then_stays_within_its_bound(tmp_path: Path) -> None:
    magnitudes = np.concatenate([np.linspace(0.01, 5.99, 392), [1.0, np.nextafter(1, 2), 0.999, 6, 7, 27, 100, 1e300]])
    x = magnitudes * np.resize([1.0, -1.0], magnitudes.size)
    exact = np.array([exact_erf(min(max(v, -7.0), 7.0)) for v in x.tolist()], np.longdouble)
    assert worst(compiled("erf", tmp_path, [x]), exact) <= DOUBLE_ULP["erf"]
    small = np.exp(np.linspace(-700, -20, 400))
    assert worst(compiled("erf", tmp_path, [small]), small * (2 / np.sqrt(np.arccos(-ONE)))) <= DOUBLE_ULP["erf"]


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize(("name", "meaning"), [("rem", np.fmod), ("mod", np.mod)])
def test_remainder_when_operands_are_any_bits_then_is_exact(
    name: str, meaning: Callable[..., Array], dtype: DType, tmp_path: Path
) -> None:
    random = np.random.default_rng(5)
    special = np.array([0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 3, -3, 5.5, -5.5, 1e30, -1e-40, 7, 1e-45, 0.1])
    with np.errstate(all="ignore"):
        edges = special.astype(dtype.numpy)
    kind = np.uint32 if dtype == F32 else np.uint64
    left, right = (random.integers(0, np.iinfo(kind).max, 4096, kind).view(dtype.numpy) for _ in range(2))
    left, right = np.append(left, np.repeat(edges, 16)), np.append(right, np.tile(edges, 16))
    with np.errstate(all="ignore"):
        expected = meaning(left, right)
    found = compiled(name, tmp_path, [left, right])
    same = (found.view(kind) == expected.view(kind)) | (np.isnan(found) & np.isnan(expected))
    assert np.all(same), list(zip(left[~same][:5], right[~same][:5], strict=True))


@pytest.mark.parametrize("name", derive_double.INTERPOLATIONS)
def test_double_coefficients_when_derived_again_then_are_those_in_the_table(name: str) -> None:
    problem = derive_double.INTERPOLATIONS[name]
    derived, stored = derive_double.coefficients(problem), getattr(coefficients_double, name)
    z = np.linspace(0, problem.high, 101)
    assert np.max(np.abs(np.polyval(derived[::-1], z) - np.polyval(stored[::-1], z))) < 1e-16
    assert stored[0] == float(problem.term(0))


def test_far_coefficients_of_erf_when_derived_again_then_are_those_in_the_table() -> None:
    derived = derive_double.scaled_complement(len(coefficients_double.ERF_FAR))
    t = np.linspace(-1, 1, 101)
    assert np.max(np.abs(np.polyval(derived[::-1], t) - np.polyval(coefficients_double.ERF_FAR[::-1], t))) < 3e-16
    assert (coefficients_double.ERF_MIDDLE, coefficients_double.ERF_HALF) == (
        derive_double.ERF_MIDDLE,
        derive_double.ERF_HALF,
    )
