"""Attention as compiled code: few and many queries, keys that fill no block, groups, masks, f16, two threads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.types import F16, F32, DType, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.kernels.attention import AttentionShape
from tessera_build.space.attention import attention_schedule
from tests.lower.compiled import assert_close, check_module, compile_module
from tests.lower.execution import AVX2, AVX512


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
MANY = (Shape(13, 21, mask=True), Shape(17, 128, depth=40), Shape(50, 129), Shape(4, 300, heads=2, key_heads=1))


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


@pytest.mark.parametrize("machine", [AVX2, AVX512], ids=lambda m: m.name)
def test_schedule_when_queries_are_many_then_few_rows_are_computed_twice(machine: CpuMachine) -> None:
    for queries in range(1, 400):
        schedule = attention_schedule(AttentionShape(12, queries, 128, 64, 64), machine)
        tiles = -(-queries // schedule.tile_m)
        assert schedule.tile_m <= queries
        assert tiles * schedule.tile_m <= queries * 1.15 + 3
        assert schedule.keys_at_once == (8 if queries <= 3 else 0)
