"""Col2Im agrees with ONNX's reference over re-drawn blocks, static, dynamic and told by data."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from bundle_format.errors import TesseraError
from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.built import run_built
from tests.frontends_onnx.oracle import floats, integers, make_model

pytestmark = pytest.mark.numerics


@dataclass(frozen=True, slots=True)
class Drawn:
    """Attributes and operands of one Col2Im."""

    attributes: dict[str, list[int]]
    x: Array
    image: Array
    block: Array


def _drawn(seed: int, side_by_side: bool = False) -> Drawn:
    draw = random.Random(seed)
    axes = draw.choice([1, 2, 2, 3])
    block, image = [draw.randint(1, 3) for _ in range(axes)], [draw.randint(5, 8) for _ in range(axes)]
    strides, dilations = [draw.randint(1, 3) for _ in block], [draw.randint(1, 2) for _ in block]
    pads = [draw.randint(0, 1) for _ in range(2 * axes)]
    if side_by_side:
        strides, dilations = list(block), [1] * axes
        image = [k * draw.randint(2, 3) - low - high for k, low, high in zip(block, pads, pads[axes:], strict=False)]
        image = [max(e, 1) for e in image]
    rows = zip(image, block, strides, dilations, pads[:axes], pads[axes:], strict=True)
    turns = [(e + low + high - d * (k - 1) - 1) // s + 1 for e, k, s, d, low, high in rows]
    x = floats(2, 3 * math.prod(block), math.prod(turns))
    attributes = {"strides": strides, "dilations": dilations, "pads": pads}
    return Drawn(attributes, x, integers(*image), integers(*block))


def _model(drawn: Drawn, shape: list[int | str], told: set[str]) -> onnx.ModelProto:
    """The model; `told`: which of the image and the block come at run time."""
    node = helper.make_node("Col2Im", ["x", "image", "block"], ["y"])
    node.attribute.extend(helper.make_attribute(name, value) for name, value in drawn.attributes.items())
    vectors = {"image": drawn.image, "block": drawn.block}
    inputs = {"x": (np.float32, shape), **{n: (np.int64, v.shape) for n, v in vectors.items() if n in told}}
    return make_model([node], inputs, ["y"], {n: v for n, v in vectors.items() if n not in told}, 18)


def _assert_agrees(drawn: Drawn, model: onnx.ModelProto) -> None:
    """Onnxruntime 1.31 misplaces blocks with strides or dilations along one or three axes; the reference does not."""
    given = {"x": drawn.x, "image": drawn.image, "block": drawn.block}
    feeds = {info.name: given[info.name] for info in model.graph.input}
    ((found,),) = run_built(model, [feeds])
    (wanted,) = (np.asarray(v) for v in ReferenceEvaluator(model).run(None, feeds))
    assert found.shape == wanted.shape
    np.testing.assert_allclose(np.asarray(found, np.float64), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side_by_side", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_blocks_when_known_then_agree(seed: int, side_by_side: bool) -> None:
    drawn = _drawn(seed, side_by_side)
    _assert_agrees(drawn, _model(drawn, ["N", *drawn.x.shape[1:]], set()))


@pytest.mark.parametrize("told", [set[str](), {"image"}, {"block"}, {"image", "block"}])
@pytest.mark.parametrize("seed", range(20, 24))
def test_blocks_when_all_dims_are_dynamic_then_agree(seed: int, told: set[str]) -> None:
    drawn = _drawn(seed)
    _assert_agrees(drawn, _model(drawn, ["N", "C", "L"], told))


def test_blocks_when_large_then_agree() -> None:
    attributes = {"strides": [3, 2], "dilations": [1, 2], "pads": [1, 0, 2, 3]}
    drawn = Drawn(attributes, floats(2, 3 * 90, 25), integers(19, 22), integers(10, 9))
    _assert_agrees(drawn, _model(drawn, [2, 270, 25], set()))


def test_blocks_when_three_axes_come_at_run_time_then_the_bundle_can_state_its_guards() -> None:
    # Counts of blocks multiplied out had hundreds of terms, more than a bundle takes.
    drawn = Drawn({}, floats(1, 10, 12), integers(3, 4, 5), integers(1, 1, 5))
    _assert_agrees(drawn, _model(drawn, [1, 10, 12], {"image", "block"}))


@pytest.mark.parametrize(("block", "channels"), [(2, 5), (0, 4), (-1, 4), (9, 9)])
def test_blocks_when_they_do_not_fit_then_the_run_is_refused(block: int, channels: int) -> None:
    drawn = Drawn({}, floats(1, channels, 4), integers(5), integers(block))
    model = _model(drawn, ["N", "C", "L"], {"block"})
    with pytest.raises(TesseraError):
        run_built(model, [{"x": drawn.x, "block": drawn.block}])
