"""Derivatives that the author states: applied as they stand, transposed where they are linear, differentiated again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tessera_build.frontends.python import read_python
from tessera_build.ir.graph.builder import graph_nodes
from tests.language.build import compiled, draw, written
from tests.language.numeric import gradient

RULES = {
    "clipped": ("op.clip(g, -1.0, 1.0)", lambda g: np.clip(g, -1, 1)),
    "squared": ("g * g", lambda g: g * g),
    "shifted": ("g + 1.0", lambda g: g + 1),
    "bent": ("op.tanh(g)", np.tanh),
    "normalised": ("g / op.sqrt(op.reduce_sum(g * g))", lambda g: g / np.sqrt((g * g).sum())),
}
COPY = """
    @graph.custom_vjp
    def copy_{name}(x):
        return x * 1.0

    @copy_{name}.defvjp
    def rule_{name}(x, g):
        return {rule}
"""


def _model(module: str) -> str:
    return "".join(COPY.format(name=name, rule=rule) for name, (rule, _) in RULES.items()) + module


@pytest.mark.numerics
def test_rule_when_it_is_not_linear_then_is_applied_to_the_cotangent_as_it_stands(tmp_path: Path) -> None:
    grads = ", ".join(
        f'"{name}": graph.grad(lambda z: op.reduce_sum(copy_{name}(z) * w))(x), '
        f'"{name}_second": graph.grad(lambda z: op.reduce_sum(graph.grad(lambda q: '
        f"op.reduce_sum(op.exp(copy_{name}(q)) * w))(z) * w))(x)"
        for name in RULES
    )
    body = _model(f"""
    @graph.module("m")
    def m(x: Tensor[4, f64], w: Tensor[4, f64]):
        return {{{grads}}}
    """)
    x, w = draw(0, 4).astype(np.float64), 2 * draw(1, 4).astype(np.float64)
    found = compiled(tmp_path, body, {"x": x, "w": w}, verify=True)
    for name, (_, rule) in RULES.items():
        np.testing.assert_allclose(found[name], rule(w), rtol=1e-9, err_msg=name)
        # The cotangent exp(x) w depends on x by the rule as well: its change passes through the rule's own derivative.
        slope = gradient(lambda g, rule=rule: (rule(g) * w).sum(), np.exp(x) * w)
        np.testing.assert_allclose(found[f"{name}_second"], rule(slope * np.exp(x) * w), rtol=1e-5, err_msg=name)


@pytest.mark.numerics
def test_rule_when_it_is_not_linear_then_composes_with_loops_choices_and_checkpoints(tmp_path: Path) -> None:
    body = _model("""
    @graph.module("m")
    def m(x: Tensor[4, f64], w: Tensor[3, 4, f64]):
        f = copy_clipped
        def scanned(z):
            return op.reduce_sum(op.scan(lambda c, row: (f(c) * row, c), z, w)[0])
        def chosen(z):
            return op.reduce_sum(op.cond(op.reduce_sum(w) > -100.0, lambda: f(z) * w[0], lambda: z))
        def kept(z):
            return op.reduce_sum(graph.checkpoint(lambda q: op.sin(f(q)))(z) * w[0])
        each = graph.vmap(graph.grad(lambda row: op.reduce_sum(f(row) * w[0])))(w)
        return {"scanned": graph.grad(scanned)(x), "chosen": graph.grad(chosen)(x), "kept": graph.grad(kept)(x),
                "each": each}
    """)
    x, w = draw(0, 4).astype(np.float64), 2 * draw(1, 3, 4).astype(np.float64)
    found = compiled(tmp_path, body, {"x": x, "w": w}, verify=True)
    passed = np.ones(4)
    for row in w[::-1]:
        passed = np.clip(passed * row, -1, 1)
    np.testing.assert_allclose(found["scanned"], passed, rtol=1e-9)
    np.testing.assert_allclose(found["chosen"], np.clip(w[0], -1, 1), rtol=1e-9)
    np.testing.assert_allclose(found["kept"], np.clip(np.cos(x) * w[0], -1, 1), rtol=1e-9)
    np.testing.assert_allclose(found["each"], np.broadcast_to(np.clip(w[0], -1, 1), (3, 4)), rtol=1e-9)


@pytest.mark.numerics
def test_rule_when_it_is_linear_then_has_tangents_by_its_transpose(tmp_path: Path) -> None:
    body = """
    @graph.custom_vjp
    def f(x, y):
        return op.sin(x) * y

    @f.defvjp
    def rule(x, y, g):
        total = op.scan(lambda c, row: (c * row, c), g, op.stack([x, y]))[0]
        left = op.where(x > 0.0, g * y, 0.0) + op.concat([g[1:], op.zeros((1,), f64)]) / 3.0
        right = op.cond(op.reduce_sum(x) > 0.0, lambda: -total, lambda: g @ op.outer(x, y))
        return left, right

    @graph.module("m")
    def m(x: Tensor[4, f64], y: Tensor[4, f64], t: Tensor[4, f64], u: Tensor[4, f64], g: Tensor[4, f64]):
        value, along = graph.forward(f, (x, y), tangents=(t, u))
        left, right = graph.vjp(f, x, y)[1](g)
        return {"along": op.reduce_sum(along * g), "back": op.reduce_sum(left * t) + op.reduce_sum(right * u)}
    """
    inputs = {name: draw(i, 4).astype(np.float64) for i, name in enumerate("xytug")}
    found = compiled(tmp_path, body, inputs, verify=True)
    np.testing.assert_allclose(found["along"], found["back"], rtol=1e-9)


@pytest.mark.numerics
def test_change_when_it_is_not_linear_then_is_applied_to_the_tangent_as_it_stands(tmp_path: Path) -> None:
    body = """
    @graph.custom_jvp
    def clipped(x):
        return x * 1.0

    @clipped.defjvp
    def rule(x, t):
        return op.clip(t, -1.0, 1.0)

    @graph.custom_jvp
    def constant(x):
        return x * 1.0

    @constant.defjvp
    def rule_2(x, t):
        return x

    @graph.module("m")
    def m(x: Tensor[4], t: Tensor[4]):
        return graph.forward(clipped, (x,), tangents=(t,))[1], graph.forward(constant, (x,), tangents=(t,))[1]
    """
    x, t = draw(0, 4), 3 * draw(1, 4)
    clipped, constant = compiled(tmp_path, body, {"x": x, "t": t}).values()
    np.testing.assert_array_equal(clipped, np.clip(t, -1, 1))
    np.testing.assert_array_equal(constant, x)


@pytest.mark.numerics
def test_arguments_when_they_are_numbers_then_are_constants_and_none_is_the_gradient_of_nothing(tmp_path: Path) -> None:
    body = """
    @graph.custom_vjp
    def power(x, n, places, *, times=1.0):
        return op.gather(x, places) ** n * times

    @power.defvjp
    def rule(x, n, places, g, times=1.0):
        return g * float(n) * times, None

    @graph.custom_jvp
    def scaled(x, factor):
        return x * factor

    @scaled.defjvp
    def change(x, factor, t):
        return t * (factor + 1.0)

    @graph.module("m")
    def m(x: Tensor[3], places: Tensor[3, i64]):
        back = graph.grad(lambda z: op.reduce_sum(power(z, 3, places, times=2.0)))(x)
        return back, graph.forward(lambda z: scaled(z, 2.0), (x,), tangents=(x,))[1]
    """
    x = draw(0, 3)
    back, along = compiled(tmp_path, body, {"x": x, "places": np.array([2, 1, 0])}).values()
    np.testing.assert_array_equal(back, np.full(3, 6, np.float32))
    np.testing.assert_array_equal(along, 3 * x)


@pytest.mark.numerics
def test_rule_when_it_is_the_derived_one_then_every_transform_gives_the_same(tmp_path: Path) -> None:
    body = """
    @graph.custom_vjp
    def sine(x):
        return op.sin(x)

    @sine.defvjp
    def rule(x, g):
        return g * op.cos(x)

    def transforms(f, x, t):
        def answer(w):
            return op.reduce_sum(op.fixed_point(lambda z: f(z) / 2.0 + f(w), w) ** 2)
        def root(w):
            return op.reduce_sum(op.solve(lambda z: z * z * z + f(w) - 2.0, w) ** 2)
        def scanned(z):
            return op.scan(lambda c, row: (f(c) * row, c), z, op.outer(x, x))[0]
        def chosen(z):
            return op.cond(op.reduce_sum(z) > 0.0, lambda: f(z) * z, lambda: f(z))
        return [
            graph.grad(answer)(x), graph.grad(root)(x),
            graph.grad(lambda z: op.reduce_sum(graph.grad(answer)(z) ** 2))(x),
            graph.vmap(lambda z: graph.forward(scanned, (z,), tangents=(t,))[1])(op.outer(x, t)),
            graph.grad(lambda z: op.reduce_sum(graph.forward(chosen, (z,), tangents=(t,))[1]))(x),
            graph.hvp(lambda z: op.reduce_sum(op.exp(f(z))), wrt=x, dir=t, inputs=(x,)),
            graph.hvp(f(f(x)), wrt=x, dir=t),
        ]

    @graph.module("m")
    def m(x: Tensor[5, f64], t: Tensor[5, f64]):
        return transforms(sine, x, t), transforms(op.sin, x, t)
    """
    x, t = (1.0 + draw(i, 5).astype(np.float64) ** 2 for i in range(2))
    found = list(compiled(tmp_path, body, {"x": x, "t": t}, verify=True).values())
    half = len(found) // 2
    assert half == 7
    for stated, derived in zip(found[:half], found[half:], strict=True):
        np.testing.assert_allclose(stated, derived, rtol=1e-9)


HALF_LINEAR = """
    @graph.custom_vjp
    def product(a, b):
        return a * b

    @product.defvjp
    def rule(a, b, g):
        return g * b * 2.0, op.clip(g * a, -0.5, 0.5)
"""


@pytest.mark.numerics
def test_rule_when_differentiated_by_one_argument_then_the_gradients_of_the_others_may_be_of_any_kind(
    tmp_path: Path,
) -> None:
    module = """
    @graph.module("m")
    def m(x: Tensor[5], y: Tensor[5]):
        return {
            "first": graph.grad(lambda a: op.reduce_sum(product(a, y)))(x),
            "second": graph.grad(lambda b: op.reduce_sum(product(x, b)))(y),
            "along": graph.forward(lambda a: product(a, y), (x,), tangents=(x,))[1],
        }
    """
    x, y = draw(3, 5), draw(4, 5)
    found = compiled(tmp_path, HALF_LINEAR + module, {"x": x, "y": y})
    np.testing.assert_allclose(found["first"], 2 * y, rtol=1e-6)
    np.testing.assert_allclose(found["second"], np.clip(x, -0.5, 0.5), rtol=1e-6)
    np.testing.assert_allclose(found["along"], 2 * x * y, rtol=1e-6)


@pytest.mark.unit
def test_change_when_it_is_zero_then_nothing_is_computed_of_it(tmp_path: Path) -> None:
    module = """
    @graph.module("m")
    def m(x: Tensor[5]):
        return graph.forward(lambda a: op.exp(op.stop_gradient(a)) + a, (x,), tangents=(x,))[1]
    """
    (function,) = read_python(written(tmp_path, module)).module.entries.values()
    assert "mul" not in {node.op for node in graph_nodes(function)}
