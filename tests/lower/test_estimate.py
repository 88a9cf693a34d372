"""Counts of operations in loops whose trips depend on the loops around them."""

from __future__ import annotations

import pytest

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.node import Function
from tessera_build.lower.program.estimate import operations_of
from tests.lower.tile_programs import Program

_FILL = 1  # the tile of ones


def _squares(rows: int) -> Function:
    """One addition in every turn of a loop that has i² turns in turn i of the loop around it."""
    program = Program()
    one = program.fill(1.0, (1,))

    def add(total: int) -> list[int]:
        return [program.map((total, one), lambda s: s.op("add", 0, 1))]

    def row(total: int) -> tuple[int, ...]:
        return program.loop("j", symbol("i") * symbol("i"), 1, add, (total,))

    program.put(program.loop("i", rows, 1, row, (one,))[0])
    return program.finish()


@pytest.mark.unit
@pytest.mark.parametrize("rows", [1, 7, 64, 4096])
def test_operations_when_turns_of_loops_are_few_then_every_one_is_counted(rows: int) -> None:
    assert operations_of(_squares(rows), {}) == _FILL + sum(turn**2 for turn in range(rows))


@pytest.mark.unit
@pytest.mark.parametrize("rows", [4097, 100_001])
def test_operations_when_turns_of_loops_are_many_then_the_middle_one_stands_for_all(rows: int) -> None:
    assert operations_of(_squares(rows), {}) == _FILL + rows * (rows // 2) ** 2


@pytest.mark.unit
def test_operations_when_a_tile_multiplies_and_adds_then_count_twice_and_changes_of_sign_not_at_all() -> None:
    program = Program()
    one = program.fill(1.0, (1, 4))
    program.put(program.map((one, one, one), lambda s: s.op("fma", s.op("neg", 0), s.op("sub", 1, 2), 0)))
    assert operations_of(program.finish(), {}) == 4 * (_FILL + 2 + 1)
