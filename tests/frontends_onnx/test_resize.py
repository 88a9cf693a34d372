"""Resize and Upsample agree with onnxruntime over re-drawn modes, scales, sizes and opsets, static and dynamic."""

from __future__ import annotations

import random

import numpy as np
import onnx
import pytest
from onnx import helper

from tessera_build.frontends.onnx import UnsupportedError, read_onnx
from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.built import assert_built_agrees
from tests.frontends_onnx.oracle import assert_agrees, floats, make_model, one_node

pytestmark = pytest.mark.numerics

TRANSFORMS = ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners", "tf_crop_and_resize")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
SCALES = (1.0, 2.0, 3.0, 0.5, 1.5, 0.6, 2.5, 1.7, 4.0)


def attributes_of(draw: random.Random, opset: int) -> dict[str, object]:
    """Attributes that onnxruntime accepts."""
    mode = draw.choice(["nearest", "linear"] + ["cubic"] * (opset > 10))
    found: dict[str, object] = {"mode": mode}
    if opset == 10:
        return found
    transform = draw.choice((*TRANSFORMS, *(("half_pixel_symmetric",) if opset >= 19 else ())))
    found |= {"coordinate_transformation_mode": transform, "nearest_mode": draw.choice(ROUNDINGS)}
    crop = transform == "tf_crop_and_resize"
    if crop:
        found["extrapolation_value"] = draw.choice([0.0, 7.5])
    if mode == "cubic":
        found["cubic_coeff_a"] = draw.choice([-0.5, -0.75])
        found["exclude_outside"] = 0 if crop else draw.choice([0, 1])
    if opset >= 18 and mode != "nearest" and not crop:
        found["antialias"] = draw.choice([0, 1])
    return found


def drawn_resize(seed: int) -> tuple[onnx.ModelProto, list[dict[str, Array]]]:
    """A model of one Resize and two images of its type."""
    draw = random.Random(seed)
    opset = draw.choice([10, 11, 13, 18, 19])
    found = attributes_of(draw, opset)
    height, width, dynamic = draw.randint(2, 9), draw.randint(2, 9), draw.random() < 0.5
    # Between corners, scales that leave a rest are refused: see the test of that.
    between = found.get("coordinate_transformation_mode") in ("align_corners", "tf_crop_and_resize")
    choices = (1.0, 2.0, 3.0) if between else SCALES
    scales = np.asarray([1, 1, draw.choice(choices), draw.choice(choices)], np.float32)
    weights: dict[str, Array] = {"scales": scales}
    inputs = ["x", "scales"]
    if opset > 10:
        ends = [draw.choice([0.0, 0.1, -0.2]), 0.3], [draw.choice([1.0, 1.3]), 0.8]
        weights["roi"] = np.asarray([0, 0, *ends[0], 1, 1, *ends[1]], np.float32)
        inputs = ["x", "roi", "scales"]
    if opset > 10 and not found.get("antialias") and draw.random() < 0.5:
        weights["scales"] = np.asarray([], np.float32)
        weights["sizes"] = np.asarray([2, 3, draw.randint(1, 14), draw.randint(1, 14)], np.int64)
        inputs = ["x", "roi", "scales", "sizes"]
    node = helper.make_node("Resize", inputs, ["y"], name="node")
    node.attribute.extend(helper.make_attribute(name, value) for name, value in found.items())
    shape = (2, 3, "H", "W") if dynamic else (2, 3, height, width)
    model = make_model([node], {"x": (np.float32, shape)}, ["y"], weights, opset)
    sizes = [(height, width), (width + 1, height)] if dynamic else [(height, width)]
    return model, [{"x": floats(2, 3, *size)} for size in sizes]


@pytest.mark.parametrize("seed", range(60))
def test_resize_when_attributes_are_redrawn_then_agrees(seed: int) -> None:
    model, cases = drawn_resize(seed)
    assert_agrees(model, *cases)


@pytest.mark.parametrize("seed", range(100, 108))
def test_resize_when_built_then_agrees(seed: int) -> None:
    model, cases = drawn_resize(seed)
    assert_built_agrees(model, *cases)


@pytest.mark.parametrize("scale", [2, 3])
def test_resize_when_nearest_by_a_whole_factor_then_is_one_index_map(scale: int) -> None:
    scales = np.asarray([1, 1, scale, scale], np.float32)
    attributes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], **attributes)
    model = make_model([node], {"x": (np.float32, (1, 3, "H", "W"))}, ["y"], {"scales": scales})
    module = assert_agrees(model, {"x": floats(1, 3, 4, 5)})
    assert [getattr(n, "op", "") for n in module.entries["main"].nodes] == ["repeat"]


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("opset", [7, 9])
def test_upsample_when_scaled_then_agrees(mode: str, opset: int) -> None:
    scales = [1.0, 1.0, 2.0, 1.5]
    if opset == 7:
        model = one_node("Upsample", {"x": (1, 2, 4, 5)}, None, 7, mode=mode, scales=scales)
    else:
        model = one_node("Upsample", {"x": (1, 2, 4, 5)}, {"s": np.asarray(scales, np.float32)}, 9, mode=mode)
    assert_agrees(model, {"x": floats(1, 2, 4, 5)})


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_resize_when_integers_are_interpolated_then_truncates_as_onnxruntime(dtype: type[np.generic]) -> None:
    scales = np.asarray([1, 1, 1.5, 3], np.float32)
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear")
    x = np.arange(2 * 7 * 9).reshape(1, 2, 7, 9) * 37 % 251
    model = make_model([node], {"x": (dtype, (1, 2, 7, 9))}, ["y"], {"scales": scales})
    assert_agrees(model, {"x": x.astype(dtype)})


@pytest.mark.parametrize("transform", ["align_corners", "tf_crop_and_resize"])
def test_resize_when_references_disagree_on_the_last_element_then_is_refused(transform: str) -> None:
    weights = {"roi": np.asarray([0, 0, 0, 0, 1, 1, 1, 1], np.float32), "s": np.asarray([1, 1, 1, 0.6], np.float32)}
    node = helper.make_node("Resize", ["x", "roi", "s"], ["y"], mode="linear", coordinate_transformation_mode=transform)
    with pytest.raises(UnsupportedError, match="which leaves a rest"):
        read_onnx(make_model([node], {"x": (np.float32, (1, 1, 4, 4))}, ["y"], weights))


def test_resize_when_scale_rounds_like_no_division_then_is_refused() -> None:
    scales = np.asarray([1, 1, 1, 0.3333], np.float32)
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest")
    model = make_model([node], {"x": (np.float32, (1, 1, 4, "W"))}, ["y"], {"scales": scales})
    with pytest.raises(UnsupportedError, match="no division does"):
        read_onnx(model)
