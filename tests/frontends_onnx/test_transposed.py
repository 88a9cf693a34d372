"""ConvTranspose agrees with onnxruntime over re-drawn attributes and shapes, static and dynamic, and wastes nothing."""

from __future__ import annotations

import random

import numpy as np
import onnx
import pytest

from tessera_build.frontends.onnx import UnsupportedError, read_onnx
from tessera_build.ir.graph.nodes import Array, GraphNode
from tests.frontends_onnx.built import assert_built_agrees
from tests.frontends_onnx.oracle import assert_agrees, floats, one_node

pytestmark = pytest.mark.numerics


def padding_of(draw: random.Random, axes: int, whole: list[int]) -> dict[str, object]:
    """One of the spellings of what is cut off; `whole` are the extents before."""
    match draw.randrange(5):
        case 0:
            return {"auto_pad": draw.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])}
        case 1:
            wanted = [max(1, extent - draw.randint(0, 2)) for extent in whole]
            return {"output_shape": wanted, "auto_pad": draw.choice(["NOTSET", "SAME_UPPER", "SAME_LOWER"])}
        case _:
            return {"pads": [draw.randint(0, 1) for _ in range(2 * axes)]}


def drawn_transposed(seed: int) -> tuple[onnx.ModelProto, list[dict[str, Array]]]:
    """A model of one ConvTranspose over one to three spatial axes, and inputs."""
    draw = random.Random(seed)
    axes, groups = draw.choice([1, 2, 2, 2, 3]), draw.choice([1, 1, 1, 2, 4])
    extents = [draw.randint(2, 6) for _ in range(axes)]
    kernel, strides = [draw.randint(1, 5) for _ in range(axes)], [draw.randint(1, 3) for _ in range(axes)]
    dilations = [draw.choice([1, 1, 2, 3]) for _ in range(axes)]
    rows = zip(extents, kernel, strides, dilations, strict=True)
    whole = [(e - 1) * s + (k - 1) * d + 1 for e, k, s, d in rows]
    attributes: dict[str, object] = {"strides": strides, "dilations": dilations, "group": groups}
    attributes |= padding_of(draw, axes, whole)
    if "output_shape" not in attributes:
        attributes["output_padding"] = [draw.randint(0, s - 1) for s in strides]
    channels = groups * draw.randint(1, 3)
    weights = {"w": floats(channels, draw.choice([1, 2, 3, 8, 20]) if groups == 1 else 2, *kernel)}
    if draw.random() < 0.5:
        weights["b"] = floats(weights["w"].shape[1] * groups)
    dynamic = "output_shape" not in attributes and draw.random() < 0.5
    shape = ("N", channels, *("D", "H", "W")[:axes]) if dynamic else (2, channels, *extents)
    model = one_node("ConvTranspose", {"x": shape}, weights, draw.choice([11, 17]), **attributes)
    sizes = [extents, [e + 3 for e in extents]] if dynamic else [extents]
    return model, [{"x": floats(2, channels, *size)} for size in sizes]


@pytest.mark.parametrize("seed", range(60))
def test_conv_transpose_when_attributes_are_redrawn_then_agrees(seed: int) -> None:
    model, cases = drawn_transposed(seed)
    assert_agrees(model, *cases)


@pytest.mark.parametrize("seed", range(200, 206))
def test_conv_transpose_when_built_then_agrees(seed: int) -> None:
    model, cases = drawn_transposed(seed)
    assert_built_agrees(model, *cases)


def convolutions(outputs: int, kernel: int, stride: int, pad: int = 0) -> list[tuple[int, ...]]:
    """Shapes of the weights of every convolution that one ConvTranspose becomes."""
    weights = {"w": floats(4, outputs, kernel, kernel)}
    model = one_node("ConvTranspose", {"x": (1, 4, "H", "W")}, weights, strides=[stride] * 2, pads=[pad] * 4)
    function = read_onnx(model).entries["main"]
    found = [n for n in function.nodes if isinstance(n, GraphNode) and n.op == "conv"]
    return sorted(tuple(int(str(e)) for e in function.types[n.inputs[1]].shape) for n in found)


def test_conv_transpose_when_kernel_is_the_stride_then_is_one_product() -> None:
    assert convolutions(24, 2, 2) == [(96, 4, 1, 1)]


def test_conv_transpose_when_phases_differ_then_each_has_only_its_own_taps() -> None:
    assert convolutions(32, 3, 2, 1) == [(32, 4, 1, 1), (32, 4, 1, 2), (32, 4, 2, 1), (32, 4, 2, 2)]


def test_conv_transpose_when_channels_are_few_then_phases_share_a_vector() -> None:
    assert convolutions(1, 4, 2, 1) == [(4, 4, 3, 3)]


def test_conv_transpose_when_output_shape_meets_a_dynamic_extent_then_is_refused() -> None:
    model = one_node("ConvTranspose", {"x": (1, 2, "W")}, {"w": floats(2, 2, 3)}, output_shape=[9])
    with pytest.raises(UnsupportedError, match="dynamic extent"):
        read_onnx(model)


def test_conv_transpose_when_weights_are_an_input_then_agrees() -> None:
    model = one_node("ConvTranspose", {"x": (1, 2, 4, 4), "w": (2, 3, 3, 3)}, strides=[2, 2])
    assert_built_agrees(model, {"x": floats(1, 2, 4, 4), "w": np.asarray(floats(2, 3, 3, 3))})
