"""Turns that end a tile of the turn before: in the middle of their own tile, with the bits of the reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.node import Function, Node
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.types import F32
from tessera_build.ir.target import kernel as k
from tessera_build.lower.tile_to_target.cpu import lower_cpu
from tests.lower.tile_programs import WIDE, Program, check

pytestmark = pytest.mark.unit
_ROWS, _COLUMNS = 9, 128


def _series(s: ScalarBuilder) -> int:
    """A long chain of x that needs four registers, with one division at its end."""
    powers = [s.op("mul", 0, 0)]
    for _ in range(3):
        powers.append(s.op("mul", powers[-1], 0))
    value = s.const(1.5, F32)
    for _ in range(6):
        value = s.op("fma", value, 0, s.const(0.75, F32))
    for power in powers:
        value = s.op("fma", power, power, value)
    return s.op("div", s.const(1.0, F32), value)


class Rows:
    """A loop over rows that computes one row's series in each turn, and stores it there or in the next turn."""

    def __init__(self, columns: int = _COLUMNS, held: bool = True, in_place: bool = False) -> None:
        p = self.program = Program()
        self.columns, self.given = columns, p.buffer(_ROWS, columns)
        self.out = self.given if in_place else p.buffer(_ROWS, columns)
        first = p.map((self._row(self.given, 0),), _series)
        total = p.reduce(first, (1,))
        p.put(*p.loop("i", _ROWS - 1, 1, self._held if held else self._at_once, (first, total))[1:])

    def _row(self, buffer: int, row: object) -> int:
        return self.program.load(self._view(buffer, row))

    def _view(self, buffer: int, row: object) -> int:
        return self.program.view(buffer, (1, self.columns), (row, 0), (0, 1))  # type: ignore[arg-type]

    def _held(self, held: int, total: int) -> Sequence[int]:
        """The last row is scaled and stored; in front, a sum of the row that follows, which nothing here waits for."""
        p = self.program
        front = p.reduce(self._row(self.given, symbol("i") + 1), (1,), op="max")
        row = p.map((self._row(self.given, symbol("i") + 1),), _series)
        scaled = p.map((held, total), lambda s: s.op("mul", 0, 1))
        p.store(self._view(self.out, symbol("i")), scaled)
        return row, p.map((p.reduce(row, (1,)), front), lambda s: s.op("add", 0, 1))

    def _at_once(self, held: int, total: int) -> Sequence[int]:
        p = self.program
        row = p.map((self._row(self.given, symbol("i") + 1),), _series)
        p.store(self._view(self.out, symbol("i")), row)
        return held, p.map((p.reduce(row, (1,)), total), lambda s: s.op("add", 0, 1))

    def finish(self) -> Function:
        return self.program.finish()


def _order(function: Function) -> str:
    """The loop's divisions, stores and maxima in order, a letter each."""
    kernel = lower_cpu(function, WIDE, {}).kernel
    (loop,) = (node for node in kernel.nodes if isinstance(node, k.Loop))
    return "".join(_letter(node) for node in loop.body.nodes)


def _letter(node: Node) -> str:
    if isinstance(node, k.Op) and node.name in {"div", "max"}:
        return node.name[0]
    return "s" if isinstance(node, k.Store) else ""


def test_turn_when_it_stores_the_row_before_then_that_stands_between_the_halves_of_its_own(tmp_path: Path) -> None:
    function = Rows().finish()
    order = _order(function)
    assert order.strip("d").strip("m") == "s" * 8, "all in one place"
    assert "m" in order
    assert order.startswith("dddd" + "m" * order.count("m") + "s")
    assert order.endswith("sdddd")
    check(function, tmp_path)


def test_turn_when_it_stores_its_own_row_then_nothing_moves(tmp_path: Path) -> None:
    function = Rows(held=False).finish()
    assert _order(function) == "d" * 8 + "s" * 8
    check(function, tmp_path)


def test_turn_when_its_row_is_one_piece_then_nothing_moves(tmp_path: Path) -> None:
    function = Rows(columns=48).finish()
    assert _order(function).endswith("ddd" + "s" * 3)
    check(function, tmp_path)


def test_turn_when_it_stores_where_it_reads_then_it_has_the_bits_of_the_reference(tmp_path: Path) -> None:
    check(Rows(in_place=True).finish(), tmp_path)
