"""The sketches and the side-by-side examples of the reference texts: generated entries, and torch's half of each.

What the MLIR of the texts shows (adjoints, tangents, Hessian-vector products) is compared with the functions that are
generated; the PyTorch examples are run where torch is installed, and give the same numbers.
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
from tests.language.test_reference_examples import MLP2, weights_of_mlp2


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


@pytest.mark.numerics
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own
def test_side_by_side_examples_when_torch_computes_them_then_numbers_agree(tmp_path: Path) -> None:
    """The PyTorch halves: gradients of the perceptron, its change along dx, and a Hessian-vector product."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    body = (
        MLP2
        + """
@graph.training_step(module="mlp2_train")
def step(x: Tensor["B", D], y_true: Tensor["B", i64], dx: Tensor["B", D], v: Tensor[D, H]):
    def loss_fn(x, y_true):
        return op.cross_entropy(mlp2(x), y_true)

    loss = loss_fn(x, y_true)
    grads = graph.backward(loss, wrt=[W1, b1, W2, b2])
    y, dy = graph.forward(mlp2, (x,), tangents=(dx,))
    hvp = graph.hvp(loss_fn, wrt=W1, dir=v, inputs=(x, y_true))
    return grads, dy, hvp
"""
    )
    x, dx, v, weights = draw(0, 7, 6), draw(8, 7, 6), draw(9, 6, 5), weights_of_mlp2()
    truth = np.random.default_rng(0).integers(0, 3, 7)
    found = compiled(tmp_path, body, {"x": x, "y_true": truth, "dx": dx, "v": v, **weights})
    w = {name: torch.tensor(array.astype(np.float64), requires_grad=True) for name, array in weights.items()}
    wide = torch.tensor(x.astype(np.float64))

    def model(z: Any, w1: Any) -> Any:  # noqa: ANN401  torch's tensors
        return functional.relu(z @ w1 + w["b1"]) @ w["W2"] + w["b2"]

    def loss_of(w1: Any) -> Any:  # noqa: ANN401
        return functional.cross_entropy(model(wide, w1), torch.tensor(truth))

    loss_of(w["W1"]).backward()
    for name, parameter in w.items():
        np.testing.assert_allclose(found[f"grad.{name}"], parameter.grad.numpy(), rtol=1e-5, atol=1e-6)
    _, along = torch.func.jvp(lambda z: model(z, w["W1"]), (wide,), (torch.tensor(dx.astype(np.float64)),))
    np.testing.assert_allclose(np.asarray(found["dy"], np.float64), along.detach().numpy(), atol=1e-5)
    direction = torch.tensor(v.astype(np.float64))
    _, curved = torch.func.jvp(torch.func.grad(loss_of), (w["W1"].detach(),), (direction,))
    np.testing.assert_allclose(np.asarray(found["hvp"], np.float64), curved.detach().numpy(), rtol=1e-5, atol=1e-6)
