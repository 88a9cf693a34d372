"""The sketches and the side-by-side examples of the reference texts: generated entries, and torch's half of each.

What the MLIR of the texts shows (adjoints, tangents, Hessian-vector products) is compared with the functions that are
generated; the PyTorch examples are run as they stand where torch is installed, and give the same numbers. Those of
JAX are not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import F32, F64, tensor
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.autodiff.entries import with_grad, with_jvp
from tessera_build.ir.graph.builder import GraphBuilder, graph_nodes
from tessera_build.ir.graph.passes.pipeline import run_passes
from tests.language.build import compiled, draw
from tests.language.test_reference_examples import MLP2


@pytest.mark.unit
def test_adjoint_when_of_a_sum_of_sines_then_is_the_sketch_of_the_text() -> None:
    """tgraph.adjoint @m wrt(%x) -> @m_grad: %cosx = cos %x, %dx = ones * %cosx."""
    b = GraphBuilder("m", {"N": (1, None)})
    x = b.input("x", tensor(F32, symbol("N")))
    b.output("z", b.op("reduce", b.op("sin", x), kind="sum", axes=(0,), keepdims=False))
    module = run_passes(with_grad(b.finish(), "m", ["x"]))
    ops = [n.op for n in graph_nodes(module.entries["m_grad"])]
    assert ops.count("cos") == 1
    assert not set(ops) - {"sin", "cos", "reduce", "mul", "constant", "broadcast_to"}
    point = draw(0, 7)
    found = reference.run(module, "m_grad", {"x": point})
    np.testing.assert_allclose(np.asarray(found["x_gradient"], np.float64), np.cos(point), rtol=1e-6)
    np.testing.assert_allclose(np.asarray(found["z"], np.float64), np.sin(point).sum(), rtol=1e-6)


@pytest.mark.unit
def test_tangent_when_of_an_exponential_then_is_the_sketch_of_the_text() -> None:
    """tgraph.jvp @m wrt(%x) -> @m_jvp: %dy = mul %y, %dx, with one exponential."""
    b = GraphBuilder("m", {"N": (1, None)})
    b.output("y", b.op("exp", b.input("x", tensor(F32, symbol("N")))))
    module = run_passes(with_jvp(b.finish(), "m", ["x"]))
    assert [n.op for n in graph_nodes(module.entries["m_jvp"])] == ["exp", "mul"]
    point, change = draw(0, 7), draw(1, 7)
    found = reference.run(module, "m_jvp", {"x": point, "x_tangent": change})
    np.testing.assert_allclose(np.asarray(found["y_tangent"], np.float64), np.exp(point) * change, rtol=1e-6)


@pytest.mark.unit
def test_hessian_vector_product_when_made_by_both_orders_then_is_the_same() -> None:
    """tgraph.hvp @m wrt(%x) dir(%v) -> @m_hvp: reverse over forward, and forward over reverse."""
    b = GraphBuilder("m", {"N": (1, None)})
    x = b.input("x", tensor(F64, symbol("N")))
    b.output("z", b.op("reduce", b.op("mul", b.op("sin", x), x), kind="sum", axes=(0,), keepdims=False))
    over = with_jvp(with_grad(b.finish(), "m", ["x"]), "m_grad", ["x"], "m_hvp")
    under = with_grad(with_jvp(b.finish(), "m", ["x"]), "m_jvp", ["x"], "m_hvp")
    point, v = draw(0, 7).astype(np.float64), draw(1, 7).astype(np.float64)
    wanted = (2 * np.cos(point) - point * np.sin(point)) * v
    first = reference.run(over, "m_hvp", {"x": point, "x_tangent": v})
    np.testing.assert_allclose(np.asarray(first["x_gradient_tangent"], np.float64), wanted, rtol=1e-12)
    given = {"x": point, "x_tangent": v, "z_cotangent": np.zeros(()), "z_tangent_cotangent": np.ones(())}
    second = reference.run(under, "m_hvp", given)
    np.testing.assert_allclose(np.asarray(second["x_gradient"], np.float64), wanted, rtol=1e-12)


# The texts' PyTorch halves, as they stand there; what they leave open is what `_torch_space` holds.
PYTORCH = {
    "reverse": """
import torch, torch.nn.functional as F

class MLP2(torch.nn.Module):
    def __init__(self, D, H, C):
        super().__init__()
        self.W1 = torch.nn.Linear(D, H)
        self.W2 = torch.nn.Linear(H, C)

    def forward(self, x):
        return self.W2(F.relu(self.W1(x)))

model = MLP2(D, H, C)
loss = F.cross_entropy(model(x), y_true)
loss.backward()   # gradients in model.parameters()
""",
    "forward": """
from functorch import jvp
y, dy = jvp(model, (x,), (dx,))
""",
    "curvature": """
from functorch import vjp, jvp

loss = lambda p: loss_fn(p, x, y_true)
_, vjp_fn = vjp(torch.func.grad(loss), params)
hvp = vjp_fn(v)[0]
""",
    "sum": """
s = torch.sum(X) # nondeterminism depends on backend/kernel
""",
    "implicit": """
# Typically manual w.r.t. implicit function theorem or higher-level libs
x_star = fixed_point_solver(lambda x: F(x, theta), x0)
loss = loss_fn(x_star, theta)
loss.backward()
""",
}


# The same in the language.
SIDE_BY_SIDE = """
@graph.training_step(module="mlp2_train")
def step(
    x: Tensor["B", D], y_true: Tensor["B", i64], dx: Tensor["B", D], v: Tensor[D, H], theta: Tensor[4]
):
    def loss_fn(x, y_true):
        return op.cross_entropy(mlp2(x), y_true)

    y_pred = mlp2(x)
    loss = op.cross_entropy(y_pred, y_true)
    grads = graph.backward(loss, wrt=[W1, b1, W2, b2])
    y, dy = graph.forward(mlp2, (x,), tangents=(dx,))
    hvp = graph.hvp(loss_fn, wrt=W1, dir=v, inputs=(x, y_true))
    s = op.reduce_sum(x, stable=True)
    x_star = op.fixed_point(lambda z: op.tanh(z * 0.5 + theta), op.zeros((4,)), tol=1e-6, max_iter=100)
    return grads, dy, hvp, s, graph.backward(op.reduce_sum(x_star * x_star), wrt=theta)
"""


def _torch_space(torch: Any, values: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Names that the PyTorch halves read, in float64."""
    wide = {name: torch.tensor(value.astype(np.float64)) for name, value in values.items()}
    wide["theta"].requires_grad_()

    def loss_fn(w1: Any, x: Any, y_true: Any) -> Any:  # noqa: ANN401
        model = space["model"]
        hidden = torch.nn.functional.relu(x @ w1 + model.W1.bias)
        return torch.nn.functional.cross_entropy(model.W2(hidden), y_true)

    def fixed_point_solver(function: Any, x: Any) -> Any:  # noqa: ANN401
        for _ in range(60):
            x = function(x)
        return x

    space: dict[str, Any] = {**wide, "D": 6, "H": 5, "C": 3, "loss_fn": loss_fn, "X": wide["x"], "x0": torch.zeros(4)}
    space |= {"fixed_point_solver": fixed_point_solver, "y_true": torch.tensor(values["y_true"])}
    return space


@pytest.mark.numerics
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own
def test_side_by_side_examples_when_torch_computes_them_then_numbers_agree(tmp_path: Path) -> None:
    """The PyTorch halves: gradients of the perceptron, its change along dx, and a Hessian-vector product."""
    torch = pytest.importorskip("torch")
    x, dx, v, theta = draw(0, 7, 6), draw(8, 7, 6), draw(9, 6, 5), draw(7, 4)
    values = {"x": x, "dx": dx, "v": v, "theta": theta, "y_true": np.random.default_rng(0).integers(0, 3, 7)}
    torch.set_default_dtype(torch.float64)
    try:
        space = _torch_space(torch, values)
        exec(PYTORCH["reverse"] + PYTORCH["forward"], space)
        model = space["model"]
        weights = {"W1": model.W1.weight.T, "b1": model.W1.bias, "W2": model.W2.weight.T, "b2": model.W2.bias}
        wanted = {f"grad.{name}": value for name, value in zip(weights, _gradients(model), strict=True)}
        wanted["dy"] = space["dy"]
        space["params"] = weights["W1"].detach()
        exec(PYTORCH["curvature"] + PYTORCH["sum"], space)
        wanted |= {"hvp": space["hvp"], "s": space["s"]}
        space |= {"F": lambda z, t: torch.tanh(z * 0.5 + t), "loss_fn": lambda z, t: (z * z).sum()}
        exec(PYTORCH["implicit"], space)
        wanted["grad.theta"] = space["theta"].grad
    finally:
        torch.set_default_dtype(torch.float32)
    given = {name: np.ascontiguousarray(w.detach().numpy(), np.float32) for name, w in weights.items()}
    found = compiled(tmp_path, MLP2 + SIDE_BY_SIDE, {**values, **given})
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value.detach().numpy(), rtol=2e-5, atol=2e-6, err_msg=name)


def _gradients(model: Any) -> list[Any]:  # noqa: ANN401
    """Gradients of torch's layers, whose weights are transposed, in the order of the language's parameters."""
    return [model.W1.weight.grad.T, model.W1.bias.grad, model.W2.weight.grad.T, model.W2.bias.grad]
