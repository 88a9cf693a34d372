"""Structures of tensors in choices, loops and transforms: compiled results, matched by key and not by order."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tessera import graph
from tessera.graph import GraphModule
from tessera.model.tree import aligned, leaves, pictured, rebuild, structure
from tests.language.build import Floats, compiled, draw


class Point(NamedTuple):
    """A named tuple."""

    x: object
    y: object


class Turned(NamedTuple):
    """The same names in another order."""

    y: object
    x: object


@pytest.mark.unit
def test_aligned_when_mappings_differ_in_order_then_leaves_are_matched_by_key() -> None:
    tree = {"a": 1, "b": (2, {"c": 3, "d": None})}
    assert aligned(tree, OrderedDict(b=[20, {"d": None, "c": 30}], a=10)) == [10, 20, 30]
    assert aligned(Point(1, 2), Turned(20, 10)) == [10, 20]
    assert aligned((1, [2]), [10, (20,)]) == [10, 20]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("like", "tree"),
    [
        (1, (1,)),
        ({"a": 1}, 1),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ((1, 2), (1, 2, 3)),
        (Point(1, 2), (1, 2)),
        ({0: 1}, (1,)),
        (None, 1),
        (None, ()),
        ({}, ()),
        ({1: 2}, {"1": 2}),
    ],
)
def test_aligned_when_nestings_differ_then_there_is_none(like: object, tree: object) -> None:
    assert aligned(like, tree) is None
    assert aligned(tree, like) is None


@pytest.mark.unit
def test_rebuild_when_given_the_leaves_then_equals_the_tree() -> None:
    tree = {"a": (1, [2, Point(3, None)]), "b": {}, "c": ()}
    again = rebuild(tree, [leaf for _, leaf in leaves(tree)])
    assert again == tree
    assert structure(again) == structure(tree)
    assert structure({"a": 1, "b": 2}) != structure({"b": 1, "a": 2})
    assert pictured(tree) == "{'a': (1, [2, Point(x=3, y=None)]), 'b': {}, 'c': ()}"


@pytest.mark.numerics
@pytest.mark.parametrize("sign", [1, -1])
def test_cond_when_branches_order_their_keys_differently_then_each_result_is_of_its_key(
    tmp_path: Path, sign: int
) -> None:
    body = """
    @graph.module("choice")
    def choice(x: Tensor[3]):
        return op.cond(
            op.reduce_sum(x) > 0.0,
            lambda: {"mean": x, "std": (x * 2.0, None)},
            lambda: {"std": [x * 2.0, None], "mean": x},
        )
    """
    x = np.abs(draw(0, 3)) * np.float32(sign)
    found = compiled(tmp_path, body, {"x": x}, verify=True)
    assert list(found) == ["mean", "std.0"]
    np.testing.assert_array_equal(found["mean"], x)
    np.testing.assert_array_equal(found["std.0"], 2 * x)


@pytest.mark.numerics
def test_loops_when_bodies_order_their_keys_differently_then_carry_each_under_its_key(tmp_path: Path) -> None:
    body = """
    @graph.module("loops")
    def loops(x: Tensor[3]):
        first = {"a": x, "b": 10.0 * x}
        scanned, _ = op.scan(lambda c, t: ({"b": c["b"], "a": c["a"]}, None), first, None, length=1)
        repeated = op.while_(
            lambda c: op.reduce_max(c["a"]) < 100.0, lambda c: {"b": c["b"], "a": c["a"] * 2.0}, first, max_iter=20
        )
        return {"scanned": scanned, "repeated": repeated}
    """
    x = np.array([1, 2, 3], np.float32)
    found = compiled(tmp_path, body, {"x": x}, verify=True)
    np.testing.assert_array_equal(found["scanned.a"], x)
    np.testing.assert_array_equal(found["scanned.b"], 10 * x)
    np.testing.assert_array_equal(found["repeated.a"], 64 * x)
    np.testing.assert_array_equal(found["repeated.b"], 10 * x)


@pytest.mark.numerics
def test_transforms_when_directions_order_their_keys_differently_then_each_belongs_to_its_key(tmp_path: Path) -> None:
    body = """
    @graph.module("changes")
    def changes(x: Tensor[3], y: Tensor[3], c: Tensor[3], d: Tensor[3]):
        def parts(p):
            return {"sum": p["a"] + p["b"] * 3.0, "wave": op.sin(p["a"])}

        both = {"a": x, "b": y}
        _, along = graph.forward(parts, (both,), tangents=({"b": d, "a": c},))
        across = graph.jvp(parts(both), wrt=both, tangents={"b": d, "a": c})
        _, pull = graph.vjp(parts, both)
        return {"along": along, "across": across, "gradients": pull({"wave": d, "sum": c})}
    """
    x, y, c, d = (draw(i, 3) for i in range(4))
    found = compiled(tmp_path, body, {"x": x, "y": y, "c": c, "d": d})
    for name in ("along", "across"):
        np.testing.assert_allclose(found[f"{name}.sum"], c + 3 * d, rtol=1e-5)
        np.testing.assert_allclose(found[f"{name}.wave"], np.cos(x) * c, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["gradients.a"], c + np.cos(x) * d, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["gradients.b"], 3 * c, rtol=1e-5)


@pytest.mark.numerics
def test_pullback_when_called_inside_vmap_then_gradients_have_the_nesting_of_the_argument(tmp_path: Path) -> None:
    body = """
    @graph.module("rows")
    def rows(x: Tensor[3], y: Tensor[3], c: Tensor[2, 3], d: Tensor[2, 3]):
        both = {"b": x, "n": 3.0, "a": y}
        _, pull = graph.vjp(lambda p: {"up": p["a"] * p["b"], "down": op.sin(p["b"]) * p["n"]}, both)
        return graph.vmap(lambda g, h: pull({"down": h, "up": g}))(c, d)
    """
    x, y, c, d = (draw(i, *shape) for i, shape in enumerate(((3,), (3,), (2, 3), (2, 3))))
    found = compiled(tmp_path, body, {"x": x, "y": y, "c": c, "d": d})
    assert list(found) == ["b", "a"]
    np.testing.assert_allclose(found["b"], y * c + 3 * np.cos(x) * d, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["a"], x * c, rtol=1e-5)


@pytest.mark.numerics
def test_grad_when_an_argument_is_nested_then_its_gradient_is_nested_as_it(tmp_path: Path) -> None:
    body = """
    W = op.tensor((3,), init=op.init.normal(seed=1))

    @graph.module("nested")
    def nested(x: Tensor[3], y: Tensor[3], c: Tensor[3]):
        def loss(p, c, more):
            b, half = p["b"]
            return op.reduce_sum(op.sin(p["a"]) * b * half + c * c * more["n"] + W * c)

        p, more = {"a": x, "b": (y, 0.5), "none": None, "name": "p"}, {"n": 2, "c": c}
        one = graph.grad(loss)(p, c, more)
        (two, by_c), by_w = graph.grad(loss, wrt=(0, 1))(p, c, more), graph.grad(loss, wrt=[W])(p, c, more)
        value, again = graph.grad(loss, 1, value=True)(p, c, more)
        assert one["none"] is None and one["name"] is None and isinstance(one["b"], tuple)
        second = graph.grad(lambda p: op.reduce_sum(graph.grad(loss)(p, c, more)["a"]))(p)
        return {"one": one, "two": two, "by_c": by_c, "by_w": by_w[0], "again": again, "value": value, "second": second}
    """
    x, y, c = (draw(i, 3).astype(np.float64) for i in range(3))
    found = compiled(tmp_path, body, {n: v.astype(np.float32) for n, v in (("x", x), ("y", y), ("c", c))})
    for name in ("one", "two"):
        np.testing.assert_allclose(found[f"{name}.a"], np.cos(x) * y / 2, rtol=1e-5)
        np.testing.assert_allclose(found[f"{name}.b.0"], np.sin(x) / 2, rtol=1e-5)
        np.testing.assert_allclose(found[f"{name}.b.1"], (np.sin(x) * y).sum(), rtol=1e-5)
    np.testing.assert_allclose(found["by_w"], c, rtol=1e-6)
    np.testing.assert_array_equal(found["by_c"], found["again"])
    np.testing.assert_allclose(found["second.a"], -np.sin(x) * y / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["second.b.0"], np.cos(x) / 2, rtol=1e-5)


@pytest.mark.numerics
def test_transforms_when_an_argument_is_a_number_then_it_is_a_constant_without_derivatives(tmp_path: Path) -> None:
    body = """
    @graph.module("numbers")
    def numbers(x: Tensor[3], d: Tensor[3]):
        def power(a, b, how):
            return a * b if how["times"] else a

        primals = (x, 2.0, {"times": True})
        _, along = graph.forward(power, primals, tangents=(d,))
        _, placed = graph.forward(power, primals, tangents=(d, None, {"times": None}))
        _, nested = graph.forward(lambda p: p["a"] * p["b"], ({"a": x, "b": 2.0},), tangents=({"b": None, "a": d},))
        _, pull = graph.vjp(power, *primals)
        rows = graph.vmap(lambda row, s: row * s, in_axes=(0, None))(x, 3.0)
        return {"along": along, "placed": placed, "nested": nested, "gradient": pull(d), "rows": rows}
    """
    x, d = draw(0, 3), draw(1, 3)
    found = compiled(tmp_path, body, {"x": x, "d": d})
    for name in ("along", "placed", "nested", "gradient"):
        np.testing.assert_array_equal(found[name], 2 * d)
    np.testing.assert_allclose(found["rows"], 3 * x, rtol=1e-6)


@pytest.mark.numerics
def test_stated_gradients_when_one_is_none_then_the_others_keep_their_places(tmp_path: Path) -> None:
    body = """
    @graph.custom_vjp
    def product(a, b):
        return a * b

    @product.defvjp
    def product_rule(a, b, cotangent):
        return None, a * cotangent * 100.0

    @graph.module("places")
    def places(x: Tensor[3], y: Tensor[3]):
        return graph.grad(lambda a, b: op.reduce_sum(product(a, b)), wrt=(0, 1))(x, y)
    """
    x, y = draw(0, 3), draw(1, 3)
    first, second = compiled(tmp_path, body, {"x": x, "y": y}).values()
    np.testing.assert_array_equal(first, np.zeros(3))
    np.testing.assert_allclose(second, 100 * x, rtol=1e-6)


@graph.jit
def picked(parts: object) -> object:
    """Whichever of two places is there."""
    kept = parts["1"] if isinstance(parts, dict) and "1" in parts else parts[1]  # type: ignore[index]
    return kept * 2.0  # type: ignore[operator]


@pytest.mark.numerics
def test_jit_when_nestings_differ_in_more_than_their_words_then_each_is_traced(tmp_path: Path) -> None:
    del tmp_path
    assert isinstance(picked, GraphModule)
    x: Floats = draw(0, 3)
    for parts in ({1: x}, {"1": x}, [None, x], ((), x)):
        np.testing.assert_array_equal(picked(parts), 2 * x)
    assert picked.known is not None
    assert len(picked.known) == 4
