"""Answers of equations: values, gradients and second derivatives against differences of numpy's own iterations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tessera_build.frontends.python import read_python
from tests.language.build import compiled, draw, written
from tests.language.numeric import Doubles, difference, gradient

FIXED = """
@graph.module("fixed")
def fixed(theta: Tensor[4, f64], scale: Tensor[f64], v: Tensor[4, f64]):
    def F(x):
        return op.tanh(x * scale + theta)

    def loss(theta_, scale_):
        x_star = op.fixed_point(lambda x: op.tanh(x * scale_ + theta_), op.zeros((4,), f64), tol=1e-13, max_iter=200)
        return op.reduce_sum(x_star * x_star * x_star)

    first = graph.grad(loss, wrt=(0, 1))(theta, scale)
    second = graph.hvp(loss(theta, scale), wrt=theta, dir=v)
    along = graph.forward(loss, (theta, scale), tangents=(v, op.zeros((), f64)))[1]
    return {"first": first, "second": second, "along": along}
"""


def _fixed(theta: Doubles, scale: Doubles) -> Doubles:
    x = np.zeros(4)
    for _ in range(400):
        x = np.tanh(x * scale + theta)
    return x


@pytest.mark.numerics
def test_fixed_point_when_differentiated_twice_then_equals_differences(tmp_path: Path) -> None:
    theta, v = draw(0, 4).astype(np.float64), draw(1, 4).astype(np.float64)
    scale = np.asarray(0.4)
    found = compiled(tmp_path, FIXED, {"theta": theta, "scale": scale, "v": v})

    def loss(t: Doubles, s: Doubles = scale) -> Doubles:
        return (_fixed(t, s) ** 3).sum()

    np.testing.assert_allclose(found["first.0"], gradient(loss, theta), atol=1e-7)
    np.testing.assert_allclose(found["first.1"], gradient(lambda s: loss(theta, s), scale), atol=1e-7)
    np.testing.assert_allclose(found["along"], difference(loss, theta, v), atol=1e-7)
    second = difference(lambda t: gradient(loss, t), theta, v, 1e-4)
    np.testing.assert_allclose(found["second"], second, atol=1e-4)


@pytest.mark.numerics
def test_solve_when_it_finds_an_argmin_then_its_gradients_equal_differences(tmp_path: Path) -> None:
    body = """
    A = op.tensor((3, 3), init=op.init.normal(1, 0.3))

    @graph.module("opt_layer")
    def opt_layer(params: Tensor[3], input: Tensor[3]):
        def f(x):
            apart = x - input
            return op.reduce_sum(apart * apart) + op.reduce_sum(op.exp(x * params)) + 0.5 * op.dot(A @ x, A @ x)

        x_star = op.solve(graph.grad(f), op.zeros((3,)), tol=1e-6)
        loss = op.reduce_sum(op.sin(x_star))
        grads = graph.backward(loss, wrt=[params, input])
        return x_star, grads, A
    """
    params, given = draw(0, 3), draw(1, 3)
    found = compiled(tmp_path, body, {"params": params, "input": given}, verify=True)
    matrix = found["A"].astype(np.float64) if "A" in found else found["output_2"].astype(np.float64)

    def argmin(p: Doubles, i: Doubles) -> Doubles:
        x = np.zeros(3)
        for _ in range(60):
            slope = 2 * (x - i) + p * np.exp(x * p) + matrix.T @ matrix @ x
            bend = np.diag(2 + p * p * np.exp(x * p)) + matrix.T @ matrix
            x = x - np.linalg.solve(bend, slope)
        return x

    p, i = params.astype(np.float64), given.astype(np.float64)
    np.testing.assert_allclose(found["x_star"], argmin(p, i), atol=1e-5)
    np.testing.assert_allclose(found["grad.params"], gradient(lambda v: np.sin(argmin(v, i)).sum(), p), atol=1e-5)
    np.testing.assert_allclose(found["grad.input"], gradient(lambda v: np.sin(argmin(p, v)).sum(), i), atol=1e-5)


@pytest.mark.unit
def test_fixed_point_when_more_turns_are_allowed_then_nothing_larger_is_kept(tmp_path: Path) -> None:
    def largest(turns: int) -> int:
        module = read_python(written(tmp_path, FIXED.replace("max_iter=200", f"max_iter={turns}"))).module
        function = module.entries["fixed"]
        return max(int(np.prod([e for e in t.shape if isinstance(e, int)])) for t in function.types.values())

    assert largest(200) == largest(1000)
