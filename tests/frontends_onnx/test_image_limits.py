"""Attributes that would make absurd graphs are refused in no time."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from bundle_format.errors import TesseraError
from tessera_build.frontends.onnx import read_onnx
from tests.frontends_onnx.oracle import floats, make_model, one_node

pytestmark = pytest.mark.errors


def resized(scale: float, **attributes: object) -> onnx.ModelProto:
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"])
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    weights = {"scales": np.asarray([1, 1, 1, scale], np.float32)}
    return make_model([node], {"x": (np.float32, (1, 1, 4, 4000000))}, ["y"], weights, 18)


def deformed() -> onnx.ModelProto:
    node = helper.make_node("DeformConv", ["x", "w", "offset"], ["y"])
    inputs = {"x": (1, 1, 3, 2**29), "w": (1, 1, 1, 2**29), "offset": (1, 2**30, 3, 1)}
    return make_model([node], {name: (np.float32, shape) for name, shape in inputs.items()}, ["y"], opset=19)


def places() -> onnx.ModelProto:
    node = helper.make_node("MaxPool", ["x"], ["y", "places"], kernel_shape=[100, 100])
    return make_model([node], {"x": (np.float32, (1, 1, 200, 200))}, ["y", "places"], None, 13)


ABSURD = {
    "antialias with a scale": resized(1e-5, mode="linear", antialias=1),
    "scales do not fit": resized(float("inf"), mode="linear"),
    "phases of a transposed convolution": one_node(
        "ConvTranspose", {"x": (1, 1, 4, 4)}, {"w": floats(1, 1, 3, 3)}, strides=[3000, 3000]
    ),
    "taps of a transposed convolution": make_model(
        [helper.make_node("ConvTranspose", ["x", "w"], ["y"])],
        {"x": (np.float32, (1, 1, 3, 3)), "w": (np.float32, (1, 2, 3, 2**31 - 1))},
        ["y"],
    ),
    "places of maxima in windows": places(),
    "DeformConv with more than": deformed(),
}


@pytest.mark.parametrize("message", ABSURD)
def test_import_when_attributes_are_absurd_then_is_refused(message: str) -> None:
    with pytest.raises(TesseraError) as caught:
        read_onnx(ABSURD[message])
    assert message in caught.value.diagnostics()
