"""Scalar programs and fused multiply-add: text, merging, meaning.

Takes random programs and numbers. Invariant: what is printed parses equal, and one rounding is one rounding.
"""

import ctypes
import ctypes.util
import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera_build.ir.core.rounding import fma, narrow
from tessera_build.ir.core.scalar import CONVERSIONS, SCALAR_OPS, ScalarBuilder, ScalarProgram, evaluate, parse_program
from tessera_build.ir.core.types import BF16, BOOL, DTYPES, F16, F32, F64, I8, I32, U8
from tests.ir.functions import scalar_programs

pytestmark = pytest.mark.unit


@given(scalar_programs())
def test_program_when_printed_then_parses_equal(program: ScalarProgram) -> None:
    again = parse_program(program.lines())
    assert again.lines() == program.lines()
    assert (again.inputs, again.results) == (program.inputs, program.results)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -0.0, 5e-324, 0.1, 1.7976931348623157e308])
def test_constant_when_printed_then_keeps_every_bit(value: float) -> None:
    builder = ScalarBuilder([])
    program = builder.finish(builder.const(value, F64))
    (again,) = evaluate(parse_program(program.lines()), [])
    assert again.tobytes() == np.float64(value).tobytes()


@pytest.mark.parametrize("lines", [["%0 = input : f33", "return %0"], ["nothing"], ["%0 = add(%1 : f32", "return %0"]])
def test_program_text_when_wrong_then_is_refused(lines: list[str]) -> None:
    with pytest.raises(ValueError, match=r"element type|scalar operation"):
        parse_program([*lines, "return"] if len(lines) == 1 else lines)


def test_builder_when_operations_repeat_then_merges_them() -> None:
    builder = ScalarBuilder([F32])
    assert builder.op("add", 0, 0) == builder.op("add", 0, 0)
    assert builder.const(0.0, F32) != builder.const(-0.0, F32)
    with pytest.raises(ValueError, match="2 arguments"):
        builder.op("neg", 0, 0)


@pytest.mark.parametrize("dtype", [F64, F32, F16, BF16], ids=str)
@pytest.mark.parametrize(
    "name", sorted(n for n, arity in SCALAR_OPS.items() if arity == 1 and n not in {*CONVERSIONS, "not"})
)
def test_unary_operation_when_run_then_keeps_the_declared_type(name: str, dtype: object) -> None:
    declared = DTYPES[str(dtype)]
    builder = ScalarBuilder([declared])
    program = builder.finish(builder.op(name, 0))
    (result,) = evaluate(program, [np.array([0.5, 1.0, 2.0], declared.numpy)])
    assert result.dtype == program.dtype(program.results[0]).numpy
    assert result.shape == (3,)


@given(st.integers(-128, 127), st.integers(-128, 127).filter(bool))
def test_integer_division_when_signs_differ_then_truncates(a: int, b: int) -> None:
    builder = ScalarBuilder([I32, I32])
    program = builder.finish(builder.op("div", 0, 1))
    (quotient,) = evaluate(program, [np.array(a, np.int32), np.array(b, np.int32)])
    assert int(quotient) == int(Fraction(a, b))


def test_comparison_when_run_then_gives_bool() -> None:
    builder = ScalarBuilder([U8, U8])
    program = builder.finish(builder.op("select", builder.op("lt", 0, 1), 0, 1))
    (smaller,) = evaluate(program, [np.array([1, 200], np.uint8), np.array([2, 100], np.uint8)])
    assert smaller.tolist() == [1, 100]
    assert program.dtype(2) == BOOL


@pytest.mark.numerics
def test_fma_when_sum_is_near_a_tie_then_rounds_once() -> None:
    # (1 + 2^-23)(2^-24 - 2^-47) = 2^-24 - 2^-70: just below half a unit of 1 + 2^-23, on the tie after 53 bits.
    a, b, c = (np.array([v], np.float32) for v in (1 + 2**-23, 2**-24 - 2**-47, 1 + 2**-23))
    assert fma(a, b, c, F32)[0] == np.float32(1 + 2**-23)
    twice = np.float32(float(a[0]) * float(b[0]) + float(c[0]))
    assert twice != np.float32(1 + 2**-23)


@pytest.mark.numerics
@pytest.mark.parametrize(("name", "dtype"), [("fmaf", F32), ("fma", F64)], ids=["f32", "f64"])
def test_fma_when_numbers_cancel_then_equals_the_c_library(name: str, dtype: object) -> None:
    declared = F32 if name == "fmaf" else F64
    function = getattr(ctypes.CDLL(ctypes.util.find_library("m")), name)
    kind = ctypes.c_float if name == "fmaf" else ctypes.c_double
    function.argtypes, function.restype = [kind] * 3, kind
    random = np.random.default_rng(7)
    a, b = (random.standard_normal(4000).astype(declared.numpy) for _ in range(2))
    near = -np.multiply(a, b) * (1 + random.integers(-3, 4, 4000) * 2.0**-23)
    c = np.where(random.random(4000) < 0.5, near, random.standard_normal(4000)).astype(declared.numpy)
    expected = np.array([function(x, y, z) for x, y, z in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)])
    np.testing.assert_array_equal(fma(a, b, c, declared), expected.astype(declared.numpy))


def test_fma_when_result_is_zero_or_infinite_then_keeps_sign() -> None:
    for dtype in (F64, F32, F16):
        values = [np.array([v], dtype.numpy) for v in (-0.0, 1.0, -0.0, math.inf)]
        assert np.signbit(fma(values[0], values[1], values[2], dtype))[0]
        assert fma(values[3], values[1], values[0], dtype)[0] == math.inf


def test_fma_when_integers_overflow_then_wraps() -> None:
    a, b, c = (np.array([v], np.int8) for v in (100, 2, 1))
    assert fma(a, b, c, I8).tolist() == [-55]


def test_narrow_when_just_above_a_bf16_tie_then_rounds_up() -> None:
    value = np.array([1 + 2**-8 + 2**-40])
    assert narrow(value, BF16)[0] == ml_dtypes.bfloat16(1 + 2**-7)
    assert value.astype(ml_dtypes.bfloat16)[0] == 1  # the reason why `narrow` exists
