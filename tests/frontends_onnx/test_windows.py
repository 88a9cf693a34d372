"""Convolutions and pools agree with onnxruntime for static and dynamic sizes, in every spelling of padding."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from tests.frontends_onnx.built import run_built
from tests.frontends_onnx.oracle import assert_agrees, floats, one_node

pytestmark = pytest.mark.numerics

SIZES = ((7, 9), (8, 12), (13, 5))
PADDINGS: tuple[dict[str, object], ...] = (
    {},
    {"pads": [1, 1, 1, 1]},
    {"pads": [0, 1, 1, 0]},
    {"auto_pad": "SAME_UPPER"},
    {"auto_pad": "SAME_LOWER"},
    {"auto_pad": "VALID"},
)


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize(("stride", "dilation", "group"), [(1, 1, 1), (2, 1, 2), (3, 1, 4), (1, 2, 1)])
def test_conv_when_sizes_are_dynamic_then_agrees(
    padding: dict[str, object], stride: int, dilation: int, group: int
) -> None:
    if "SAME" in str(padding) and dilation > 1:
        pytest.skip("onnxruntime refuses dilations with SAME padding")
    weights = {"w": floats(8, 4 // group, 3, 3), "b": floats(8)}
    attributes = {"strides": [stride] * 2, "dilations": [dilation] * 2, "group": group, **padding}
    model = one_node("Conv", {"x": ("N", 4, "H", "W")}, weights, 17, **attributes)
    assert_agrees(model, *({"x": floats(2, 4, *size)} for size in SIZES))


@pytest.mark.parametrize("pad", ["SAME_UPPER", "SAME_LOWER"])
def test_conv_when_windows_lie_far_apart_then_pads_nothing_as_the_reference(pad: str) -> None:
    """Onnxruntime cuts the first element off instead."""
    model = one_node("Conv", {"x": (1, 1, 8)}, {"w": floats(1, 1, 1)}, kernel_shape=[1], strides=[4], auto_pad=pad)
    feeds = {"x": floats(1, 1, 8)}
    (wanted,) = (np.asarray(v) for v in ReferenceEvaluator(model).run(None, dict(feeds)))
    ((found,),) = run_built(model, [feeds])
    np.testing.assert_allclose(np.asarray(found, np.float64), wanted, rtol=1e-6)


@pytest.mark.parametrize("rank", [1, 3])
def test_conv_when_one_or_three_spatial_axes_then_agrees(rank: int) -> None:
    model = one_node("Conv", {"x": (2, 3, *(6,) * rank)}, {"w": floats(4, 3, *(3,) * rank)}, pads=[1, 0] * rank)
    assert_agrees(model, {"x": floats(2, 3, *(6,) * rank)})


POOLS: list[dict[str, object]] = [
    {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "ceil_mode": ceil, **padding}
    for (kernel, stride), ceil, padding in itertools.product(((2, 2), (3, 2), (2, 3)), (0, 1), PADDINGS[:5])
    if not (ceil and "auto_pad" in padding)
]


@pytest.mark.parametrize("attributes", POOLS, ids=str)
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "AveragePool with padding"])
def test_pool_when_sizes_are_static_or_dynamic_then_agrees(op: str, attributes: dict[str, object]) -> None:
    extra: dict[str, object] = {"count_include_pad": 1} if op.endswith("padding") else {}
    name = op.split()[0]
    if name == "MaxPool" and attributes["strides"] == [3, 3] and "auto_pad" in attributes:
        pytest.skip("onnxruntime computes negative padding here and refuses it")
    dynamic = one_node(name, {"x": ("N", 3, "H", "W")}, None, 19, **attributes, **extra)
    assert_agrees(dynamic, *({"x": floats(1, 3, *size)} for size in SIZES))
    for size in SIZES:
        x = floats(1, 3, *size)
        assert_agrees(one_node(name, {"x": x}, None, 19, **attributes, **extra), {"x": x})


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pool_when_sizes_are_dynamic_then_agrees(op: str) -> None:
    assert_agrees(one_node(op, {"x": ("N", 3, "H", "W")}), *({"x": floats(2, 3, *size)} for size in SIZES))


def test_max_pool_when_padded_with_negative_input_then_padding_never_wins() -> None:
    x = -abs(floats(1, 1, 4, 4)) - 1
    model = one_node("MaxPool", {"x": (1, 1, "H", "W")}, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
    assert_agrees(model, {"x": x})
