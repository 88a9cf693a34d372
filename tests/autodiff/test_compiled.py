"""Compiled float32 gradients of small networks against float64 differences through the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.autodiff.entries import with_grad, with_jvp
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.reference import run
from tests.autodiff.checking import assert_near
from tests.autodiff.models import convolutional, only, perceptron, transformer, widened
from tests.lower.compiled import check_module

pytestmark = pytest.mark.numerics

RNG = np.random.default_rng(7)
NETWORKS: dict[str, tuple[Callable[[], Module], dict[str, Array], dict[str, int]]] = {
    "perceptron": (
        perceptron,
        {"x": RNG.standard_normal((5, 8)).astype(np.float32), "t": RNG.standard_normal((5, 4)).astype(np.float32)},
        {"batch": 5},
    ),
    "convolutional": (
        convolutional,
        {"x": RNG.standard_normal((2, 3, 12, 12)).astype(np.float32), "t": np.array([1, 3])},
        {"batch": 2},
    ),
    "transformer": (transformer, {"tokens": RNG.integers(0, 10, (2, 7))}, {"batch": 2, "steps": 7}),
}


@pytest.mark.parametrize("shape", [(20000, 16), (8, 50, 50, 16), (20000,)])
def test_bias_gradient_when_rows_are_many_then_rounding_errors_do_not_add_up(shape: tuple[int, ...]) -> None:
    builder = GraphBuilder()
    x, b = builder.input("x", tensor(F32, *shape)), builder.input("b", tensor(F32, *shape[1:][-1:]))
    builder.output("y", builder.op("add", x, b))
    module = only(with_grad(builder.finish(), "main", ["b"]), "main_grad")
    rng = np.random.default_rng(0)
    inputs = {n: rng.random(builder.type(v).static_shape).astype(np.float32) for n, v in (("x", x), ("b", b))}
    inputs["y_cotangent"] = rng.random(shape).astype(np.float32)
    found = check_module(run_passes(module), inputs, {})["b_gradient"].astype(np.float64)
    exact = inputs["y_cotangent"].astype(np.float64).sum(tuple(range(max(1, len(shape) - 1))))
    np.testing.assert_allclose(found, exact, rtol=5e-7)


@pytest.mark.parametrize("op", ["sigmoid", "logistic"])
def test_gradient_of_sigmoid_when_the_unit_is_certain_then_has_all_digits(op: str) -> None:
    x = np.linspace(-30, 30, 121, dtype=np.float32)
    builder = GraphBuilder()
    builder.output("y", builder.op(op, builder.input("x", tensor(F32, *x.shape))))
    module = run_passes(only(with_grad(builder.finish(), "main", ["x"]), "main_grad"))
    found = check_module(module, {"x": x, "y_cotangent": np.ones_like(x)}, {})["x_gradient"].astype(np.float64)
    e = np.exp(-np.abs(x.astype(np.float64)))
    np.testing.assert_allclose(found, e / (1 + e) ** 2, rtol=1e-6)


def test_gradient_of_softmax_when_a_class_is_nearly_certain_then_has_all_digits() -> None:
    x = np.array([[12, 0, 1, -3], [0.5, 0, 1, -2], [0, 0, 0, 0], [20, 1, 3, 21], [-9, 9, 3, 2]], np.float32)
    v = np.array([[1, 2, -3, 4], [1, 1, 2, 3], [5, 6, -7, 8], [1, -1, 2, -2], [3, -1, 0.5, 9]], np.float32)
    builder = GraphBuilder()
    builder.output("y", builder.op("softmax", builder.input("x", tensor(F32, *x.shape)), axis=1))
    module = run_passes(only(with_grad(builder.finish(), "main", ["x"]), "main_grad"))
    found = check_module(module, {"x": x, "y_cotangent": v}, {})["x_gradient"].astype(np.float64)
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    y = e / e.sum(1, keepdims=True)
    np.testing.assert_allclose(found, y * (v - (y * v).sum(1, keepdims=True)), rtol=2e-6)


def _wrt(module: Module, entry: str = "main") -> list[str]:
    """The floating-point inputs and all weights."""
    function = module.entries[entry]
    inputs = [
        n for n, a in zip(module.input_names[entry], function.args, strict=True) if function.types[a].dtype.is_float
    ]
    weights = [n for d, n in module.constant_names.items() if module.constants[d].dtype.kind == "f"]
    return inputs + [n for n in weights if n and module.constants[_digest(module, n)].size > 1]


def _digest(module: Module, name: str) -> str:
    return next(d for d, n in module.constant_names.items() if n == name)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_when_compiled_then_is_that_of_float64_differences(name: str) -> None:
    make, inputs, dims = NETWORKS[name]
    module = make()
    wrt = _wrt(module)
    assert len(wrt) >= 6
    gradient = only(with_grad(module, "main", wrt), "main_grad")
    found = check_module(run_passes(gradient), inputs, dims)
    wide = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in inputs.items()}
    exact = _exact(widened(module), wrt, wide)
    for w in wrt:
        assert_near(found[f"{w}_gradient"], exact[w], f"{name}: {w}", 1e-5)


def _exact(module: Module, wrt: list[str], inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Gradients of the loss in float64, proved by a difference along a random direction through inputs and weights."""
    forward, reverse = with_jvp(module, "main", wrt), with_grad(module, "main", wrt)
    found = run(reverse, "main_grad", inputs)
    rng = np.random.default_rng(3)
    tangents = {w: rng.standard_normal(found[f"{w}_gradient"].shape) for w in wrt}
    given = {f"{w}_tangent": t for w, t in tangents.items()}
    change = run(forward, "main_jvp", {**inputs, **given})["loss_tangent"]
    slopes: list[float] = []
    for step in (2e-5, 1e-5):
        ends = [run(*_moved(module, inputs, tangents, sign * step))["loss"].astype(np.float64) for sign in (1, -1)]
        slopes.append(float(ends[0] - ends[1]) / (2 * step))
    difference = np.asarray((4 * slopes[1] - slopes[0]) / 3)
    assert_near(change, difference, "directional derivative", 1e-8)
    total = sum(float(np.sum(found[f"{w}_gradient"].astype(np.float64) * t)) for w, t in tangents.items())
    assert_near(np.asarray(total), change, "gradient along the direction", 1e-12)
    return {w: found[f"{w}_gradient"] for w in wrt}


def _moved(
    module: Module, inputs: Mapping[str, Array], tangents: Mapping[str, Array], step: float
) -> tuple[Module, str, dict[str, Array]]:
    constants = dict(module.constants)
    moved = dict(inputs)
    for name, tangent in tangents.items():
        if name in moved:
            moved[name] = np.asarray(np.add(moved[name], np.multiply(tangent, step)))
        else:
            digest = _digest(module, name)
            constants[digest] = np.asarray(np.add(constants[digest], np.multiply(tangent, step)))
    changed = Module(module.entries, constants, module.dims, module.input_names, module.output_names)
    return changed, "main", moved
