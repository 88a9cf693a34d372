"""Transforms of functions, alone and composed: compiled results against numpy and central differences."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from tessera import graph, op
from tessera.model.tensor import Value
from tessera_build.frontends.python import read_python
from tessera_build.ir.graph.builder import graph_nodes
from tests.language.build import compiled, draw, written
from tests.language.numeric import Doubles, difference, gradient, softmax

WEIGHTS = """
W = op.tensor((4, 3))
"""


@pytest.mark.numerics
def test_grad_when_applied_twice_then_is_the_derivative_of_the_derivative(tmp_path: Path) -> None:
    body = """
    @graph.module("twice")
    def twice(x: Tensor[3], y: Tensor[3]):
        def f(a, b):
            return op.reduce_sum(op.exp(a) * b)

        first = graph.grad(f)(x, y)
        second = graph.grad(lambda a: op.reduce_sum(graph.grad(f)(a, y) * y))(x)
        number, both = graph.grad(f, wrt=(0, 1), value=True)(x, y)
        return {"first": first, "second": second, "number": number, "both": both}
    """
    x, y = draw(0, 3), draw(1, 3)
    found = compiled(tmp_path, body, {"x": x, "y": y}, verify=True)
    powers = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(found["first"], powers * y, rtol=1e-5)
    np.testing.assert_allclose(found["second"], powers * y * y, rtol=1e-5)
    np.testing.assert_allclose(found["number"], (powers * y).sum(), rtol=1e-5)
    np.testing.assert_allclose(found["both.1"], powers, rtol=1e-5)


@pytest.mark.numerics
def test_vjp_when_given_cotangents_then_weighs_the_rows_of_the_jacobian(tmp_path: Path) -> None:
    body = """
    @graph.module("back")
    def back(x: Tensor[3], y: Tensor[3], c: Tensor[3], d: Tensor[3]):
        (product, wave), pull = graph.vjp(lambda a: (a * y, op.sin(a)), x)
        change = pull((c, d))
        return product, wave, change
    """
    x, y, c, d = (draw(i, 3) for i in range(4))
    found = compiled(tmp_path, body, {"x": x, "y": y, "c": c, "d": d})
    np.testing.assert_allclose(found["change"], y * c + np.cos(x) * d, rtol=1e-5, atol=1e-6)


@pytest.mark.numerics
def test_vmap_when_ops_have_batched_forms_or_not_then_equals_a_loop_over_examples(tmp_path: Path) -> None:
    body = """
    W = op.tensor((4, 3), init=op.init.normal(1))

    @graph.module("batched")
    def batched(x: Tensor["B", 4], s: Tensor[3], places: Tensor["B", 2, i64]):
        def one(row, s, place):
            h = op.tanh(row @ W) * s
            h = op.concat([h, h[:2]])
            return {"soft": op.softmax(h), "total": op.reduce_sum(h), "running": op.cumsum(h), "taken": h[place]}

        mapped = graph.vmap(one, in_axes=(0, None, 0))(x, s, places)
        gradients = graph.vmap(graph.grad(lambda r: op.reduce_sum(op.square(r @ W))))(x)
        return mapped, {"gradients": gradients, "W": W}
    """
    x, s, places = draw(0, 5, 4), draw(1, 3), np.random.default_rng(0).integers(0, 5, (5, 2))
    found = compiled(tmp_path, body, {"x": x, "s": s, "places": places}, verify=True)
    weight = found["W"]
    h = np.tanh(x @ weight) * s
    h = np.concatenate([h, h[:, :2]], 1).astype(np.float64)
    names = {name.rsplit(".", 1)[-1]: name for name in found}
    np.testing.assert_allclose(found[names["soft"]], softmax(h), atol=1e-6)
    np.testing.assert_allclose(found[names["total"]], h.sum(-1), atol=1e-5)
    np.testing.assert_allclose(found[names["running"]], h.cumsum(-1), atol=1e-5)
    np.testing.assert_allclose(found[names["taken"]], np.take_along_axis(h, places, 1), atol=1e-6)
    np.testing.assert_allclose(found["gradients"], 2 * (x @ weight) @ weight.T, atol=1e-4)


@pytest.mark.numerics
def test_checkpoint_when_differentiated_then_gives_the_same_gradients(tmp_path: Path) -> None:
    body = """
    W = op.tensor((4, 3))

    @graph.training_step(module="kept")
    def kept(x: Tensor["B", 4]):
        def block(v):
            return op.tanh(op.tanh(v @ W) @ W.T)

        plain = op.reduce_sum(block(block(x)))
        again = graph.checkpoint(block)
        saving = op.reduce_sum(again(again(x)))
        return {"plain": graph.backward(plain, wrt=W), "saving": graph.backward(saving, wrt=W)}
    """
    x, weight = draw(0, 5, 4), draw(1, 4, 3)
    found = compiled(tmp_path, body, {"x": x, "W": weight}, verify=True)

    def loss(w: Doubles) -> Doubles:
        v = x.astype(np.float64)
        for _ in range(2):
            v = np.tanh(np.tanh(v @ w) @ w.T)
        return v.sum()

    plain, saving = found.values()
    np.testing.assert_allclose(plain, gradient(loss, weight.astype(np.float64)), atol=1e-4)
    # Not by bits: a slope computed again is in one task with what it is multiplied by, and rounds once less (ADR 0027).
    np.testing.assert_allclose(saving, plain, rtol=1e-6, atol=1e-6)


@pytest.mark.numerics
def test_stated_derivatives_when_used_then_replace_the_derived_ones_at_every_order(tmp_path: Path) -> None:
    body = """
    @graph.custom_vjp
    def clipped(x):
        return x * 1.0

    @clipped.defvjp
    def clipped_rule(x, cotangent):
        return op.clip(x, -1.0, 1.0) * cotangent

    @graph.custom_jvp
    def cubed(x):
        return x * x * x

    @cubed.defjvp
    def cubed_rule(x, tangent):
        return 5.0 * x * x * tangent

    @graph.module("stated")
    def stated(x: Tensor[4], t: Tensor[4]):
        loss = op.reduce_sum(clipped(x) * 3.0)
        y, along = graph.forward(cubed, (x,), tangents=(t,))
        second = graph.jvp(graph.backward(op.reduce_sum(cubed(x)), wrt=x), wrt=x, dir=t)
        return {"value": clipped(x), "first": graph.backward(loss, wrt=x), "y": y, "along": along, "second": second}
    """
    x, t = draw(0, 4) * 2, draw(1, 4)
    found = {name.split(".")[-1]: value for name, value in compiled(tmp_path, body, {"x": x, "t": t}).items()}
    np.testing.assert_array_equal(found["value"], x)
    np.testing.assert_allclose(found["x"], 3 * np.clip(x, -1, 1), rtol=1e-6)
    np.testing.assert_allclose(found["y"], x**3, rtol=1e-5)
    np.testing.assert_allclose(found["along"], 5 * x**2 * t, rtol=1e-5)
    np.testing.assert_allclose(found["second"], 10 * x * t, rtol=1e-5)


@pytest.mark.numerics
def test_loss_scale_when_stated_then_gradients_are_those_without_it(tmp_path: Path) -> None:
    body = """
    from tessera import loss_scale

    @graph.module("scaled")
    def scaled(x: Tensor[5, f32 @ loss_scale(1024)], y: Tensor[5]):
        return graph.backward(op.reduce_sum(op.sin(x)), wrt=x), graph.backward(op.reduce_sum(op.sin(y)), wrt=y)
    """
    x = draw(0, 5)
    found = compiled(tmp_path, body, {"x": x, "y": x})
    np.testing.assert_array_equal(found["grad.x"], found["grad.y"])
    constants = read_python(tmp_path / "model.py").module.constants.values()
    assert 1024.0 in [float(np.asarray(c).reshape(-1)[0]) for c in constants]


@pytest.mark.numerics
def test_autodiff_when_decorated_then_the_bundle_has_a_gradient_entry(tmp_path: Path) -> None:
    body = """
    W = op.tensor((3,), init=op.init.uniform(1))

    @graph.autodiff
    def energy(x: Tensor[3]):
        return op.reduce_sum(op.square(x * W))
    """
    x = draw(0, 3)
    found = compiled(tmp_path, body, {"x": x}, entry="energy_grad")
    constants = read_python(tmp_path / "model.py", entries=["energy"]).module.constants.values()
    (weight,) = (np.asarray(c, np.float32) for c in constants if c.shape == (3,))
    np.testing.assert_allclose(found["x_gradient"], 2 * x * weight**2, rtol=1e-5)
    np.testing.assert_allclose(found["W_gradient"], 2 * x**2 * weight, rtol=1e-5)


@pytest.mark.numerics
def test_hvp_when_of_a_pointwise_tensor_then_is_the_second_derivative(tmp_path: Path) -> None:
    body = """
    @graph.module("bend")
    def bend(x: Tensor["N"]):
        u = op.sin(x) * x
        return {"slope": graph.jvp(u, wrt=x), "bend": graph.hvp(u, wrt=x)}
    """
    x = draw(0, 6)
    found = compiled(tmp_path, body, {"x": x})
    wide = x.astype(np.float64)
    np.testing.assert_allclose(found["slope"], difference(lambda v: np.sin(v) * v, wide, np.ones(6)), atol=1e-5)
    np.testing.assert_allclose(found["bend"], 2 * np.cos(wide) - wide * np.sin(wide), atol=1e-5)


@pytest.mark.unit
def test_backward_when_a_branch_has_no_derivative_then_only_what_the_loss_reads_matters(tmp_path: Path) -> None:
    body = """
    @graph.module("best")
    def best(x: Tensor["B", 4]):
        values, places = op.top_k(x, 2)
        return places, graph.backward(op.reduce_sum(op.square(x)), wrt=x)
    """
    function = read_python(written(tmp_path, body)).module.entries["best"]
    assert any(node.op == "top_k" for node in graph_nodes(function))


PULLED = """
    def pulled(w):
        def f(a):
            return op.scan(lambda c, row: (op.sin(c) * row, op.reduce_sum(c)), a @ w, op.outer(a, a))[0] ** 2
        return f
"""


@pytest.mark.numerics
def test_pullback_when_called_inside_another_function_then_composes_with_its_transform(tmp_path: Path) -> None:
    body = f"""{PULLED}
    @graph.module("inside")
    def inside(x: Tensor[5, f64], c: Tensor[5, f64], s: Tensor[5, f64], w: Tensor[5, 5, f64]):
        back = graph.vjp(pulled(w), x)[1]
        eye = op.eye(5, dtype=f64)
        def squared(z):
            return op.reduce_sum(back(z) ** 2)
        return {{
            "plain": op.stack([back(row) for row in eye]), "rows": graph.vmap(back)(eye),
            "slope": graph.grad(squared)(c), "each": graph.vmap(graph.grad(squared))(eye),
            "along": graph.forward(back, (c,), tangents=(s,))[1], "there": back(s), "kept": graph.checkpoint(back)(s),
        }}
    """
    x, c, s, w = (draw(i, *shape).astype(np.float64) for i, shape in enumerate(((5,), (5,), (5,), (5, 5))))
    found = compiled(tmp_path, body, {"x": x, "c": c, "s": s, "w": w}, verify=True)
    jacobian = found["plain"]
    np.testing.assert_allclose(jacobian, _slope(x, w), rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(found["rows"], jacobian, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(found["slope"], 2 * jacobian @ jacobian.T @ c, rtol=1e-9)
    np.testing.assert_allclose(found["each"], 2 * jacobian @ jacobian.T, rtol=1e-9)
    for name in ("along", "there", "kept"):
        np.testing.assert_allclose(found[name], s @ jacobian, rtol=1e-9)


@pytest.mark.numerics
def test_pullback_when_what_it_was_made_of_is_differentiated_by_then_its_derivative_is_found(tmp_path: Path) -> None:
    body = f"""{PULLED}
    @graph.module("nested")
    def nested(x: Tensor[5, f64], w: Tensor[5, 5, f64]):
        def size(z):
            return op.reduce_sum(graph.vmap(graph.vjp(pulled(w), z)[1])(op.eye(5, dtype=f64)) ** 2)
        return graph.grad(size)(x)
    """
    x, w = draw(0, 5).astype(np.float64), draw(1, 5, 5).astype(np.float64)
    found = compiled(tmp_path, body, {"x": x, "w": w}, verify=True)
    expected = gradient(lambda z: np.asarray((_slope(z, w, 1e-4) ** 2).sum()), x)
    np.testing.assert_allclose(found["output"], expected, rtol=1e-3, atol=1e-5)


def _slope(at: Doubles, w: Doubles, step: float = 1e-6) -> Doubles:
    """The Jacobian of what the two tests above pull back through."""

    def f(a: Doubles) -> Doubles:
        value = a @ w
        for row in np.outer(a, a):
            value = np.sin(value) * row
        return value**2

    return np.stack([difference(f, at, e, step) for e in np.eye(5)], axis=1)


@pytest.mark.numerics
def test_arguments_when_they_are_numbers_or_named_then_are_passed_on_and_not_differentiated(tmp_path: Path) -> None:
    body = """
    @graph.module("passed")
    def passed(x: Tensor[3, f64], t: Tensor[3, f64]):
        def f(a, b, power=1):
            return op.sin(a) * b ** power

        value, along = graph.forward(f, (x, 2.0), tangents=(t,))
        back = graph.vjp(f, x, 2.0)[1](t)
        mapped = graph.vmap(f, in_axes=(0, None))(x, 3.0, power=2)
        named = graph.grad(lambda a, b: op.reduce_sum(f(a, b)))(x, b=x)
        beside = graph.grad(lambda a, b: op.reduce_sum(f(a, b)))(x, 2.0)
        kept = graph.grad(lambda z: op.reduce_sum(graph.checkpoint(f)(z, b=z)))(x)
        every = graph.vmap(lambda a, b: a * op.reduce_sum(b))(x, b=t)
        return {"value": value, "along": along, "back": back, "mapped": mapped, "named": named, "kept": kept,
                "beside": beside, "every": every}
    """
    x, t = (draw(i, 3).astype(np.float64) for i in range(2))
    found = compiled(tmp_path, body, {"x": x, "t": t}, verify=True)
    expected = {
        "value": np.sin(x) * 2,
        "along": np.cos(x) * 2 * t,
        "back": np.cos(x) * 2 * t,
        "mapped": np.sin(x) * 9,
        "named": np.cos(x) * x,
        "beside": np.cos(x) * 2,
        "kept": np.cos(x) * x + np.sin(x),
        "every": x * t.sum(),
    }
    for name, wanted in expected.items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-12, err_msg=name)


def test_grad_when_floats_stand_beside_what_is_asked_by_then_they_stay_pythons() -> None:
    def powered(v: Value, exponent: float, factor: float) -> Value:
        return op.reduce_sum(v**exponent * factor) if exponent > 1.0 else op.reduce_sum(v)

    found = graph.jit(lambda v: graph.grad(powered, wrt=(0, 2))(v, 3.0, 2.0))(np.asarray([1.0, 2.0], np.float32))
    first, factor = (np.asarray(part, np.float64) for part in cast("tuple[object, object]", found))
    np.testing.assert_allclose(first, [6.0, 24.0])
    np.testing.assert_allclose(factor, 9.0)


@pytest.mark.numerics
def test_grad_when_asked_by_parameters_in_a_dict_then_is_a_dict_inside_a_scan_too(tmp_path: Path) -> None:
    body = """
    V, B = op.tensor((4, 3)), op.tensor((3,))
    NAMED = {"V": V, "rest": [B]}

    @graph.training_step(module="accumulated")
    def accumulated(xs: Tensor["M", 5, 4]):
        def loss(x):
            return op.reduce_sum(op.square(x @ V + B))

        def turn(sums, x):
            grads = graph.grad(loss, wrt=NAMED)(x)
            return {"V": sums["V"] + grads["V"], "rest": [sums["rest"][0] + grads["rest"][0]]}, None

        sums, _ = op.scan(turn, {"V": op.zeros_like(V), "rest": [op.zeros_like(B)]}, xs)
        return {"by_v": sums["V"], "by_b": sums["rest"][0], "unread": graph.grad(lambda v: op.reduce_sum(xs))(V)}
    """
    xs, v, b = draw(0, 2, 5, 4), draw(1, 4, 3), draw(2, 3)
    found = compiled(tmp_path, body, {"xs": xs, "V": v, "B": b}, verify=True)
    wide = [array.astype(np.float64) for array in (xs, v, b)]
    residual = 2 * (wide[0] @ wide[1] + wide[2])
    np.testing.assert_allclose(found["by_v"], np.einsum("mni,mnj->ij", wide[0], residual), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["by_b"], residual.sum((0, 1)), rtol=1e-5, atol=1e-5)
    assert not found["unread"].any()
