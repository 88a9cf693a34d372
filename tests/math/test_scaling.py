"""Powers of two by one instruction: the bits of the two exact factors that other machines multiply by.

Takes samples of the whole range, denormal results, infinities and NaN included; gives bits. Invariant: a machine that
has the instruction and one that has not answer alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tessera_build.backends.llvm.objects import native_options
from tessera_build.config import load_target
from tessera_build.driver.machine import machine_of
from tessera_build.ir.core.math.expand import expand
from tessera_build.ir.core.math.numpy_emitter import Array, NumpyEmitter
from tessera_build.ir.core.types import F32, F64, DType
from tests.backend_llvm_emit.tools import KernelBuilder, run_kernel
from tests.math.reference import points
from tests.math.test_expansions import KernelEmitter

pytestmark = pytest.mark.numerics

has_instruction = pytest.mark.skipif("+avx512vl" not in str(native_options()), reason="this processor lacks AVX-512")


class ScalingEmitter(KernelEmitter):
    """A machine with the instruction."""

    def scales(self, like: int) -> bool:
        return True


def samples(dtype: DType) -> Array:
    """Points of the whole range, and many where results are denormal or overflow."""
    low, high = (-105.0, 90.0) if dtype == F32 else (-750.0, 712.0)
    dense = np.concatenate([np.linspace(low, low + 40, 20_000), np.linspace(high - 4, high, 20_000)])
    far = 10.0 ** np.linspace(0, 38 if dtype == F32 else 308, 20_000)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan])
    wide: Array = points(stride=400_009) if dtype == F32 else np.linspace(-800, 800, 20_000)
    x = np.concatenate([part.astype(dtype.numpy) for part in (dense, special, wide, far, -far)])
    return x[: x.size // 16 * 16]


def compiled(name: str, x: Array, dtype: DType, lanes: int, folder: Path, emitter: type[KernelEmitter]) -> Array:
    builder = KernelBuilder([dtype, dtype])
    source, target = builder.buffers

    def body(position: int) -> Sequence[int]:
        loaded = builder.load(source, position, lanes)
        builder.store(target, position, expand(name, emitter(builder), loaded))
        return []

    builder.loop(builder.number(0), builder.number(x.size), lanes, [], body)
    out = np.zeros_like(x)
    assert run_kernel(builder.finish(), folder, [x, out]) == 0
    return out


@has_instruction
@pytest.mark.parametrize("name", ["exp", "sigmoid"])
@pytest.mark.parametrize(("dtype", "lanes"), [(F32, 4), (F32, 8), (F32, 16), (F64, 2), (F64, 4), (F64, 8)])
def test_function_when_scaled_by_one_instruction_then_keeps_its_bits(
    name: str, dtype: DType, lanes: int, tmp_path: Path
) -> None:
    x = samples(dtype)
    ours, portable = (compiled(name, x, dtype, lanes, tmp_path, e) for e in (ScalingEmitter, KernelEmitter))
    bits = np.int32 if dtype == F32 else np.int64
    np.testing.assert_array_equal(ours.view(bits), portable.view(bits))


@pytest.mark.parametrize("scaling", [False, True])
def test_exponential_when_machine_scales_then_takes_nine_operations_less(scaling: bool) -> None:
    emitter = NumpyEmitter(scaling=scaling)
    expand("exp", emitter, emitter.add(np.zeros(1, np.float32)))
    assert emitter.operations == (12 if scaling else 21)


def test_scaled_exponential_when_operations_are_numpys_then_has_the_bits_of_the_portable_one() -> None:
    x = samples(F32)
    scaling, portable = NumpyEmitter(scaling=True), NumpyEmitter()
    found, expected = (e.values[expand("exp", e, e.add(x))] for e in (scaling, portable))
    both_nan = np.isnan(found) & np.isnan(expected)
    assert np.all((found.view(np.int32) == expected.view(np.int32)) | both_nan)


def test_machine_when_target_has_avx512_then_scales() -> None:
    assert machine_of(load_target("x86-64-v4")).scales
    assert not machine_of(load_target("x86-64-v3")).scales
