"""Equations of several unknowns, in dicts, tuples and lists: as those of one vector that holds them all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.language.build import compiled, draw
from tests.language.numeric import Doubles, difference, gradient

MODEL = """
@graph.module("several")
def several(a: Tensor[3, 2, f64], b: Tensor["N", f64], v: Tensor[3, 2, f64]):
    def found(a, b, way=WAY):
        F = lambda z: {
            "x": 0.4 * op.tanh(z["x"] * a + op.reduce_mean(z["rest"][0])),
            "rest": (0.3 * op.sin(z["rest"][0] + b) + 0.1 * op.reduce_sum(z["x"]),),
        }
        begin = {"rest": (op.zeros(b.shape, f64),), "x": op.zeros((3, 2), f64)}
        if way == "fixed_point":
            return op.fixed_point(F, begin, tol=1e-13, max_iter=200)
        minus = lambda z: {"x": z["x"] - F(z)["x"], "rest": (z["rest"][0] - F(z)["rest"][0],)}
        return op.solve(minus, begin, tol=1e-12)

    def loss(a, b):
        z = found(a, b)
        return op.reduce_sum(op.sin(z["x"] * 3.0)) + op.reduce_mean(op.square(z["rest"][0]))

    grads = graph.grad(loss, wrt=(0, 1))(a, b)
    second = graph.forward(lambda a: graph.grad(loss)(a, b), (a,), tangents=(v,))[1]
    return {"answer": found(a, b), "a": grads[0], "b": grads[1], "second": second}
"""


def _answer(a: Doubles, b: Doubles) -> tuple[Doubles, Doubles]:
    x, rest = np.zeros((3, 2)), np.zeros(len(b))
    for _ in range(200):
        x, rest = 0.4 * np.tanh(x * a + rest.mean()), 0.3 * np.sin(rest + b) + 0.1 * x.sum()
    return x, rest


def _loss(a: Doubles, b: Doubles) -> Doubles:
    x, rest = _answer(a, b)
    return np.asarray(np.sin(x * 3).sum() + (rest**2).mean())


@pytest.mark.numerics
@pytest.mark.parametrize("way", ["fixed_point", "solve"])
@pytest.mark.parametrize("count", [2, 40])
def test_equation_when_its_unknowns_are_nested_then_gradients_equal_differences(
    tmp_path: Path, way: str, count: int
) -> None:
    a, b, v = (x.astype(np.float64) for x in (draw(0, 3, 2), draw(1, count), draw(2, 3, 2)))
    found = compiled(tmp_path, MODEL.replace("WAY", repr(way)), {"a": a, "b": b, "v": v})
    x, rest = _answer(a, b)
    np.testing.assert_allclose(found["answer.x"], x, atol=1e-10)
    np.testing.assert_allclose(found["answer.rest.0"], rest, atol=1e-10)
    np.testing.assert_allclose(found["a"], gradient(lambda t: _loss(t, b), a), atol=1e-7)
    np.testing.assert_allclose(found["b"], gradient(lambda t: _loss(a, t), b), atol=1e-7)
    second = difference(lambda t: gradient(lambda u: _loss(u, b), t), a, v, 1e-4)
    np.testing.assert_allclose(found["second"], second, atol=1e-4)


@pytest.mark.numerics
def test_linear_equation_when_its_unknowns_are_nested_then_is_solved(tmp_path: Path) -> None:
    body = """
    @graph.module("m")
    def m(p: Tensor[3, f64], q: Tensor[2, 2, f64]):
        return op.linear_solve(lambda z: (3.0 * z[0] + op.reduce_sum(z[1]), 2.0 * z[1] - z[0][0]), (p, q))
    """
    p, q = draw(0, 3).astype(np.float64), draw(1, 2, 2).astype(np.float64)
    x, y = compiled(tmp_path, body, {"p": p, "q": q}).values()
    np.testing.assert_allclose(3 * x + y.sum(), p, atol=1e-9)
    np.testing.assert_allclose(2 * y - x[0], q, atol=1e-9)
