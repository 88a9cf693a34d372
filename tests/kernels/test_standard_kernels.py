"""The standard kernels mean what they say: the Tile reference of each against numpy in f64."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.types import BF16, F32
from tessera_build.ir.tile.reference import run
from tessera_build.kernels.attention import attention
from tessera_build.kernels.attention_shape import AttentionSchedule, AttentionShape
from tessera_build.kernels.product import ProductSchedule, product
from tessera_build.kernels.softmax import softmax

pytestmark = pytest.mark.numerics

Array = NDArray[np.float32]
BATCH, HEADS, QUERIES, KEYS, DEPTH, WIDTH = 2, 3, 7, 21, 10, 12


def random(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def softmax_rows(x: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def expected_attention(q: Array, k: Array, v: Array, mask: Array | None) -> NDArray[np.float64]:
    scores = np.einsum("gmd,gnd->gmn", q, k, dtype=np.float64) * 0.3
    if mask is not None:
        whole = np.broadcast_to(mask, (BATCH, HEADS, QUERIES, KEYS))
        scores = scores + whole.reshape(BATCH * HEADS, QUERIES, KEYS)
    return np.einsum("gmn,gne->gme", softmax_rows(scores), v)


SCHEDULES = {
    "whole rows": AttentionSchedule(tile_m=4, tile_n=8, tile_e=8, tile_k=4, block=32),
    "online": AttentionSchedule(tile_m=4, tile_n=8, tile_e=8, tile_k=4, block=8, rows=2, order="tree(4)"),
    "as they lie": AttentionSchedule(tile_m=2, tile_n=8, tile_e=8, tile_k=4, block=24, order="tree(4)", keys_at_once=4),
    "as they lie, online": AttentionSchedule(3, 8, 16, 4, block=8, order="tree(8)", keys_at_once=8),
    "transposed keys": AttentionSchedule(tile_m=3, tile_n=8, tile_e=16, tile_k=5, block=16, transposed_keys=True),
}
MASKS = {"none": None, "row": (BATCH, 1, 1, KEYS), "full": (1, HEADS, QUERIES, KEYS)}


def run_attention(
    schedule: AttentionSchedule, mask: Array | None, *, symbolic: bool
) -> tuple[Array, Array, Array, Array]:
    groups = BATCH * HEADS
    q, k, v = random(0, groups, QUERIES, DEPTH), random(1, groups, KEYS, DEPTH), random(2, groups, KEYS, WIDTH)
    extents: tuple[Extent, ...] = (groups, QUERIES, KEYS, HEADS)
    if symbolic:
        extents = tuple(symbol(name) for name in "gmnh")
    g, m, n, h = extents
    names: dict[Extent, Extent] = {1: 1, BATCH: BATCH, KEYS: n, QUERIES: m, HEADS: h}
    kind: list[Extent] | None = None if mask is None else [names[extent] for extent in mask.shape]
    shape = AttentionShape(g, m, n, DEPTH, WIDTH, h, None if kind is None else (kind[0], kind[1], kind[2], kind[3]))
    function = attention(F32, shape, schedule, 0.3)
    out = np.full((groups, QUERIES, WIDTH), np.nan, np.float32)
    keys = np.ascontiguousarray(k.transpose(0, 2, 1)) if schedule.transposed_keys else k
    masks = [] if mask is None else [mask]
    run(function, [q, keys, v, *masks, out], {"g": groups, "m": QUERIES, "n": KEYS, "h": HEADS} if symbolic else {})
    return q, k, v, out


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_attention_when_scheduled_in_any_way_then_is_softmax_of_scores_times_values(
    schedule: str, mask: str, symbolic: bool
) -> None:
    extents = MASKS[mask]
    added = None if extents is None else random(3, *extents)
    q, k, v, out = run_attention(SCHEDULES[schedule], added, symbolic=symbolic)
    np.testing.assert_allclose(out, expected_attention(q, k, v, added), rtol=0, atol=2e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_attention_when_groups_share_keys_then_each_reads_its_own(schedule: str) -> None:
    sharing = 2
    groups = BATCH * HEADS * sharing
    q = random(0, groups, QUERIES, DEPTH)
    k, v = random(1, groups // sharing, KEYS, DEPTH), random(2, groups // sharing, KEYS, WIDTH)
    shape = AttentionShape(groups, QUERIES, KEYS, DEPTH, WIDTH, HEADS * sharing, sharing=sharing)
    out = np.full((groups, QUERIES, WIDTH), np.nan, np.float32)
    chosen = SCHEDULES[schedule]
    keys = np.ascontiguousarray(k.transpose(0, 2, 1)) if chosen.transposed_keys else k
    run(attention(F32, shape, chosen, 0.3), [q, keys, v, out], {})
    wanted = expected_attention(q, np.repeat(k, sharing, 0), np.repeat(v, sharing, 0), None)
    np.testing.assert_allclose(out, wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_attention_when_the_first_keys_are_forbidden_then_stays_finite(schedule: str) -> None:
    """A whole softmax step of minus infinity must leave no NaN behind."""
    mask = np.zeros((BATCH, 1, 1, KEYS), np.float32)
    mask[..., :17] = -np.inf
    q, k, v, out = run_attention(SCHEDULES[schedule], mask, symbolic=False)
    np.testing.assert_allclose(out, expected_attention(q, k, v, mask), rtol=0, atol=2e-6)


def test_softmax_when_rows_are_large_and_ragged_then_neither_overflows_nor_reads_past_the_end() -> None:
    x = random(4, 5, 133) * 100
    out = np.full_like(x, np.nan)
    run(softmax(F32, symbol("r"), symbol("c"), width=32), [x, out], {"r": 5, "c": 133})
    np.testing.assert_allclose(out, softmax_rows(x.astype(np.float64)), rtol=1e-5, atol=1e-30)


def test_product_when_storage_is_bf16_then_sums_are_f32() -> None:
    a, b = (random(5 + i, *s).astype(ml_dtypes.bfloat16) for i, s in enumerate(((9, 301), (301, 10))))
    out = np.full((9, 10), np.nan, np.float32)
    run(product(BF16, (9, 10, 301), ProductSchedule(4, 8, 32)), [a, b, out], {})
    np.testing.assert_allclose(out, a.astype(np.float64) @ b.astype(np.float64), rtol=0, atol=1e-4)
