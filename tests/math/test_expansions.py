"""Every expansion against its stated bound, and the compiled code against numpy bit for bit.

Takes `EXPANSIONS`; sweeps exponents, dense ranges and special values. Invariant: a new row without a reference fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tessera_build.ir.core import scalar as scalar_programs
from tessera_build.ir.core.math import derive
from tessera_build.ir.core.math.coefficients import (
    COS,
    ERF,
    ERF_SLOPE_LOW,
    EXP,
    EXPM1,
    HALF_PI,
    LN2_HIGH,
    LN2_LOW,
    LOG,
    SIN,
)
from tessera_build.ir.core.math.expand import DOUBLE_ULP, EXPANSIONS, UNFUSED_ULP, can_expand, expand
from tessera_build.ir.core.math.numpy_emitter import NumpyEmitter
from tessera_build.ir.core.types import BF16, DTYPES, F16, F32, DType, Type, tile
from tests.backend_llvm_emit.tools import KernelBuilder, run_kernel
from tests.math.reference import REFERENCES, Single, errors, points

pytestmark = pytest.mark.numerics

BOUNDED = [name for name, row in EXPANSIONS.items() if row.ulp is not None and row.operands == 1]


def run_numpy(name: str, *operands: np.ndarray) -> np.ndarray:
    emitter = NumpyEmitter()
    return emitter.values[expand(name, emitter, *(emitter.add(operand) for operand in operands))]


def worst(name: str, x: Single) -> float:
    with np.errstate(all="ignore"):
        exact = REFERENCES[name](x.astype(np.float64))
    return float(np.max(errors(run_numpy(name, x), exact)))


@pytest.mark.parametrize("name", BOUNDED)
def test_expansion_when_swept_then_stays_within_its_bound(name: str) -> None:
    bound = EXPANSIONS[name].ulp
    assert bound is not None
    # An exact f64 fma is thirty numpy operations.
    error = worst(name, points(stride=40_009)[:: 8 if name in DOUBLE_ULP and name != "erf" else 1])
    assert error <= bound
    assert error > bound / 4, "the stated bound is far from what the expansion does"


@pytest.mark.parametrize("name", BOUNDED)
def test_expansion_when_products_and_sums_round_apart_then_stays_within_its_bound(name: str) -> None:
    x = points(stride=400_009)
    bound = UNFUSED_ULP.get(name, EXPANSIONS[name].ulp)
    assert bound is not None
    emitter = NumpyEmitter(fused=False)
    with np.errstate(all="ignore"):
        exact = REFERENCES[name](x.astype(np.float64))
    assert np.max(errors(emitter.values[expand(name, emitter, emitter.add(x))].astype(np.float32), exact)) <= bound


@pytest.mark.slow
@pytest.mark.parametrize("name", BOUNDED)
def test_expansion_when_swept_densely_then_stays_within_its_bound(name: str) -> None:
    bound = EXPANSIONS[name].ulp
    assert bound is not None
    stride = 61 * (50 if name in DOUBLE_ULP and name != "erf" else 1)
    for chunk in range(16):
        start, stop = chunk << 28, (chunk + 1) << 28
        patterns = np.arange(start + chunk, stop, stride, dtype=np.uint64).astype(np.uint32).view(np.float32)
        assert worst(name, patterns) <= bound


@pytest.mark.parametrize("name", ["tanh", "erf", "sin", "tan", "asin", "atan", "sinh", "asinh", "atanh"])
def test_odd_function_when_zero_is_negative_then_keeps_its_sign(name: str) -> None:
    result = run_numpy(name, np.array([-0.0, 0.0], np.float32))
    assert np.signbit(result).tolist() == [True, False]


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_periodic_function_when_its_argument_is_huge_then_keeps_every_digit(name: str) -> None:
    far = np.concatenate([np.float32(10.0) ** np.arange(5, 39, dtype=np.float32), [3.4028235e38, 8.5e37]])
    bound = EXPANSIONS[name].ulp
    assert bound is not None
    assert worst(name, np.concatenate([far, -far]).astype(np.float32)) <= bound


def test_sigmoid_and_tanh_when_saturated_then_are_exact() -> None:
    big = np.array([20, 1e30, np.inf], np.float32)
    np.testing.assert_array_equal(run_numpy("tanh", np.concatenate([big, -big])), [1, 1, 1, -1, -1, -1])
    np.testing.assert_array_equal(run_numpy("sigmoid", big), [1, 1, 1])
    np.testing.assert_array_equal(run_numpy("sigmoid", np.array([-200, -np.inf], np.float32)), [0, 0])


@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "i8", "u8"])
@pytest.mark.parametrize(
    ("name", "meaning"), [("sign", "sign"), ("mod", "mod"), ("minimum", "min"), ("maximum", "max")]
)
def test_exact_expansion_when_run_then_means_what_scalar_programs_say(name: str, meaning: str, dtype: str) -> None:
    values = np.array([0, 1, 2, 3, 5, 7, 100, 127, 0.5, 6.25, -1, -2, -3, -7, -100, -6.25, np.nan])
    values = values[: 10 if dtype[0] == "u" else 16 if dtype[0] == "i" else 17].astype(DTYPES[dtype].numpy)
    left, right = np.repeat(values, values.size), np.tile(values, values.size)
    if name == "mod":
        left, right = left[right != 0], right[right != 0]
    operands = [left, right][: EXPANSIONS[name].operands]
    builder = scalar_programs.ScalarBuilder([DTYPES[dtype]] * len(operands))
    program = builder.finish(builder.op(meaning, *range(len(operands))))
    np.testing.assert_array_equal(run_numpy(name, *operands), scalar_programs.evaluate(program, operands)[0])


@pytest.mark.parametrize("dtype", [F16, BF16])
def test_narrow_floats_when_expanded_then_round_the_wide_result_once(dtype: DType) -> None:
    x = np.linspace(-4, 4, 999).astype(dtype.numpy)
    np.testing.assert_array_equal(run_numpy("tanh", x), run_numpy("tanh", x.astype(np.float32)).astype(dtype.numpy))
    assert run_numpy("isnan", x).dtype == np.bool_


def test_expand_when_the_type_has_no_row_then_is_refused() -> None:
    assert not can_expand("exp", "i32")
    emitter = NumpyEmitter()
    with pytest.raises(KeyError, match="exp of i32"):
        expand("exp", emitter, emitter.add(np.zeros(1, np.int32)))


TABLES = {"EXP": EXP, "EXPM1": EXPM1, "ERF": ERF, "LOG": LOG, "SIN": SIN, "COS": COS}


@pytest.mark.parametrize("name", derive.PROBLEMS)
def test_coefficients_when_refitted_then_are_the_ones_in_the_table(name: str) -> None:
    problem = derive.PROBLEMS[name]
    x = np.linspace(problem.low, problem.high, 4001)
    stored = dict(zip(problem.powers, TABLES[name]["f32"], strict=True))
    difference = derive.evaluate(stored, x) - derive.evaluate(dict(enumerate(derive.fit(name))), x)
    assert np.max(np.abs(difference * problem.weight(x))) < 2e-8


LN2 = Fraction("0.693147180559945309417232121458176568075500134360255254120680009")
HALF_PI_DIGITS = Fraction("1.570796326794896619231321691639751442098584699687552910487472296")
ROOT_PI_DIGITS = Fraction("1.772453850905516027298167483341145182797549456122387128213807790")


@pytest.mark.parametrize(("name", "spare", "digits"), [("f32", 8, 43), ("f64", 11, 96)])
def test_parts_of_ln2_when_added_then_are_exact_beyond_the_format(name: str, spare: int, digits: int) -> None:
    high, low = Fraction(LN2_HIGH[name]), Fraction(LN2_LOW[name])
    assert abs(high + low - LN2) < Fraction(1, 2**digits)
    precision = 24 if name == "f32" else 53
    assert (high * 2 ** (precision - spare)).denominator == 1  # leaves room for an exponent's bits


@pytest.mark.parametrize(("name", "digits"), [("f32", 74), ("f64", 160)])
def test_parts_of_half_pi_when_added_then_are_exact_beyond_the_format(name: str, digits: int) -> None:
    assert abs(sum(map(Fraction, HALF_PI[name])) - HALF_PI_DIGITS) < Fraction(1, 2**digits)


def test_slope_of_erf_when_added_up_then_is_two_over_the_root_of_pi() -> None:
    assert abs(Fraction(ERF["f32"][0]) + Fraction(ERF_SLOPE_LOW["f32"]) - 2 / ROOT_PI_DIGITS) < Fraction(1, 2**49)


class KernelEmitter:
    """Writes an expansion into a kernel."""

    fused = True

    def __init__(self, builder: KernelBuilder) -> None:
        self.builder = builder

    def dtype(self, value: int) -> DType:
        return self.builder.types[value].dtype

    def const(self, value: float | int, like: int) -> int:
        return self.builder.const(value, self.builder.types[like])

    def op(self, name: str, *operands: int) -> int:
        return self.builder.op(name, *operands)

    def scales(self, like: int) -> bool:
        return False

    def cast(self, value: int, dtype: DType) -> int:
        return self.builder.op("cast", value, type_=self._with(value, dtype))

    def bitcast(self, value: int, dtype: DType) -> int:
        return self.builder.op("bitcast", value, type_=self._with(value, dtype))

    def rarely(self, mask: int, compute: Callable[[], Sequence[int]], otherwise: Sequence[int]) -> Sequence[int]:
        return [self.op("select", mask, new, old) for new, old in zip(compute(), otherwise, strict=True)]

    def _with(self, value: int, dtype: DType) -> Type:
        type_ = self.builder.types[value]
        return Type(type_.container, dtype, type_.shape)


@pytest.mark.parametrize("name", BOUNDED)
def test_expansion_when_compiled_then_gives_the_bits_of_the_numpy_run(name: str, tmp_path: Path) -> None:
    x = points(stride=400_009)
    x = x[: x.size // 16 * 16]
    builder = KernelBuilder([F32, F32])
    source, target = builder.buffers

    def body(position: int) -> Sequence[int]:
        loaded = builder.load(source, position, 16)
        assert builder.types[loaded] == tile(F32, 16)
        builder.store(target, position, expand(name, KernelEmitter(builder), loaded))
        return []

    builder.loop(builder.number(0), builder.number(x.size), 16, [], body)
    out = np.zeros_like(x)
    assert run_kernel(builder.finish(), tmp_path, [x, out]) == 0
    expected = run_numpy(name, x)
    both_nan = np.isnan(out) & np.isnan(expected)
    assert np.all((out.view(np.int32) == expected.view(np.int32)) | both_nan)
