"""Pad and DepthToSpace agree with onnxruntime over re-drawn modes, padding and shapes, static and dynamic."""

from __future__ import annotations

import random

import numpy as np
import onnx
import pytest
from onnx import helper

from bundle_format.errors import TesseraError
from tessera_build.frontends.onnx import read_onnx
from tessera_build.ir.graph.nodes import Array, GraphNode
from tessera_build.ir.graph.passes.pipeline import run_passes
from tests.frontends_onnx.built import assert_built_agrees, run_built
from tests.frontends_onnx.oracle import assert_agrees, floats, integers, make_model, one_node

pytestmark = pytest.mark.numerics


def drawn_pad(seed: int) -> tuple[onnx.ModelProto, list[dict[str, Array]]]:
    """A model of one Pad; negative padding never cuts all there is."""
    draw = random.Random(seed)
    rank, opset = draw.randint(1, 4), draw.choice([11, 13, 18, 19])
    mode = draw.choice(["constant", "edge", "reflect", *(["wrap"] if opset >= 19 else [])])
    extents = [draw.randint(4, 6) for _ in range(rank)]
    least = draw.choice([0, 0, -1])
    some = opset >= 18 and draw.random() < 0.5
    axes = sorted(draw.sample(range(rank), draw.randint(1, rank))) if some else list(range(rank))
    weights: dict[str, Array] = {"pads": np.asarray([draw.randint(least, 3) for _ in range(2 * len(axes))], np.int64)}
    names = ["x", "pads", ""]
    if mode == "constant":
        names[2], weights["value"] = "value", np.asarray(3, np.float32)
    if some:
        names.append("axes")
        weights["axes"] = np.asarray(axes, np.int64)
    dynamic = draw.random() < 0.5
    shape = [f"D{i}" for i in range(rank)] if dynamic else extents
    node = helper.make_node("Pad", names if names[-1] else names[:-1], ["y"], mode=mode)
    model = make_model([node], {"x": (np.float32, shape)}, ["y"], weights, opset)
    sizes = [extents, [e + 2 for e in extents]] if dynamic else [extents]
    return model, [{"x": floats(*size)} for size in sizes]


@pytest.mark.parametrize("seed", range(50))
def test_pad_when_redrawn_then_agrees(seed: int) -> None:
    model, cases = drawn_pad(seed)
    assert_agrees(model, *cases)


@pytest.mark.parametrize("seed", range(100, 105))
def test_pad_when_built_then_agrees(seed: int) -> None:
    model, cases = drawn_pad(seed)
    assert_built_agrees(model, *cases)


@pytest.mark.parametrize("mode", ["edge", "reflect", "wrap", "constant"])
def test_pad_when_padding_comes_at_run_time_then_agrees(mode: str) -> None:
    node = helper.make_node("Pad", ["x", "pads"], ["y"], mode=mode)
    model = make_model([node], {"x": (np.float32, (4, 5)), "pads": (np.int64, (4,))}, ["y"], None, 19)
    x = floats(4, 5)
    assert_built_agrees(model, {"x": x, "pads": integers(1, 0, 2, 3)}, {"x": x, "pads": integers(0, 1, 2, 0)})


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("block", [1, 2, 3])
def test_depth_to_space_when_built_then_agrees(mode: str, block: int) -> None:
    x = floats(2, 4 * block * block, 3, 5)
    model = one_node("DepthToSpace", {"x": ("N", x.shape[1], "H", "W")}, mode=mode, blocksize=block)
    assert_built_agrees(model, {"x": x}, {"x": floats(1, x.shape[1], 1, 2)})


def test_depth_to_space_when_between_convolutions_then_channels_stay_last() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"]),
        helper.make_node("DepthToSpace", ["a"], ["b"], mode="CRD", blocksize=2),
        helper.make_node("Conv", ["b", "second"], ["y"]),
    ]
    weights = {"first": floats(8, 3, 3, 3), "second": floats(4, 2, 1, 1)}
    model = make_model(nodes, {"x": (np.float32, (1, 3, "H", "W"))}, ["y"], weights)
    nodes_left = run_passes(read_onnx(model)).entries["main"].nodes
    ops = [n.op for n in nodes_left if isinstance(n, GraphNode) and n.op != "constant"]
    assert ops == ["transpose", "conv", "depth_to_space", "conv", "transpose"]
    assert_built_agrees(model, {"x": floats(1, 3, 6, 7)})


@pytest.mark.parametrize("seed", range(12))
def test_center_crop_pad_when_redrawn_then_agrees(seed: int) -> None:
    draw = random.Random(seed)
    extents, wanted = [draw.randint(1, 7) for _ in range(3)], [draw.randint(1, 8) for _ in range(2)]
    node = helper.make_node("CenterCropPad", ["x", "shape"], ["y"], axes=draw.choice([[0, 2], [-1, 0], [1, 2]]))
    shape = ("A", "B", "C") if draw.random() < 0.5 else extents
    model = make_model([node], {"x": (np.float32, shape)}, ["y"], {"shape": np.asarray(wanted, np.int64)}, 18)
    assert_agrees(model, {"x": floats(*extents)})


def test_pad_when_reflected_farther_than_there_are_elements_then_the_run_is_refused() -> None:
    node = helper.make_node("Pad", ["x", "pads"], ["y"], mode="reflect")
    model = make_model([node], {"x": (np.float32, ("W",))}, ["y"], {"pads": integers(3, 0)}, 19)
    assert_built_agrees(model, {"x": floats(4)})
    with pytest.raises(TesseraError, match="wider than what is reflected"):
        run_built(model, [{"x": floats(3)}])


_NUMBERS = ("float32", "float64", "int64", "int32", "uint64", "uint32", "int8", "uint8", "bool", "float16")


def _drawn_fill(seed: int, name: str) -> tuple[onnx.ModelProto, list[dict[str, Array]]]:
    """A Pad whose value comes at run time, or is computed; negative padding, axes and dynamic dims among them."""
    draw = random.Random(f"{seed} {name}")
    dtype = np.dtype(name).type
    rank, opset = draw.randint(1, 4), 24 if name == "float16" else draw.choice([13, 18, 21])
    extents = [draw.randint(3, 5) for _ in range(rank)]
    axes = sorted(draw.sample(range(rank), draw.randint(1, rank))) if opset >= 18 else list(range(rank))
    pads = np.asarray([draw.randint(draw.choice([0, -1]), 3) for _ in range(2 * len(axes))], np.int64)
    shape, negative = draw.choice([[f"D{i}" for i in range(rank)], extents]), draw.random() < 0.3
    node = helper.make_node("Pad", ["x", "pads", "fill", *(["axes"] if opset >= 18 else [])], ["y"])
    nodes = [helper.make_node("Neg", ["given"], ["fill"]), node] if negative and name in _SIGNED else [node]
    given = nodes[0].input[0] if len(nodes) > 1 else "fill"
    weights = {"pads": pads, **({"axes": np.asarray(axes, np.int64)} if opset >= 18 else {})}
    form: tuple[int, ...] = draw.choice([(), (1,)])
    inputs = {"x": (dtype, shape), given: (dtype, form)}
    model = make_model(nodes, inputs, ["y"], weights, opset)
    fills = [np.asarray(v).astype(dtype) for v in ((1, 0) if name == "bool" else (7, 2))]
    calls = [{"x": np.round(floats(*extents) * 9).astype(dtype), given: f.reshape(form)} for f in fills]
    return model, calls


_SIGNED = ("float32", "float64", "int64", "int32", "int8")


@pytest.mark.parametrize("name", _NUMBERS)
@pytest.mark.parametrize("seed", range(2))
def test_pad_when_its_value_comes_at_run_time_then_agrees(seed: int, name: str) -> None:
    model, cases = _drawn_fill(seed, name)
    assert_built_agrees(model, *cases)


@pytest.mark.parametrize("value", [2**53 + 1, -(2**63), 2**63 - 1])
def test_pad_when_its_value_is_a_long_integer_then_keeps_every_bit(value: int) -> None:
    """A double holds none of the odd ones: they were rounded."""
    node = helper.make_node("Pad", ["x", "pads", "fill"], ["y"])
    weights = {"pads": integers(1, 2), "fill": np.asarray(value, np.int64)}
    model = make_model([node], {"x": (np.int64, ("N",))}, ["y"], weights)
    assert_built_agrees(model, {"x": integers(2**53 + 1, 4)})


def test_pad_when_its_value_is_a_dim_then_agrees() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["fill"]),
        helper.make_node("Pad", ["x", "pads", "fill"], ["y"]),
    ]
    model = make_model(nodes, {"x": (np.int64, ("N",))}, ["y"], {"pads": integers(1, 2)})
    assert_built_agrees(model, {"x": integers(3, 4)}, {"x": integers(3, 4, 5)})


@pytest.mark.parametrize(("mode", "pads"), [("reflect", [0, 1, 0, 2]), ("edge", [1, 1, 0, 2]), ("constant", [0] * 4)])
def test_pad_when_old_and_its_value_has_no_use_then_is_ignored(mode: str, pads: list[int]) -> None:
    node = helper.make_node("Pad", ["x"], ["y"], mode=mode, pads=pads, value=0.5)
    assert_agrees(make_model([node], {"x": (np.float32, ("N", 4))}, ["y"], None, 10), {"x": floats(3, 4)})
