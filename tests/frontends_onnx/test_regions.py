"""RoiAlign, MaxRoiPool and CropAndResize agree with onnxruntime over re-drawn boxes, shapes and modes."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import pytest
from onnx import helper

from tessera_build.frontends.onnx import ModelError, read_onnx
from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.built import assert_built_agrees
from tests.frontends_onnx.oracle import assert_agrees, floats, integers, make_model

pytestmark = pytest.mark.numerics

Case = tuple[onnx.ModelProto, Mapping[str, Array]]


def region_model(
    op: str, feeds: Mapping[str, Array], attributes: Mapping[str, object], dynamic: bool, opset: int
) -> onnx.ModelProto:
    """One node over these inputs; `dynamic`: all but channels, columns of boxes and the shapes of shapes."""
    domain = "com.microsoft" if op == "CropAndResize" else ""
    node = helper.make_node(op, list(feeds), ["y"], name="node", domain=domain)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    inputs: dict[str, tuple[type[np.generic], list[int | str]]] = {}
    for name, array in feeds.items():
        known = (1,) if name in ("x", "rois") else () if name == "images" else (0,)
        shape = [f"{name}{i}" if dynamic and i not in known else e for i, e in enumerate(array.shape)]
        inputs[name] = (array.dtype.type, shape)
    model = make_model([node], inputs, ["y"], None, opset)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def boxes_of(draw: random.Random, count: int, largest: float) -> Array:
    """Boxes in and around an image, some of them without an area."""
    low = np.asarray([[draw.uniform(-2, 6), draw.uniform(-2, 6)] for _ in range(count)]).reshape(count, 2)
    size = np.asarray([[draw.choice([0, draw.uniform(0, largest)]) for _ in "xy"] for _ in range(count)])
    return np.concatenate([low, low + size.reshape(count, 2)], axis=1).astype(np.float32)


def roi_align(draw: random.Random) -> Case:
    count, batch, opset = draw.randint(1, 5), draw.randint(1, 2), draw.choice([10, 16])
    kind = draw.choice([np.float32, np.float32, np.float64])
    feeds: dict[str, Array] = {
        "x": floats(batch, draw.choice([1, 3, 40]), draw.randint(1, 8), draw.randint(1, 8)).astype(kind),
        "rois": boxes_of(draw, count, 9).astype(kind),
        "images": integers(*(draw.randrange(batch) for _ in range(count))),
    }
    found: dict[str, object] = {
        "output_height": draw.randint(1, 3),
        "output_width": draw.randint(1, 3),
        "sampling_ratio": draw.choice([0, 0, 1, 3]),
        "spatial_scale": draw.choice([1.0, 0.5]),
        "mode": draw.choice(["avg", "max"]),
    }
    if opset >= 16 and draw.random() < 0.7:
        found["coordinate_transformation_mode"] = draw.choice(["half_pixel", "output_half_pixel"])
    return region_model("RoiAlign", feeds, found, draw.random() < 0.5, opset), feeds


def max_roi_pool(draw: random.Random) -> Case:
    count, batch = draw.randint(1, 5), draw.randint(1, 2)
    images = np.asarray([[draw.randrange(batch)] for _ in range(count)], np.float32)
    feeds: dict[str, Array] = {
        "x": floats(batch, draw.choice([1, 3, 40]), draw.randint(1, 8), draw.randint(1, 8)),
        "rois": np.concatenate([images, boxes_of(draw, count, 9)], 1),
    }
    found = {"pooled_shape": [draw.randint(1, 4), draw.randint(1, 4)], "spatial_scale": draw.choice([1.0, 0.5])}
    return region_model("MaxRoiPool", feeds, found, draw.random() < 0.5, 13), feeds


def crop_and_resize(draw: random.Random) -> Case:
    count, batch = draw.randint(1, 4), draw.randint(1, 2)
    feeds: dict[str, Array] = {
        "x": floats(batch, draw.choice([1, 3, 40]), draw.randint(1, 8), draw.randint(1, 8)),
        "rois": np.asarray([[draw.uniform(-0.1, 1.1) for _ in "yxyx"] for _ in range(count)], np.float32),
        "images": np.asarray([draw.randrange(batch) for _ in range(count)], np.int32),
        "size": np.asarray([draw.choice([1, 2, 3, 5]), draw.choice([1, 2, 4])], np.int32),
    }
    found: dict[str, object] = {"mode": draw.choice(["bilinear", "nearest"]), "extrapolation_value": 1.5}
    return region_model("CropAndResize", feeds, found, draw.random() < 0.5, 16), feeds


DRAWN: dict[str, Callable[[random.Random], Case]] = {
    "RoiAlign": roi_align,
    "MaxRoiPool": max_roi_pool,
    "CropAndResize": crop_and_resize,
}


@pytest.mark.parametrize("op", DRAWN)
@pytest.mark.parametrize("seed", range(30))
def test_regions_when_redrawn_then_agree(op: str, seed: int) -> None:
    model, feeds = DRAWN[op](random.Random(seed))
    assert_agrees(model, feeds, tolerance=2e-5)


@pytest.mark.parametrize("op", DRAWN)
@pytest.mark.parametrize("seed", range(100, 104))
def test_regions_when_built_then_agree(op: str, seed: int) -> None:
    model, feeds = DRAWN[op](random.Random(seed))
    assert_built_agrees(model, feeds, tolerance=2e-5)


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_when_the_number_of_regions_changes_then_one_bundle_serves_all(mode: str) -> None:
    feeds: list[dict[str, Array]] = []
    for count in (1, 7, 3):
        draw = random.Random(count)
        images = integers(*(draw.randrange(2) for _ in range(count)))
        feeds.append({"x": floats(2, 20, 9, 7), "rois": boxes_of(draw, count, 12), "images": images})
    attributes = {"output_height": 3, "output_width": 2, "mode": mode}
    assert_built_agrees(region_model("RoiAlign", feeds[0], attributes, dynamic=True, opset=16), *feeds, tolerance=2e-5)


def test_max_roi_pool_when_regions_have_another_width_then_is_refused() -> None:
    feeds: dict[str, Array] = {"x": floats(1, 1, 4, 4), "rois": floats(2, 4)}
    with pytest.raises(ModelError, match="an image and four coordinates"):
        read_onnx(region_model("MaxRoiPool", feeds, {"pooled_shape": [2, 2]}, dynamic=False, opset=13))
