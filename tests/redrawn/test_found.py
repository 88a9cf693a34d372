"""What re-drawing found, one small model each: each answered otherwise, or died, before its cause was mended."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from bundle_format.errors import TesseraError
from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.built import assert_built_agrees, run_built
from tests.frontends_onnx.ml_cases import model_of
from tests.frontends_onnx.oracle import expected, floats, integers, make_model, one_node

pytestmark = pytest.mark.numerics
_STEPS = np.array([-3, -1, -0.25, 0, 0.25, 1, 3], np.float32)


def test_weights_when_all_are_empty_then_the_bundle_loads() -> None:
    model = one_node("Concat", {"x": (2, 3)}, {"none": np.zeros((0, 3), np.float32)}, axis=0)
    assert_built_agrees(model, {"x": floats(2, 3)})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_of_a_sum_of_exponentials_when_all_are_infinite_then_is_infinite(dtype: type[np.generic]) -> None:
    x = np.array([[-np.inf, -np.inf], [np.inf, 1], [1, -np.inf], [3, 4]], dtype)
    node = helper.make_node("ReduceLogSumExp", ["x"], ["y"], axes=[1], keepdims=0)
    assert_built_agrees(make_model([node], {"x": (dtype, (4, 2))}, ["y"]), {"x": x})


@pytest.mark.parametrize("op", ["ReduceL2", "ReduceLogSum"])
def test_reduction_when_of_integers_then_is_cut_off(op: str) -> None:
    x = np.arange(1, 13, dtype=np.int32).reshape(3, 4)
    node = helper.make_node(op, ["x"], ["y"], axes=[1])
    assert_built_agrees(make_model([node], {"x": (np.int32, ("N", 4))}, ["y"]), {"x": x})


def test_mean_when_of_bytes_then_its_sum_does_not_wrap() -> None:
    x = np.full((4, 100), 120, np.int8)
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)
    ((found,),) = run_built(make_model([node], {"x": (np.int8, (4, 100))}, ["y"]), [{"x": x}])
    assert found.tolist() == [120] * 4


def test_shrink_when_of_integers_then_its_bias_is_no_integer() -> None:
    x = np.arange(-9, 10, dtype=np.int16)
    node = helper.make_node("Shrink", ["x"], ["y"], bias=0.77, lambd=0.37)
    assert_built_agrees(make_model([node], {"x": (np.int16, (19,))}, ["y"]), {"x": x})


@pytest.mark.parametrize("shape", [(3, 2, 0, 0), (0, 4, 5), (4, 0, 5), (4, 5, 0)])
def test_transpose_when_of_nothing_then_is_built(shape: tuple[int, ...]) -> None:
    node = helper.make_node("Transpose", ["x"], ["y"])
    assert_built_agrees(make_model([node], {"x": (np.float32, shape)}, ["y"]), {"x": np.zeros(shape, np.float32)})


def test_threshold_when_between_two_halves_then_is_not_rounded() -> None:
    x = np.array([1.153, 1.154, 1.155], np.float16)
    alpha = float(np.nextafter(x[1].astype(np.float32), np.float32(0)))
    node = helper.make_node("ThresholdedRelu", ["x"], ["y"], alpha=alpha)
    model = make_model([node], {"x": (np.float16, (3,))}, ["y"], opset=22)
    ((found,),) = run_built(model, [{"x": x}])
    assert found.tolist() == [0.0, *x[1:].tolist()]


def test_shrink_when_its_edge_lies_between_two_halves_then_is_not_rounded() -> None:
    node = helper.make_node("Shrink", ["x"], ["y"], bias=0.25, lambd=1.750809)
    x = np.array([1.75, 1.751, 1.752, -1.75, -1.751, -1.752], np.float16)
    ((found,),) = run_built(make_model([node], {"x": (np.float16, (6,))}, ["y"]), [{"x": x}])
    assert (found != 0).tolist() == [False, True, True, False, True, True]


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 2.0])
def test_celu_when_its_alpha_is_not_positive_then_agrees(alpha: float) -> None:
    node = helper.make_node("Celu", ["x"], ["y"], alpha=alpha)
    model = make_model([node], {"x": (np.float32, (7,))}, ["y"])
    ((found,),) = run_built(model, [{"x": _STEPS}])
    (wanted,) = expected(model, {"x": _STEPS})
    np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64), atol=1e-5)


def test_clip_when_old_and_without_bounds_then_cuts_infinities() -> None:
    node = helper.make_node("Clip", ["x"], ["y"], max=1.0)
    model = make_model([node], {"x": (np.float32, (4,))}, ["y"], opset=6)
    ((found,),) = run_built(model, [{"x": np.array([-np.inf, np.inf, np.nan, 2], np.float32)}])
    np.testing.assert_array_equal(found, np.array([-3.4028235e38, 1, np.nan, 1], np.float32))


def test_place_of_the_largest_when_there_is_none_then_is_refused() -> None:
    node = helper.make_node("ArgMax", ["x"], ["y"], axis=1)
    with pytest.raises(TesseraError, match="ArgMax along an axis without elements"):
        run_built(make_model([node], {"x": (np.float32, (2, 0))}, ["y"]), [])


@pytest.mark.parametrize("last", [0, 1])
def test_place_of_the_largest_when_data_leave_none_then_the_run_ends(last: int) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("ArgMax", ["places"], ["y"], axis=1, select_last_index=last),
    ]
    model = make_model(nodes, {"x": (np.float32, ("N",))}, ["y"])
    assert_built_agrees(model, {"x": np.array([0, 3, 4], np.float32)})
    with pytest.raises(TesseraError, match="index"):
        run_built(model, [{"x": np.zeros(3, np.float32)}])


def test_deformed_convolution_when_every_extent_is_a_symbol_then_is_built() -> None:
    node = helper.make_node("DeformConv", ["x", "w", "offset", "bias"], ["y"], offset_group=2, strides=[2, 1])
    shapes = {"x": (2, 4, 7, 6), "offset": (2, 2 * 2 * 6, 3, 4), "bias": (3,)}
    inputs = {name: (np.float32, tuple(f"{name}{i}" for i in range(len(shape)))) for name, shape in shapes.items()}
    model = make_model([node], inputs, ["y"], {"w": floats(3, 4, 2, 3)}, opset=19)
    assert_built_agrees(model, {name: floats(*shape) for name, shape in shapes.items()})


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
@pytest.mark.parametrize("spoken", [[(0, 1, 0)], [(0, 1, 0), (1, 2, 0)], [(0, 1, 0), (1, 1, 1)]])
def test_trees_when_leaves_are_silent_on_a_target_then_score_as_onnxruntime_does(
    aggregate: str, spoken: list[tuple[int, int, int]]
) -> None:
    targets = 1 + max(target for _, _, target in spoken)
    stumps = {"treeids": [0, 0, 0, 1, 1, 1], "nodeids": [0, 1, 2] * 2, "featureids": [0] * 6}
    stumps |= {"values": [0.0, 0.0, 0.0, 1.0, 0.0, 0.0], "modes": ["BRANCH_LEQ", "LEAF", "LEAF"] * 2}
    stumps |= {"truenodeids": [1, 0, 0] * 2, "falsenodeids": [2, 0, 0] * 2}
    stated: dict[str, object] = {f"nodes_{name}": column for name, column in stumps.items()}
    stated |= {f"target_{name}": [s[i] for s in spoken] for i, name in enumerate(("treeids", "nodeids", "ids"))}
    stated |= {"target_weights": [1.0, -3.0][: len(spoken)], "base_values": [10.0, 20.0][:targets]}
    stated |= {"n_targets": targets, "aggregate_function": aggregate}
    x = np.array([[-1], [0.5], [2]], np.float32)
    assert_built_agrees(*model_of("TreeEnsembleRegressor", {"x": x}, [TensorProto.FLOAT], **stated))


def test_convolution_of_halves_when_all_is_known_then_values_keep_apart() -> None:
    """The copy with a border and the sum in float32 were given one number."""
    weights = {"x": floats(2, 5, 9, 7).astype(np.float16), "w": floats(1, 5, 3, 3).astype(np.float16)}
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    ((found,),) = run_built(make_model([node], {}, ["y"], weights), [{}])
    wide = {name: (np.float32, array.shape) for name, array in weights.items()}
    ((exact,),) = run_built(make_model([node], wide, ["y"]), [{n: a.astype(np.float32) for n, a in weights.items()}])
    np.testing.assert_allclose(found.astype(np.float32), exact.astype(np.float32), atol=3e-2)


def test_sequence_when_its_members_have_other_symbols_then_is_joined() -> None:
    nodes = [
        helper.make_node("SequenceConstruct", ["a", "b"], ["q"]),
        helper.make_node("ConcatFromSequence", ["q"], ["y"], axis=0),
        helper.make_node("ConcatFromSequence", ["q"], ["z"], axis=-1, new_axis=1),
    ]
    inputs = {name: (np.float32, (f"{name}0", f"{name}1")) for name in ("a", "b")}
    assert_built_agrees(make_model(nodes, inputs, ["y", "z"]), {"a": floats(2, 3), "b": floats(2, 3)})


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary_embedding_when_only_its_tables_are_known_then_is_built(interleaved: int) -> None:
    node = helper.make_node("RotaryEmbedding", ["x", "places", "cos", "sin"], ["y"], interleaved=interleaved)
    node.domain = "com.microsoft"
    inputs = {"x": (np.float32, ("B", "H", "S", "D")), "places": (np.int64, ("P", "Q"))}
    model = make_model([node], inputs, ["y"], {"cos": floats(7, 4), "sin": floats(7, 4)})
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert_built_agrees(model, {"x": floats(2, 3, 5, 8), "places": np.array([[0, 1, 2, 3, 4], [2, 3, 4, 5, 6]])})


def test_one_hot_when_an_index_is_a_fraction_then_cuts_it_off() -> None:
    node = helper.make_node("OneHot", ["x", "depth", "values"], ["y"])
    constants = {"depth": np.array(3, np.float32), "values": np.array([0, 1], np.float32)}
    model = make_model([node], {"x": (np.float32, ("N",))}, ["y"], constants)
    places = {1.5: 1, 1: 1, -1: 2, -0.5: 0, 2.9: 2, -3.5: 0, 3: None, -4: None, 1e30: None, -np.inf: None, np.nan: None}
    ((found,),) = run_built(model, [{"x": np.array([*places], np.float32)}])
    np.testing.assert_array_equal(found, [[place == i for i in range(3)] for place in places.values()])


@pytest.mark.parametrize("extent", [0, 1, 5])
def test_slice_when_backwards_over_nothing_then_takes_nothing(extent: int) -> None:
    bounds = {"starts": integers(-4), "ends": integers(-5), "axes": integers(1), "steps": integers(-2)}
    node = helper.make_node("Slice", ["x", *bounds], ["y"])
    model = make_model([node], {"x": (np.float32, (3, extent))}, ["y"], bounds)
    assert_built_agrees(model, {"x": floats(3, extent)})


@pytest.mark.parametrize("narrow", ["sb", "mv", "sbmv"])
def test_batch_normalisation_when_its_statistics_are_halves_then_computes_in_the_wider_type(narrow: str) -> None:
    node = helper.make_node("BatchNormalization", ["x", *"sbmv"], ["y"])
    half = {name: (abs(floats(3)) * 9 + 0.5).astype(np.float16 if name in narrow else np.float32) for name in "sbmv"}
    if narrow == "sb":
        half["v"] = half["v"].astype(np.float32)
    model = make_model([node], {"x": (np.float32, ("N", 3, 5))}, ["y"], half, 15)
    assert_built_agrees(model, {"x": floats(2, 3, 5) * 30})


def test_deformed_convolution_when_of_doubles_then_places_are_doubles() -> None:
    node = helper.make_node("DeformConv", ["x", "w", "offset", "bias", "mask"], ["y"])
    shapes = {"x": (1, 2, 6, 7), "w": (3, 2, 2, 3), "offset": (1, 12, 5, 5), "bias": (3,), "mask": (1, 6, 5, 5)}
    model = make_model([node], {name: (np.float64, shape) for name, shape in shapes.items()}, ["y"], None, 19)
    feeds = {name: floats(*shape).astype(np.float64) for name, shape in shapes.items()}
    assert_built_agrees(model, feeds, tolerance=1e-12)


@pytest.mark.parametrize(("own", "cached"), [(np.float16, np.float32), (np.float32, np.float16)])
def test_grouped_attention_when_its_cache_has_another_type_then_is_built(
    own: type[np.generic], cached: type[np.generic]
) -> None:
    names = ["q", "k", "v", "past_k", "past_v", "lengths", "total", "cos", "sin"]
    node = helper.make_node("GroupQueryAttention", names, ["y", "keys", "values"], num_heads=4, kv_num_heads=2)
    node.attribute.append(helper.make_attribute("do_rotary", 1))
    node.domain = "com.microsoft"
    shapes = {"q": (2, 1, 64), "k": (2, 1, 32), "v": (2, 1, 32), "cos": (9, 8), "sin": (9, 8)}
    feeds: dict[str, Array] = {name: floats(*shape).astype(own) for name, shape in shapes.items()}
    feeds |= {name: floats(2, 2, 7, 16).astype(cached) for name in ("past_k", "past_v")}
    feeds |= {"lengths": np.array([7, 7], np.int32)}
    inputs = {name: (array.dtype.type, array.shape) for name, array in feeds.items()}
    model = make_model([node], inputs, ["y", "keys", "values"], {"total": np.array(8, np.int32)})
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert_built_agrees(model, feeds, tolerance=2e-3)


def test_logarithm_of_exponentials_when_of_integers_then_is_refused() -> None:
    model = make_model([helper.make_node("ReduceLogSumExp", ["x"], ["y"])], {"x": (np.int32, (3,))}, ["y"])
    with pytest.raises(TesseraError, match="ReduceLogSumExp of integers"):
        run_built(model, [])


@pytest.mark.parametrize("way", ["add", "mul"])
def test_scatter_when_of_truth_values_then_combines_them(way: str) -> None:
    node = helper.make_node("ScatterElements", ["x", "places", "changes"], ["y"], axis=0)
    node.attribute.append(helper.make_attribute("reduction", way))
    inputs = {"x": (np.bool_, ("N",)), "places": (np.int64, ("M",)), "changes": (np.bool_, ("M",))}
    model = make_model([node], inputs, ["y"], None, 18)
    values = np.array([True, True, False, False])
    assert_built_agrees(model, {"x": values, "places": np.arange(4), "changes": np.array([True, False, True, False])})


def test_tree_classifier_when_it_reads_doubles_then_scores_are_floats() -> None:
    stump = {"treeids": [0, 0, 0], "nodeids": [0, 1, 2], "featureids": [0] * 3, "values": [0.25, 0.0, 0.0]}
    stump |= {"modes": ["BRANCH_LEQ", "LEAF", "LEAF"], "truenodeids": [1, 0, 0], "falsenodeids": [2, 0, 0]}
    stated: dict[str, object] = {f"nodes_{name}": column for name, column in stump.items()}
    stated |= {"class_treeids": [0] * 6, "class_nodeids": [1] * 3 + [2] * 3, "class_ids": [0, 1, 2] * 2}
    stated |= {"class_weights": [0.7, 0.2, 0.1, 0.1, 0.3, 0.6], "classlabels_int64s": [4, 5, 6]}
    x = np.array([[0.1], [0.25], [0.7]], np.float64)
    types = [TensorProto.INT64, TensorProto.FLOAT]
    assert_built_agrees(*model_of("TreeEnsembleClassifier", {"x": x}, types, **stated))


def test_normalisation_when_its_scale_has_another_type_then_so_has_its_result() -> None:
    node = helper.make_node("RMSNormalization", ["x", "scale"], ["y"])
    scale = floats(8)
    model = make_model([node], {"x": (np.float64, ("N", 8))}, ["y"], {"scale": scale}, 23)
    model.ir_version = 11
    x = floats(3, 8).astype(np.float64)
    ((found,),) = run_built(model, [{"x": x}])
    wanted = x / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + 1e-5) * scale
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=0, atol=1e-5)


def test_compress_when_there_are_more_conditions_than_elements_then_reads_no_further() -> None:
    node = helper.make_node("Compress", ["x", "which"], ["y"], axis=1)
    model = make_model([node], {"x": (np.float32, (2, 3)), "which": (np.bool_, (6,))}, ["y"])
    assert_built_agrees(model, {"x": floats(2, 3), "which": np.array([True, False, True, True, False, True])})


@pytest.mark.parametrize("size", [(1, 8), (8, 1), (1, 1), (2, 3)])
@pytest.mark.parametrize("second", ["AveragePool", "Conv"])
@pytest.mark.parametrize("channels", [3, 16])
def test_windows_when_two_want_other_borders_of_an_image_of_one_pixel_then_nothing_outside_is_read(
    size: tuple[int, int], second: str, channels: int
) -> None:
    # No memory has a border of -inf and of 0, so that both windows check; along one pixel they did not.
    weights = {"w": floats(channels, channels, 3, 3)} if second == "Conv" else {}
    nodes = [
        helper.make_node(op, inputs, [output], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        for op, inputs, output in (("MaxPool", ["x"], "most"), (second, ["x", *weights], "other"))
    ]
    shape = (2, channels, *size)
    model = make_model(nodes, {"x": (np.float32, shape)}, ["most", "other"], weights)
    assert_built_agrees(model, {"x": floats(*shape)})


def test_places_of_unpooling_when_of_another_shape_than_the_elements_then_are_refused() -> None:
    # They were read as if they had the elements' shape, outside their own memory.
    node = helper.make_node("MaxUnpool", ["x", "places"], ["y"], kernel_shape=[1, 3], strides=[1, 3])
    shapes = {"x": (np.float32, (4, 3, "N", "N")), "places": (np.int64, ("N", "N", 4, 3))}
    feeds = {"x": floats(4, 3, 2, 2), "places": np.arange(48).reshape(2, 2, 4, 3)}
    with pytest.raises(TesseraError, match="places"):
        run_built(make_model([node], shapes, ["y"]), [feeds])
