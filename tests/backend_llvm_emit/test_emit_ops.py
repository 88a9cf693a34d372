"""Every operation of Target IR on this machine against numpy, in scalars and in vectors.

Takes random and special operands; gives bitwise comparisons. Invariant: each case runs compiled code.
"""

from pathlib import Path

import numpy as np
import pytest

from tessera_build.backends.llvm.emit_kernel import kernel_ir
from tessera_build.backends.llvm.errors import CompileError
from tessera_build.ir.core.types import BOOL, DTYPES, F32, I32, scalar, tile
from tests.backend_llvm_emit.tools import Array, KernelBuilder, apply, kernel_assembly, machine, run_kernel

pytestmark = pytest.mark.numerics

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 3e38, 123.75, -7.0]
FLOAT_BINARY = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
FLOAT_UNARY = {
    "neg": np.negative,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
}
COMPARE = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
BITS = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}
LANES = pytest.mark.parametrize("lanes", [0, 16])


def pairs(dtype: str) -> tuple[Array, Array]:
    """Every special value with every other."""
    with np.errstate(all="ignore"):
        values = np.array(SPECIAL, np.float64).astype(DTYPES[dtype].numpy)
    return np.repeat(values, len(values)), np.tile(values, len(values))


def integers(dtype: str) -> tuple[Array, Array]:
    limits = np.iinfo(str(DTYPES[dtype].numpy))
    values = np.array([0, 1, 2, 3, 7, 100, limits.max, limits.min], DTYPES[dtype].numpy)
    values = np.concatenate(
        [values, np.floor_divide(values, 3), np.array([limits.max - 1, limits.min + 1] * 4, values.dtype)]
    )
    values = values[:16]
    return np.repeat(values, 16), np.tile(values, 16)


def same_bits(actual: Array, expected: Array) -> None:
    """Equal bit for bit, any NaN equal to any other."""
    both = np.isnan(actual.astype(np.float64)) & np.isnan(expected.astype(np.float64))
    kind = f"V{actual.itemsize}"
    np.testing.assert_array_equal((actual.view(kind) == expected.view(kind)) | both, np.ones(actual.size, np.bool_))


@LANES
@pytest.mark.parametrize("dtype", ["f32", "f64", "f16", "bf16"])
@pytest.mark.parametrize("name", FLOAT_BINARY)
def test_float_binary_when_run_then_rounds_as_numpy(tmp_path: Path, name: str, dtype: str, lanes: int) -> None:
    left, right = pairs(dtype)
    with np.errstate(all="ignore"):
        expected = FLOAT_BINARY[name](left, right)
    same_bits(apply(tmp_path, name, [left, right], np.zeros_like(left), lanes), expected)


@LANES
@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("name", FLOAT_UNARY)
def test_float_unary_when_run_then_rounds_as_numpy(tmp_path: Path, name: str, dtype: str, lanes: int) -> None:
    values, _ = pairs(dtype)
    with np.errstate(all="ignore"):
        expected = FLOAT_UNARY[name](values)
    same_bits(apply(tmp_path, name, [values], np.zeros_like(values), lanes), expected)


@LANES
@pytest.mark.parametrize("name", ["min", "max"])
def test_float_minimum_when_nan_comes_first_then_it_stays(tmp_path: Path, name: str, lanes: int) -> None:
    left, right = pairs("f32")
    chosen = (np.less if name == "min" else np.greater)(right, left)
    same_bits(apply(tmp_path, name, [left, right], np.zeros_like(left), lanes), np.where(chosen, right, left))


@LANES
@pytest.mark.parametrize("dtype", ["f32", "bf16", "i32", "u32", "i8", "u64"])
@pytest.mark.parametrize("name", COMPARE)
def test_comparison_when_run_then_orders_as_numpy(tmp_path: Path, name: str, dtype: str, lanes: int) -> None:
    left, right = pairs(dtype) if DTYPES[dtype].is_float else integers(dtype)
    with np.errstate(all="ignore"):
        expected = COMPARE[name](left, right)
    np.testing.assert_array_equal(apply(tmp_path, name, [left, right], np.zeros(left.size, np.bool_), lanes), expected)


@LANES
@pytest.mark.parametrize("dtype", ["i32", "u8", "i64"])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "min", "max", *BITS])
def test_integer_binary_when_run_then_wraps_as_numpy(tmp_path: Path, name: str, dtype: str, lanes: int) -> None:
    left, right = integers(dtype)
    functions = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "min": np.minimum, "max": np.maximum, **BITS}
    with np.errstate(all="ignore"):
        expected = functions[name](left, right)
    np.testing.assert_array_equal(apply(tmp_path, name, [left, right], np.zeros_like(left), lanes), expected)


@LANES
def test_high_product_when_run_then_is_what_the_product_leaves_out(tmp_path: Path, lanes: int) -> None:
    left, right = (array.astype(np.uint32) for array in integers("u32"))
    left, right = left * np.uint32(0x9E3779B9), np.invert(right)
    expected = np.array([int(a) * int(b) >> 32 for a, b in zip(left, right, strict=True)], np.uint32)
    assert expected.max() > 2**31
    np.testing.assert_array_equal(apply(tmp_path, "mulhi", [left, right], np.zeros_like(left), lanes), expected)


@LANES
@pytest.mark.parametrize("dtype", ["i32", "u32", "i64", "i8"])
def test_integer_division_when_divisor_is_zero_or_minus_one_then_it_does_not_trap(
    tmp_path: Path, dtype: str, lanes: int
) -> None:
    left, right = integers(dtype)
    safe = np.where(right == 0, 1, right).astype(object)
    exact = left.astype(object)
    quotient = np.array(
        [abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1) for a, b in zip(exact, safe, strict=True)]
    )
    bits = DTYPES[dtype].bits
    remainder = exact - quotient * safe
    wrap = np.array([int(q) & ((1 << bits) - 1) for q in quotient], np.uint64).astype(f"u{bits // 8}").view(left.dtype)
    np.testing.assert_array_equal(apply(tmp_path, "div", [left, right], np.zeros_like(left), lanes), wrap)
    np.testing.assert_array_equal(
        apply(tmp_path, "rem", [left, right], np.zeros_like(left), lanes), remainder.astype(left.dtype)
    )


@LANES
@pytest.mark.parametrize("source", ["f32", "f64", "f16", "bf16", "i64", "i32", "u8", "i8", "bool"])
@pytest.mark.parametrize("target", ["f32", "f64", "f16", "bf16", "i64", "i32", "u8", "i8", "bool"])
def test_cast_when_values_are_in_range_then_converts_as_numpy(
    tmp_path: Path, source: str, target: str, lanes: int
) -> None:
    values = np.array([0, 1, 2, 3, 7, 100, 127, 64, 0.5, 1.75, 99.9, 33.3, 5, 6, 8, 9]).astype(DTYPES[source].numpy)
    out = np.zeros(values.size, DTYPES[target].numpy)
    same_bits(apply(tmp_path, "cast", [values], out, lanes), values.astype(np.float64).astype(out.dtype))


@LANES
def test_bf16_rounding_when_any_f32_comes_then_matches_ml_dtypes(tmp_path: Path, lanes: int) -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 4096, np.uint32)
    values = np.concatenate([bits.view(np.float32), np.array(SPECIAL, np.float32)])
    bf16 = DTYPES["bf16"].numpy
    with np.errstate(all="ignore"):
        expected = values.astype(bf16)
    same_bits(apply(tmp_path, "cast", [values], np.zeros(values.size, bf16), lanes), expected)


@LANES
def test_select_fma_and_not_when_combined_then_follow_their_masks(tmp_path: Path, lanes: int) -> None:
    builder = KernelBuilder([F32, F32])
    zero, one = builder.number(0), builder.const(1.5, tile(F32, lanes) if lanes else scalar(F32))
    x = builder.load(builder.buffers[0], zero, lanes)
    mask = builder.op("not", builder.op("lt", x, one))
    builder.store(builder.buffers[1], zero, builder.op("select", mask, builder.op("fma", x, x, one), x))
    values = np.linspace(-3, 3, 16, dtype=np.float32)[: max(1, lanes)]
    out = np.zeros_like(values)
    run_kernel(builder.finish(), tmp_path, [values, out])
    fused = (values.astype(np.float64) * values + 1.5).astype(np.float32)
    np.testing.assert_array_equal(out, np.where(~(values < 1.5), fused, values))


def test_shifts_and_bitcast_when_run_then_move_bits(tmp_path: Path) -> None:
    builder = KernelBuilder([F32, I32])
    zero, four = builder.number(0), builder.const(23, tile(I32, 8))
    bits = builder.op("bitcast", builder.load(builder.buffers[0], zero, 8), type_=tile(I32, 8))
    builder.store(builder.buffers[1], zero, builder.op("ashr", bits, four))
    values = np.array([1, -1, 2, 0.5, 0, -0.0, 8, 1024], np.float32)
    out = np.zeros(8, np.int32)
    run_kernel(builder.finish(), tmp_path, [values, out])
    np.testing.assert_array_equal(out, values.view(np.int32) >> 23)


def test_float_minimum_when_compiled_then_is_one_instruction() -> None:
    builder = KernelBuilder([F32, F32, F32])
    zero = builder.number(0)
    left, right = (builder.load(pointer, zero, 16) for pointer in builder.buffers[:2])
    builder.store(builder.buffers[2], zero, builder.op("min", left, right))
    text = kernel_assembly(builder.finish())
    assert text.count("vminps") == 1
    assert "vcmp" not in text
    assert "blend" not in text


def test_remainder_of_floats_when_asked_then_is_refused() -> None:
    builder = KernelBuilder([F32])
    x = builder.load(builder.buffers[0], builder.number(0))
    builder.op("rem", x, x)
    with pytest.raises(CompileError, match="no operation on floats"):
        kernel_ir(builder.finish(), machine())


def test_addition_of_bools_when_asked_then_is_refused() -> None:
    builder = KernelBuilder([BOOL])
    x = builder.load(builder.buffers[0], builder.number(0))
    builder.op("add", x, x)
    with pytest.raises(CompileError, match="no operation on integers"):
        kernel_ir(builder.finish(), machine())
