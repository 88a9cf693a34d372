"""Sizes of 0 in contractions, reductions and gradients, fixed and among dynamic ones, compiled."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import pytest

import tessera_build
import tessera_runtime
from tessera_build.ir.graph.nodes import Array
from tests.language.build import Floats, draw, written

pytestmark = pytest.mark.numerics
PRODUCT = """
@graph.module("m")
def m(x: Tensor["B", "D"], y: Tensor["D", "N"]):
    z = op.relu(x @ y) + 1.0
    return {"z": z, "d": graph.backward(op.reduce_sum(op.tanh(z)), wrt=[x, y])}
"""
IMAGES = """
@graph.module("m")
def m(x: Tensor["B", "C", 16, 16], w: Tensor[O, I, 3, 3]):
    y = op.conv(x, w)
    return {"y": y, "d": graph.backward(op.reduce_sum(op.tanh(y)), wrt=[x, w])}
"""
ATTENTION = """
@graph.module("m")
def m(q: Tensor["B", 2, "M", "D"], k: Tensor["B", 2, "N", "D"], v: Tensor["B", 2, "N", "E"]):
    y = op.attention(q, k, v, scale=0.5)
    written = op.softmax(q @ op.transpose(k, (0, 1, 3, 2)) * 0.5) @ v
    return {"y": y, "written": written, "d": graph.backward(op.reduce_sum(op.tanh(y)), wrt=[q, k, v])}
"""
REDUCTIONS = """
@graph.module("m")
def m(x: Tensor["B", "D"]):
    return {
        "sum": op.reduce_sum(x, 1), "prod": op.reduce_prod(x, 1), "mean": op.reduce_mean(x, 1),
        "max": op.reduce_max(x, 1), "min": op.reduce_min(x, 1), "all": op.reduce_sum(x), "softmax": op.softmax(x),
        "log_softmax": op.log_softmax(x), "logsumexp": op.logsumexp(x), "cumsum": op.cumsum(x),
        "layernorm": op.layernorm(x), "down": op.softmax(x, 0), "halves": op.reduce_mean(op.cast(x, f16), 1),
    }
"""


def built(folder: Path, body: str, dims: Mapping[str, int], inputs: Mapping[str, Array]) -> dict[str, Floats]:
    """Build with its proof, any warning being an error, and run."""
    bundle = folder / "model.tessera"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tessera_build.build(written(folder, body), targets=["native"], out=bundle, workers=1, dims=dims)
    with tessera_runtime.load(bundle, threads=1) as model:
        return {name: cast(Floats, np.array(array)) for name, array in model.run(dict(inputs)).items()}


@pytest.mark.parametrize("fixed", [("D",), ("B",), ("N",), ("B", "D"), ("D", "N"), ("B", "D", "N")])
@pytest.mark.parametrize("others", ["dynamic", "fixed"])
def test_product_when_extents_are_0_then_it_and_its_gradients_are_sums_of_nothing(
    tmp_path: Path, fixed: tuple[str, ...], others: str
) -> None:
    sizes = {"B": 3, "D": 5, "N": 8} | dict.fromkeys(fixed, 0)
    dims = sizes if others == "fixed" else dict.fromkeys(fixed, 0)
    x, y = draw(0, sizes["B"], sizes["D"]), draw(1, sizes["D"], sizes["N"])
    found = built(tmp_path, PRODUCT, dims, {"x": x, "y": y})
    np.testing.assert_allclose(found["z"], np.maximum(x @ y, 0) + 1, rtol=1e-5)
    slope = (1 - np.tanh(found["z"]) ** 2) * (x @ y > 0)
    np.testing.assert_allclose(found["grad.x"], slope @ y.T, atol=1e-5)
    np.testing.assert_allclose(found["grad.y"], x.T @ slope, atol=1e-5)


@pytest.mark.parametrize(
    ("dims", "shape", "weights"),
    [
        ({"B": 0}, (0, 3, 16, 16), (4, 3, 3, 3)),
        ({}, (2, 0, 16, 16), (4, 0, 3, 3)),
        ({}, (2, 3, 16, 16), (0, 3, 3, 3)),
        ({"B": 0}, (0, 0, 16, 16), (0, 0, 3, 3)),
    ],
)
def test_convolution_when_extents_are_0_then_it_and_its_gradients_are_zeros(
    tmp_path: Path, dims: Mapping[str, int], shape: tuple[int, ...], weights: tuple[int, ...]
) -> None:
    body = IMAGES.replace('"C"', str(shape[1])).replace("O, I", f"{weights[0]}, {weights[1]}")
    x, w = draw(0, *shape), draw(1, *weights)
    found = built(tmp_path, body, dims, {"x": x, "w": w})
    assert found["y"].shape == (shape[0], weights[0], 14, 14)
    assert (found["grad.x"].shape, found["grad.w"].shape) == (shape, weights)
    assert not any(array.any() for array in found.values())


@pytest.mark.parametrize("fixed", [("B",), ("M",), ("N",), ("D",), ("E",), ("N", "D"), ("B", "N", "E")])
def test_attention_when_extents_are_0_then_it_is_what_its_formula_is(tmp_path: Path, fixed: tuple[str, ...]) -> None:
    sizes = {"B": 2, "M": 4, "N": 6, "D": 8, "E": 3} | dict.fromkeys(fixed, 0)
    b, m, n, d, e = (sizes[name] for name in "BMNDE")
    q, k, v = draw(0, b, 2, m, d), draw(1, b, 2, n, d), draw(2, b, 2, n, e)
    found = built(tmp_path, ATTENTION, dict.fromkeys(fixed, 0), {"q": q, "k": k, "v": v})
    scores = np.exp(q @ k.transpose(0, 1, 3, 2) * 0.5)
    expected = scores / np.maximum(scores.sum(-1, keepdims=True), 1e-30) @ v
    np.testing.assert_allclose(found["y"], expected, atol=1e-5)
    np.testing.assert_allclose(found["written"], expected, atol=1e-5)
    assert [found[name].shape for name in ("grad.q", "grad.k", "grad.v")] == [q.shape, k.shape, v.shape]


@pytest.mark.parametrize("dims", [{"D": 0}, {"D": 0, "B": 3}])
def test_reductions_when_there_is_nothing_then_they_give_their_identities(
    tmp_path: Path, dims: Mapping[str, int]
) -> None:
    found = built(tmp_path, REDUCTIONS, dims, {"x": draw(0, 3, 0)})
    identities = {"sum": 0, "prod": 1, "mean": math.nan, "max": -math.inf, "min": math.inf, "logsumexp": -math.inf}
    for name, number in (identities | {"halves": math.nan}).items():
        np.testing.assert_array_equal(found[name], np.full(3, number, found[name].dtype), name)
    assert found["all"] == 0
    assert all(found[name].shape == (3, 0) for name in ("softmax", "log_softmax", "cumsum", "layernorm", "down"))


def test_loss_when_the_batch_is_0_then_its_gradients_are_zeros(tmp_path: Path) -> None:
    body = """
    W = op.tensor((5, 8), init=op.init.normal(seed=1))
    @graph.module("m")
    def m(x: Tensor["B", 5], label: Tensor["B", i64]):
        return graph.backward(op.reduce_sum(op.cross_entropy(x @ W, label)), wrt=[x, W])
    """
    found = built(tmp_path, body, {"B": 0}, {"x": draw(0, 0, 5), "label": np.zeros(0, np.int64)})
    assert sorted(array.shape for array in found.values()) == [(0, 5), (5, 8)]


@pytest.mark.parametrize("sizes", [(0, 5), (3, 0), (2, 4)])
def test_dims_when_the_build_lets_them_be_0_then_a_call_may_have_nothing(
    tmp_path: Path, sizes: tuple[int, int]
) -> None:
    bundle = tmp_path / "model.tessera"
    dims = {"B": (0, 4), "D": (0, 8)}
    tessera_build.build(written(tmp_path, PRODUCT), targets=["native"], out=bundle, workers=1, dims=dims)
    x, y = draw(0, *sizes), draw(1, sizes[1], 6)
    with tessera_runtime.load(bundle, threads=1) as model:
        assert [(dim.min, dim.max) for dim in model.main.dims if dim.name in dims] == [(0, 4), (0, 8)]
        found = model.run({"x": x, "y": y})
    np.testing.assert_allclose(np.asarray(found["z"], np.float64), np.maximum(x @ y, 0) + 1, rtol=1e-5)


def test_vmap_when_there_are_no_examples_then_gives_no_results(tmp_path: Path) -> None:
    body = """
    @graph.module("m")
    def m(x: Tensor["B", 4], t: Tensor["B"]):
        return graph.vmap(graph.grad(lambda r, s: op.reduce_sum(op.exp(r) * s)))(x, t)
    """
    bundle = tmp_path / "model.tessera"
    tessera_build.build(written(tmp_path, body), targets=["native"], out=bundle, workers=1, dims={"B": (0, 4)})
    with tessera_runtime.load(bundle, threads=1) as model:
        for count in (0, 3):
            x, t = draw(0, count, 4), draw(1, count)
            (found,) = model.run({"x": x, "t": t}).values()
            np.testing.assert_allclose(np.asarray(found, np.float64), np.exp(x) * t[:, None], rtol=1e-5)
