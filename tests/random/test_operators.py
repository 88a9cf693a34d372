"""ONNX's operators that draw, as compiled code: distributions, seeds, iterations, and the exact parts of Dropout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tessera_build.frontends.onnx import ModelError, read_onnx
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.draws import drawn_outputs
from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.built import run_built
from tests.frontends_onnx.oracle import expected
from tests.random.philox import correlations, distance_to_normal, distance_to_uniform

pytestmark = pytest.mark.numerics
Nodes = Sequence[onnx.NodeProto]
NODE = helper.make_node
FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
GRID: Mapping[int, float] = {
    TensorProto.FLOAT16: 2.0**-11,
    TensorProto.BFLOAT16: 2.0**-8,
}  # how far apart uniform draws lie


def _model(nodes: Nodes, inputs: Mapping[str, Array], outputs: Sequence[str], dynamic: bool = False) -> onnx.ModelProto:
    infos = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(array.dtype),
            [f"{name}{axis}" if dynamic and extent > 1 else extent for axis, extent in enumerate(array.shape)],
        )
        for name, array in inputs.items()
    ]
    graph = helper.make_graph(list(nodes), "draws", infos, [onnx.ValueInfoProto(name=name) for name in outputs])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _run(nodes: Nodes, inputs: Mapping[str, Array], outputs: Sequence[str], dynamic: bool = False) -> list[Array]:
    """What the compiled model gives; the Graph reference gives the same, to the bit where no logarithm is in it."""
    model = _model(nodes, inputs, outputs, dynamic)
    (found,) = run_built(model, [inputs])
    wanted = reference.run(read_onnx(model), "main", inputs)
    for name, array in zip(outputs, found, strict=True):
        assert (array.dtype, array.shape) == (wanted[name].dtype, wanted[name].shape)
        np.testing.assert_allclose(array.astype(np.float64), wanted[name].astype(np.float64), rtol=1e-2, atol=1e-5)
    return found


def _wide(array: Array) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return array.astype(np.float64).reshape(-1)


# -- distributions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("dtype", FLOAT_TYPES)
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 5.0), (1.0, 2.0)])
def test_uniform_when_drawn_like_a_tensor_then_fills_the_interval(
    dtype: int, low: float, high: float, dynamic: bool
) -> None:
    x = np.zeros((40, 1, 100), np.float32)
    (found,) = _run(
        [NODE("RandomUniformLike", ["x"], ["y"], dtype=dtype, low=low, high=high)], {"x": x}, ["y"], dynamic
    )
    assert (found.dtype, found.shape) == (helper.tensor_dtype_to_np_dtype(dtype), x.shape)
    draws = (_wide(found) - low) / (high - low)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert distance_to_uniform(draws) < 1.95 + GRID.get(dtype, 0.0) * (1 if low == 0 else 2) * math.sqrt(draws.size)
    assert max(map(abs, correlations(draws, (1, 2, 100)))) < 4


@pytest.mark.parametrize("dtype", FLOAT_TYPES)
@pytest.mark.parametrize("dynamic", [False, True])
def test_normal_when_drawn_like_a_tensor_then_has_mean_and_scale(dtype: int, dynamic: bool) -> None:
    node = NODE("RandomNormalLike", ["x"], ["y"], dtype=dtype, mean=-1.0, scale=2.0)
    (found,) = _run([node], {"x": np.zeros((70, 60), np.int64)}, ["y"], dynamic)
    draws = (_wide(found) + 1) / 2
    assert distance_to_normal(draws) < (2.2 if dtype == TensorProto.BFLOAT16 else 1.95)
    assert abs(draws.mean()) * math.sqrt(draws.size) < 4
    assert abs(draws.var() - 1) * math.sqrt(draws.size / 2) < 4


@pytest.mark.parametrize("op", ["RandomUniform", "RandomNormal", "RandomUniformLike", "RandomNormalLike"])
@pytest.mark.parametrize("dtype", [None, TensorProto.DOUBLE])
def test_result_when_a_type_is_stated_or_not_then_is_of_onnxruntimes_type_and_shape(op: str, dtype: int | None) -> None:
    like = op.endswith("Like")
    attributes = {} if dtype is None else {"dtype": dtype}
    inputs = {"x": np.zeros((2, 5), np.float32 if dtype is None else np.int32)} if like else {}
    node = NODE(op, list(inputs), ["y"], seed=1.0)
    stated = attributes | ({} if like else {"shape": [2, 5]})
    node.attribute.extend(helper.make_attribute(name, value) for name, value in stated.items())
    (found,), (wanted,) = _run([node], inputs, ["y"]), expected(_model([node], inputs, ["y"]), inputs)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.BOOL])
def test_bernoulli_when_probabilities_differ_then_ones_are_as_frequent(dtype: int) -> None:
    p = np.repeat(np.asarray([0.0, 0.1, 0.5, 0.97, 1.0], np.float32), 4000).reshape(5, 4000)
    (found,) = _run([NODE("Bernoulli", ["p"], ["y"], dtype=dtype)], {"p": p}, ["y"], dynamic=True)
    assert found.dtype == helper.tensor_dtype_to_np_dtype(dtype)
    counts = found.astype(np.float64).sum(axis=1)
    assert (counts[0], counts[4]) == (0, 4000)
    spread = np.sqrt(4000 * p[:, 0] * (1 - p[:, 0]))
    assert (np.abs(counts - 4000 * p[:, 0])[1:4] < 4 * spread[1:4]).all()


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("dynamic", [False, True])
def test_multinomial_when_classes_have_weights_then_draws_have_their_frequencies(kind: type, dynamic: bool) -> None:
    weights = np.asarray([[1, 2, 3, 4], [0, 5, 0, 5], [0, 0, 0, 1]], np.float64)
    with np.errstate(divide="ignore"):
        logits = np.log(weights).astype(kind) + kind(3)
    node = NODE("Multinomial", ["x"], ["y"], sample_size=5000, dtype=TensorProto.INT64)
    (found,) = _run([node], {"x": logits}, ["y"], dynamic)
    assert (found.dtype, found.shape) == (np.int64, (3, 5000))
    counts = np.stack([np.bincount(row.astype(np.int64), minlength=4) for row in found])
    wanted = weights / weights.sum(axis=1, keepdims=True)
    assert (counts[weights == 0] == 0).all()
    assert (np.abs(counts - 5000 * wanted) <= 4 * np.sqrt(5000 * wanted * (1 - wanted))).all()


def test_multinomial_when_no_class_is_possible_then_still_names_one() -> None:
    (found,) = _run([NODE("Multinomial", ["x"], ["y"], sample_size=9)], {"x": np.full((2, 3), -np.inf)}, ["y"])
    assert found.dtype == np.int32
    assert np.isin(found, (0, 1, 2)).all()


# -- keys -------------------------------------------------------------------------------------------------------------


def test_draws_when_seeds_are_equal_then_streams_are() -> None:
    nodes = [
        NODE("RandomUniform", [], ["a"], shape=[4, 5], seed=3.0),
        NODE("RandomUniform", [], ["b"], shape=[30], seed=3.0),
        NODE("RandomUniform", [], ["c"], shape=[20], seed=4.0),
        NODE("RandomUniform", [], ["d"], shape=[20]),
        NODE("RandomUniform", [], ["e"], shape=[20]),
    ]
    a, b, c, d, e = (_wide(array) for array in _run(nodes, {}, ["a", "b", "c", "d", "e"]))
    np.testing.assert_array_equal(a, b[:20])
    assert len({float(stream[0]) for stream in (a, c, d, e)}) == 4


def _body(nodes: Nodes, result: str) -> onnx.GraphProto:
    inputs = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
    ]
    again = NODE("Identity", ["go"], ["again"])
    return helper.make_graph([*nodes, again], "body", inputs, [onnx.ValueInfoProto(name=n) for n in ("again", result)])


@pytest.mark.parametrize("seeded", [False, True])
def test_draws_when_loops_are_nested_then_each_iteration_draws_anew(seeded: bool) -> None:
    draw = NODE("RandomUniform", [], ["u"], shape=[8])
    draw.attribute.extend([helper.make_attribute("seed", 1.0)] if seeded else [])
    inner = _body([draw], "u")
    for names in (inner.input[0], inner.input[1]):
        names.name = f"inner_{names.name}"
    inner.node[-1].input[0], inner.node[-1].output[0], inner.output[0].name = "inner_go", "inner_again", "inner_again"
    outer = _body([NODE("Loop", ["n", ""], ["rows"], body=inner)], "rows")
    trips = NODE("Constant", [], ["n"], value=onnx.numpy_helper.from_array(np.asarray(7)))
    (found,) = _run([trips, NODE("Loop", ["n", ""], ["y"], body=outer)], {}, ["y"])
    assert found.shape == (7, 7, 8)
    assert np.unique(found).size == found.size
    assert distance_to_uniform(_wide(found)) < 1.95


def test_draws_when_a_body_is_unrolled_then_each_iteration_draws_anew() -> None:
    body = helper.make_graph(
        [NODE("RandomUniformLike", ["m"], ["u"], seed=2.0)],
        "map",
        [helper.make_tensor_value_info("m", TensorProto.FLOAT, [6])],
        [helper.make_tensor_value_info("u", TensorProto.FLOAT, [6])],
    )
    nodes = [
        NODE("SequenceConstruct", ["x", "x", "x"], ["xs"]),
        NODE("SequenceMap", ["xs"], ["us"], body=body),
        NODE("ConcatFromSequence", ["us"], ["y"], axis=0),
    ]
    (found,) = _run(nodes, {"x": np.zeros(6, np.float32)}, ["y"])
    assert np.unique(found).size == 18


# -- Dropout ----------------------------------------------------------------------------------------------------------

_SPECIAL = np.asarray([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1.5, 3e38], np.float32)


def _dropout_inputs(ratio: float, training: bool, kind: type = np.float32) -> dict[str, Array]:
    x = np.random.default_rng(1).standard_normal((30, 40)).astype(kind)
    return {"x": x, "ratio": np.asarray(ratio, np.float32), "training": np.asarray(training)}


DROPOUT = NODE("Dropout", ["x", "ratio", "training"], ["y", "mask"], seed=7)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75])
@pytest.mark.parametrize("dynamic", [False, True])
def test_dropout_when_training_then_values_are_onnxruntimes_where_both_keep(
    kind: type, ratio: float, dynamic: bool
) -> None:
    inputs = _dropout_inputs(ratio, True, kind)
    y, mask = _run([DROPOUT], inputs, ["y", "mask"], dynamic)
    theirs, kept = expected(_model([DROPOUT], inputs, ["y", "mask"]), inputs)
    assert (y.dtype, mask.dtype) == (kind, np.bool_)
    both = mask.astype(bool) & kept.astype(bool)
    assert both.any()
    np.testing.assert_array_equal(y[both], theirs[both])
    np.testing.assert_array_equal(y[~mask.astype(bool)], 0)
    assert abs(mask.mean() - (1 - ratio)) < 4 * math.sqrt(ratio * (1 - ratio) / mask.size)


@pytest.mark.parametrize(("ratio", "training"), [(0.0, True), (0.5, False)])
@pytest.mark.parametrize("known", [False, True])
def test_dropout_when_nothing_is_dropped_then_is_the_operand_to_the_bit(
    ratio: float, training: bool, known: bool
) -> None:
    inputs = {**_dropout_inputs(ratio, training), "x": np.tile(_SPECIAL, 5)}
    model = _model([DROPOUT], inputs, ["y", "mask"])
    if known:
        for name in ("ratio", "training"):
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(inputs[name]), name))
    feeds = {"x": inputs["x"]} if known else inputs
    ((y, mask),) = run_built(model, [feeds])
    assert y.tobytes() == inputs["x"].tobytes()
    assert mask.all()
    assert known == (not drawn_outputs(read_onnx(model), "main"))


def test_dropout_when_a_dropped_element_is_no_number_then_stays_none() -> None:
    inputs = {**_dropout_inputs(0.9, True), "x": np.full(200, np.nan, np.float32)}
    y, mask = _run([DROPOUT], inputs, ["y", "mask"])
    assert not mask.all()
    assert np.isnan(y.astype(np.float64)).all()


@pytest.mark.parametrize("ratio", [1.0, 1.5, -0.25, math.nan])
def test_dropout_when_a_run_finds_the_ratio_out_of_range_then_gives_nan(ratio: float) -> None:
    y, _ = _run([DROPOUT], _dropout_inputs(ratio, True), ["y", "mask"])
    assert np.isnan(y.astype(np.float64)).all()


# -- refused ----------------------------------------------------------------------------------------------------------

X = {"x": np.zeros((2, 3), np.float32)}
BROKEN: dict[str, tuple[onnx.NodeProto, Mapping[str, Array], str]] = {
    "interval": (NODE("RandomUniformLike", ["x"], ["y"], low=2.0, high=1.0), X, "no interval"),
    "infinite": (NODE("RandomUniformLike", ["x"], ["y"], high=math.inf), X, "no interval"),
    "integers": (NODE("RandomNormalLike", ["x"], ["y"], dtype=TensorProto.INT32), X, "draws floats"),
    "unstated": (NODE("RandomNormalLike", ["x"], ["y"]), {"x": np.zeros(2, np.int64)}, "draws floats"),
    "extent": (NODE("RandomUniform", [], ["y"], shape=[2, -1]), {}, "negative extent"),
    "rank": (NODE("Multinomial", ["x"], ["y"]), {"x": np.zeros(3, np.float32)}, "does not fit"),
    "classes": (NODE("Multinomial", ["x"], ["y"]), {"x": np.zeros((3, 0), np.float32)}, "does not fit"),
    "floats": (NODE("Multinomial", ["x"], ["y"], dtype=TensorProto.FLOAT), X, "class numbers"),
}


@pytest.mark.errors
@pytest.mark.parametrize("name", BROKEN)
def test_operator_when_ill_formed_then_says_why(name: str) -> None:
    node, inputs, reason = BROKEN[name]
    with pytest.raises(ModelError) as caught:
        read_onnx(_model([node], inputs, ["y"]))
    assert reason in caught.value.diagnostics()


@pytest.mark.errors
def test_dropout_when_a_known_ratio_is_out_of_range_then_says_so() -> None:
    inputs = _dropout_inputs(1.0, True)
    model = _model([DROPOUT], inputs, ["y", "mask"])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(inputs["ratio"]), "ratio"))
    with pytest.raises(ModelError) as caught:
        read_onnx(model)
    assert "ratio is out of range" in caught.value.diagnostics()
