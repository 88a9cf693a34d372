"""Compute definitions evaluated in numpy: padding, gathers, reductions, index values.

Takes hand-made tasks. Invariant: each is compared with numpy's own way to say the same.
"""

import numpy as np
import pytest

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.rewrite import FunctionBuilder
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.types import BF16, F32, F64, I8, I32, I64, DType, tensor
from tessera_build.ir.schedule.nodes import Access, Axis, Combine, Compute, KernelCall
from tessera_build.ir.schedule.reference import ScheduleError, run
from tessera_build.ir.schedule.spec import verify

pytestmark = pytest.mark.numerics
M, N, K = symbol("M"), symbol("N"), symbol("K")
m, n, k = symbol("m"), symbol("n"), symbol("k")


def product(dtype: DType) -> Function:
    b = FunctionBuilder("matmul")
    left, right, result = b.arg(tensor(dtype, M, K)), b.arg(tensor(dtype, K, N)), b.value(tensor(dtype, M, N))
    s = ScalarBuilder([dtype, dtype])
    program = s.finish(s.op("mul", 0, 1))
    axes, reduction = (Axis("m", M), Axis("n", N)), (Axis("k", K),)
    b.add(Compute(result, (left, right), (Access((m, k)), Access((k, n))), axes, reduction, "sum", program))
    return b.finish([result])


@pytest.mark.parametrize("dtype", [F64, F32, BF16, I8], ids=str)
def test_product_when_run_then_equals_numpy(dtype: DType) -> None:
    function = product(dtype)
    verify(function)
    a, b = (np.arange(12).reshape(s).astype(dtype.numpy) for s in ((3, 4), (4, 3)))
    (result,) = run(function, [a, b])
    expected = (a.astype(np.int64) @ b.astype(np.int64)).astype(dtype.numpy)
    np.testing.assert_array_equal(result.astype(np.float64), expected.astype(np.float64))
    assert result.dtype == dtype.numpy


def pooled(combine: Combine, pad: float | None) -> Function:
    b = FunctionBuilder("pool")
    source, result = b.arg(tensor(F32, N)), b.value(tensor(F32, N))
    s = ScalarBuilder([F32])
    access = Access((n + k - 1,), pad)
    b.add(Compute(result, (source,), (access,), (Axis("n", N),), (Axis("k", 3),), combine, s.finish(0)))
    return b.finish([result])


@pytest.mark.parametrize(
    ("combine", "pad", "expected"),
    [
        ("max", -np.inf, [3, 3, 4, 4]),
        ("largest", -np.inf, [3, 3, 4, 4]),
        ("min", np.inf, [1, 1, 2, 2]),
        ("sum", 0.0, [4, 6, 9, 6]),
        ("prod", 1.0, [3, 6, 24, 8]),
    ],
)
def test_window_when_padded_then_combines_the_pad(combine: Combine, pad: float, expected: list[float]) -> None:
    function = pooled(combine, pad)
    verify(function)
    (result,) = run(function, [np.array([1, 3, 2, 4], np.float32)])
    assert result.tolist() == expected


def test_read_when_outside_without_pad_then_is_refused() -> None:
    with pytest.raises(ScheduleError, match="leaves its buffer"):
        run(pooled("max", None), [np.zeros(4, np.float32)])


def taken() -> Function:
    b = FunctionBuilder("take")
    chosen, table, result = b.arg(tensor(I32, M)), b.arg(tensor(F32, K, N)), b.value(tensor(F32, M, N))
    s = ScalarBuilder([I32, F32, I64])
    program = s.finish(s.op("add", 1, s.cast(2, F32)))
    accesses = (Access((m,)), Access((symbol("_r0"), n)))
    axes = (Axis("m", M), Axis("n", N))
    b.add(Compute(result, (chosen, table), accesses, axes, (), "none", program, (m * 10 + n,)))
    return b.finish([result])


def test_gather_when_index_is_negative_then_counts_from_the_end() -> None:
    function = taken()
    verify(function)
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    (result,) = run(function, [np.array([0, -1], np.int32), table])
    np.testing.assert_array_equal(result, table[[0, -1]] + [[0, 1, 2], [10, 11, 12]])


def test_gather_when_index_is_outside_then_is_refused() -> None:
    with pytest.raises(ScheduleError, match="leaves its buffer"):
        run(taken(), [np.array([4], np.int32), np.zeros((4, 3), np.float32)])


def test_reduction_when_empty_then_gives_the_identity() -> None:
    (result,) = run(product(F32), [np.zeros((2, 0), np.float32), np.zeros((0, 2), np.float32)])
    assert result.tolist() == [[0, 0], [0, 0]]


def test_kernel_call_when_its_reference_is_given_then_runs_it() -> None:
    b = FunctionBuilder("sorted")
    source, result = b.arg(tensor(F32, N)), b.value(tensor(F32, N))
    b.add(KernelCall((result,), "sort", (source,), (("descending", 1.0),)))
    function = b.finish([result])
    verify(function)
    data = np.array([2, 3, 1], np.float32)
    with pytest.raises(ScheduleError, match="'sort'"):
        run(function, [data])
    kernels = {"sort": lambda arrays, parameters, types: [np.sort(arrays[0])[:: -1 if parameters["descending"] else 1]]}
    assert run(function, [data], kernels=kernels)[0].tolist() == [3, 2, 1]
