"""Views whose rows lie across memory: exchanged in registers, bit for bit what the Tile reference reads and writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tessera_build.ir.core.types import BF16, BOOL, F16, F64, I8, I64, DType
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.target.kernel import Gather, Scatter
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.tile_to_target.cpu import lower_cpu
from tests.lower.tile_programs import MACHINES, WIDE, Program, check

every_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
SHAPES = ((16, 16), (5, 19), (33, 4), (4, 40))


def checked(axis: int) -> t.ViewAxis:
    return t.ViewAxis(axis, 1, checked=True)


@every_machine
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_load_when_columns_are_neighbours_in_memory_then_is_the_reference(
    shape: tuple[int, int], machine: CpuMachine, tmp_path: Path
) -> None:
    p, (rows, columns) = Program(), shape
    p.put(p.load(p.view(p.buffer(columns + 3, rows + 9), shape, (1, 2), (1, 0))))
    check(p.finish(), tmp_path, machine)


@every_machine
@pytest.mark.parametrize("offsets", [(-3, 0), (0, -2), (9, 5), (-30, 0), (4, 17)], ids=str)
def test_load_when_columns_leave_the_buffer_then_it_is_padded(
    offsets: tuple[int, int], machine: CpuMachine, tmp_path: Path
) -> None:
    p = Program()
    p.put(p.load(p.view(p.buffer(19, 21), (17, 18), offsets, (checked(1), checked(0))), -7.5))
    check(p.finish(), tmp_path, machine)


@every_machine
@pytest.mark.parametrize("offsets", [(-3, 0), (0, -2), (9, 5), (4, 17)], ids=str)
def test_store_when_columns_leave_the_buffer_then_only_the_domain_is_written(
    offsets: tuple[int, int], machine: CpuMachine, tmp_path: Path
) -> None:
    p = Program()
    tile = p.whole(p.buffer(17, 18))
    p.store(p.view(p.buffer(19, 21), (17, 18), offsets, (checked(1), checked(0))), tile)
    check(p.finish(), tmp_path, machine)


@pytest.mark.parametrize("dtype", [F64, F16, BF16, I8, I64, BOOL], ids=str)
def test_copy_when_source_and_target_are_exchanged_then_elements_only_change_places(
    dtype: DType, tmp_path: Path
) -> None:
    p = Program()
    source, target = p.buffer(3, 20, 24, dtype=dtype), p.buffer(24, 2, 20, dtype=dtype)
    p.builder.add(t.Copy(p.view(source, (24, 2, 20), (0, 0, 0), (2, 0, 1)), p.all_of(target), 0.0))
    turned = p.buffer(20, 2, 24, dtype=dtype)
    p.builder.add(
        t.Copy(
            p.view(source, (24, 2, 20), (1, 0, 0), (2, 0, 1)), p.view(turned, (24, 2, 20), (0, 0, 0), (2, 1, 0)), 0.0
        )
    )
    check(p.finish(), tmp_path)


def test_kernel_when_views_are_exchanged_then_neither_gathers_nor_scatters() -> None:
    p = Program()
    tile = p.load(p.view(p.buffer(32, 40), (16, 16), (0, 8), (1, 0)))
    p.store(p.view(p.buffer(32, 40), (16, 16), (0, 0), (1, 0)), tile)
    kernel = lower_cpu(p.finish(), WIDE, {}).kernel
    assert not [n for n in kernel.walk() if isinstance(n, Gather | Scatter)]


def test_load_when_a_view_is_narrow_then_is_the_reference(tmp_path: Path) -> None:
    """Too few elements to exchange."""
    p = Program()
    p.put(p.load(p.view(p.buffer(19, 3), (3, 17), (1, 0), (1, 0))))
    p.put(p.load(p.view(p.buffer(2, 21), (20, 2), (0, 1), (1, 0))))
    check(p.finish(), tmp_path)
