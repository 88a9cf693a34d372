"""States and their suffixes as compiled code: windows that roll, pruned caches, optimisers in f32, checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tessera_build
import tessera_runtime
from tests.language.build import Floats, draw, written
from tests.language.numeric import softmax

pytestmark = pytest.mark.numerics

RING = """
from tessera import cpu, device, rolling_window

@graph.module("ring")
def ring(q: Tensor["B", 2, "S", 4], k: Tensor["B", 2, "S", 4], v: Tensor["B", 2, "S", 4],
         cache: KVCache["B", 2, "S_max", 4, f32] @ rolling_window @ device(cpu)):
    cache = cache.append(k, v)
    return {"y": op.flash_attention(q, cache), "cache": cache}
"""


def _empty(batch: int, heads: int, room: int, width: int) -> dict[str, Floats]:
    rows = {f"cache.{part}": np.zeros((batch, heads, room, width), np.float32) for part in ("keys", "values")}
    return {**rows, "cache.length": np.zeros(batch, np.int64)}  # type: ignore[dict-item]


def _built(folder: Path, body: str) -> Path:
    bundle = folder / "model.tessera"
    tessera_build.build(written(folder, body), ["native"], bundle, workers=1)
    return bundle


def test_rolling_window_when_more_comes_than_fits_then_the_last_ones_are_seen(tmp_path: Path) -> None:
    q, k, v = (draw(i, 3, 2, 13, 4) for i in range(3))
    position = 0
    with tessera_runtime.load(_built(tmp_path, RING), threads=1) as model:
        state = model.new_state(_empty(3, 2, 5, 4))
        for count in (2, 1, 3, 1, 1, 1, 3, 1):
            part = {n: np.array(x[:, :, position : position + count]) for n, x in (("q", q), ("k", k), ("v", v))}
            found = np.asarray(model.run(part, state=state)["y"], np.float64).reshape(3, count, 2, 4)
            first = max(0, position + count - 5)
            for row in range(count):
                keys, values = k[:, :, first : position + row + 1], v[:, :, first : position + row + 1]
                scores = np.einsum("bhd,bhnd->bhn", q[:, :, position + row], keys).astype(np.float64) / 2
                wanted = np.einsum("bhn,bhnd->bhd", softmax(scores), values)
                np.testing.assert_allclose(found[:, row], wanted, atol=2e-6)
            position += count
        np.testing.assert_array_equal(state.arrays["cache.length"], [13, 13, 13])


def test_cache_when_pruned_then_the_oldest_are_gone(tmp_path: Path) -> None:
    body = """
    @graph.module("pruned")
    def pruned(k: Tensor["B", 1, "S", 4], cache: KVCache["B", 1, 6, 4, f32]):
        return cache.append(k, k * 2.0).prune(2)
    """
    k = draw(0, 2, 1, 5, 4)
    with tessera_runtime.load(_built(tmp_path, body), threads=1) as model:
        state = model.new_state(_empty(2, 1, 6, 4))
        model.run(k=k, state=state)
        np.testing.assert_array_equal(state.arrays["cache.length"], [3, 3])
        np.testing.assert_array_equal(state.arrays["cache.keys"][:, :, :3], k[:, :, 2:])
        np.testing.assert_array_equal(state.arrays["cache.values"][:, :, :3], k[:, :, 2:] * 2)
        assert not state.arrays["cache.keys"][:, :, 3:].any()


GROWS = """
@graph.module("grows")
def grows(q: Tensor["B", 2, "S", 4], k: Tensor["B", 2, "S", 4], cache: KVCache["B", 2, 16, 4, f32]):
    {before}
    cache = cache.append(k, k * 2.0)
    return {{"y": op.flash_attention(q, cache){after}, "cache": cache}}
"""
ALONE = {"before": "", "after": ""}
READ = {"before": "before = op.reduce_sum(cache.keys)", "after": " + before"}


def _steps(bundle: Path, counts: tuple[int, ...]) -> tuple[list[Floats], list[tuple[int, int]]]:
    """The answers of a sequence, and where the cached keys and values lie after each call."""
    answers: list[Floats] = []
    places: list[tuple[int, int]] = []
    with tessera_runtime.load(bundle, threads=1) as model:
        state = model.new_state(_empty(2, 2, 16, 4))
        for seed, count in enumerate(counts):
            q, k = draw(seed, 2, 2, count, 4), draw(100 + seed, 2, 2, count, 4)
            answers.append(np.array(model.run(q=q, k=k, state=state)["y"], np.float32))
            places.append((state.arrays["cache.keys"].ctypes.data, state.arrays["cache.values"].ctypes.data))
    return answers, places


def test_cache_when_it_only_grows_then_is_written_where_it_lies(tmp_path: Path) -> None:
    _, places = _steps(_built(tmp_path, GROWS.format(**ALONE)), (3, 1, 1, 4))
    assert len(set(places)) == 1


def test_cache_when_its_old_rows_are_read_beside_then_lies_apart_and_answers_alike(tmp_path: Path) -> None:
    apart, places = _steps(_built(tmp_path, GROWS.format(**READ)), (3, 1, 1, 4))
    assert len(set(places)) == 2
    (tmp_path / "alone").mkdir()
    together, _ = _steps(_built(tmp_path / "alone", GROWS.format(**ALONE)), (3, 1, 1, 4))
    grown = np.cumsum([0.0] + [draw(100 + seed, 2, 2, n, 4).sum(dtype=np.float64) for seed, n in enumerate((3, 1, 1))])
    for left, right, before in zip(apart, together, grown, strict=True):
        np.testing.assert_allclose(left, right + before, atol=2e-5)


def test_cache_when_a_call_fails_then_what_counts_of_it_is_as_it_was(tmp_path: Path) -> None:
    bundle, k = _built(tmp_path, GROWS.format(**ALONE)), draw(0, 2, 2, 10, 4)
    with tessera_runtime.load(bundle, threads=1) as model:
        state = model.new_state(_empty(2, 2, 16, 4))
        model.run(q=k, k=k, state=state)
        with pytest.raises(tessera_runtime.RunError):
            model.run(q=k + 1, k=k + 1, state=state)
        np.testing.assert_array_equal(state.arrays["cache.length"], [10, 10])
        np.testing.assert_array_equal(state.arrays["cache.keys"][:, :, :10], k)
        again = model.run(q=k[:, :, :6] + 2, k=k[:, :, :6] + 2, state=state)["y"]
        fresh = model.new_state(_empty(2, 2, 16, 4))
        model.run(q=k, k=k, state=fresh)
        wanted = model.run(q=k[:, :, :6] + 2, k=k[:, :, :6] + 2, state=fresh)["y"]
    np.testing.assert_array_equal(np.asarray(again), np.asarray(wanted))


OPTIMIZER = """
from tessera import checkpointable, fp32_master

W = op.tensor((3,), dtype=bf16)

@graph.training_step(module="step")
def step(g: Tensor[3, bf16], speed: OptimizerState[W]{suffix}):
    faster = speed.value * 0.5 + op.cast(g, {kind})
    return {{"W": W - op.cast(faster, bf16)}}, speed.set(faster)
"""


@pytest.mark.parametrize(
    ("suffix", "kind", "expected"),
    [("", "bf16", ml_dtypes.bfloat16), (" @ fp32_master @ checkpointable", "f32", np.float32)],
)
def test_optimizer_state_when_it_has_a_master_then_is_f32_and_else_the_parameters_type(
    tmp_path: Path, suffix: str, kind: str, expected: type[np.floating[Any]]
) -> None:
    bundle = _built(tmp_path, OPTIMIZER.format(suffix=suffix, kind=kind))
    g, weight = np.full(3, 1 / 3, ml_dtypes.bfloat16), np.ones(3, ml_dtypes.bfloat16)
    with tessera_runtime.load(bundle, threads=1) as model:
        state, speed = model.new_state(), np.zeros(3, expected)
        for _ in range(4):
            model.run(g=g, W=weight, state=state)
            speed = (speed * np.asarray(0.5, expected) + g.astype(expected)).astype(expected)
        np.testing.assert_array_equal(np.asarray(state.arrays["speed"]), speed)
        kept = {name: np.array(array) for name, array in state.arrays.items()}
    with tessera_runtime.load(bundle, threads=1) as model:  # another process could begin here
        again = model.new_state(kept)
        model.run(g=g, W=weight, state=again)
        wanted = (speed * np.asarray(0.5, expected) + g.astype(expected)).astype(expected)
        np.testing.assert_array_equal(np.asarray(again.arrays["speed"]), wanted)


def test_autodiff_when_it_names_what_by_then_gives_that_alone(tmp_path: Path) -> None:
    body = """
    W = op.tensor((3, 2), init=op.init.normal(seed=1))

    @graph.autodiff(wrt=["x", W])
    @graph.module("reverse")
    def reverse(x: Tensor["B", 3], y: Tensor["B", 3]):
        return op.reduce_sum(op.tanh((x * y) @ W))

    @graph.autodiff(mode="forward", wrt="x")
    @graph.module("along")
    def along(x: Tensor["B", 3], y: Tensor["B", 3]):
        return op.tanh((x * y) @ W)
    """
    bundle = _built(tmp_path, body)
    x, y, t = (draw(i, 5, 3) for i in range(3))
    with tessera_runtime.load(bundle, threads=1) as model:
        backward, forward = model.entries["reverse_grad"], model.entries["along_jvp"]
        assert [o.name for o in backward.outputs] == ["output", "x_gradient", "W_gradient"]
        gradients = {n: np.asarray(v, np.float64) for n, v in backward.run({"x": x, "y": y}).items()}
        change = np.asarray(forward.run({"x": x, "y": y, "x_tangent": t})["output_tangent"], np.float64)
    np.testing.assert_allclose((gradients["x_gradient"] * t).sum(), change.sum(), rtol=1e-4)
