"""Orders of elementwise operations: registers in turns where there is room, and never an operand after its use."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from tessera_build.ir.core.node import Node
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.structure import defs_of, uses_of
from tessera_build.ir.core.types import F32
from tessera_build.ir.target import kernel as k
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.tile_to_target.builder import TargetBuilder
from tessera_build.lower.tile_to_target.cpu import lower_cpu
from tessera_build.lower.tile_to_target.pressure import registers_beside
from tessera_build.lower.tile_to_target.weave import woven
from tests.lower.tile_programs import WIDE, Program, check

pytestmark = pytest.mark.unit
_STEPS = 10


def _additions(count: int, registers: int) -> list[int]:
    """Which of `count` chains each addition belongs to, in the order in which they are woven."""
    b, chains = TargetBuilder("test"), list[list[Node]]()
    for number in range(count):
        with b.region() as nodes:
            value = b.const(100.0 + number, F32, 16)
            for step in range(_STEPS):
                value = b.op("add", value, b.const(float(step), F32, 16))
        chains.append(nodes)
    owner = {value: number for number, chain in enumerate(chains) for node in chain for value in defs_of(node)}
    order = [node for piece in woven(chains, registers) for node in piece]
    assert sorted(map(id, order)) == sorted(id(node) for chain in chains for node in chain)
    return [owner[node.result] for node in order if isinstance(node, k.Op)]


def test_woven_when_registers_are_free_then_six_chains_take_turns() -> None:
    assert _additions(8, 32) == [0, 1, 2, 3, 4, 5] * _STEPS + [6, 7] * _STEPS


def test_woven_when_there_is_room_for_two_then_two_chains_take_turns() -> None:
    assert _additions(4, 6) == [0, 1] * _STEPS + [2, 3] * _STEPS


def test_woven_when_the_tile_fills_the_registers_then_chains_stay_one_after_the_other() -> None:
    assert _additions(8, 8) == [number for number in range(8) for _ in range(_STEPS)]


def test_woven_when_a_chain_reads_what_another_one_makes_then_it_waits() -> None:
    b = TargetBuilder("test")
    with b.region() as nodes:
        x = b.const(2.0, F32, 16)
        y = b.op("mul", x, x)
        for _ in range(_STEPS):
            y = b.op("mul", y, x)
        first = len(nodes)
        z = b.op("add", y, x)
        for _ in range(_STEPS):
            z = b.op("add", z, y)
    order = [node for piece in woven([nodes[:first], nodes[first:]], 32) for node in piece]
    known: set[int] = set()
    for node in order:
        assert known.issuperset(uses_of(node))
        known.update(defs_of(node))
    assert len(order) == len(nodes)


def test_map_when_registers_are_free_then_its_code_is_woven_and_has_the_bits_of_the_reference(tmp_path: Path) -> None:
    p = Program()
    p.put(p.map((p.whole(p.buffer(4, 64)),), _series))
    function = p.finish()
    divisions = [n for n, node in enumerate(lower_cpu(function, WIDE, {}).kernel.walk()) if _divides(node)]
    gaps = [later - earlier for earlier, later in pairwise(divisions)]
    assert len(divisions) == 16
    assert gaps.count(1) == 13, "divisions of six registers stand side by side"
    check(function, tmp_path)


def _series(s: ScalarBuilder) -> int:
    """A polynomial of x, by which one is divided."""
    value = s.const(1.5, F32)
    for _ in range(_STEPS):
        value = s.op("fma", value, 0, s.const(0.75, F32))
    return s.op("div", s.const(1.0, F32), value)


def _divides(node: Node) -> bool:
    return isinstance(node, k.Op) and node.name == "div"


def test_registers_beside_when_tiles_are_read_later_then_they_count_at_every_map_between() -> None:
    p = Program()
    wide, narrow = p.whole(p.buffer(4, 64)), p.whole(p.buffer(1, 64))
    negative = p.map((narrow,), lambda s: s.op("neg", 0))
    p.put(p.map((wide, negative), lambda s: s.op("add", 0, 1)))
    function = p.finish()
    beside = registers_beside(function, WIDE.lanes)
    assert [beside[node.result] for node in function.walk() if isinstance(node, t.Map)] == [16, 0]


def test_registers_beside_when_a_loop_reads_a_tile_then_it_counts_in_all_turns() -> None:
    p = Program()
    wide, start = p.whole(p.buffer(4, 64)), p.whole(p.buffer(1, 64))

    def body(carried: int) -> list[int]:
        once = p.map((carried, p.reduce(wide, (0,))), lambda s: s.op("add", 0, 1))
        return [p.map((once,), lambda s: s.op("neg", 0))]

    p.put(*p.loop("i", 3, 1, body, (start,)))
    function = p.finish()
    beside = registers_beside(function, WIDE.lanes)
    assert [beside[node.result] for node in function.walk() if isinstance(node, t.Map)] == [16, 16]
