"""Placement: which copies vanish, which borders are stored, and that live memory never overlaps."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tessera_build.ir.target.host import Launch
from tessera_build.lower.program.arena import Lifetime, aligned, plan_arena
from tessera_build.lower.program.assemble import lower_module
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
