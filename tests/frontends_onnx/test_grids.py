"""Operators that read at computed places agree with onnxruntime over re-drawn shapes, modes and places."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import helper

from bundle_format.errors import TesseraError
from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.built import assert_built_agrees, run_built
from tests.frontends_onnx.oracle import assert_agrees, floats, integers, make_model

pytestmark = pytest.mark.numerics

Case = tuple[onnx.ModelProto, Mapping[str, Array]]


def node_model(
    op: str, feeds: Mapping[str, Array], attributes: Mapping[str, object], draw: random.Random, opset: int
) -> onnx.ModelProto:
    """One node over these inputs; with luck, batch and spatial extents are dynamic."""
    node = helper.make_node(op, list(feeds), ["y"], name="node")
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    dynamic = draw.random() < 0.5
    inputs: dict[str, tuple[type[np.generic], Sequence[int | str]]] = {}
    for name, array in feeds.items():
        known = (1, array.ndim - 1) if op == "GridSample" else (1,)
        free = [f"{name}{i}" if i not in known else e for i, e in enumerate(array.shape)]
        inputs[name] = (array.dtype.type, free if dynamic else array.shape)
    return make_model([node], inputs, ["y"], None, opset)


def grid_sample(draw: random.Random) -> Case:
    axes = draw.choice([2, 2, 3])
    mode = draw.choice(["nearest", "linear", "cubic"][: 3 if axes == 2 else 2])
    batch = draw.randint(1, 2)
    x = floats(batch, draw.randint(1, 4), *(draw.randint(1, 6) for _ in range(axes)))
    grid = floats(batch, *(draw.randint(1, 5) for _ in range(axes)), axes) * draw.choice([0.5, 1.5, 4])
    feeds = {"x": x, "grid": np.round(grid * 2) / 2 if draw.random() < 0.3 else grid}
    found = {
        "mode": mode,
        "padding_mode": draw.choice(["zeros", "border", "reflection"]),
        "align_corners": draw.choice([0, 1]),
    }
    return node_model("GridSample", feeds, found, draw, 20), feeds


def reverse_sequence(draw: random.Random) -> Case:
    time = draw.choice([0, 1])
    shape = [draw.randint(1, 5), draw.randint(1, 5), *([3] * draw.randint(0, 2))]
    lengths = integers(*(draw.randint(1, shape[time]) for _ in range(shape[1 - time])))
    feeds: dict[str, Array] = {"x": floats(*shape), "lengths": lengths}
    node = helper.make_node("ReverseSequence", list(feeds), ["y"], time_axis=time, batch_axis=1 - time)
    free = ["A", "B", *shape[2:]]
    dynamic = draw.random() < 0.5
    inputs = {
        "x": (np.float32, free if dynamic else shape),
        "lengths": (np.int64, [free[1 - time]] if dynamic else lengths.shape),
    }
    return make_model([node], inputs, ["y"], None, 10), feeds


def deform_conv(draw: random.Random) -> Case:
    groups, parts = draw.choice([1, 2]), draw.choice([1, 2])
    channels, outputs = 2 * draw.randint(1, 2), groups * draw.randint(1, 2)
    kernel = [draw.randint(1, 3), draw.randint(1, 3)]
    stride, dilation, pads = draw.randint(1, 2), draw.randint(1, 2), [draw.randint(0, 1) for _ in range(4)]
    extents = [draw.randint(5, 8), draw.randint(5, 8)]
    out = [
        (e + pads[i] + pads[i + 2] - dilation * (k - 1) - 1) // stride + 1
        for i, (e, k) in enumerate(zip(extents, kernel, strict=True))
    ]
    taps = kernel[0] * kernel[1]
    feeds = {
        "x": floats(2, channels, *extents),
        "w": floats(outputs, channels // groups, *kernel),
        "offset": floats(2, parts * taps * 2, *out),
        "b": floats(outputs),
        "mask": abs(floats(2, parts * taps, *out)),
    }
    found = {"group": groups, "offset_group": parts, "strides": [stride] * 2, "dilations": [dilation] * 2, "pads": pads}
    static = random.Random(2)  # whose first number is above one half: weights are always of known extents
    return node_model("DeformConv", feeds, found, static, 19), feeds


DRAWN: dict[str, Callable[[random.Random], Case]] = {
    "GridSample": grid_sample,
    "ReverseSequence": reverse_sequence,
    "DeformConv": deform_conv,
}


@pytest.mark.parametrize("op", DRAWN)
@pytest.mark.parametrize("seed", range(15))
def test_operator_when_redrawn_then_agrees(op: str, seed: int) -> None:
    model, feeds = DRAWN[op](random.Random(seed))
    assert_agrees(model, feeds, tolerance=2e-5)


@pytest.mark.parametrize("op", DRAWN)
@pytest.mark.parametrize("seed", [100, 101])
def test_operator_when_built_then_agrees(op: str, seed: int) -> None:
    model, feeds = DRAWN[op](random.Random(seed))
    assert_built_agrees(model, feeds, tolerance=2e-5)


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 3, 1, 4), (2, 1, 2, 3, 4)])
def test_affine_grid_when_built_then_agrees(size: tuple[int, ...], corners: int) -> None:
    axes = len(size) - 2
    node = helper.make_node("AffineGrid", ["theta", "size"], ["y"], align_corners=corners)
    weights = {"size": integers(*size)}
    model = make_model([node], {"theta": (np.float32, (2, axes, axes + 1))}, ["y"], weights, 20)
    assert_built_agrees(model, {"theta": floats(2, axes, axes + 1)})


def test_grid_sample_when_places_are_no_numbers_then_reads_inside() -> None:
    node = helper.make_node("GridSample", ["x", "grid"], ["y"], padding_mode="border")
    model = make_model([node], {"x": (np.float32, (1, 1, 3, 3)), "grid": (np.float32, (1, 1, 4, 2))}, ["y"], None, 20)
    places = np.asarray([np.nan, np.inf, -np.inf, 1e30, 0, np.nan, 1e9, -1e9], np.float32).reshape(1, 1, 4, 2)
    (found,) = run_built(model, [{"x": floats(1, 1, 3, 3), "grid": places}])[0]
    assert found.shape == (1, 1, 1, 4)


def test_reverse_sequence_when_a_length_is_too_large_then_the_run_fails() -> None:
    node = helper.make_node("ReverseSequence", ["x", "lengths"], ["y"], time_axis=1, batch_axis=0)
    model = make_model([node], {"x": (np.float32, (2, 4)), "lengths": (np.int64, (2,))}, ["y"], None, 10)
    with pytest.raises(TesseraError):
        run_built(model, [{"x": floats(2, 4), "lengths": integers(2, 5)}])
