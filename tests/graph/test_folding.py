"""Folding of constants and of scales: what is folded, and what must not be."""

from __future__ import annotations

import numpy as np
import pytest

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.math.numpy_emitter import computed
from tessera_build.ir.core.node import Span
from tessera_build.ir.core.types import F16, F32, F64, I8, I32, I64, DType, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, StatePair
from tessera_build.ir.graph.passes import fold_constants
from tessera_build.ir.graph.passes.eliminate_common import EliminateCommon
from tessera_build.ir.graph.passes.fold_constants import FoldConstants
from tessera_build.ir.graph.passes.fold_scale import FoldScale
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.reference import run
from tessera_build.ir.graph.sweep import rewrite
from tests.graph.graphs import (
    assert_same_results,
    channel_constant,
    conv,
    image_input,
    nodes_of,
    normal,
    op_counts,
    ops_of,
)

pytestmark = pytest.mark.unit
N = symbol("N")


def test_fold_when_result_grows_beyond_the_limit_then_node_stays() -> None:
    b = GraphBuilder()
    b.output("small", b.op("broadcast_to", b.scalar(1.0, F32), shape=(100,)))
    b.output("large", b.op("broadcast_to", b.scalar(1.0, F32), shape=(1 << 21,)))
    assert ops_of(FoldConstants().run(b.finish())) == ["broadcast_to"]


@pytest.mark.errors
@pytest.mark.parametrize("op", ["gather", "gather_elements"])
def test_fold_when_an_index_lies_outside_then_a_run_says_so(op: str) -> None:
    b = GraphBuilder()
    b.output("y", b.op(op, b.constant(normal(0, 5)), b.constant(np.array([7, 1])), axis=0))
    module = FoldConstants().run(b.finish())
    assert ops_of(module) == [op]
    with pytest.raises(TesseraError, match="INDEX_OUT_OF_RANGE"):
        run(module, "main", {})


def test_fold_when_large_weights_keep_their_size_then_are_folded_under_their_name() -> None:
    b = GraphBuilder()
    weights = b.constant(np.ones((1 << 10, 1 << 9), np.float32), "w")
    b.output("y", b.op("mul", weights, b.constant(np.full((1 << 9,), 2, np.float32), "s")))
    after = FoldConstants().run(b.finish())
    assert ops_of(after) == []
    assert list(after.constant_names.values()) == ["w"]
    assert all((array == 2).all() for array in after.constants.values())


@pytest.mark.parametrize("op", ["exp", "tanh", "erf"])
def test_fold_when_op_is_an_elementary_function_then_has_the_bits_of_its_expansion(op: str) -> None:
    x = normal(0, 4)
    b = GraphBuilder()
    b.output("y", b.op(op, b.constant(x)))
    after = FoldConstants().run(b.finish())
    assert ops_of(after) == []
    (array,) = after.constants.values()
    np.testing.assert_array_equal(array, computed(op, [x]))
    wide = run(b.finish(), "main", {})["y"].astype(np.float64)
    np.testing.assert_allclose(array.astype(np.float64), wide, rtol=3e-7)


def test_fold_when_too_many_elementary_functions_then_node_stays() -> None:
    b = GraphBuilder()
    b.output("y", b.op("exp", b.constant(np.zeros((1 << 20) + 1, np.float32))))
    assert ops_of(FoldConstants().run(b.finish())) == ["exp"]


_PRODUCTS = {
    "matrices": ((4, 3), (3, 5), {}),
    "a transposed": ((3, 4), (3, 5), {"transpose_a": True}),
    "b transposed": ((4, 3), (5, 3), {"transpose_b": True}),
    "broadcast": ((2, 1, 4, 3), (7, 3, 5), {}),
    "more than a block": ((3, 200, 7), (7, 300), {}),
    "wide": ((2, 3), (3, 40_000), {}),
    "nothing to add": ((2, 0), (0, 3), {}),
    "nothing": ((0, 2), (2, 3), {}),
}


@pytest.mark.parametrize("dtype", [F16, F32, F64, I8, I32])
@pytest.mark.parametrize("name", _PRODUCTS)
def test_fold_when_matrices_are_multiplied_then_gives_the_sums(name: str, dtype: DType) -> None:
    left, right, flags = _PRODUCTS[name]
    b = GraphBuilder()
    operands = [(4 * normal(i, *shape)).astype(dtype.numpy) for i, shape in enumerate((left, right))]
    b.output("y", b.op("matmul", *map(b.constant, operands), **flags))
    after = FoldConstants().run(b.finish())
    assert ops_of(after) == []
    found, wanted = run(after, "main", {})["y"], run(b.finish(), "main", {})["y"]
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64), rtol=0, atol=_step(wanted))


def _step(array: Array) -> float:
    """What floats of the largest element's size lie apart; nothing for integers."""
    return float(np.spacing(np.abs(array).max(initial=0))) if array.dtype.kind == "f" else 0.0


def test_fold_when_a_product_takes_seconds_then_node_stays() -> None:
    for shapes in (((1 << 10, 1 << 10), (1 << 10, 1 << 10 | 1)), ((1, 1 << 20), (1 << 20, 1))):
        b = GraphBuilder()
        b.output("y", b.op("matmul", *(b.constant(np.zeros(shape, np.float32)) for shape in shapes)))
        assert ops_of(FoldConstants().run(b.finish())) == ["matmul"]


def test_fold_when_products_together_take_seconds_then_some_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_constants, "_MOST_OF_ALL", 3 * 64**3)
    b = GraphBuilder()
    for i in range(5):
        b.output(f"y{i}", b.op("matmul", b.constant(normal(i, 64, 64)), b.constant(normal(i + 9, 64, 64))))
    assert len(ops_of(FoldConstants().run(b.finish()))) == 2


def test_fold_when_dims_are_symbolic_then_node_stays_and_static_ones_go() -> None:
    b = GraphBuilder()
    b.input("x", tensor(F32, N))
    b.output("symbolic", b.op("dimension", value=N * 2, dtype=I64))
    b.output("wide", b.op("broadcast_to", b.scalar(1.0, F32), shape=(N, 2)))
    b.output("static", b.op("iota", shape=(3,), axis=0, dtype=I64))
    assert ops_of(FoldConstants().run(b.finish())) == ["dimension", "broadcast_to"]


def test_scale_when_conv_is_read_twice_then_is_not_folded() -> None:
    b = GraphBuilder()
    x = conv(b, image_input(b), 4, 1)
    b.output("y", b.op("add", b.op("mul", x, channel_constant(b, x, 2)), x))
    assert op_counts(run_passes(b.finish()))["conv"] == 1


def test_scale_when_constant_varies_over_the_image_then_is_not_folded() -> None:
    b = GraphBuilder()
    x = conv(b, b.input("x", tensor(F32, N, 3, 4, 5)), 4, 1)
    b.output("y", b.op("mul", x, b.constant(normal(2, 1, 1, 4, 5))))
    assert op_counts(FoldScale().run(b.finish()))["conv"] == 1
    assert "mul" in ops_of(FoldConstants().run(FoldScale().run(b.finish())))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_scale_when_batch_norm_follows_a_grouped_conv_then_one_add_is_left(groups: int) -> None:
    b = GraphBuilder()
    x = conv(b, image_input(b, 4), 4, 1, 3, groups)
    y = b.op("add", x, channel_constant(b, x, 2))
    y = b.op("add", b.op("mul", y, channel_constant(b, x, 3)), channel_constant(b, x, 4))
    b.output("y", y)
    module = b.finish()
    after = FoldConstants().run(FoldScale().run(module))
    assert ops_of(after) == ["conv", "add"]
    assert_same_results(module, after)


@pytest.mark.parametrize("transpose_b", [False, True])
def test_scale_when_it_follows_a_matmul_then_columns_are_scaled(transpose_b: bool) -> None:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, N, 6))
    weights = normal(1, 6, 4)
    y = b.op("matmul", x, b.constant(weights.T if transpose_b else weights), transpose_b=transpose_b)
    b.output("y", b.op("mul", b.op("add", y, b.constant(normal(2, 4))), b.constant(normal(3, 4))))
    module = b.finish()
    after = FoldConstants().run(FoldScale().run(module))
    assert ops_of(after) == ["matmul", "add"]
    assert_same_results(module, after)


def test_scale_when_one_number_stands_before_a_conv_then_weights_take_it() -> None:
    b = GraphBuilder()
    x = image_input(b)
    b.output("y", conv(b, b.op("mul", x, b.scalar(0.5, x)), 4, 1))
    module = b.finish()
    after = FoldConstants().run(FoldScale().run(module))
    assert ops_of(after) == ["conv"]
    assert_same_results(module, after)


@pytest.mark.parametrize("before", [True, False])
def test_scale_when_one_number_divides_then_weights_are_divided(before: bool) -> None:
    b = GraphBuilder()
    x = image_input(b)
    y = conv(b, b.op("div", x, b.scalar(6, x)) if before else x, 4, 1)
    y = b.op("add", y, channel_constant(b, y, 2))
    b.output("y", y if before else b.op("div", y, b.scalar(6, y)))
    module = b.finish()
    after = FoldConstants().run(FoldScale().run(module))
    assert ops_of(after) == ["conv", "add"]
    assert_same_results(module, after)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("mul", "div", (3 / 7, "mul")),
        ("div", "mul", (7 / 3, "mul")),
        ("div", "div", (21.0, "div")),
        ("mul", "mul", (21.0, "mul")),
    ],
)
def test_scale_when_two_numbers_follow_each_other_then_one_is_left(
    first: str, second: str, expected: tuple[float, str]
) -> None:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 4))
    b.output("y", b.op(second, b.op(first, x, b.scalar(3, x)), b.scalar(7, x)))
    module = b.finish()
    after = FoldConstants().run(FoldScale().run(module))
    assert ops_of(after) == [expected[1]]
    (number,) = after.constants.values()
    assert number == np.float32(expected[0])
    assert_same_results(module, after)


@pytest.mark.parametrize("rounding", ["round", "floor", "cast"])
def test_scale_when_a_quotient_is_rounded_then_it_stays(rounding: str) -> None:
    b = GraphBuilder()
    x = image_input(b)
    y = b.op("div", conv(b, x, 4, 1), b.scalar(0.3, x))
    b.output("y", b.op(rounding, y, **({"dtype": I64} if rounding == "cast" else {})))
    assert ops_of(FoldScale().run(b.finish())) == ["conv", "div", rounding]


def test_common_when_zeros_differ_in_sign_then_stay_apart() -> None:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 4))
    for index, zero in enumerate((0.0, -0.0, 0.0)):
        b.output(f"y{index}", b.op("pad", x, low=(1,), high=(0,), value=zero))
    assert ops_of(EliminateCommon().run(b.finish())) == ["pad", "pad"]


def test_sweep_when_rule_replaces_a_node_then_span_states_guards_and_names_stay() -> None:
    b = GraphBuilder(dims={"N": (2, 9)})
    x = b.input("x", tensor(F32, N))
    with b.at(Span("/Sub")):
        y = b.op("sub", x, b.scalar(1, x))
    b.output("y", y)
    b.guard(N, ">=", 2, "two at least")
    made = b.finish()
    module = type(made)(
        made.entries,
        made.constants,
        made.dims,
        made.input_names,
        made.output_names,
        {"main": (StatePair(x, y),)},
        made.constant_names,
        made.guards,
    )
    after = rewrite(
        module,
        lambda: lambda site: [site.to.op("neg", site.inputs[0])] if site.node.op == "sub" else None,
    )
    function = after.entries["main"]
    (node,) = nodes_of(after)
    assert function.locations[node] == Span("/Sub")
    assert after.states["main"] == (StatePair(function.args[0], function.results[0]),)
    assert (after.guards, dict(after.dims)) == (module.guards, {"N": (2, 9)})
    assert (after.input_names["main"], after.output_names["main"]) == (("x",), ("y",))


def test_constants_when_each_doubles_the_last_then_folding_stops_early() -> None:
    builder = GraphBuilder()
    value = builder.constant(np.ones(1 << 16, np.float32))
    for _ in range(20):
        value = builder.op("concat", value, value, axis=0)
    builder.output("y", value)
    folded = FoldConstants().run(builder.finish())
    assert sum(array.nbytes for array in folded.constants.values()) < 16 << 20


@pytest.mark.parametrize(
    ("kind", "factors", "size", "merged"),
    [
        (F16, (1e-3, 1e-5), 6e4, False),
        (F16, (3e3, 3e2), 1e-3, False),
        (F32, (1e-30, 1e-20), 1e30, False),
        (F32, (2.0, 3.0, 1e20, 1e30), 1e-30, False),
        (F32, (1e-3, 1e-5), 1.0, True),
        (F32, (0.0, 1e-5), 1.0, True),
    ],
)
def test_factors_when_their_product_leaves_the_type_then_stay_apart(
    kind: DType, factors: tuple[float, ...], size: float, merged: bool
) -> None:
    b = GraphBuilder()
    value = b.input("x", tensor(kind, 4))
    for factor in factors:
        value = b.op("mul", value, b.scalar(factor, kind))
    b.output("y", value)
    before = b.finish()
    after = FoldScale().run(before)
    assert (ops_of(FoldConstants().run(after)).count("mul") == 1) == merged
    found, wanted = (run(module, "main", {"x": np.full(4, size, kind.numpy)})["y"] for module in (after, before))
    np.testing.assert_allclose(np.asarray(found, np.float64), np.asarray(wanted, np.float64), rtol=1e-2)
