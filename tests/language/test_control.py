"""Control flow, state and random numbers of the language as compiled code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tessera_build
import tessera_runtime
from tests.language.build import compiled, draw, written
from tests.language.numeric import Doubles, gradient


@pytest.mark.numerics
@pytest.mark.parametrize("sign", [1, -1])
def test_cond_when_data_choose_then_value_and_gradient_are_of_the_branch(tmp_path: Path, sign: int) -> None:
    body = """
    @graph.module("choice")
    def choice(x: Tensor[4]):
        y = op.cond(op.reduce_sum(x) > 0, lambda: op.exp(x), lambda: -x)
        return y, graph.backward(op.reduce_sum(y * y), wrt=x)
    """
    x = (np.abs(draw(0, 4)) * sign).astype(np.float32)
    found = compiled(tmp_path, body, {"x": x}, verify=True)
    np.testing.assert_allclose(found["y"], np.exp(x) if sign > 0 else -x, rtol=1e-6)
    np.testing.assert_allclose(found["grad.x"], 2 * np.exp(2 * x) if sign > 0 else 2 * x, rtol=1e-5)


@pytest.mark.numerics
def test_while_when_data_end_it_then_value_and_gradient_are_of_the_iterations_that_ran(tmp_path: Path) -> None:
    body = """
    @graph.module("grown")
    def grown(x: Tensor[4]):
        z = op.while_(lambda v: op.reduce_max(v) < 100.0, lambda v: v * 2.0 + 1.0, x, max_iter=50)
        return z, graph.backward(op.reduce_sum(z), wrt=x)
    """
    x = draw(0, 4)
    found = compiled(tmp_path, body, {"x": x}, verify=True)
    wanted, factor = x.copy(), 1.0
    while wanted.max() < 100:
        wanted, factor = wanted * 2 + 1, factor * 2
    np.testing.assert_allclose(found["z"], wanted, rtol=1e-6)
    np.testing.assert_allclose(found["grad.x"], np.full(4, factor), rtol=1e-6)


@pytest.mark.numerics
@pytest.mark.parametrize("reverse", [False, True])
def test_scan_when_run_over_rows_then_carries_and_stacks(tmp_path: Path, reverse: bool) -> None:
    body = f"""
    @graph.module("running")
    def running(x: Tensor[4], rows: Tensor["N", 4]):
        def step(carry, row):
            return carry * 0.5 + row, carry * row

        last, products = op.scan(step, x, rows, reverse={reverse})
        loss = op.reduce_sum(products * products) + op.reduce_sum(last)
        return last, products, graph.backward(loss, wrt=[x, rows])
    """
    x, rows = draw(0, 4), draw(1, 3, 4)
    found = compiled(tmp_path, body, {"x": x, "rows": rows}, verify=True)

    def scanned(first: Doubles, given: Doubles) -> tuple[Doubles, Doubles]:
        carry, products = first, np.zeros_like(given)
        for i in reversed(range(3)) if reverse else range(3):
            products[i] = carry * given[i]
            carry = carry * 0.5 + given[i]
        return carry, products

    def loss(first: Doubles, given: Doubles) -> Doubles:
        last, products = scanned(first, given)
        return np.square(products).sum() + last.sum()

    wide_x, wide_rows = x.astype(np.float64), rows.astype(np.float64)
    last, products = scanned(wide_x, wide_rows)
    np.testing.assert_allclose(found["last"], last, atol=1e-5)
    np.testing.assert_allclose(found["products"], products, atol=1e-5)
    np.testing.assert_allclose(found["grad.x"], gradient(lambda v: loss(v, wide_rows), wide_x), atol=1e-4)
    np.testing.assert_allclose(found["grad.rows"], gradient(lambda v: loss(wide_x, v), wide_rows), atol=1e-4)


@pytest.mark.numerics
def test_random_numbers_when_keys_are_equal_then_are_equal_and_else_not(tmp_path: Path) -> None:
    body = """
    @graph.module("drawn")
    def drawn(key: Tensor[u64]):
        first, second = op.random.split(key)
        step = op.random.fold_in(key, 3)
        return {
            "a": op.random.uniform(first, (500,)),
            "b": op.random.uniform(second, (500,)),
            "n": op.random.normal(step, (500,)),
            "d": op.random.dropout(op.ones((500,)), 0.25, step),
        }
    """
    one = compiled(tmp_path, body, {"key": np.asarray(7, np.uint64)})
    two = compiled(tmp_path, body, {"key": np.asarray(7, np.uint64)})
    other = compiled(tmp_path, body, {"key": np.asarray(8, np.uint64)})
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
        assert not np.array_equal(one[name], other[name])
    assert abs(np.corrcoef(one["a"], one["b"])[0, 1]) < 0.15
    assert abs(one["a"].mean() - 0.5) < 0.05
    assert abs(one["n"].std() - 1) < 0.12
    assert set(np.unique(one["d"])) == {np.float32(0), np.float32(1 / 0.75)}


@pytest.mark.numerics
def test_stochastic_rounding_when_cast_then_is_right_on_average_and_never_off_by_a_step(tmp_path: Path) -> None:
    body = """
    from tessera import stochastic_round

    @graph.module("rounded")
    def rounded(x: Tensor["N"], key: Tensor[u64]):
        return op.cast(op.cast(x, bf16 @ stochastic_round, key=key), f32)
    """
    x = np.full(20_000, 1.0 + 2.0**-9, np.float32)  # a quarter of the way from 1 to the next bf16
    found = compiled(tmp_path, body, {"x": x, "key": np.asarray(3, np.uint64)})["output"]
    assert set(np.unique(found)) == {np.float32(1.0), np.float32(1.0 + 2.0**-7)}
    assert abs(found.astype(np.float64).mean() - float(x[0])) < 2e-4


@pytest.mark.numerics
def test_optimizer_state_when_stepped_then_the_runtime_remembers_it(tmp_path: Path) -> None:
    body = """
    W = op.tensor((3,))

    @graph.training_step(module="momentum")
    def momentum(gradient: Tensor[3], speed: OptimizerState[W]):
        faster = speed.value * 0.5 + gradient
        return {"W": W - faster}, speed.set(faster)
    """
    bundle = tmp_path / "model.tessera"
    tessera_build.build(written(tmp_path, body), ["native"], bundle, workers=1)
    weight, speed = np.ones(3, np.float32), np.zeros(3)
    with tessera_runtime.load(bundle, threads=1) as model:
        state = model.new_state()
        for step in range(3):
            gradient_ = draw(step, 3)
            speed = speed * 0.5 + gradient_
            wanted = weight - speed
            found = model.run(gradient=gradient_, W=weight, state=state)
            weight = np.asarray(next(iter(found.values())), np.float32)
            np.testing.assert_allclose(weight, wanted, atol=1e-6)
