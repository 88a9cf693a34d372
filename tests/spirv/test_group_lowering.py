"""Every tile node on lanes: one small program each, run as SPIR-V and compared with the reference bit for bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tessera.kernel import kernel
from tessera.tile import Carry, TileBuilder
from tessera.values import Buffer
from tessera_build.backends.spirv.emit import compile_spirv
from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import BF16, F32, I32, memref
from tessera_build.ir.machine.group import SPIRV
from tessera_build.ir.target.group import Barrier
from tessera_build.ir.tile.reference import run
from tessera_build.lower.tile_to_target.bind_group import BindGroup, group_loops
from tessera_build.lower.tile_to_target.simt import GroupKernel, lower_group
from tests.spirv.opencl import run_group_kernel

Array = NDArray[np.generic]
N = symbol("n")


def lowered(function: Function, lanes: int = SPIRV.lanes) -> GroupKernel:
    return lower_group(BindGroup(SPIRV).run(function), lanes)


def assert_same_bits(function: Function, inputs: Sequence[Array], output: Array, **dims: int) -> None:
    expected, result = output.copy(), output.copy()
    run(function, [*inputs, expected], dims)
    run_group_kernel(lowered(function), [*inputs, result], dims)
    assert not np.array_equal(expected, output)
    assert result.tobytes() == expected.tobytes()


def random(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


@pytest.mark.numerics
@pytest.mark.spirv
@pytest.mark.parametrize("order", ["seq", "tree(4)", "tree(64)"])
@pytest.mark.parametrize("axis", [0, 1])
def test_reduce_when_order_is_stated_then_lanes_keep_it(order: str, axis: int) -> None:
    kept = (1, 21) if axis == 0 else (10, 1)

    @kernel(x=memref(F32, 10, 21), out=memref(F32, *kept))
    def total(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
        tile.store(out[:, :], tile.sum(tile.load(x[:, :]), axis, order))

    assert_same_bits(total, [random(10, 21)], np.zeros(kept, np.float32))


@pytest.mark.numerics
@pytest.mark.spirv
def test_permute_broadcast_and_iota_when_lanes_differ_then_values_move_through_shared_memory() -> None:
    @kernel(x=memref(F32, 13, 9), out=memref(F32, 9, 13))
    def turn(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
        row = tile.load(x[:, 0:1])
        shifted = tile.load(x[:, :]) + row
        numbers = tile.cast(tile.iota((9, 13), 1, -4), F32)
        tile.store(out[:, :], tile.permute(shifted, 1, 0) * numbers)

    assert_same_bits(turn, [random(13, 9)], np.zeros((9, 13), np.float32))


@pytest.mark.numerics
@pytest.mark.spirv
def test_scratch_when_written_and_read_in_turns_then_barriers_keep_order() -> None:
    """Each turn reads what other lanes wrote in the turn before."""

    @kernel(x=memref(F32, 100), out=memref(F32, 100))
    def rotate(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
        scratch = tile.alloc(F32, 101)
        tile.copy(x[0:100], scratch[0:100])
        for i in tile.range(7):
            tile.copy(scratch[0:1], scratch[100:101])
            moved = tile.load(scratch[1:101])
            with tile.when(i, "ne", 3):
                tile.store(scratch[0:100], moved)
        tile.store(out[:], tile.load(scratch[0:100]))

    assert_same_bits(rotate, [random(100)], np.zeros(100, np.float32))


@pytest.mark.numerics
@pytest.mark.spirv
def test_loop_when_it_carries_tiles_then_registers_pass_between_turns() -> None:
    @kernel(x=memref(F32, N, 70), out=memref(F32, 1, 70))
    def sums(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
        state = Carry(total=tile.zeros((1, 70), F32), largest=tile.full((1, 70), -1.0, F32))
        for i in tile.range(N, 1, carry=state):
            part = tile.load(x[i : i + 1, :])
            state.largest = tile.maximum(state.largest, part)
            state.total = state.total + part
        tile.store(out[:, :], state.total * state.largest)

    assert_same_bits(sums, [random(11, 70)], np.zeros((1, 70), np.float32), n=11)


@pytest.mark.numerics
@pytest.mark.spirv
def test_element_types_when_narrow_or_integer_then_round_as_reference() -> None:
    @kernel(x=memref(F32, N), count=memref(I32, N), out=memref(BF16, N))
    def narrow(tile: TileBuilder, x: Buffer, count: Buffer, out: Buffer) -> None:
        for i in tile.range(N, 32):
            scaled = tile.load(x[i : i + 32]) * tile.cast(tile.load(count[i : i + 32]), F32)
            tile.store(out[i : i + 32], tile.cast(scaled, BF16))

    counts = np.arange(-20, 25, dtype=np.int32)
    assert_same_bits(narrow, [random(45), counts], np.zeros(45, BF16.numpy), n=45)


@pytest.mark.unit
def test_groups_when_turns_overlap_then_stay_one_group() -> None:
    """Each turn writes 8 elements and advances by 4: the later turn must win."""

    @kernel(x=memref(F32, N), out=memref(F32, N))
    def overlap(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
        for i in tile.range(N, 4):
            tile.store(out[i : i + 8], tile.load(x[i : i + 8]))

    assert group_loops(overlap) == frozenset()
    assert lowered(overlap).groups == 1


@pytest.mark.unit
def test_groups_when_turns_are_apart_then_loops_become_groups() -> None:
    @kernel(x=memref(F32, N, 40), out=memref(F32, N, 40))
    def copy(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
        for i in tile.range(N):
            for j in tile.range(40, 8):
                tile.store(out[i : i + 1, j : j + 8], tile.load(x[i : i + 1, j : j + 8]))

    assert lowered(copy).groups == N * 5


@pytest.mark.unit
def test_barriers_when_nothing_is_shared_then_there_are_none() -> None:
    @kernel(x=memref(F32, N), out=memref(F32, N))
    def double(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
        for i in tile.range(N, 64):
            tile.store(out[i : i + 64], tile.load(x[i : i + 64]) * 2.0)

    assert not [n for n in lowered(double).kernel.walk() if isinstance(n, Barrier)]


@pytest.mark.unit
def test_spirv_when_compiled_twice_then_bytes_are_equal() -> None:
    @kernel(x=memref(F32, N), out=memref(F32, 1))
    def first(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
        tile.store(out[0:1], tile.load(x[0:1]))

    assert compile_spirv(lowered(first).kernel) == compile_spirv(lowered(first).kernel)
