"""Conversions to and from the storage floats, bit for bit what ml_dtypes gives.

Takes bit patterns of f32 all over its range and dense around every rounding; runs the expansions in numpy and compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tessera_build.ir.core.conversion import convert
from tessera_build.ir.core.math.numpy_emitter import NumpyEmitter
from tessera_build.ir.core.math.storage import from_storage, to_storage
from tessera_build.ir.core.types import DTYPES, F8E5M2, F32, STORAGE_FLOATS, DType
from tests.backend_llvm_emit.tools import KernelBuilder, run_kernel
from tests.math.test_expansions import KernelEmitter

# numpy warns where a conversion meets NaN or overflows, which is what is tried here.
pytestmark = [pytest.mark.numerics, pytest.mark.filterwarnings("ignore::RuntimeWarning")]


def patterns() -> NDArray[np.float32]:
    """Every 4093rd f32, and the neighbours of every number whose last 20 bits are zero."""
    spread = np.arange(0, 1 << 32, 4093, dtype=np.int64)
    near = np.add.outer(np.arange(0, 1 << 32, 1 << 19, dtype=np.int64), np.arange(-3, 4)).reshape(-1)
    return np.concatenate([spread, near % (1 << 32)]).astype(np.uint32).view(np.float32)


def expected(values: NDArray[np.float32], dtype: DType) -> NDArray[np.uint8]:
    with np.errstate(all="ignore"):
        return values.astype(dtype.numpy).view(np.uint8)


@pytest.mark.parametrize("dtype", STORAGE_FLOATS, ids=str)
def test_storage_when_rounded_to_then_has_the_bits_of_ml_dtypes(dtype: DType) -> None:
    emitter, values = NumpyEmitter(), patterns()
    found = emitter.values[to_storage(emitter, emitter.add(values), dtype)].view(np.uint8)
    # ml_dtypes keeps part of a NaN's payload in no type but this one: any NaN will do.
    judged = ~np.isnan(values) if dtype == F8E5M2 else np.ones(values.size, np.bool_)
    np.testing.assert_array_equal(found[judged], expected(values, dtype)[judged])
    assert dtype != F8E5M2 or np.isnan(found[~judged].view(dtype.numpy).astype(np.float32)).all()


@pytest.mark.parametrize("dtype", STORAGE_FLOATS, ids=str)
def test_storage_when_read_then_every_code_has_its_value(dtype: DType) -> None:
    emitter, codes = NumpyEmitter(), np.arange(1 << dtype.bits, dtype=np.uint8).view(dtype.numpy)
    found = emitter.values[from_storage(emitter, emitter.add(codes))]
    np.testing.assert_array_equal(found, codes.astype(np.float32))
    number = ~np.isnan(found)
    np.testing.assert_array_equal(np.signbit(found)[number], np.signbit(codes.astype(np.float32))[number])


@pytest.mark.parametrize("dtype", STORAGE_FLOATS, ids=str)
def test_storage_when_compiled_then_gives_the_same_bits(dtype: DType, tmp_path: Path) -> None:
    values = patterns()[::61].copy()
    values = values[: values.size // 16 * 16]
    builder = KernelBuilder([F32, dtype, F32])

    def body(position: int) -> Sequence[int]:
        emitter = KernelEmitter(builder)
        narrow = to_storage(emitter, builder.load(builder.buffers[0], position, 16), dtype)
        builder.store(builder.buffers[1], position, narrow)
        builder.store(builder.buffers[2], position, from_storage(emitter, narrow))
        return []

    builder.loop(builder.number(0), builder.number(values.size), 16, [], body)
    narrow, back = np.zeros(values.size, dtype.numpy), np.zeros_like(values)
    assert run_kernel(builder.finish(), tmp_path, [values, narrow, back]) == 0
    np.testing.assert_array_equal(narrow.astype(np.float32), values.astype(dtype.numpy).astype(np.float32))
    np.testing.assert_array_equal(back, narrow.astype(np.float32))


@pytest.mark.parametrize("name", ["i32", "i64", "u8", "u32", "u64", "i4"])
def test_conversion_when_a_float_is_out_of_range_then_has_one_answer(name: str) -> None:
    lowest = {"i32": -(2**31), "i64": -(2**63), "u64": 2**63}.get(name, 0)
    found = convert(np.array([np.nan, np.inf, -np.inf, 1e30, -1.75]), DTYPES[name]).tolist()
    assert [int(v) for v in found[:4]] == [lowest] * 4
    assert int(found[4]) == {"u8": 255, "u32": 2**32 - 1, "u64": 2**64 - 1}.get(name, -1)
