"""Numeric policies as compiled code: where sums run, what is cut off, what chance rounds, what a scale saves."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tessera_build.frontends.python import read_python
from tessera_build.ir.graph.reference import run
from tests.language.build import compiled, draw, written

pytestmark = pytest.mark.numerics


def test_sums_when_a_wider_type_is_asked_for_then_are_rounded_once(tmp_path: Path) -> None:
    body = """
    @graph.module("wide")
    def wide(x: Tensor[4, 3000, f32 @ accum(f64)], y: Tensor[3000, 3, f32 @ accum(f64)]):
        total = op.reduce_sum(x, axes=1)
        return {"product": x @ y, "total": total, "running": op.cumsum(x, axis=1),
                "gradient": graph.backward(op.reduce_sum(x @ y), wrt=x)}
    """
    x, y = draw(0, 4, 3000) + np.float32(1000), draw(1, 3000, 3)
    found = compiled(tmp_path, body, {"x": x, "y": y}, verify=True)
    wide = x.astype(np.float64)
    np.testing.assert_array_equal(found["total"], wide.sum(1).astype(np.float32))
    np.testing.assert_array_equal(found["running"], wide.cumsum(1).astype(np.float32))
    np.testing.assert_array_equal(found["product"], (wide @ y).astype(np.float32))
    rows = np.broadcast_to(y.astype(np.float64).sum(1), (4, 3000)).astype(np.float32)
    np.testing.assert_array_equal(found["grad.x"], rows)
    native = compiled(tmp_path, body.replace("accum(f64)", "accum(f32)"), {"x": x, "y": y})
    assert not np.array_equal(native["total"], found["total"])


def test_sums_when_a_narrower_type_is_asked_for_then_have_its_precision(tmp_path: Path) -> None:
    body = """
    from tessera import f8e4m3

    @graph.module("narrow")
    def narrow(x: Tensor[4, 300, f32 @ accum(bf16)], y: Tensor[300, 3, f32 @ accum(bf16)],
               z: Tensor[4, 300, f8e4m3 @ accum(bf16)], w: Tensor[300, 3, f8e4m3 @ accum(bf16)]):
        return {"product": x @ y, "stored": op.cast(z @ w, f32)}
    """
    x, y = draw(0, 4, 300), draw(1, 300, 3)
    z, w = (v.astype(ml_dtypes.float8_e4m3fn) for v in (x, y))
    found = compiled(tmp_path, body, {"x": x, "y": y, "z": z, "w": w}, verify=True)
    exact = x.astype(np.float64) @ y
    np.testing.assert_array_equal(found["product"], exact.astype(ml_dtypes.bfloat16).astype(np.float32))
    middle = (z.astype(np.float64) @ w.astype(np.float64)).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(found["stored"], middle.astype(ml_dtypes.float8_e4m3fn).astype(np.float32))


def test_sums_in_place_when_a_wider_type_is_asked_for_then_do_not_stand_still(tmp_path: Path) -> None:
    """In bf16, 256 + 1 is 256."""
    body = """
    @graph.module("ones")
    def ones(x: Tensor[1, 3000, bf16 @ accum(f32)], i: Tensor[1, 3000, i64], z: Tensor[1, 2, bf16 @ accum(f32)]):
        found = op.cumsum(x, axis=1), op.scatter_elements(z, i, x, axis=1, add=True), op.reduce_sum(x)
        return {"last": [op.reduce_max(op.cast(y, f32)) for y in found]}
    """
    ones, zeros = (np.full(shape, n, ml_dtypes.bfloat16) for shape, n in (((1, 3000), 1), ((1, 2), 0)))
    found = compiled(tmp_path, body, {"x": ones, "i": np.zeros((1, 3000), np.int64), "z": zeros}, verify=True)
    for value in found.values():
        assert float(value) == float(ml_dtypes.bfloat16(3000))


def test_integers_when_summed_wide_then_stay_wide_unless_they_are_cut_off(tmp_path: Path) -> None:
    body = """
    from tessera import i8, saturate

    @graph.module("integers")
    def integers(x: Tensor[4, 64, i8 @ accum(i32)], y: Tensor[64, 3, i8 @ accum(i32)],
                 z: Tensor[4, 64, i8 @ saturate], w: Tensor[64, 3, i8 @ accum(i32) @ saturate]):
        return {"wide": x @ y, "total": op.reduce_sum(x, axes=1), "twice": z + z, "square": z * z, "cut": z @ w}
    """
    rng = np.random.default_rng(0)
    x, y = rng.integers(-128, 128, (4, 64)).astype(np.int8), rng.integers(-128, 128, (64, 3)).astype(np.int8)
    found = compiled(tmp_path, body, {"x": x, "y": y, "z": x, "w": y}, verify=True)
    wide = x.astype(np.int32)
    wanted = {"wide": wide @ y, "total": wide.sum(1), "twice": wide * 2, "square": wide * wide, "cut": wide @ y}
    for name, value in wanted.items():
        kept = name in ("wide", "total")
        assert found[name].dtype == (np.int32 if kept else np.int8)
        np.testing.assert_array_equal(found[name], value if kept else np.clip(value, -128, 127))


@pytest.mark.parametrize("name", ["f64", "f32", "bf16", "f16"])
def test_arithmetic_when_it_saturates_then_ends_at_the_largest_number(tmp_path: Path, name: str) -> None:
    body = f"""
    from tessera import saturate

    @graph.module("cut")
    def cut(x: Tensor[4, {name} @ saturate]):
        return {{"sum": x + x, "square": x * x, "power": op.exp(x), "inverse": 1.0 / x}}
    """
    kinds = {"f64": np.float64, "f32": np.float32, "bf16": ml_dtypes.bfloat16, "f16": np.float16}
    kind = np.dtype(kinds[name])
    largest = float(ml_dtypes.finfo(kind).max)
    x = np.array([largest * 0.9, -largest * 0.9, 1, 0]).astype(kind)
    found = {n: v.astype(np.float64).tolist() for n, v in compiled(tmp_path, body, {"x": x}).items()}
    assert found["sum"] == [largest, -largest, 2, 0]
    assert found["square"] == [largest, largest, 1, 0]
    assert found["power"][:2] == [largest, 0]
    assert found["inverse"][3] == largest


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bf16", ml_dtypes.bfloat16),
        ("f16", np.float16),
        ("f8e4m3", ml_dtypes.float8_e4m3fn),
        ("f8e5m2", ml_dtypes.float8_e5m2),
    ],
)
def test_stochastic_rounding_when_cast_then_gives_neighbours_right_on_average(
    tmp_path: Path, name: str, kind: type[np.generic]
) -> None:
    body = f"""
    from tessera import f8e4m3, f8e5m2, stochastic_round

    @graph.module("rounded")
    def rounded(x: Tensor["M", "N"], key: Tensor[u64]):
        y = op.cast(op.cast(x, {name} @ stochastic_round, key=key), f32)
        return y, graph.backward(op.reduce_sum(y * 2.0), wrt=x)
    """
    values = np.array([1.03, -3.3, 0.017, 1e-3, 300.0, 0.0], np.float32)
    x = np.repeat(values[:, None], 4000, 1)
    found = compiled(tmp_path, body, {"x": x, "key": np.asarray(3, np.uint64)}, verify=True)
    np.testing.assert_array_equal(found["grad.x"], 2)
    for value, row in zip(values, found["y"], strict=True):
        near = np.unique(row)
        np.testing.assert_array_equal(near.astype(kind).astype(np.float32), near)
        assert len(near) <= 2
        assert near.min() <= value <= near.max()
        spread = float(near.max() - near.min())
        assert abs(float(row.astype(np.float64).mean()) - float(value)) <= 0.04 * spread + 1e-7


@pytest.mark.parametrize("door", ["graph.backward(loss(x), wrt=x)", "graph.grad(loss)(x)"])
def test_loss_scale_when_gradients_would_vanish_on_the_way_then_saves_them(tmp_path: Path, door: str) -> None:
    body = """
    from tessera import loss_scale

    def loss(x):
        return op.reduce_sum(((x * 3000.0) * 1e-5) * 1e-3)

    @graph.module("scaled")
    def scaled(x: Tensor[4, f16{policy}]):
        return {{"gradient": {door}}}
    """
    x = np.ones(4, np.float16)
    scaled = compiled(tmp_path, body.format(policy=" @ loss_scale(1024)", door=door), {"x": x})
    plain = compiled(tmp_path, body.format(policy="", door=door), {"x": x})
    np.testing.assert_allclose(next(iter(scaled.values())), 3e-5, rtol=2e-2)
    np.testing.assert_array_equal(next(iter(plain.values())), 0)


@pytest.mark.parametrize(
    "text",
    [
        "graph.vmap(lambda v: v + v)(x)",
        "graph.vmap(lambda v: v + v, out_axes=1)(x)",
        "graph.forward(lambda v: v + v, (x,), tangents=(x,))[0]",
        "graph.vjp(lambda v: v + v, x)[0]",
        "graph.checkpoint(lambda v: v + v)(x)",
        "op.cond(op.equal(op.ones(()), 1.0), lambda: x + x, lambda: x)",
        "op.scan(lambda c, _: (c + x, c), x, length=1)[0]",
        "op.scan(lambda c, _: (x, c + c + c), op.zeros((2, 2), f16), length=2)[1][1]",
        "graph.checkpoint(lambda v: op.cast(v, f16 @ saturate))(op.cast(x + x, f32))",
        "op.scan(lambda c, v: (c, op.cast(v, f16 @ saturate)), (), op.stack([op.cast(x + x, f32)]))[1][0]",
        "clipped(op.cast(x + x, f32))",
    ],
)
def test_policy_when_a_function_is_transformed_or_chosen_then_its_results_are_under_it(
    tmp_path: Path, text: str
) -> None:
    body = f"""
    from tessera import saturate

    @graph.custom_vjp
    def clipped(x):
        return op.cast(x, f16 @ saturate)

    @clipped.defvjp
    def gradient_of_clipped(x, cotangent):
        return op.cast(cotangent, f32)

    @graph.module("m")
    def m(x: Tensor[2, 2, f16 @ saturate]):
        y = {text}
        return y + y
    """
    module = read_python(written(tmp_path, body)).module
    found = next(iter(run(module, "m", {"x": np.full((2, 2), 30000, np.float16)}).values()))
    np.testing.assert_array_equal(found, np.full((2, 2), 65504, np.float16))


@pytest.mark.numerics
def test_policy_when_a_loop_carries_it_then_holds_in_every_turn(tmp_path: Path) -> None:
    body = """
    from tessera import i8, saturate

    @graph.module("m")
    def m(x: Tensor[3, i8 @ saturate]):
        _, sums = op.scan(lambda c, _: (c, c + c), x, length=1)
        _, later = op.scan(lambda c, _: (x, c + c), op.zeros((3,), i8), length=2)
        return sums[0], later[1], op.while_(lambda c: c[0] > 0, lambda c: c + c, x, max_iter=1)
    """
    found = compiled(tmp_path, body, {"x": np.array([100, -100, 5], np.int8)})
    np.testing.assert_array_equal(list(found.values()), [[127, -128, 10]] * 3)


@pytest.mark.numerics
def test_loss_scale_when_a_loop_multiplies_by_small_numbers_then_saves_its_gradients(tmp_path: Path) -> None:
    body = """
    from tessera import loss_scale

    def loss(x):
        return op.scan(lambda total, v: (total + ((v * 3000.0) * 1e-5) * 1e-3, None), op.zeros((), f16), x)[0]

    @graph.module("m")
    def m(x: Tensor[4, f16 @ loss_scale(1024)]):
        return graph.grad(loss)(x)
    """
    (found,) = compiled(tmp_path, body, {"x": np.ones(4, np.float16)}).values()
    np.testing.assert_allclose(found, 3e-5, rtol=2e-2)
