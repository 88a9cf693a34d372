"""Conv and Slice, re-drawn: one to three spatial axes, groups, dilations, uneven padding; steps of either sign."""

from __future__ import annotations

import random

import numpy as np
import onnx
import pytest
from onnx import helper

from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.built import assert_built_agrees
from tests.frontends_onnx.oracle import assert_agrees, floats, integers, make_model, one_node

pytestmark = pytest.mark.numerics

ENDS = (2**31 - 1, -(2**31), 2**63 - 1, -(2**63))


def drawn_conv(seed: int) -> tuple[onnx.ModelProto, list[dict[str, Array]]]:
    """A model of one Conv whose windows fit."""
    draw = random.Random(seed)
    axes, groups = draw.choice([1, 2, 2, 3]), draw.choice([1, 1, 2, 3, 8])
    channels, outputs = groups * draw.randint(1, 3), groups * draw.choice([1, 2, 5, 16])
    kernel, dilations = [draw.randint(1, 5) for _ in range(axes)], [draw.choice([1, 1, 2]) for _ in range(axes)]
    extents = [(k - 1) * d + 1 + draw.randint(0, 6) for k, d in zip(kernel, dilations, strict=True)]
    found: dict[str, object] = {"strides": [draw.randint(1, 3) for _ in range(axes)], "group": groups}
    if draw.random() < 0.7:
        found |= {"pads": [draw.randint(0, 3) for _ in range(2 * axes)], "dilations": dilations}
    else:
        found["auto_pad"] = draw.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])
    weights = {"w": floats(outputs, channels // groups, *kernel)}
    if draw.random() < 0.5:
        weights["b"] = floats(outputs)
    dynamic = draw.random() < 0.5
    shape = ("N", channels, *("D", "H", "W")[:axes]) if dynamic else (2, channels, *extents)
    model = one_node("Conv", {"x": shape}, weights, draw.choice([7, 11, 17]), **found)
    sizes = [extents, [e + 2 for e in extents]] if dynamic else [extents]
    return model, [{"x": floats(2, channels, *size)} for size in sizes]


def drawn_slice(seed: int) -> tuple[onnx.ModelProto, list[dict[str, Array]]]:
    """A model of one Slice with bounds inside, outside and at the ends of the integers."""
    draw = random.Random(seed)
    rank = draw.randint(1, 4)
    extents = [draw.randint(1, 8) for _ in range(rank)]
    axes = draw.sample(range(rank), draw.randint(1, rank))
    weights = {
        "starts": integers(*(draw.choice([draw.randint(-9, 9), *ENDS[:2]]) for _ in axes)),
        "ends": integers(*(draw.choice([draw.randint(-9, 9), *ENDS]) for _ in axes)),
        "axes": integers(*axes),
        "steps": integers(*(draw.choice([1, 2, 3, -1, -2, -3]) for _ in axes)),
    }
    dynamic = draw.random() < 0.5
    shape = [f"D{i}" for i in range(rank)] if dynamic else extents
    node = helper.make_node("Slice", ["x", *weights], ["y"])
    model = make_model([node], {"x": (np.float32, shape)}, ["y"], weights, 13)
    sizes = [extents, [e + 1 for e in extents]] if dynamic else [extents]
    return model, [{"x": floats(*size)} for size in sizes]


DRAWN = {"Conv": drawn_conv, "Slice": drawn_slice}


@pytest.mark.parametrize("op", DRAWN)
@pytest.mark.parametrize("seed", range(40))
def test_operator_when_redrawn_then_agrees(op: str, seed: int) -> None:
    model, cases = DRAWN[op](seed)
    assert_agrees(model, *cases)


@pytest.mark.parametrize("op", DRAWN)
@pytest.mark.parametrize("seed", range(100, 104))
def test_operator_when_built_then_agrees(op: str, seed: int) -> None:
    model, cases = DRAWN[op](seed)
    assert_built_agrees(model, *cases, tolerance=2e-5)
