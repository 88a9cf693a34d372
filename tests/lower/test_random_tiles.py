"""Random tile programs: elementwise chains, reductions, permutations and ragged views, bit for bit as the reference."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.types import F32, I32, I64, DType
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.tile import nodes as t
from tests.lower.tile_programs import MIDDLE, NARROW, WIDE, Program, check

_EXACT = ("add", "sub", "mul", "max", "min")
_SHAPE = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 37))
_ORDERS = st.sampled_from(["seq", "tree(4)", "tree(8)", "tree(16)"])
_SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@st.composite
def programs(draw: st.DrawFn) -> Function:
    """Tiles loaded from ragged windows, combined in a few random steps, stored through ragged windows."""
    p, dtype = Program(), draw(st.sampled_from([F32, F32, I32, I64]))
    shape = draw(_SHAPE)
    tiles = [_window(draw, p, shape, dtype) for _ in range(draw(st.integers(1, 3)))]
    for _ in range(draw(st.integers(1, 6))):
        tiles.append(_step(draw, p, tiles))
    for tile in tiles[-3:]:
        p.put(tile)
    last = tiles[-1]
    extents = p.builder.types[last].static_shape
    target = p.buffer(*extents, dtype=dtype)
    shift = draw(st.integers(-3, 3))
    walks = (0, 1, t.ViewAxis(2, 1, checked=True))
    p.store(p.view(target, extents, (0, 0, shift), walks), last)
    return p.finish()


def _window(draw: st.DrawFn, p: Program, shape: tuple[int, ...], dtype: DType) -> int:
    """A tile over a buffer that may end before or start after it, or be broadcast along an axis."""
    sizes = [draw(st.sampled_from([e, 1])) for e in shape[:-1]] + [shape[-1]]
    stored = [draw(st.integers(max(1, e - 2), e + 2)) for e in sizes]
    offsets = [draw(st.integers(-2, 2)) for _ in sizes]
    walks = [t.ViewAxis(i, draw(st.sampled_from([1, 1, 2, -1])), checked=True) for i in range(3)]
    return p.load(p.view(p.buffer(*stored, dtype=dtype), sizes, offsets, walks), draw(st.sampled_from([0.0, 1.0])))


def _step(draw: st.DrawFn, p: Program, tiles: list[int]) -> int:
    tile = draw(st.sampled_from(tiles))
    kind = draw(st.sampled_from(["map", "map", "reduce", "permute", "loop"]))
    if kind == "reduce":
        axes = tuple(draw(st.permutations([0, 1, 2]))[: draw(st.integers(1, 3))])
        return p.reduce(tile, axes, draw(_ORDERS), draw(st.sampled_from(["add", "max", "min"])))
    if kind == "permute":
        back = draw(st.sampled_from([(1, 0, 2), (0, 1, 2)]))
        return (
            p.permute(p.permute(tile, (2, 0, 1)), (1, 2, 0))
            if back == (0, 1, 2)
            else p.permute(p.permute(tile, back), back)
        )
    if kind == "loop":
        scope = draw(st.sampled_from([None, "unroll"]))
        name = f"i{len(tiles)}"
        add = p.loop(name, draw(st.integers(0, 3)), 1, lambda c: (_offset(p, c, name),), (tile,), scope)
        return add[0]
    other = draw(st.sampled_from([x for x in tiles if _broadcasts(p, tile, x)]))
    name = draw(st.sampled_from(_EXACT))
    return p.map([tile, other], lambda s: s.op(name, s.op(draw(st.sampled_from(["neg", "abs"])), 0), 1))


def _offset(p: Program, tile: int, index: str) -> int:
    number = p.iota((1, 1, 1), 0, symbol(index) + 1, I64)

    def build(s: ScalarBuilder) -> int:
        return s.op("add", 0, s.cast(1, s.dtype(0)))

    return p.map([tile, number], build)


def _broadcasts(p: Program, left: int, right: int) -> bool:
    shapes = (p.builder.types[v].static_shape for v in (left, right))
    return all(a == b or 1 in (a, b) for a, b in zip(*shapes, strict=True))


def _check(function: Function, machine: CpuMachine) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(function, Path(folder), machine)


@settings(_SETTINGS, max_examples=60)
@given(programs(), st.sampled_from([WIDE, MIDDLE, NARROW]))
def test_random_program_when_compiled_then_its_bits_are_the_references(function: Function, machine: CpuMachine) -> None:
    _check(function, machine)


@pytest.mark.slow
@settings(_SETTINGS, max_examples=1500)
@given(programs(), st.sampled_from([WIDE, MIDDLE, NARROW]))
def test_random_program_when_many_are_compiled_then_their_bits_are_the_references(
    function: Function, machine: CpuMachine
) -> None:
    _check(function, machine)
