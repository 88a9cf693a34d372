"""Ops that change the resolution of images: values against plain loops, mismatches explained, channels kept last."""

from __future__ import annotations

import numpy as np
import pytest

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import F32, I64, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.infer import infer
from tessera_build.ir.graph.nodes import Array, Attribute, GraphNode
from tessera_build.ir.graph.ops import OPS
from tessera_build.ir.graph.passes.layout_channels_last import LayoutChannelsLast

pytestmark = pytest.mark.unit


def evaluate(op: str, *arrays: Array, **attributes: Attribute) -> Array:
    """The op's reference."""
    record = OPS[op]
    assert record.evaluate is not None
    return record.evaluate(arrays, {**record.defaults, **attributes}, {})[0]


def test_repeat_when_run_then_every_element_is_a_block() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = evaluate("repeat", x, factors=(1, 2))
    np.testing.assert_array_equal(found, np.asarray([[0, 0, 1, 1, 2, 2], [3, 3, 4, 4, 5, 5]], np.float32))


@pytest.mark.parametrize("order", ["DCR", "CRD"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_depth_to_space_when_run_then_is_its_signature(order: str, layout: str) -> None:
    x = np.arange(2 * 12 * 2 * 3, dtype=np.float32).reshape(2, 12, 2, 3)
    wanted = np.empty((2, 2, 4, 8), np.float32)
    for n, c, y, z in np.ndindex(wanted.shape):
        p = (y % 2) * 3 + z % 3
        wanted[n, c, y, z] = x[n, p * 2 + c if order == "DCR" else c * 6 + p, y // 2, z // 3]
    given = x if layout == "NCHW" else np.moveaxis(x, 1, -1)
    found = evaluate("depth_to_space", given, blocks=(2, 3), extents=(4, 8), layout=layout, order=order)
    np.testing.assert_array_equal(found if layout == "NCHW" else np.moveaxis(found, -1, 1), wanted)


def test_resample_when_run_then_sums_weighted_elements() -> None:
    x = np.asarray([[1, 2, 4]], np.float32)
    indices, weights = np.asarray([[0, 1], [2, 2]]), np.asarray([[0.5, 1], [0.25, -1]], np.float32)
    np.testing.assert_array_equal(
        evaluate("resample", x, indices, weights, axis=1), np.asarray([[1.5, -2]], np.float32)
    )


MISMATCHES: dict[str, tuple[str, tuple[tuple[int, ...], ...], dict[str, Attribute], str]] = {
    "factors": ("repeat", ((2, 3),), {"factors": (2,)}, "speaks of every axis"),
    "shrinking": ("repeat", ((2, 3),), {"factors": (1, 0)}, "speaks of every axis"),
    "blocks": ("depth_to_space", ((1, 4, 2, 2),), {"blocks": (2,), "extents": (4, 4)}, "every spatial axis"),
    "channels": ("depth_to_space", ((1, 6, 2, 2),), {"blocks": (2, 2), "extents": (4, 4)}, "divides the channels"),
    "extents": ("depth_to_space", ((1, 4, 2, 2),), {"blocks": (2, 2), "extents": (4, 2)}, "cuts less than a block"),
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_op_when_operands_do_not_fit_then_says_why(case: str) -> None:
    op, shapes, attributes, message = MISMATCHES[case]
    full = {**OPS[op].defaults, **attributes}
    with pytest.raises(TesseraError, match=message):
        infer(op, [tensor(F32, *shape) for shape in shapes], full)


def test_resample_when_taps_are_symbolic_then_says_why() -> None:
    taps = [tensor(kind, symbol("T"), 4) for kind in (I64, F32)]
    with pytest.raises(TesseraError, match="static number of taps"):
        infer("resample", [tensor(F32, 2, 3), *taps], {"axis": 1})


def test_layout_when_resolution_changes_between_convolutions_then_channels_stay_last() -> None:
    b = GraphBuilder(dims={"H": (1, None), "W": (1, None)})
    window: dict[str, Attribute] = {"strides": (1, 1), "low": (0, 0), "high": (0, 0), "dilations": (1, 1)}
    x = b.op("conv", b.input("x", tensor(F32, 1, 3, symbol("H"), symbol("W"))), _weights(b, 8, 3), **window)
    x = b.op("repeat", x, factors=(1, 1, 2, 2))
    x = b.op("resample", x, b.constant(np.zeros((2, 9), np.int64)), b.constant(np.ones((2, 9), np.float32)), axis=2)
    x = b.op("gather", x, b.constant(np.arange(4)), axis=3)
    x = b.op("depth_to_space", x, blocks=(2, 2), extents=(18, 8))
    b.output("y", b.op("conv", x, _weights(b, 4, 2), **window))
    nodes = LayoutChannelsLast().run(b.finish()).entries["main"].nodes
    ops = [n.op for n in nodes if isinstance(n, GraphNode) and n.op != "constant"]
    assert ops == ["transpose", "conv", "repeat", "resample", "gather", "depth_to_space", "conv", "transpose"]


def _weights(b: GraphBuilder, outputs: int, inputs: int) -> int:
    return b.constant(np.ones((outputs, inputs, 1, 1), np.float32))
