"""Answers of equations: values, gradients and second derivatives against differences of numpy's own iterations."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tessera_build.config import load_target
from tessera_build.driver.machine import machine_of
from tessera_build.frontends.python import read_python
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.lower.program.assemble import lower_module
from tessera_runtime.errors import RunError
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


@pytest.mark.numerics
def test_fixed_point_when_it_has_a_thousand_unknowns_then_both_modes_equal_the_implicit_function(
    tmp_path: Path,
) -> None:
    body = """
    @graph.module("fixed")
    def fixed(A: Tensor[1000, 1000], theta: Tensor[1000], v: Tensor[1000]):
        def answer(theta):
            return op.fixed_point(lambda x: op.tanh(A @ x + theta), op.zeros((1000,)), tol=1e-6, max_iter=200)

        x, along = graph.forward(answer, (theta,), tangents=(v,))
        return x, along, graph.grad(lambda t: op.reduce_sum(op.square(answer(t))))(theta)
    """
    a, theta, v = draw(0, 1000, 1000) * np.float32(0.01), draw(1, 1000), draw(2, 1000)
    found = compiled(tmp_path, body, {"A": a, "theta": theta, "v": v})
    x, wide = np.zeros(1000), a.astype(np.float64)
    for _ in range(200):
        x = np.tanh(wide @ x + theta)
    slope = 1 - x * x
    change = np.eye(1000) - slope[:, None] * wide
    np.testing.assert_allclose(found["x"], x, atol=1e-5)
    np.testing.assert_allclose(found["along"], np.linalg.solve(change, slope * v), atol=1e-5)
    np.testing.assert_allclose(found["output_2"], slope * np.linalg.solve(change.T, 2 * x), atol=1e-5)


CHAIN = """
@graph.module("opt_layer")
def opt_layer(p: Tensor[{n}, {dtype}], v: Tensor[{n}, {dtype}]):
    def f(x, p):
        steps = x[1:] - x[:-1]
        return op.reduce_sum(op.square(x - p)) + op.reduce_sum(op.square(steps)) + op.reduce_sum(op.exp(x * 0.3))

    def layer(p):
        start = op.zeros(({n},), {dtype})
        return op.solve(graph.grad(lambda x: f(x, p)), start, tol={tol}, linear=op.Krylov(symmetric={symmetric}))

    def loss(p):
        return op.reduce_sum(op.sin(layer(p)))

    x, along = graph.forward(layer, (p,), tangents=(v,))
    return {{"x": x, "along": along, "gradient": graph.grad(loss)(p){second}}}
"""


def _bend(x: Doubles) -> Doubles:
    steps = np.diff(np.eye(len(x)), axis=0)
    bend = 2 * np.eye(len(x)) + 2 * steps.T @ steps + np.diag(0.09 * np.exp(0.3 * x))
    return bend.astype(np.float64)


def _minimum(p: Doubles) -> Doubles:
    steps, x = np.diff(np.eye(len(p)), axis=0), np.zeros(len(p))
    for _ in range(20):
        slope = 2 * (x - p) + 2 * steps.T @ (steps @ x) + 0.3 * np.exp(0.3 * x)
        x = x - np.linalg.solve(_bend(x), slope)
    return x


@pytest.mark.numerics
@pytest.mark.parametrize("symmetric", [True, False])
def test_argmin_when_it_has_a_thousand_unknowns_then_no_slope_is_written_down(tmp_path: Path, symmetric: bool) -> None:
    p, v = draw(0, 1000), draw(1, 1000)
    body = CHAIN.format(n=1000, dtype="f32", tol=1e-6, symmetric=symmetric, second="")
    found = compiled(tmp_path, body, {"p": p, "v": v})
    x = _minimum(p.astype(np.float64))
    np.testing.assert_allclose(found["x"], x, atol=1e-5)
    np.testing.assert_allclose(found["along"], np.linalg.solve(_bend(x), 2 * v), atol=1e-5)
    np.testing.assert_allclose(found["gradient"], 2 * np.linalg.solve(_bend(x), np.cos(x)), atol=1e-5)
    function = read_python(tmp_path / "model.py").module.entries["opt_layer"]
    assert max(int(np.prod(np.array(t.shape, np.int64))) for t in function.types.values()) == 1000


@pytest.mark.numerics
@pytest.mark.parametrize("symmetric", [True, False])
def test_argmin_when_differentiated_twice_by_iterations_then_equals_differences(
    tmp_path: Path, symmetric: bool
) -> None:
    p, v = draw(0, 20).astype(np.float64), draw(1, 20).astype(np.float64)
    second = """, "over": graph.forward(graph.grad(loss), (p,), tangents=(v,))[1],
            "under": graph.grad(lambda p: graph.forward(loss, (p,), tangents=(v,))[1])(p)"""
    body = CHAIN.format(n=20, dtype="f64", tol=1e-13, symmetric=symmetric, second=second)
    found = compiled(tmp_path, body, {"p": p, "v": v})

    def gradients(p: Doubles) -> Doubles:
        x = _minimum(p)
        return np.asarray(2 * np.linalg.solve(_bend(x), np.cos(x)), np.float64)

    np.testing.assert_allclose(found["gradient"], gradients(p), atol=1e-8)
    wanted = difference(gradients, p, v, 1e-5)
    np.testing.assert_allclose(found["over"], wanted, atol=1e-7)
    np.testing.assert_allclose(found["under"], wanted, atol=1e-7)


@pytest.mark.numerics
def test_fixed_points_when_there_are_many_then_each_has_its_gradient(tmp_path: Path) -> None:
    """Under vmap, in a scan that begins each where the last one ended, in a branch, and computed again."""
    body = """
    @graph.module("many")
    def many(theta: Tensor[3, 4, f64]):
        def answer(t, start):
            return op.fixed_point(lambda x: op.tanh(x * 0.5 + t), start, tol=1e-13, max_iter=200)

        def one(t):
            x = graph.checkpoint(lambda t: answer(t, op.zeros((4,), f64)))(t)
            return op.cond(op.reduce_sum(t) < 100.0, lambda: op.reduce_sum(x * x * x), lambda: op.reduce_sum(t))

        def chained(theta):
            def step(start, t):
                x = answer(t, start)
                return x, op.reduce_sum(x * x * x)

            return op.reduce_sum(op.scan(step, op.zeros((4,), f64), theta)[1])

        return {
            "each": graph.vmap(graph.grad(one))(theta),
            "all": graph.grad(lambda th: op.reduce_sum(graph.vmap(one)(th)))(theta),
            "chained": graph.grad(chained)(theta),
        }
    """
    theta = draw(0, 3, 4).astype(np.float64)
    found = compiled(tmp_path, body, {"theta": theta})
    half = np.asarray(0.5)
    wanted = gradient(lambda th: np.asarray(sum((_fixed(t, half) ** 3).sum() for t in th)), theta)
    for name in ("each", "all", "chained"):
        np.testing.assert_allclose(found[name], wanted, atol=1e-8)


@pytest.mark.numerics
def test_function_when_it_has_a_loop_of_its_own_then_its_fixed_point_has_gradients(tmp_path: Path) -> None:
    body = """
    @graph.module("deep")
    def deep(theta: Tensor[4, f64], rows: Tensor["N", 4, f64]):
        def F(x, theta, rows):
            return op.tanh(op.scan(lambda c, r: (op.tanh(c * 0.3 + r), None), x, rows)[0] * 0.5 + theta)

        def loss(theta, rows):
            x = op.fixed_point(lambda x: F(x, theta, rows), op.zeros((4,), f64), tol=1e-13, max_iter=200)
            return op.reduce_sum(x * x * x)

        return {"both": graph.grad(loss, wrt=(0, 1))(theta, rows)}
    """
    theta, rows = draw(0, 4).astype(np.float64), draw(1, 3, 4).astype(np.float64)
    found = compiled(tmp_path, body, {"theta": theta, "rows": rows})

    def loss(t: Doubles, r: Doubles) -> Doubles:
        x = np.zeros(4)
        for _ in range(100):
            for row in r:
                x = np.tanh(x * 0.3 + row)
            x = np.tanh(x * 0.5 + t)
        return np.asarray((x**3).sum())

    np.testing.assert_allclose(found["both.0"], gradient(lambda t: loss(t, rows), theta), atol=1e-8)
    np.testing.assert_allclose(found["both.1"], gradient(lambda r: loss(theta, r), rows), atol=1e-8)


ENDLESS = """
@graph.module("endless")
def endless(theta: Tensor[{n}]):
    start = op.zeros(({n},))
    {line}
    return x, graph.backward(op.reduce_sum(x * theta), wrt=theta)
"""


@pytest.mark.numerics
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x = op.fixed_point(lambda x: x * 1.5 + theta, start)", "op.fixed_point at model.py:6:9 has found no answer"),
        ("x = op.fixed_point(lambda x: op.tanh(x + theta), start, max_iter=3)", "op.fixed_point at model.py:6:9"),
        ("x = op.solve(lambda x: x * x + 1.0 + theta * 0.0, start + 0.3)", "op.solve at model.py:6:9 has found no"),
        ("x = op.solve(lambda x: op.exp(x) * 0.0 + theta, start)", "op.solve at model.py:6:9 has found no answer"),
        (
            "x = op.solve(lambda x: x * 0.0 + theta, start, linear=op.Krylov())",
            "op.solve at model.py:6:9 has found no answer",
        ),
        (
            "x = op.fixed_point(lambda x: op.flip(x, axis=0) * 0.9 + theta, start, max_iter=500, "
            "linear=op.Krylov(max_iter=1))",
            "the linear equation of a derivative of model.py:6:9 is not solved to 1e-05 within 1 applications",
        ),
        (
            "x = op.fixed_point(lambda x: x + theta * 0.0, start)",
            "the derivative of op.fixed_point at model.py:6:9 is not solved",
        ),
        (
            "x = op.linear_solve(lambda t: t * theta, theta, op.Krylov(symmetric=True, max_iter=2))",
            "the linear equation of op.linear_solve at model.py:6:9 is not solved",
        ),
    ],
)
def test_answer_when_it_is_not_found_then_the_run_ends_at_the_authors_line(
    tmp_path: Path, line: str, message: str
) -> None:
    theta = np.arange(1, 9, dtype=np.float32)
    with pytest.raises(RunError, match=re.escape(message)) as caught:
        compiled(tmp_path, ENDLESS.format(n=8, line=line), {"theta": theta})
    assert caught.value.code == "GUARD_FAILED"
    assert "numbers decide" in caught.value.diagnostics()


@pytest.mark.unit
@pytest.mark.parametrize("linear", ["op.Krylov(symmetric=True)", "op.Krylov(restart=10)"])
def test_fixed_point_when_more_turns_are_allowed_then_the_arena_is_the_same(tmp_path: Path, linear: str) -> None:
    def arena(turns: int) -> int:
        line = f"x = op.fixed_point(lambda x: op.tanh(x * 0.5 + theta), start, max_iter={turns}, linear={linear})"
        module = read_python(written(tmp_path, ENDLESS.format(n=500, line=line))).module
        lowered = lower_module(run_passes(module), machine_of(load_target("native")))
        size = lowered.variant.entries[0].arena_bytes
        assert isinstance(size, int)
        return size

    assert arena(10) == arena(1000)
