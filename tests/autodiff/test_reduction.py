"""Derivatives of reductions, windows, softmax and running sums."""

from __future__ import annotations

import numpy as np
import pytest

from tessera_build.ir.core.dims import Dim, symbol
from tessera_build.ir.graph.autodiff.entries import with_grad
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.reference import run
from tests.autodiff.checking import check, drawn, f64, module_of, positive

pytestmark = pytest.mark.unit

N, M, H, W = (symbol(name) for name in "NMHW")


@pytest.mark.parametrize("kind", ["sum", "max", "min", "prod"])
@pytest.mark.parametrize("axes", [(), (1,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reduce_when_differentiated_then_agrees_with_differences(
    kind: str, axes: tuple[int, ...], keepdims: bool
) -> None:
    module = module_of(lambda b, x: b.op("reduce", x[0], kind=kind, axes=axes, keepdims=keepdims), [f64(2, 5, 3)])
    check(module, drawn(module, "main", 30), order=2)


@pytest.mark.parametrize("kind", ["sum", "max", "prod"])
def test_reduce_when_extents_are_symbolic_then_agrees_with_differences(kind: str) -> None:
    module = module_of(lambda b, x: b.op("reduce", x[0], kind=kind, axes=(0, 2), keepdims=False), [f64(N, 2, H)])
    check(module, drawn(module, "main", 31), order=2)


ZEROS = np.array([[1.0, 2.0, 0.0, 4.0, 3.0], [0.0, 0.0, 1.0, 1.0, 1.0], [2.0, 1.0, 1.0, 1.0, 3.0]])


@pytest.mark.parametrize("extent", [5, M])
def test_product_when_elements_are_zero_then_slopes_are_exact(extent: int | Dim) -> None:
    product = module_of(lambda b, x: b.op("reduce", x[0], kind="prod", axes=(1,), keepdims=False), [f64(3, extent)])
    module = with_grad(product, "main", ["x0"])
    found = run(module, "main_grad", {"x0": ZEROS, "y0_cotangent": np.ones(3)})["x0_gradient"]
    np.testing.assert_array_equal(found, [[0, 0, 24, 0, 0], [0, 0, 0, 0, 0], [3, 6, 6, 6, 2]])
    check(product, {"x0": ZEROS}, order=2)


def test_extrema_when_elements_are_equal_then_share_alike() -> None:
    module = module_of(lambda b, x: b.op("reduce", x[0], kind="max", axes=(0,), keepdims=False), [f64(4)])
    found = run(with_grad(module, "main", ["x0"]), "main_grad", {"x0": np.array([2.0, 5.0, 1.0, 5.0])})
    np.testing.assert_array_equal(found["x0_gradient"], [0.0, 0.5, 0.0, 0.5])


WINDOWS: dict[str, tuple[tuple[int | Dim, ...], dict[str, tuple[int, ...]]]] = {
    "apart": (
        (2, 3, 6, 4),
        {"window": (1, 1, 2, 2), "strides": (1, 1, 2, 2), "low": (0,) * 4, "high": (0,) * 4, "dilations": (1,) * 4},
    ),
    "left over": (
        (1, 2, H, W),
        {"window": (1, 1, 3, 2), "strides": (1, 1, 3, 2), "low": (0,) * 4, "high": (0,) * 4, "dilations": (1,) * 4},
    ),
    "overlapping": (
        (N, 2, 7, 7),
        {
            "window": (1, 1, 3, 3),
            "strides": (1, 1, 2, 2),
            "low": (0, 0, 1, 1),
            "high": (0, 0, 1, 1),
            "dilations": (1,) * 4,
        },
    ),
    "every place": (
        (1, H, W),
        {"window": (1, 3, 2), "strides": (1, 1, 1), "low": (0, 1, 0), "high": (0, 1, 1), "dilations": (1, 1, 1)},
    ),
    "dilated": ((1, 9), {"window": (1, 3), "strides": (1, 2), "low": (0, 2), "high": (0, 1), "dilations": (1, 2)}),
    "skipping": ((2, 11), {"window": (1, 2), "strides": (1, 4), "low": (0, 1), "high": (0, 0), "dilations": (1, 1)}),
    "padded apart": ((2, 5), {"window": (1, 2), "strides": (1, 2), "low": (0, 1), "high": (0, 0), "dilations": (1, 1)}),
}


@pytest.mark.parametrize("kind", ["sum", "max", "min"])
@pytest.mark.parametrize("name", WINDOWS)
def test_window_when_differentiated_then_agrees_with_differences(kind: str, name: str) -> None:
    shape, windows = WINDOWS[name]
    module = module_of(lambda b, x: b.op("reduce_window", x[0], kind=kind, **windows), [f64(*shape)])
    check(module, drawn(module, "main", 32), order=2)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_when_differentiated_then_agrees_with_differences_to_second_order(axis: int) -> None:
    module = module_of(lambda b, x: b.op("softmax", x[0], axis=axis), [f64(2, N, 3)])
    check(module, drawn(module, "main", 33), order=2)


def test_softmax_when_scores_are_huge_then_its_gradient_is_finite() -> None:
    module = with_grad(module_of(lambda b, x: b.op("softmax", x[0], axis=0), [f64(3)]), "main", ["x0"])
    found = run(module, "main_grad", {"x0": np.array([1e300, -1e300, 1e300]), "y0_cotangent": np.arange(3.0)})
    np.testing.assert_allclose(np.asarray(found["x0_gradient"], np.float64), [-0.5, 0.0, 0.5])


def _log_sum_exp(b: GraphBuilder, x: list[int]) -> int:
    top = b.op("reduce", x[0], kind="max", axes=(1,), keepdims=True)
    powers = b.op("exp", b.op("sub", x[0], top))
    return b.op("add", top, b.op("log", b.op("reduce", powers, kind="sum", axes=(1,), keepdims=True)))


def test_log_sum_exp_when_differentiated_then_is_softmax_also_far_out() -> None:
    module = module_of(_log_sum_exp, [f64(2, 4)])
    check(module, drawn(module, "main", 34), order=2)
    x = np.array([[1e4, 1e4, 0.0, -1e4], [-1e5, -1e5, -2e5, -1e5]])
    found = run(with_grad(module, "main", ["x0"]), "main_grad", {"x0": x, "y0_cotangent": np.ones((2, 1))})
    np.testing.assert_allclose(
        np.asarray(found["x0_gradient"], np.float64), [[0.5, 0.5, 0, 0], [1 / 3, 1 / 3, 0, 1 / 3]]
    )


@pytest.mark.parametrize("kind", ["sum", "prod"])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_cumulate_when_differentiated_then_agrees_with_differences(kind: str, exclusive: bool, reverse: bool) -> None:
    flags = {"exclusive": exclusive, "reverse": reverse}
    module = module_of(lambda b, x: b.op("cumulate", x[0], kind=kind, **flags), [f64(2, 4, 3)])
    check(module, drawn(module, "main", 35, positive), order=2)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_running_product_when_its_extent_is_symbolic_then_agrees_with_differences(
    exclusive: bool, reverse: bool
) -> None:
    flags = {"exclusive": exclusive, "reverse": reverse}
    module = module_of(lambda b, x: b.op("cumulate", x[0], kind="prod", **flags), [f64(2, N, 1)])
    check(module, drawn(module, "main", 37, positive), order=2)
    check(module, {"x0": np.array([2.0, 0.0, 3.0, 0.0, 1.0, 4.0]).reshape(1, 6, 1).repeat(2, 0)})
    check(module, {"x0": np.array([2.0, 0.5, 3.0, 0.0, 1.0, 4.0]).reshape(1, 6, 1).repeat(2, 0)}, order=2)


def test_running_product_when_elements_are_zero_then_slopes_are_exact() -> None:
    module = module_of(lambda b, x: b.op("cumulate", x[0], kind="prod"), [f64(1, 6, 1)])
    inputs: dict[str, Array] = {"x0": np.array([2.0, 0.0, 3.0, 0.0, 1.0, 4.0]).reshape(1, 6, 1)}
    check(module, inputs, order=2)


def test_top_k_when_differentiated_then_cotangents_go_to_the_chosen() -> None:
    module = module_of(lambda b, x: b.node("top_k", (x[0],), {"k": 2, "largest": True})[0], [f64(3, 5)])
    check(module, drawn(module, "main", 36), order=2)
