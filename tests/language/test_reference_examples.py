"""The examples of the language's and the autodiff's reference texts, as bundles that run.

Each keeps the example's own lines; what an example leaves open (sizes, a loss, directions) is stated around it, and
docs/adr/0017 says why. Gradients are compared with central differences of numpy in float64.
"""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import tessera_build
import tessera_runtime
from tessera.errors import LanguageError
from tessera_build.frontends.python import read_python
from tests.language.build import Floats, compiled, draw, written
from tests.language.numeric import Doubles, difference, gradient, softmax

MLP2 = """
D, H, C = 6, 5, 3
W1 = op.tensor((D, H), dtype="fp32")
b1 = op.tensor((H,), dtype="fp32")
W2 = op.tensor((H, C), dtype="fp32")
b2 = op.tensor((C,), dtype="fp32")

@graph.module("mlp2")
def mlp2(x):
    h = op.relu(op.matmul(x, W1) + b1)
    y = op.matmul(h, W2) + b2
    return y
"""


def weights_of_mlp2() -> dict[str, Floats]:
    return {"W1": draw(1, 6, 5), "b1": draw(2, 5), "W2": draw(3, 5, 3), "b2": draw(4, 3)}


def _mlp2(x: Doubles, w: dict[str, Doubles]) -> Doubles:
    return np.maximum(x @ w["W1"] + w["b1"], 0) @ w["W2"] + w["b2"]


def _wide(arrays: dict[str, Floats]) -> dict[str, Doubles]:
    return {name: array.astype(np.float64) for name, array in arrays.items()}


@pytest.mark.numerics
def test_attention_gradient_when_built_then_equals_differences(tmp_path: Path) -> None:
    body = """
    @graph.module("attention")
    def attention(Q, K, V):
        S = op.matmul(Q, K.T)
        P = op.softmax(S)
        O = op.matmul(P, V)
        return O

    @graph.module("gradients")
    def gradients(Q: Tensor["S", 4], K: Tensor["S", 4], V: Tensor["S", 4],
                  dQ: Tensor["S", 4], dK: Tensor["S", 4], dV: Tensor["S", 4]):
        loss = op.reduce_sum(op.square(attention(Q, K, V)))
        grads = graph.backward(loss, wrt=[Q, K, V])
        outputs, jvp = graph.forward(attention, (Q, K, V), tangents=(dQ, dK, dV))
        return grads, outputs, jvp
    """
    values = {name: draw(i, 5, 4) for i, name in enumerate(("Q", "K", "V", "dQ", "dK", "dV"))}
    found = compiled(tmp_path, body, values, verify=True)
    w = _wide(values)

    def attention(q: Doubles, k: Doubles, v: Doubles) -> Doubles:
        return softmax(q @ k.T) @ v

    for name in "QKV":

        def loss(x: Doubles, name: str = name) -> Doubles:
            given = {**w, name: x}
            return np.square(attention(given["Q"], given["K"], given["V"])).sum()

        np.testing.assert_allclose(found[f"grad.{name}"], gradient(loss, w[name]), atol=2e-4)
    along = difference(
        lambda t: attention(w["Q"] + t * w["dQ"], w["K"] + t * w["dK"], w["V"] + t * w["dV"]), np.zeros(()), np.ones(())
    )
    np.testing.assert_allclose(found["jvp"], along, atol=2e-5)


@pytest.mark.numerics
def test_training_step_when_built_then_weights_are_inputs_and_gradients_right(tmp_path: Path) -> None:
    body = (
        MLP2
        + """
@graph.training_step(module="mlp2_train")
def step(x: Tensor["B", D], y_true: Tensor["B", i64]):
    y_pred = mlp2(x)
    loss = op.cross_entropy(y_pred, y_true)
    grads = graph.backward(loss, wrt=[W1, b1, W2, b2])
    return grads, {"loss": loss}
"""
    )
    x, truth, weights = draw(0, 7, 6), np.random.default_rng(0).integers(0, 3, 7), weights_of_mlp2()
    found = compiled(tmp_path, body, {"x": x, "y_true": truth, **weights}, verify=True)

    def loss(**changed: Doubles) -> Doubles:
        scores = _mlp2(x.astype(np.float64), {**_wide(weights), **changed})
        return -np.log(softmax(scores)[np.arange(7), truth]).mean()

    np.testing.assert_allclose(found["loss"], loss(), atol=1e-5)
    for name, value in _wide(weights).items():
        wanted = gradient(lambda v, name=name: loss(**{name: v}), value)
        np.testing.assert_allclose(found[f"grad.{name}"], wanted, atol=1e-5)


@pytest.mark.numerics
def test_forward_mode_when_built_then_equals_differences(tmp_path: Path) -> None:
    body = (
        MLP2
        + """
@graph.training_step(module="forward")
def along(x: Tensor["B", D], dx: Tensor["B", D]):
    y, dy = graph.forward(mlp2, (x,), tangents=(dx,))
    return y, dy
"""
    )
    x, dx, weights = draw(0, 7, 6), draw(9, 7, 6), weights_of_mlp2()
    found = compiled(tmp_path, body, {"x": x, "dx": dx, **weights})
    wide = _wide(weights)
    wanted = difference(lambda v: _mlp2(v, wide), x.astype(np.float64), dx.astype(np.float64))
    np.testing.assert_allclose(found["dy"], wanted, atol=1e-5)


@pytest.mark.numerics
def test_hessian_vector_product_when_built_then_equals_differences_of_gradients(tmp_path: Path) -> None:
    body = (
        MLP2
        + """
def loss_fn(x, y_true):
    return op.reduce_mean(op.square(op.tanh(mlp2(x)) - y_true))

@graph.training_step(module="curvature")
def curvature(x: Tensor["B", D], y_true: Tensor["B", C], v: Tensor[D, H]):
    params = W1
    hvp = graph.hvp(loss_fn, wrt=params, dir=v, inputs=(x, y_true))
    return hvp
"""
    )
    x, truth, v, weights = draw(0, 7, 6), draw(8, 7, 3), draw(9, 6, 5), weights_of_mlp2()
    found = compiled(tmp_path, body, {"x": x, "y_true": truth, "v": v, **weights})
    wide = _wide(weights)

    def loss(w1: Doubles) -> Doubles:
        return np.square(np.tanh(_mlp2(x.astype(np.float64), {**wide, "W1": w1})) - truth).mean()

    wanted = difference(lambda w: gradient(loss, w), wide["W1"], v.astype(np.float64), 1e-4)
    np.testing.assert_allclose(found["hvp"], wanted, atol=1e-4)


@pytest.mark.numerics
def test_stable_sum_when_many_numbers_then_is_the_double_sum_to_rounding(tmp_path: Path) -> None:
    body = """
    @graph.module("total")
    def total(X: Tensor["N"]):
        s = op.reduce_sum(X, stable=True)   # pairwise/Kahan, fixed order
        return s
    """
    x = draw(0, 100_000) + np.float32(10)
    found = compiled(tmp_path, body, {"X": x})
    np.testing.assert_allclose(found["s"], x.astype(np.float64).sum(), rtol=1e-6)


@pytest.mark.numerics
def test_physics_informed_residual_when_built_then_equals_the_formula(tmp_path: Path) -> None:
    body = """
    nu = 0.1

    def net(x, y, params):
        return op.tanh(x * params + op.sin(y))

    @graph.module("pinn")
    def pinn(x: Tensor["N"], y: Tensor["N"], params: Tensor[f32]):
        u = net(x, y, params)
        dx, dy = op.ones_like(x), op.ones_like(y)
        du_dx = graph.jvp(u, wrt=x)
        du_dy = graph.jvp(u, wrt=y)
        d2u_dx2 = graph.hvp(u, wrt=x, dir=dx)
        d2u_dy2 = graph.hvp(u, wrt=y, dir=dy)
        residual = du_dx + du_dy - nu * (d2u_dx2 + d2u_dy2)
        return residual, graph.backward(op.mean(residual * residual), wrt=params)
    """
    x, y, p = draw(0, 9), draw(1, 9), np.float32(0.7)
    found = compiled(tmp_path, body, {"x": x, "y": y, "params": np.asarray(p)}, verify=True)
    wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)

    def residual(p: Doubles) -> Doubles:
        u = np.tanh(wide_x * p + np.sin(wide_y))
        slope, bend = 1 - u**2, -2 * u * (1 - u**2)
        second = bend * p**2 + bend * np.cos(wide_y) ** 2 - slope * np.sin(wide_y)
        return slope * p + slope * np.cos(wide_y) - 0.1 * second

    np.testing.assert_allclose(found["residual"], residual(np.asarray(p, np.float64)), atol=2e-6)
    wanted = gradient(lambda v: np.square(residual(v)).mean(), np.asarray(p, np.float64))
    np.testing.assert_allclose(found["grad.params"], wanted, atol=2e-5)


@pytest.mark.numerics
def test_fixed_point_when_differentiated_then_equals_differences(tmp_path: Path) -> None:
    body = """
    import numpy as np

    def F(x, theta):
        return op.tanh(x * 0.5 + theta)

    x0 = np.zeros(4, np.float32)

    @graph.module("fp_solve")
    def fp_solve(theta):
        x_star = op.fixed_point(lambda x: F(x, theta), x0, tol=1e-6, max_iter=100)
        return x_star

    def loss_fn(x_star):
        return op.reduce_sum(x_star * x_star)

    @graph.module("train")
    def train(theta: Tensor[4]):
        # Compiler inserts (∂F/∂x)^{-1} (∂F/∂θ) in the adjoint
        grads = graph.backward(loss_fn(fp_solve(theta)), wrt=[theta])
        return grads, {"x_star": fp_solve(theta)}
    """
    theta = draw(0, 4)
    found = compiled(tmp_path, body, {"theta": theta}, verify=True)

    def solved(t: Doubles) -> Doubles:
        x = np.zeros(4)
        for _ in range(300):
            x = np.tanh(x * 0.5 + t)
        return x

    np.testing.assert_allclose(found["x_star"], solved(theta.astype(np.float64)), atol=1e-5)
    wanted = gradient(lambda t: np.square(solved(t)).sum(), theta.astype(np.float64))
    np.testing.assert_allclose(found["grad.theta"], wanted, atol=1e-5)


BLOCK = """
from tessera import autodiff, cpu, device, jit, rolling_window
from tessera.op import cast_like, flash_attention, gelu, matmul, residual, rmsnorm_safe, split_qkv

D, D_h = 16, 8

def weight(seed, *shape):
    return op.tensor(shape, dtype={type} @accum(f32), init=op.init.normal(seed, 0.2))

Wqkv, Wo, Wmlp_in, Wmlp_out = weight(1, D, 3 * D), weight(2, D, D), weight(3, D, 2 * D), weight(4, 2 * D, D)

@jit
@autodiff(wrt=["x", Wqkv])
def transformer_block(x: Tensor["B","S",D, {type} @accum(f32)],
                      cache: KVCache["B","H","S_max",D_h, {type}] @rolling_window @device(cpu), *,
                      heads: int = 2, p: float = 0.0):
    x = rmsnorm_safe(x)
    with device(cpu):
        qkv = matmul(x, Wqkv)                 # fp8 -> fp32 accum
        q,k,v = split_qkv(qkv, heads=heads)
        cache = cache.append(k,v)
        y = flash_attention(q, cache, dropout=p, causal=True)
    y = residual(x, matmul(y, Wo), dropout=p)
    y = residual(y, gelu(matmul(rmsnorm_safe(y), Wmlp_in)) @ Wmlp_out, dropout=p)
    return cast_like(y, x), cache
"""


@pytest.mark.numerics
@pytest.mark.parametrize(
    ("type_", "kind", "tolerance"), [("f32", np.float32, 2e-5), ("bf16", ml_dtypes.bfloat16, 0.05)]
)
def test_transformer_block_when_jitted_then_runs_step_by_step_with_a_cache(
    tmp_path: Path, type_: str, kind: type[np.generic], tolerance: float
) -> None:
    """The modelling example on a processor: without `prefetch`, and with the extents of its cache."""
    x, bundle = draw(0, 2, 5, 16).astype(kind), tmp_path / "block.tessera"
    path = written(tmp_path, BLOCK.replace("{type}", type_))
    tessera_build.build(path, targets=["native"], out=bundle, workers=1, dims={"H": 2})
    empty = {
        "cache.keys": np.zeros((2, 2, 8, 8), kind),
        "cache.values": np.zeros((2, 2, 8, 8), kind),
        "cache.length": np.zeros(2, np.int64),
    }
    with tessera_runtime.load(bundle, threads=1) as model:
        state = model.new_state(empty)
        whole = model.run(x=x, state=model.new_state(empty))["output_0"].astype(np.float64)
        pieces = [np.array(x[:, :3]), np.array(x[:, 3:])]
        parts = [model.run(x=piece, state=state)["output_0"].astype(np.float64) for piece in pieces]
        length = np.array(state.arrays["cache.length"])
        derived = [o.name for o in model.entries["transformer_block_grad"].outputs]
    np.testing.assert_array_equal(length, [5, 5])
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=tolerance)
    assert derived == ["output_0", "x_gradient", "Wqkv_gradient"]


@pytest.mark.errors
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('with device(gpu), prefetch(cache, into="smem", overlap="compute"):', "device(gpu[0])"),
        ('with prefetch(cache, into="smem", overlap="compute"):', "prefetch into smem, overlapping compute"),
        ('with mesh(cpu, layout={"batch": "replicate"}):', "mesh of 1 devices"),
    ],
)
def test_placement_when_nothing_keeps_it_then_is_refused_at_its_line(tmp_path: Path, line: str, found: str) -> None:
    text = BLOCK.replace("{type}", "f32").replace("with device(cpu):", line)
    text = text.replace("import autodiff,", "import autodiff, gpu, mesh, prefetch,")
    with pytest.raises(LanguageError) as caught:
        read_python(written(tmp_path, text), dims={"H": 2})
    assert (caught.value.code, caught.value.where) == (
        "PLACEMENT_UNSUPPORTED",
        "model.py:19:10",
    )
    assert (caught.value.found or "").startswith(found)


@pytest.mark.numerics
def test_optimisation_layer_when_it_is_an_argmin_then_its_gradients_equal_differences(tmp_path: Path) -> None:
    body = """
    def f(x, params, input):
        return op.reduce_sum(op.square(x - input)) + op.reduce_sum(op.exp(x * params))

    @graph.module("opt_layer")
    def opt_layer(params, input):
        # x* = argmin f(x; params, input)
        x_star = op.solve(graph.grad(lambda x: f(x, params, input)), input)
        return x_star

    @graph.module("train")
    def train(params: Tensor[3], input: Tensor[3]):
        loss = op.reduce_sum(op.sin(opt_layer(params, input)))
        grads = graph.backward(loss, wrt=params)
        return loss, grads
    """
    params, given = draw(0, 3), draw(1, 3)
    found = compiled(tmp_path, body, {"params": params, "input": given}, verify=True)

    def loss(p: Doubles) -> Doubles:
        x = given.astype(np.float64)
        for _ in range(60):
            x = x - (2 * (x - given) + p * np.exp(x * p)) / (2 + p * p * np.exp(x * p))
        return np.sin(x).sum()

    wanted = gradient(loss, params.astype(np.float64))
    np.testing.assert_allclose(found["grad.params"], wanted, atol=1e-5)
