"""What checkpoints keep by their policies: gradients are the same, and workspaces grow with what is kept."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest

import tessera_build
import tessera_runtime
from tessera_build.frontends.python import read_python
from tessera_build.ir.graph.builder import graph_nodes
from tessera_runtime.model import Model
from tessera_runtime.observe import LoadRecord, RunRecord
from tests.language.build import Floats, draw, written

pytestmark = pytest.mark.numerics
POLICIES = ("nothing", "dots", "everything")
# Layers that keep what a product gives, and six values of as many elements that are cheap to compute from it.
LAYERS = """
W = [op.tensor((32, 32), init=op.init.normal(seed=i)) for i in range(8)]

def layer(x, w):
    y = op.sin(x @ w)
    for _ in range(3):
        y = op.exp(-op.square(y)) * op.tanh(y)
    return y

def network(policy):
    def run(x):
        for w in W:
            x = graph.checkpoint(layer, policy=policy)(x, w)
        return op.reduce_sum(op.square(x))
    return run
"""
ENTRIES = "".join(
    f"""
@graph.training_step(module="{name}")
def {name}(x: Tensor[64, 32]):
    return graph.backward(network("{name}")(x), wrt=W)
"""
    for name in POLICIES
)


class _Workspaces:
    """An observer that keeps the workspace of each entry."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    def loaded(self, record: LoadRecord) -> None:
        """Nothing is kept of a load."""

    def ran(self, record: RunRecord) -> None:
        """Keep the workspace."""
        self.of[record.entry] = record.workspace_bytes


def runs(folder: Path, body: str, inputs: dict[str, Floats]) -> tuple[dict[str, list[Floats]], dict[str, int]]:
    """Outputs and workspace of every entry, compiled and proved."""
    bundle, sizes = folder / "model.tessera", _Workspaces()
    tessera_build.build(written(folder, body), targets=["native"], out=bundle, workers=1)
    with tessera_runtime.load(bundle, threads=1, observers=(sizes,)) as model:
        found = {name: _outputs(model, name, inputs) for name in model.entries}
    return found, sizes.of


def _outputs(model: Model, name: str, inputs: dict[str, Floats]) -> list[Floats]:
    entry = model.entries[name]
    given = {i.name: inputs[i.name] for i in entry.inputs if i.name in inputs}
    return [np.array(array, np.float32) for array in entry.run(given).values()]


def test_policies_when_layers_are_many_then_gradients_are_equal_and_memory_grows_with_what_is_kept(
    tmp_path: Path,
) -> None:
    weights = {f"W.{i}": np.divide(draw(i + 1, 32, 32), 6, dtype=np.float32) for i in range(8)}
    found, sizes = runs(tmp_path, LAYERS + ENTRIES, {"x": draw(0, 64, 32), **weights})
    for name in POLICIES[:2]:
        for gradient, expected in zip(found[name], found["everything"], strict=True):
            np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5 * float(np.abs(expected).max()))
    value = 64 * 32 * 4
    assert sizes["dots"] - sizes["nothing"] >= 5 * value, sizes
    assert sizes["everything"] - sizes["dots"] >= 16 * value, sizes


@pytest.mark.parametrize("policy", POLICIES)
def test_policy_when_derivatives_are_mixed_then_they_are_those_of_the_plain_function(
    tmp_path: Path, policy: str
) -> None:
    body = f"""
    W = op.tensor((4, 4), init=op.init.normal(seed=1))

    def inner(v):
        return op.tanh(op.sin(v @ W) @ W)

    def outer(wrap):
        def run(v):
            y = wrap(inner)(v)
            return op.exp(-op.square(y @ W)) + wrap(inner)(y)
        return run

    def loss(wrap):
        def run(v):
            after, _ = op.scan(lambda c, row: (wrap(inner)(c) + row, row), v, op.stack([v, v * 2.0], axis=0))
            return op.reduce_sum(op.square(wrap(outer(wrap))(after)))
        return run

    def again(function):
        return graph.checkpoint(function, policy="{policy}")

    @graph.module("m")
    def m(x: Tensor["B", 4], dx: Tensor["B", 4]):
        found = []
        for wrap in (lambda function: function, again):
            f = loss(wrap)
            found += [graph.grad(f)(x), graph.forward(f, (x,), tangents=(dx,))[1], graph.hvp(f(x), wrt=x, dir=dx)]
            found += [graph.backward(f(x), wrt=[W])]
        return found
    """
    found, _ = runs(tmp_path, body, {"x": np.divide(draw(0, 3, 4), 2, dtype=np.float32), "dx": draw(1, 3, 4)})
    outputs = found["m"]
    half = len(outputs) // 2
    assert half >= 4
    for plain, checked in zip(outputs[:half], outputs[half:], strict=True):
        np.testing.assert_allclose(checked, plain, rtol=1e-4, atol=1e-4 * float(np.abs(plain).max()))


def test_policy_when_a_product_is_not_read_again_then_it_is_not_kept(tmp_path: Path) -> None:
    body = """
    W = [op.tensor((32, 32), init=op.init.normal(seed=i)) for i in range(6)]

    def residual(x, w):
        return x + op.tanh(x) @ w

    def network(x, policy):
        for w in W:
            x = graph.checkpoint(residual, policy=policy)(x, w)
        return op.reduce_sum(op.square(x))
    """
    entries = ENTRIES.replace("network(", "network(x, ").replace(")(x)", ")")
    weights = {f"W.{i}": np.divide(draw(i + 1, 32, 32), 6, dtype=np.float32) for i in range(6)}
    _, sizes = runs(tmp_path, textwrap.dedent(body) + entries, {"x": draw(0, 64, 32), **weights})
    assert sizes["dots"] == sizes["nothing"], sizes


def test_policy_when_it_names_convolutions_and_attention_then_gradients_are_equal(tmp_path: Path) -> None:
    body = """
    K = op.tensor((4, 4, 3, 3), init=op.init.normal(seed=1))

    def block(x):
        y = op.tanh(op.conv(op.sin(x), K, padding=1))
        heads = op.reshape(y, (2, 4, 6, 6))
        return op.tanh(op.attention(heads, heads, op.sin(heads)))

    @graph.module("m")
    def m(x: Tensor[2, 4, 6, 6]):
        return [
            graph.backward(op.reduce_sum(graph.checkpoint(block, policy=policy)(x)), wrt=[x, K])
            for policy in ("everything", "dots", "nothing")
        ]
    """
    found, _ = runs(tmp_path, body, {"x": draw(0, 2, 4, 6, 6)})
    plain, kernel, *others = found["m"]
    for gradient, expected in zip(others, [plain, kernel] * 2, strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-5 * float(np.abs(expected).max()))


@pytest.mark.parametrize(
    ("op", "text"),
    [
        ("matmul", "op.tanh(q) @ k"),
        ("conv", "op.conv(q[0], k[0, :, :, :3])"),
        ("attention", "op.attention(q, k, k)"),
    ],
)
def test_policy_when_it_names_an_op_then_that_is_computed_once_less_than_without(
    tmp_path: Path, op: str, text: str
) -> None:
    counts: list[int] = []
    for policy in ("nothing", "dots"):
        kept = f"graph.checkpoint(lambda v: op.tanh({text.replace('q', 'v')}), policy={policy!r})"
        body = f"""
        @graph.module("m")
        def m(q: Tensor[1, 4, 4, 4], k: Tensor[1, 4, 4, 4]):
            return graph.grad(lambda v: op.reduce_sum({kept}(v)))(op.sin(q))
        """
        (function,) = read_python(written(tmp_path, body)).module.entries.values()
        counts.append(sum(node.op == op for node in graph_nodes(function)))
    assert counts[1] == counts[0] - 1
