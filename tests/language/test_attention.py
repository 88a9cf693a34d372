"""Attention that is written out: with names for its depths, and where weights are dropped out; compiled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tessera_build
import tessera_runtime
from tests.language.build import compiled, draw, written

pytestmark = pytest.mark.numerics


@pytest.mark.parametrize("scale", ["", ", scale=0.5"])
def test_attention_when_its_depth_is_a_name_then_is_what_its_formula_is(tmp_path: Path, scale: str) -> None:
    body = f"""
    @graph.module("m")
    def m(q: Tensor["B", 4, "M", "D"], k: Tensor["B", 2, "N", "D"], v: Tensor["B", 2, "N", "E"]):
        y = op.attention(q, k, v, causal=True{scale})
        return y, graph.backward(op.reduce_sum(y), wrt=v)
    """
    q, k, v = draw(0, 2, 4, 5, 6), draw(1, 2, 2, 5, 6), draw(2, 2, 2, 5, 3)
    found, slope = compiled(tmp_path, body, {"q": q, "k": k, "v": v}, verify=True).values()
    weights = np.tril(np.exp(q @ np.repeat(k, 2, 1).swapaxes(2, 3) * (0.5 if scale else 6**-0.5)))
    weights = weights / weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(found, weights @ np.repeat(v, 2, 1), atol=1e-5)
    summed = weights.sum(2).reshape(2, 2, 2, 5).sum(2)
    np.testing.assert_allclose(slope, np.repeat(summed[..., None], 3, 3), atol=1e-5)


def test_attention_when_weights_are_dropped_then_the_key_decides_and_the_mean_stays(tmp_path: Path) -> None:
    body = """
    @graph.module("m")
    def m(q: Tensor[1, 2, 64, 8], k: Tensor[1, 2, 32, 8]):
        def drawn(seed):
            ones = op.ones((1, 2, 32, 4))
            return op.attention(q, k, ones, dropout=0.25, key=op.random.key(seed))

        return {"a": drawn(1), "again": drawn(1), "b": drawn(2), "res": op.residual(q, q, 0.5, key=op.random.key(3))}
    """
    q, k = draw(0, 1, 2, 64, 8), draw(1, 1, 2, 32, 8)
    found = compiled(tmp_path, body, {"q": q, "k": k}, verify=True)
    np.testing.assert_array_equal(found["a"], found["again"])
    assert (found["a"] != found["b"]).any()
    kept = found["a"][..., 0]
    assert 0.02 < np.abs(kept - 1).mean() < 0.5  # of 32 weights a quarter is left out, the others count 4/3
    assert abs(kept.mean() - 1) < 0.06
    np.testing.assert_array_equal(np.isclose(found["res"], q), ~np.isclose(found["res"], 3 * q))


def test_flash_attention_when_weights_are_dropped_then_takes_a_key_over_a_cache(tmp_path: Path) -> None:
    body = """
    @graph.module("m")
    def m(q: Tensor[1, 2, 3, 8], cache: KVCache[1, 2, 16, 8]):
        cache = cache.append(q, op.ones((1, 2, 3, 8)))
        return op.flash_attention(q, cache, dropout=0.5, key=op.random.key(5)), op.flash_attention(q, cache), cache
    """
    bundle = tmp_path / "model.tessera"
    tessera_build.build(written(tmp_path, body), targets=["native"], out=bundle, workers=1)
    with tessera_runtime.load(bundle, threads=1) as model:
        found = [
            np.asarray(a, np.float32) for a in model.run({"q": draw(0, 1, 2, 3, 8)}, state=model.new_state()).values()
        ]
    np.testing.assert_allclose(found[1], 1.0, rtol=1e-5)
    assert found[0].shape == (1, 3, 16)
    assert ((found[0] - 1.0) ** 2).max() > 0.01
