"""Memory, lanes and control flow of kernels on this machine.

Takes small kernels; gives comparisons of what they wrote. Invariant: each case runs compiled code, but for the ones
that read its assembly.
"""

from pathlib import Path

import numpy as np
import pytest

from tessera_build.backends.llvm.emit_kernel import kernel_ir
from tessera_build.ir.core.types import BF16, BOOL, F32, I8, I32, I64, U32, DType, memref, scalar, tile
from tessera_build.ir.target import kernel as t
from tests.backend_llvm_emit.tools import KernelBuilder, kernel_assembly, machine, run_kernel

pytestmark = pytest.mark.numerics


def tail_mask(builder: KernelBuilder, position: int, stop: int, lanes: int) -> int:
    """Lanes whose index is below `stop`."""
    indices, here, limit = (builder.value(tile(I64, lanes)) for _ in range(3))
    builder.append(t.LaneIndex(indices))
    builder.append(t.Splat(here, position))
    builder.append(t.Splat(limit, stop))
    return builder.op("lt", builder.op("add", here, indices), limit)


@pytest.mark.parametrize("dtype", [F32, BF16, I8, BOOL])
def test_masked_copy_when_the_tail_is_ragged_then_touches_nothing_beyond(tmp_path: Path, dtype: DType) -> None:
    builder = KernelBuilder([dtype, dtype], dims=1)
    count = builder.dims[0]

    def body(position: int) -> list[int]:
        mask = tail_mask(builder, position, count, 8)
        value = builder.load(builder.buffers[0], position, 8, mask, builder.const(1, tile(dtype, 8)))
        builder.store(builder.buffers[1], position, value, mask)
        return []

    builder.loop(builder.number(0), count, 8, [], body)
    source = np.arange(24).astype(dtype.numpy)
    out = np.full(24, 1).astype(dtype.numpy)
    run_kernel(builder.finish(), tmp_path, [source, out], [21])
    expected = np.where(np.arange(24) < 21, source, out.dtype.type(1))
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("flag", [False, True])
def test_masked_scalar_when_the_mask_is_off_then_gives_other_and_stores_nothing(tmp_path: Path, flag: bool) -> None:
    builder = KernelBuilder([F32, F32])
    zero = builder.number(0)
    mask = builder.op("ne", builder.index, zero)
    value = builder.load(builder.buffers[0], zero, 0, mask, builder.const(7.0, scalar(F32)))
    builder.store(builder.buffers[1], zero, value)
    builder.store(builder.buffers[1], builder.number(1), value, mask)
    out = np.zeros(2, np.float32)
    run_kernel(builder.finish(), tmp_path, [np.full(1, 3, np.float32), out], index=int(flag))
    np.testing.assert_array_equal(out, [3, 3] if flag else [7, 0])


@pytest.mark.parametrize("index_dtype", [I32, I64, U32])
def test_gather_and_scatter_when_indices_repeat_then_the_last_lane_stays(tmp_path: Path, index_dtype: DType) -> None:
    builder = KernelBuilder([F32, index_dtype, F32])
    source, places, target = builder.buffers
    zero = builder.number(0)
    indices = builder.load(places, zero, 8)
    mask = tail_mask(builder, zero, builder.number(7), 8)
    result = builder.value(tile(F32, 8))
    builder.append(t.Gather(result, source, indices, mask, builder.const(-1.0, tile(F32, 8))))
    builder.store(target, builder.number(8), result)
    lanes = builder.value(tile(F32, 8))
    builder.append(t.LaneIndex(lanes))
    builder.append(t.Scatter(target, indices, lanes, mask))
    picks = np.array([3, 1, 1, 0, 3, 7, 2, 5], index_dtype.numpy)
    out = np.full(16, -2, np.float32)
    run_kernel(builder.finish(), tmp_path, [np.arange(8, dtype=np.float32) * 10, picks, out])
    np.testing.assert_array_equal(out[8:], [30, 10, 10, 0, 30, 70, 20, -1])
    np.testing.assert_array_equal(out[:8], [3, 2, 6, 4, -2, -2, -2, 5])


def test_lane_movement_when_run_then_follows_its_attributes(tmp_path: Path) -> None:
    builder = KernelBuilder([F32, F32])
    zero = builder.number(0)
    vector = builder.load(builder.buffers[0], zero, 4)
    lane, changed, mixed = builder.value(scalar(F32)), builder.value(tile(F32, 4)), builder.value(tile(F32, 8))
    builder.append(t.Extract(lane, vector, 3))
    builder.append(t.Insert(changed, vector, lane, 0))
    builder.append(t.Shuffle(mixed, vector, changed, (7, 4, 0, 1, 2, 3, 4, 4)))
    builder.store(builder.buffers[1], zero, mixed)
    out = np.zeros(8, np.float32)
    run_kernel(builder.finish(), tmp_path, [np.array([1, 2, 3, 4], np.float32), out])
    np.testing.assert_array_equal(out, [4, 4, 1, 2, 3, 4, 4, 4])


def test_loops_when_nested_then_carry_their_values(tmp_path: Path) -> None:
    builder = KernelBuilder([I64], dims=2)
    rows, columns = builder.dims
    one, zero = builder.number(1), builder.number(0)

    def row(i: int, total: int) -> list[int]:
        return builder.loop(
            i, columns, 2, [total], lambda j, inner: [builder.op("add", inner, builder.op("mul", i, j))]
        )

    total, last = builder.loop(
        zero, rows, 1, [zero, one], lambda i, total, _last: [*row(i, total), builder.op("add", i, zero)]
    )
    builder.store(builder.buffers[0], zero, total)
    builder.store(builder.buffers[0], one, last)
    out = np.zeros(2, np.int64)
    run_kernel(builder.finish(), tmp_path, [out], [5, 9])
    assert out.tolist() == [sum(i * j for i in range(5) for j in range(i, 9, 2)), 4]
    run_kernel(builder.finish(), tmp_path, [out], [0, 9])
    assert out.tolist() == [0, 1]  # no iteration: the initial values


def test_branch_when_nested_then_gives_the_values_of_the_arm_taken(tmp_path: Path) -> None:
    builder = KernelBuilder([I64])
    zero, five, nine = (builder.number(n) for n in (0, 5, 9))

    def inner() -> list[int]:
        return builder.branch(builder.op("gt", builder.index, five), lambda: [nine], lambda: [builder.index])

    chosen = builder.branch(builder.op("gt", builder.index, zero), inner, lambda: [zero])
    builder.store(builder.buffers[0], zero, chosen[0])
    out = np.zeros(1, np.int64)
    seen: list[int] = []
    for index in (-3, 4, 8):
        run_kernel(builder.finish(), tmp_path, [out], index=index)
        seen.append(int(out[0]))
    assert seen == [0, 4, 9]


def test_check_when_it_fails_inside_a_loop_then_the_kernel_returns_its_code(tmp_path: Path) -> None:
    builder = KernelBuilder([I64], dims=1)

    def body(position: int) -> list[int]:
        builder.append(t.Check(builder.op("lt", position, builder.index), 1))
        builder.append(t.Check(builder.op("ge", position, builder.number(-1)), 2))
        builder.store(builder.buffers[0], position, position)
        return []

    builder.loop(builder.number(0), builder.dims[0], 1, [], body)
    out = np.full(6, -1, np.int64)
    assert run_kernel(builder.finish(), tmp_path, [out], [6], index=4) == 1
    assert out.tolist() == [0, 1, 2, 3, -1, -1]
    assert run_kernel(builder.finish(), tmp_path, [out], [6], index=6) == 0


def test_alloca_and_prefetch_when_inside_a_loop_then_the_stack_does_not_grow(tmp_path: Path) -> None:
    builder = KernelBuilder([F32], dims=1)
    zero = builder.number(0)

    def body(position: int) -> list[int]:
        slot = builder.value(memref(F32, 4096))
        builder.append(t.Alloca(slot, 4096))
        builder.append(t.Prefetch(builder.buffers[0], builder.op("add", position, builder.number(1 << 20))))
        builder.store(slot, builder.op("rem", position, builder.number(4096)), builder.load(builder.buffers[0], zero))
        builder.store(
            builder.buffers[0], zero, builder.op("add", builder.load(slot, zero), builder.const(1, scalar(F32)))
        )
        return []

    builder.loop(zero, builder.number(4096 * 64), 4096, [], body)
    out = np.zeros(1, np.float32)
    assert run_kernel(builder.finish(), tmp_path, [out], [1]) == 0
    assert out[0] == 64


def test_stream_store_when_aligned_then_goes_past_the_caches() -> None:
    builder = KernelBuilder([F32, F32])
    zero = builder.number(0)
    value = builder.load(builder.buffers[0], zero, 16)
    builder.append(t.Store(builder.buffers[1], zero, value, None, 64, stream=True))
    assert "vmovntps" in kernel_assembly(builder.finish())


def test_multiply_then_add_when_written_apart_then_is_not_fused() -> None:
    builder = KernelBuilder([F32])
    zero = builder.number(0)
    x = builder.load(builder.buffers[0], zero, 16)
    builder.store(builder.buffers[0], zero, builder.op("add", builder.op("mul", x, x), x))
    text = kernel_assembly(builder.finish())
    assert "vmulps" in text
    assert "vfmadd" not in text


def test_copy_loop_when_compiled_then_calls_no_library_function() -> None:
    builder = KernelBuilder([F32, F32], dims=1)

    def body(position: int) -> list[int]:
        builder.store(builder.buffers[1], position, builder.load(builder.buffers[0], position))
        return []

    builder.loop(builder.number(0), builder.dims[0], 1, [], body)
    assert "memcpy" not in kernel_assembly(builder.finish())


def test_kernel_text_when_values_are_numbered_otherwise_then_is_the_same() -> None:
    def build(skipped: int) -> str:
        builder = KernelBuilder([F32])
        for _ in range(skipped):
            builder.value(scalar(I64))
        zero = builder.number(0)
        builder.store(builder.buffers[0], zero, builder.op("neg", builder.load(builder.buffers[0], zero)))
        return kernel_ir(builder.finish(), machine(), "kernel")

    assert build(0) == build(5)
