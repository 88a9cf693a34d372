"""Sums of many elements along the axes of a row task: errors that do not grow with their number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from onnx import TensorProto, helper

from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.built import run_built

CASES = [
    ((70000, 33), (0,)),
    ((2, 30000, 3, 3), (1, 3)),
    ((3, 5000, 7), (1, 2)),
    ((4, 300003), (1,)),
    ((8, 256, 256), (1, 2)),
    ((2, 1025, 16), (1,)),
    ((16, 1, 70001), (1, 2)),
]
EQUAL = [(2, 512, 256), (3, 256, 64), (1, 1000, 33), (1, 2048, 17)]


@pytest.mark.numerics
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("shape", "axes"), CASES, ids=str)
def test_mean_when_of_many_elements_then_is_off_by_a_few_roundings(
    shape: tuple[int, ...], axes: tuple[int, ...], dynamic: bool
) -> None:
    x = np.random.default_rng(3).random(shape, dtype=np.float32)
    mean, most = _mean_and_most(x, axes, dynamic=dynamic)
    np.testing.assert_allclose(mean.astype(np.float64), x.mean(axes, np.float64, keepdims=True), rtol=1.5e-6)
    np.testing.assert_array_equal(most, x.max(axes, keepdims=True))


@pytest.mark.numerics
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("shape", EQUAL, ids=str)
def test_mean_when_rows_are_equal_then_their_roundings_do_not_add_up(shape: tuple[int, ...], dynamic: bool) -> None:
    """As padding tokens are: every addition rounds to the side that the one before it did."""
    rows = np.random.default_rng(3).random((shape[0], 1, shape[2]), dtype=np.float32)
    mean, _ = _mean_and_most(np.repeat(rows, shape[1], 1), (1,), dynamic=dynamic)
    np.testing.assert_allclose(mean.astype(np.float64), rows.astype(np.float64), rtol=1.5e-6)


def _mean_and_most(x: Array, axes: tuple[int, ...], *, dynamic: bool) -> Sequence[Array]:
    stated = [f"d{i}" if dynamic else extent for i, extent in enumerate(x.shape)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, stated)]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("mean", "most")]
    nodes = [
        helper.make_node(f"Reduce{kind}", ["x"], [name], axes=axes)
        for kind, name in (("Mean", "mean"), ("Max", "most"))
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 13)]
    )
    (found,) = run_built(model, [{"x": x}])
    return found


@pytest.mark.numerics
def test_softmax_when_rows_are_longer_than_a_block_then_adds_up_to_one() -> None:
    """Rows whose passes take turns: two sums and a maximum in one loop."""
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "m"])] for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Softmax", ["x"], ["y"], axis=1)], "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    draw = np.random.default_rng(5)
    for shape in ((5, 200_000), (64, 1000), (3, 513), (40, 8191)):
        x = draw.random(shape, dtype=np.float32)
        ((y,),) = run_built(model, [{"x": x}])
        wide = np.exp(x.astype(np.float64))
        np.testing.assert_allclose(y.astype(np.float64), wide / wide.sum(1, keepdims=True), rtol=1.5e-6)
