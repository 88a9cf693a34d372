"""Placement: which copies vanish, which borders are stored, and that live memory never overlaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.node import walk
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.target.host import Allocate, Launch
from tessera_build.lower.program.arena import Lifetime, aligned, plan_arena
from tessera_build.lower.program.assemble import lower_module
from tests.lower.compiled import check_module
from tests.lower.execution import AVX512
from tests.lower.graphs import GRAPHS

_ROOT = st.tuples(st.integers(1, 5000), st.integers(0, 20), st.integers(0, 8))


@given(st.lists(_ROOT, max_size=40))
def test_arena_when_lifetimes_overlap_then_memory_does_not(roots: list[tuple[int, int, int]]) -> None:
    items = [Lifetime(i, size, first, first + more) for i, (size, first, more) in enumerate(roots)]
    arena = plan_arena(items)
    spans = [(item, arena.offsets[item.root], size) for item, (size, _, _) in zip(items, roots, strict=True)]
    assert isinstance(arena.size, int)
    for index, (item, start, size) in enumerate(spans):
        assert isinstance(start, int)
        assert start % 64 == 0
        assert start + size <= arena.size
        for other, begin, length in spans[index + 1 :]:
            assert isinstance(begin, int)
            assert not item.overlaps(other) or start + size <= begin or begin + length <= start


def _drawn(seed: int) -> list[Lifetime]:
    rng = np.random.default_rng(seed)
    firsts = [int(first) for first in rng.integers(0, 20, 24)]
    lengths, lines = rng.integers(0, 8, 24), rng.integers(1, 60, 24)
    return [Lifetime(i, 64 * int(lines[i]), first, first + int(lengths[i])) for i, first in enumerate(firsts)]


def test_arena_when_lifetimes_are_drawn_then_most_take_hardly_more_than_the_least() -> None:
    arenas = [plan_arena(_drawn(seed)) for seed in range(60)]
    sizes = [arena.size for arena in arenas if isinstance(arena.size, int)]
    ratios = [size / arena.lower_bound for size, arena in zip(sizes, arenas, strict=True)]
    assert min(ratios) >= 1
    assert sum(ratio > 1.05 for ratio in ratios) <= 8  # placed largest first alone, 24
    assert max(ratios) < 1.2


def test_arena_when_a_network_is_static_then_takes_the_least_in_whole_lines_and_a_run_allocates_nothing() -> None:
    for layers in (2, 5, 9):
        lowered = lower_module(_cache(layers), AVX512)
        (entry,) = lowered.variant.entries
        assert entry.arena_bytes == aligned(lowered.arena_lower_bound - 96) + 2 * 64  # a value of 96 bytes is there
        assert not [node for node in walk(entry.nodes) if isinstance(node, Allocate)]


def test_aligned_when_given_sizes_then_it_rounds_up_to_whole_lines() -> None:
    assert [aligned(n) for n in (0, 1, 64, 65)] == [0, 64, 64, 128]


def test_concatenation_when_its_inputs_are_computed_then_only_foreign_ones_are_copied() -> None:
    lowered = lower_module(GRAPHS["chain"](np.random.default_rng(0)), AVX512)
    copies = [r for r in lowered.launches[0] if r.kind == "pointwise"]
    # The pooled value and the first sum are read by padded windows and keep their borders; the 1x1 result moves in.
    assert len(copies) < 4


def test_border_when_a_window_pads_then_it_is_filled_before_the_value_is_written() -> None:
    lowered = lower_module(GRAPHS["chain"](np.random.default_rng(0)), AVX512)
    launches = [n for n in lowered.variant.entries[0].nodes if isinstance(n, Launch)]
    fills = [i for i, r in enumerate(lowered.launches[0]) if not r.writes]
    assert fills
    assert all(launches[i].buffers[0].space == "arena" for i in fills)


def _cache(layers: int) -> Module:
    """Per layer: what is kept [3, 4, 8] and one more row, seen by a softmax; then all of them in one tensor."""
    b = GraphBuilder()
    kept = b.input("kept", tensor(F32, layers, 3, 4, 8))
    x = b.input("x", tensor(F32, 3, 8))
    grown: list[int] = []
    for layer in range(layers):
        own = b.op("slice", kept, starts=(layer, 0, 0, 0), stops=(layer + 1, 3, 4, 8), steps=(1, 1, 1, 1))
        row = b.op("reshape", b.op("tanh", x), shape=(3, 1, 8))
        both = b.op("concat", b.op("reshape", own, shape=(3, 4, 8)), row, axis=1)
        x = b.op("reduce", b.op("softmax", both, axis=2), kind="sum", axes=(1,), keepdims=False)
        grown.append(b.op("reshape", both, shape=(1, 3, 5, 8)))
    b.output("x", x)
    b.output("all", b.op("concat", *grown, axis=0))
    return b.finish()


def test_concatenation_when_of_reshaped_concatenations_then_each_element_is_moved_once() -> None:
    module = _cache(3)
    moved = [r for r in lower_module(module, AVX512).launches[0] if r.kind == "pointwise" and r.reads]
    into_result = [r for r in moved if r.writes and r.writes[0].space == "output" and r.writes[0].index == 1]
    assert sorted(r.writes[0].shape for r in into_result) == [(3, 1, 8)] * 3 + [(3, 4, 8)] * 3
    rng = np.random.default_rng(0)
    feeds = {n: rng.standard_normal(s).astype(np.float32) for n, s in (("kept", (3, 3, 4, 8)), ("x", (3, 8)))}
    check_module(module, feeds, {})


def test_concatenation_when_an_input_is_a_result_too_then_it_keeps_its_own_memory() -> None:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 4, 8))
    made = b.op("exp", x)
    b.output("made", made)
    seen = b.op("reshape", made, shape=(1, 32))
    b.output("both", b.op("concat", seen, b.op("reshape", b.op("tanh", made), shape=(1, 32)), seen, axis=0))
    check_module(b.finish(), {"x": np.random.default_rng(1).standard_normal((4, 8)).astype(np.float32)}, {})


def _reshaped(also: str) -> Module:
    """Products that are reshaped into results; the product itself, another reshape of it, or an input beside them."""
    b = GraphBuilder(dims={"n": (1, None)})
    n = symbol("n")
    x = b.input("x", tensor(F32, n, 8))
    product = b.op("matmul", x, b.constant(np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)))
    b.output("flat", b.op("reshape", product, shape=(n * 6,)))
    if also == "product":
        b.output("product", product)
    elif also == "twice":
        b.output("again", b.op("reshape", product, shape=(n, 2, 3)))
    elif also == "input":
        b.output("same", b.op("reshape", x, shape=(n * 8,)))
    elif also == "read":
        b.output("read", b.op("exp", b.op("transpose", product, perm=(1, 0))))
    return b.finish()


@pytest.mark.parametrize(("also", "copies"), [("", 0), ("product", 1), ("twice", 1), ("input", 1), ("read", 0)])
def test_result_when_it_is_a_reshape_then_its_memory_is_computed_in_place(also: str, copies: int) -> None:
    module, x = _reshaped(also), np.random.default_rng(1).standard_normal((5, 8)).astype(np.float32)
    lowered = lower_module(module, AVX512)
    assert [r.task_name for r in lowered.launches[0]].count("result") == copies
    check_module(module, {"x": x}, {"n": 5})


def _matrices(rows: int, columns: int, made: bool = False) -> Module:
    b = GraphBuilder()
    left, right = b.input("a", tensor(F32, rows, 512)), b.input("b", tensor(F32, 512, columns))
    b.output("y", b.op("matmul", left, b.op("mul", right, b.scalar(2.0, F32)) if made else right))
    return b.finish()


@pytest.mark.parametrize(
    ("rows", "columns", "made", "names"),
    [
        (512, 1024, False, ["matmul (pitch)", "matmul"]),
        (512, 1008, False, ["matmul"]),  # rows of other sets
        (32, 1024, False, ["matmul"]),  # read too few times
        (512, 1024, True, ["mul", "matmul"]),  # written with a pitch
    ],
)
def test_matrix_when_its_rows_share_sets_of_the_cache_then_products_read_one_with_a_pitch(
    rows: int, columns: int, made: bool, names: list[str]
) -> None:
    module = _matrices(rows, columns, made)
    ((*_, product),) = (records,) = lower_module(module, AVX512).launches
    assert [record.task_name for record in records] == names
    assert {place.strides[0] for place in product.reads} == {512, columns + 16 * (columns == 1024 and rows == 512)}
    rng = np.random.default_rng(2)
    check_module(
        module, {n: rng.standard_normal(s, np.float32) for n, s in (("a", (rows, 512)), ("b", (512, columns)))}, {}
    )
