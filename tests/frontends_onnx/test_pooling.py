"""Pools of every kind agree with onnxruntime over re-drawn windows, element types and sizes, static and dynamic."""

from __future__ import annotations

import random

import numpy as np
import onnx
import pytest
from onnx import helper

from tessera_build.frontends.onnx import UnsupportedError, read_onnx
from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.built import assert_built_agrees, run_built
from tests.frontends_onnx.oracle import assert_agrees, floats, integers, make_model, one_node

pytestmark = pytest.mark.numerics

KINDS = ("MaxPool", "MaxPool with places", "AveragePool", "LpPool")


def drawn_pool(kind: str, seed: int) -> tuple[onnx.ModelProto, list[dict[str, Array]]]:
    """A model of one pool whose windows all fit, and inputs with many equal elements."""
    draw = random.Random(seed)
    axes, op = draw.choice([1, 2, 2, 3]), kind.split()[0]
    kernel = [draw.randint(1, 4) for _ in range(axes)]
    found: dict[str, object] = {"kernel_shape": kernel, "strides": [draw.randint(1, 3) for _ in kernel]}
    found["ceil_mode"] = draw.choice([0, 1])
    if draw.random() < 0.7:
        found["dilations"] = [draw.randint(1, 2) for _ in kernel]
        found["pads"] = [draw.randint(0, min(k - 1, 2)) for k in kernel * 2]
    else:
        found["auto_pad"] = draw.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])
    if op == "AveragePool":
        found["count_include_pad"] = draw.choice([0, 1])
    if op == "LpPool":
        found["p"] = draw.choice([1, 2, 3])
    places = kind == "MaxPool with places"
    if places:
        found["storage_order"] = draw.choice([0, 1])
    dtype: type[np.generic] = draw.choice([np.float32, np.uint8, np.int8]) if op == "MaxPool" else np.float32
    extents, dynamic = [draw.randint(7, 9) for _ in kernel], draw.random() < 0.5
    node = helper.make_node(op, ["x"], ["y", "places"] if places else ["y"])
    node.attribute.extend(helper.make_attribute(name, value) for name, value in found.items())
    shape = ("N", 2, *("D", "H", "W")[:axes]) if dynamic else (2, 2, *extents)
    model = make_model([node], {"x": (dtype, shape)}, ["y", "places"] if places else ["y"], None, 19)
    sizes = [extents, [e + 1 for e in extents]] if dynamic else [extents]
    return model, [{"x": np.rint(floats(2, 2, *size) * 3).astype(dtype)} for size in sizes]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(20))
def test_pool_when_redrawn_then_agrees(kind: str, seed: int) -> None:
    model, cases = drawn_pool(kind, seed)
    assert_agrees(model, *cases)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [100, 101])
def test_pool_when_built_then_agrees(kind: str, seed: int) -> None:
    model, cases = drawn_pool(kind, seed)
    assert_built_agrees(model, *cases)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
def test_pool_when_references_disagree_on_padding_then_is_refused(op: str) -> None:
    attributes: dict[str, object] = {"kernel_shape": [3], "dilations": [2], "auto_pad": "SAME_UPPER"}
    with pytest.raises(UnsupportedError, match="auto_pad=SAME and dilations"):
        read_onnx(one_node(op, {"x": (1, 1, 9)}, None, 19, **attributes))


@pytest.mark.parametrize("power", [1, 2, 3])
def test_global_lp_pool_when_built_then_agrees(power: int) -> None:
    model = one_node("GlobalLpPool", {"x": ("N", 3, "H", "W")}, p=power)
    assert_built_agrees(model, {"x": floats(2, 3, 5, 7)}, {"x": floats(1, 3, 1, 2)})


def test_max_unpool_when_places_come_from_a_pool_then_agrees() -> None:
    nodes = [
        helper.make_node("MaxPool", ["x"], ["pooled", "places"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("MaxUnpool", ["pooled", "places"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    model = make_model(nodes, {"x": (np.float32, ("N", 3, 6, 8))}, ["y"])
    assert_built_agrees(model, {"x": floats(2, 3, 6, 8)}, {"x": floats(1, 3, 6, 8)})


def test_max_unpool_when_a_shape_is_stated_then_zeros_stand_behind() -> None:
    node = helper.make_node("MaxUnpool", ["x", "places", "shape"], ["y"], kernel_shape=[2, 2], strides=[2, 2])
    inputs = {"x": (np.float32, (1, 1, 2, 2)), "places": (np.int64, (1, 1, 2, 2))}
    model = make_model([node], inputs, ["y"], {"shape": integers(1, 1, 5, 5)})
    x, places = np.asarray([[[[5, 6], [7, 8]]]], np.float32), np.asarray([[[[5, 7], [13, 15]]]])
    wanted = np.zeros((5, 5), np.float32)
    wanted[1, 1], wanted[1, 3], wanted[3, 1], wanted[3, 3] = 5, 6, 7, 8
    (found,) = run_built(model, [{"x": x, "places": places}])[0]
    np.testing.assert_array_equal(found, wanted.reshape(1, 1, 5, 5))
