"""Antialiased resizing of integers, whose rounding shows every step, and of images whose extents stay."""

from __future__ import annotations

import random

import numpy as np
import onnx
import pytest
from onnx import helper

from tessera_build.frontends.onnx.errors import UnsupportedError
from tessera_build.frontends.onnx.reader import read_onnx
from tests.frontends_onnx.built import assert_built_agrees
from tests.frontends_onnx.oracle import assert_agrees, make_model

pytestmark = pytest.mark.numerics
SCALES = (0.5, 0.6, 0.75, 1.0, 1.1, 1.5, 2.0, 2.3, 3.0)
Cases = list[dict[str, np.ndarray]]


def _model(
    dtype: type[np.generic], shape: tuple[int | str, ...], scales: list[float], **more: object
) -> onnx.ModelProto:
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], antialias=1)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in more.items())
    return make_model([node], {"x": (dtype, shape)}, ["y"], {"s": np.asarray(scales, np.float32)}, 18)


def _drawn(seed: int) -> tuple[onnx.ModelProto, Cases]:
    draw, numbers = random.Random(seed), np.random.default_rng(seed)
    dtype = draw.choice([np.uint8, np.int32])
    mode = draw.choice(["linear", "cubic"])
    more: dict[str, object] = {"mode": mode, "exclude_outside": draw.choice([0, 1]) if mode == "cubic" else 0}
    more["coordinate_transformation_mode"] = draw.choice(["half_pixel", "asymmetric", "pytorch_half_pixel"])
    scales, dynamic = [1.0, 1.0, draw.choice(SCALES), draw.choice(SCALES)], draw.random() < 0.5
    low = 10 if dynamic else 3
    sizes = [(draw.randint(low, 14), draw.randint(low, 14)) for _ in range(2 if dynamic else 1)]
    shape = (2, 3, "H", "W") if dynamic else (2, 3, *sizes[0])
    most = 256 if dtype is np.uint8 else 1000
    cases = [
        {"x": numbers.integers(most - 256 if dtype is np.uint8 else -most, most, (2, 3, *s)).astype(dtype)}
        for s in sizes
    ]
    return _model(dtype, shape, scales, **more), cases


@pytest.mark.parametrize("seed", range(60))
def test_integers_when_antialiased_then_round_as_onnxruntime(seed: int) -> None:
    model, cases = _drawn(seed)
    assert_agrees(model, *cases)


@pytest.mark.parametrize("seed", range(100, 110))
def test_integers_when_antialiased_and_built_then_round_as_onnxruntime(seed: int) -> None:
    model, cases = _drawn(seed)
    assert_built_agrees(model, *cases)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int32])
def test_extent_when_it_stays_though_the_scale_is_not_one_then_is_copied(dtype: type[np.generic]) -> None:
    x = (np.arange(16) ** 2 % 256).reshape(1, 1, 4, 4).astype(dtype)
    assert_agrees(_model(dtype, (1, 1, 4, 4), [1, 1, 1.1, 1.2], mode="linear"), {"x": x})


@pytest.mark.parametrize(
    ("dtype", "more"), [(np.int8, {}), (np.uint8, {"coordinate_transformation_mode": "tf_crop_and_resize"})]
)
def test_integers_when_references_do_not_round_them_alike_then_are_refused(
    dtype: type[np.generic], more: dict[str, str]
) -> None:
    node = helper.make_node("Resize", ["x", "roi", "s"], ["y"], mode="linear", antialias=1, **more)
    weights = {"s": np.asarray([1, 1, 2, 2], np.float32), "roi": np.asarray([0, 0, 0, 0, 1, 1, 1, 1], np.float32)}
    with pytest.raises(UnsupportedError, match="antialias of"):
        read_onnx(make_model([node], {"x": (dtype, (1, 1, 4, 4))}, ["y"], weights, 18))
