"""Loops without a trip count that a counter ends, as exporters of other frameworks write a walk over a sequence."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from tessera_build.frontends.onnx import read_onnx
from tessera_build.frontends.onnx.errors import UnsupportedError
from tessera_build.ir.core.dims import symbol
from tessera_build.ir.graph.nodes import Array, GraphNode, Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tests.frontends_onnx.built import assert_built_agrees


def _walk(
    test: str, first: int = 0, step: int = 1, start: str = "Less(i0, n)", limit: str = "Gather(shape, zero)"
) -> onnx.ModelProto:
    """Running sums over the rows of `x`, of which `test` says from `i2`, `i` and `limit` whether there is another."""
    return parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 16]>
        g (float[N, 3] x, int64 k) => (int64 i_end, float[1, 3] last, float[M, 1, 3] every) {{
            shape = Shape(x)
            zero = Constant <value = int64 {{0}}> ()
            n = {limit}
            i0 = Constant <value = int64 {{{first}}}> ()
            go = {start}
            h0 = Constant <value = float[1, 3] {{0, 0, 0}}> ()
            i_end, n_end, last, every = Loop (, go, i0, n, h0) <
                body = b (int64 j, bool c, int64 i, int64 limit, float[1, 3] h)
                    => (bool again, int64 i2, int64 limit2, float[1, 3] h2, float[1, 3] out) {{
                    by = Constant <value = int64 {{{step}}}> ()
                    i2 = Add(i, by)
                    axis = Constant <value = int64[1] {{0}}> ()
                    at = Unsqueeze(i, axis)
                    row = Gather(x, at)
                    h2 = Add(h, row)
                    out = Tanh(h2)
                    limit2 = Identity(limit)
                    {test}
                }}
            >
        }}"""
    )


WALKS = {
    "below": _walk("again = Less(i2, limit)"),
    "converted": _walk("a = Cast <to = 1> (i2) b = Cast <to = 1> (limit) again = Less(a, b)"),
    "mirrored": _walk("again = Greater(limit, i2)"),
    "not_above": _walk("again = LessOrEqual(i2, limit)", limit="Identity(k)"),
    "by_twos": _walk("again = Less(i2, limit)", step=2),
    "down": _walk(
        "o = Constant <value = int64 {-1}> () again = Greater(i2, o)",
        first=2,
        step=-1,
        start="GreaterOrEqual(i0, zero)",
    ),
    "and_data": _walk(
        """ends = Constant <value = int64[2] {0, 1}> () s = ReduceSum <keepdims = 0> (h2, ends)
        far = Constant <value = float {2}> () near = Less(s, far) more = Less(i2, limit) again = And(near, more)"""
    ),
    "to_what_data_tell": _walk("again = Less(i2, limit)", limit="Identity(k)"),
    "unless_data_say_no": _walk("again = Less(i2, limit)", start="Greater(k, zero)"),
}


def _inputs(rows: int, k: int) -> dict[str, Array]:
    return {"x": np.random.default_rng(rows).standard_normal((rows, 3)).astype(np.float32), "k": np.array(k)}


def _loop(module: Module) -> GraphNode:
    return next(n for n in module.entries["main"].walk() if isinstance(n, GraphNode) and n.op == "loop")


@pytest.mark.numerics
@pytest.mark.parametrize("name", WALKS)
def test_loop_when_a_counter_ends_it_then_stacks_what_onnxruntime_does(name: str) -> None:
    assert_built_agrees(WALKS[name], _inputs(7, 5), _inputs(3, 2), _inputs(9, 0), _inputs(4, 1))


@pytest.mark.unit
@pytest.mark.parametrize("name", ["below", "converted", "mirrored"])
def test_loop_when_nothing_but_a_counter_ends_it_then_has_a_trip_count_and_no_condition(name: str) -> None:
    loop = _loop(run_passes(read_onnx(WALKS[name])))
    assert (loop.attributes["trips"], loop.attributes["conditional"]) == (symbol("N"), False)


@pytest.mark.unit
def test_loop_when_data_may_end_it_earlier_then_the_counter_bounds_it() -> None:
    loop = _loop(run_passes(read_onnx(WALKS["and_data"])))
    assert (loop.attributes["trips"], loop.attributes["conditional"]) == (symbol("N"), True)


@pytest.mark.errors
@pytest.mark.parametrize(
    "test",
    [
        "again = Greater(i2, limit)",  # counts away from the limit
        "again = Equal(i2, limit)",
        "moved = Add(limit, i2) again = Less(i2, moved)",  # no limit: it moves
    ],
)
def test_loop_when_no_counter_bounds_what_it_stacks_then_is_refused(test: str) -> None:
    with pytest.raises(UnsupportedError, match="nothing bounds the size"):
        read_onnx(_walk(test))


@pytest.mark.errors
def test_loop_when_a_counter_counts_beyond_its_type_then_a_guard_says_so() -> None:
    module = read_onnx(WALKS["converted"])
    assert [(str(left), relation, str(right)) for left, relation, right, _ in module.guards] == [
        (f"{1 << 24}", ">=", "N")
    ]


def _squeezing(output: str) -> onnx.ModelProto:
    return parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 11]>
        g (float[N, 1, 2] x) => ({output} y) {{
            s = ReduceSum <axes = [2], keepdims = 0> (x)
            y = Squeeze(s)
        }}"""
    )


@pytest.mark.numerics
def test_squeeze_when_the_model_states_a_rank_then_dims_that_it_leaves_out_are_one() -> None:
    model = _squeezing("float")
    (x,) = read_onnx(model).entries["main"].args
    assert read_onnx(model).entries["main"].types[x].shape == (1, 1, 2)
    assert_built_agrees(model, {"x": np.ones((1, 1, 2), np.float32)})


@pytest.mark.numerics
def test_squeeze_when_the_stated_rank_has_room_for_a_dim_then_the_dim_stays_free() -> None:
    assert_built_agrees(_squeezing("float[N]"), {"x": np.ones((3, 1, 2), np.float32)})
