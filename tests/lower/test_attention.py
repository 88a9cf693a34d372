"""Attention as compiled code: few and many queries, keys that fill no block, groups, masks, f16, two threads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from tessera_build.ir.core.dims import Extent, symbol, symbols_of
from tessera_build.ir.core.types import F16, F32, DType, tensor
from tessera_build.ir.graph import reference as graph_reference
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.tile import nodes as t
from tessera_build.kernels.attention import attention
from tessera_build.kernels.attention_shape import AttentionShape
from tessera_build.kernels.reach import reach_of
from tessera_build.space.attention import FEW_SEEN, attention_schedule
from tests.lower.compiled import assert_close, check_module, compile_module
from tests.lower.execution import AVX2, AVX512
from tests.lower.tile_programs import WIDE, execute, random


@dataclass(frozen=True, slots=True)
class Shape:
    """Extents of one attention; `key_heads` divide the heads."""

    queries: int
    keys: int
    heads: int = 3
    key_heads: int = 3
    depth: int = 64
    value_depth: int = 64
    mask: bool = False
    dtype: DType = F32


def _module(shape: Shape, keys: Extent) -> Module:
    b, t = GraphBuilder(dims={"N": (1, None)}), shape.dtype
    q = b.input("q", tensor(t, 2, shape.heads, shape.queries, shape.depth))
    k = b.input("k", tensor(t, 2, shape.key_heads, keys, shape.depth))
    v = b.input("v", tensor(t, 2, shape.key_heads, keys, shape.value_depth))
    mask = [b.input("m", tensor(t, 1, 1, shape.queries, keys))] if shape.mask else []
    b.output("y", b.op("attention", q, k, v, *mask, scale=0.125))
    return b.finish()


def _inputs(shape: Shape) -> dict[str, Array]:
    rng = np.random.default_rng(shape.queries * 1000 + shape.keys)

    def draw(*extents: int) -> Array:
        return rng.standard_normal(extents).astype(shape.dtype.numpy)

    found = {
        "q": draw(2, shape.heads, shape.queries, shape.depth),
        "k": draw(2, shape.key_heads, shape.keys, shape.depth),
        "v": draw(2, shape.key_heads, shape.keys, shape.value_depth),
    }
    if shape.mask:
        found["m"] = np.where(rng.random((1, 1, shape.queries, shape.keys)) < 0.2, -1e4, 0).astype(shape.dtype.numpy)
    return found


FEW = (
    Shape(1, 1),
    Shape(1, 7, depth=20, value_depth=33),
    Shape(1, 129),
    Shape(1, 300, heads=4, key_heads=2, mask=True),
    Shape(1, 1025, heads=1, key_heads=1),
    Shape(2, 130, mask=True),
    Shape(3, 40, depth=80, value_depth=16),
    Shape(1, 129, dtype=F16),
)
MANY = (
    Shape(13, 21, mask=True),
    Shape(17, 128, depth=40),
    Shape(50, 129),
    Shape(4, 300, heads=2, key_heads=1),
    Shape(5, 520, heads=1, key_heads=1, mask=True),
    Shape(9, 1100, heads=1, key_heads=1),
    Shape(200, 3, heads=1, key_heads=1),
    Shape(211, 2100, heads=1, key_heads=1, depth=72, mask=True),  # columns of all keys are not kept
)


@pytest.mark.parametrize("shape", [*FEW, *MANY], ids=str)
@pytest.mark.parametrize("dynamic", [False, True])
def test_attention_when_compiled_then_is_the_reference_with_one_thread_and_two(shape: Shape, dynamic: bool) -> None:
    module = _module(shape, symbol("N") if dynamic else shape.keys)
    if shape.dtype == F32:
        check_module(module, _inputs(shape), {"N": shape.keys})
        return
    wide = Shape(shape.queries, shape.keys)
    inputs = _inputs(shape)
    expected = compile_module(_module(wide, wide.keys)).run(
        {n: a.astype(np.float32) for n, a in inputs.items()}, {"N": 1}
    )
    found = compile_module(module).run(inputs, {"N": shape.keys})["y"].astype(np.float32)
    assert_close(found, expected["y"], "y", tolerance=1e-3)


def _of_unknown_extents(shape: Shape) -> Module:
    b = GraphBuilder(dims={"M": (1, None), "N": (1, None)})
    queries, keys = symbol("M"), symbol("N")
    q = b.input("q", tensor(F32, 2, shape.heads, queries, shape.depth))
    k = b.input("k", tensor(F32, 2, shape.key_heads, keys, shape.depth))
    v = b.input("v", tensor(F32, 2, shape.key_heads, keys, shape.value_depth))
    b.output("y", b.op("attention", q, k, v, b.input("m", tensor(F32, 1, 1, queries, keys)), scale=0.125))
    return b.finish()


def test_attention_when_no_extent_is_known_then_is_the_reference_for_all_of_them() -> None:
    module = _of_unknown_extents(Shape(1, 1))
    compiled = compile_module(module)
    sizes = ((1, 9), (5, 15), (6, 16), (7, 17), (6, 513), (191, 40), (193, 700), (400, 1025))
    for queries, keys in sizes:
        inputs = _inputs(Shape(queries, keys, mask=True))
        found = compiled.run(inputs, {"M": queries, "N": keys})["y"]
        assert found.tobytes() == compiled.run(inputs, {"M": queries, "N": keys}, threads=2)["y"].tobytes()
        assert_close(found, graph_reference.run(module, "main", inputs)["y"], "y", tolerance=1e-5)


@pytest.mark.parametrize("queries", [1, 9])
def test_attention_when_there_are_no_keys_then_is_zero(queries: int) -> None:
    shape = Shape(queries, 0)
    b = GraphBuilder(dims={"N": (0, None)})
    operands = [b.input("q", tensor(F32, 2, 3, queries, 64))]
    operands += [b.input(name, tensor(F32, 2, 3, symbol("N"), 64)) for name in "kv"]
    b.output("y", b.op("attention", *operands, scale=0.125))
    found = compile_module(b.finish()).run(_inputs(shape), {"N": 0})["y"]
    np.testing.assert_array_equal(found, np.zeros((2, 3, queries, 64), np.float32))


def test_kernel_when_extents_are_not_known_then_only_what_is_left_over_is_checked() -> None:
    shape = AttentionShape(2, symbol("M"), symbol("N"), 64, 64)
    function = attention(F32, shape, attention_schedule(shape, AVX512), 0.125)
    inner = [n for n in function.walk() if isinstance(n, t.For) and n.step == 8 and symbols_of(n.extent)]
    read = [n for loop in inner for n in loop.body.nodes if isinstance(n, t.View)]
    assert inner
    assert not any(axis.checked for view in read for axis in view.axes)


@pytest.mark.parametrize("shape", [Shape(3, 129, mask=True), Shape(13, 200)], ids=str)
def test_attention_when_a_row_has_other_neighbours_then_its_bits_stay(shape: Shape) -> None:
    inputs = _inputs(shape)
    compiled = compile_module(_module(shape, shape.keys))
    before = compiled.run(inputs, {"N": 1})["y"]
    others = np.array(inputs["q"], np.float32)
    others[:, :, 1:] += 1
    changed: dict[str, Array] = {**inputs, "q": others}
    after = compiled.run(changed, {"N": 1})["y"]
    assert before[:, :, 0].tobytes() == after[:, :, 0].tobytes()
    assert before.tobytes() != after.tobytes()


def _causal(queries: int, keys: int, reach: int, hidden: float = -np.inf) -> Array:
    row, column = np.arange(queries)[:, None], np.arange(keys)
    return np.where(column <= row + reach, 0, hidden).astype(np.float32)[None, None]


def _masked(shape: Shape, mask: Array | None) -> Module:
    """The mask as a constant, where it is known."""
    b = GraphBuilder()
    q, k, v = (b.input(n, tensor(F32, *_inputs(shape)[n].shape)) for n in "qkv")
    m = b.input("m", tensor(F32, 1, 1, shape.queries, shape.keys)) if mask is None else b.constant(mask)
    b.output("y", b.op("attention", q, k, v, m, scale=0.125))
    return b.finish()


@pytest.mark.parametrize(("queries", "keys", "reach"), [(300, 300, 0), (140, 400, 260), (270, 290, 3), (5, 200, 140)])
def test_attention_when_a_known_mask_hides_what_comes_later_then_is_that_of_all_keys(
    queries: int, keys: int, reach: int
) -> None:
    shape = Shape(queries, keys, heads=2, key_heads=1)
    inputs, mask = _inputs(shape), _causal(queries, keys, reach)
    known = compile_module(_masked(shape, mask))
    found = known.run(inputs, {})["y"]
    assert found.tobytes() == known.run(inputs, {}, threads=2)["y"].tobytes()
    all_keys = compile_module(_masked(shape, None)).run({**inputs, "m": mask}, {})["y"]
    assert_close(found, all_keys, "y", tolerance=1e-6)
    expected = graph_reference.run(_masked(shape, mask), "main", inputs)["y"]
    assert_close(found, expected, "y", tolerance=1e-5)


def test_attention_when_a_known_mask_hides_what_comes_later_then_loops_end_with_what_is_seen() -> None:
    shape = AttentionShape(2, 300, 300, 64, 64, mask=(1, 1, 300, 300), reach=0)
    loops = [n for n in attention(F32, shape, attention_schedule(shape, AVX512), 0.125).walk() if isinstance(n, t.For)]
    assert [n for n in loops if n.step == FEW_SEEN and symbols_of(n.extent)]


@pytest.mark.parametrize(("queries", "keys", "reach"), [(150, 150, 0), (20, 100, 80)])
def test_kernel_when_a_known_mask_hides_what_comes_later_then_bits_are_those_of_all_keys(
    queries: int, keys: int, reach: int, tmp_path: Path
) -> None:
    shape = AttentionShape(2, queries, keys, 16, 16, mask=(1, 1, queries, keys), reach=reach)
    schedule = attention_schedule(shape, AVX512)
    found: list[bytes] = []
    for number, seen in enumerate((shape, replace(shape, reach=None))):
        function = attention(F32, seen, schedule, 0.25)
        buffers = random(function, {})
        buffers[3] = _causal(queries, keys, reach)
        folder = tmp_path / str(number)
        folder.mkdir()
        execute(function, folder, WIDE, buffers, {})
        found.append(buffers[-1].tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("keys", [1, 30, 64, 100, 128, 129, 500, 1024, 1025, 3000])
def test_schedule_when_keys_are_many_then_few_columns_are_computed_for_none(keys: int) -> None:
    schedule = attention_schedule(AttentionShape(12, 40, keys, 64, 64), AVX512)
    blocks = -(-keys // schedule.block)
    assert schedule.block % schedule.tile_n == 0
    assert schedule.block <= 1024
    assert blocks * schedule.block - keys < blocks * schedule.tile_n
    assert -(-keys // schedule.tile_n) * schedule.tile_n - keys < 16 + keys * 0.04


def test_reach_when_masks_are_known_then_is_how_far_the_furthest_query_sees() -> None:
    assert reach_of(_causal(7, 7, 0)) == 0
    assert reach_of(_causal(7, 20, 13, hidden=float(np.finfo(np.float32).min))) == 13
    assert reach_of(_causal(7, 7, 0, hidden=-1e9)) == 6  # a weight that is small is not none
    assert reach_of(np.zeros((1, 1, 1, 9), np.float32)) is None
    assert reach_of(np.full((1, 1, 4, 9), -np.inf, np.float32)) == 0
    blank = _causal(5, 5, 0)
    blank[0, 0, 1, 4] = np.nan
    assert reach_of(blank) == 3
    assert reach_of(np.concatenate([_causal(5, 5, 0), _causal(5, 5, 2)], 1)) == 2


@pytest.mark.parametrize("machine", [AVX2, AVX512], ids=lambda m: m.name)
def test_schedule_when_queries_are_many_then_few_rows_are_computed_twice(machine: CpuMachine) -> None:
    for queries in range(1, 400):
        schedule = attention_schedule(AttentionShape(12, queries, 128, 64, 64), machine)
        tiles = -(-queries // schedule.tile_m)
        assert schedule.tile_m <= queries
        assert tiles * schedule.tile_m <= queries * 1.15 + 3
        assert schedule.keys_at_once == ((8 if machine.registers >= 32 else 2) if queries <= 3 else 0)
