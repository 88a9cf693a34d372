"""Reductions, cumulations and orders along axes.

Takes a Draw; gives nodes. Invariant: what is ordered has no equal elements where ties are anyone's choice.
"""

from __future__ import annotations

import numpy as np

from tests.redrawn.cases import Maker
from tests.redrawn.draw import ABSENT, NUMBERS, Draw, Drawn, Operand, Type, fixed

REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2")
LOGARITHMIC = ("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")
_TYPES: tuple[Type, ...] = (np.float32, np.float32, np.float64, np.int32, np.int64, np.float16, np.int8, np.uint8)


def _shape(draw: Draw) -> tuple[int, ...]:
    return draw.shape(0, 5)


def _reduce(op: str) -> Maker:
    def make(draw: Draw) -> Drawn:
        opset, shape, dtype = draw.opset(op), _shape(draw), draw.dtype(_TYPES[:-2] if op == "ReduceMean" else _TYPES)
        x = draw.data(shape, dtype, special=op in ("ReduceMax", "ReduceMin", "ReduceLogSumExp", "ReduceSum"))
        if op == "ReduceLogSumExp" and np.dtype(dtype).kind != "f":  # onnxruntime cuts each exponential off
            x = draw.data(shape)
        if op == "ReduceLogSum" or (op == "ReduceSumSquare" and np.dtype(dtype).kind != "f"):
            x = Operand(draw.between(1, 5, shape, dtype), 0.2)
        attributes: dict[str, object] = {"keepdims": draw.whole(0, 1)} if draw.maybe(0.7) else {}
        axes = draw.axes(len(shape)) if draw.maybe(0.75) else None
        if opset >= (13 if op == "ReduceSum" else 18):
            if draw.maybe(0.3):
                attributes["noop_with_empty_axes"] = draw.whole(0, 1)
            return Drawn(op, [x, ABSENT if axes is None else fixed(axes)], attributes, opset)
        if axes:
            attributes["axes"] = axes if opset >= 11 else [a % len(shape) for a in axes]
        return Drawn(op, [x], attributes, opset)

    return make


def _arg(op: str) -> Maker:
    def make(draw: Draw) -> Drawn:
        opset, shape = draw.opset(op), draw.shape(1, 5)
        attributes: dict[str, object] = {"keepdims": draw.whole(0, 1)} if draw.maybe(0.7) else {}
        if draw.maybe(0.8):
            attributes["axis"] = draw.axis(len(shape)) if opset >= 11 else draw.whole(0, len(shape) - 1)
        if opset >= 12 and draw.maybe(0.6):
            attributes["select_last_index"] = draw.whole(0, 1)
        return Drawn(op, [draw.data(shape, draw.dtype(_TYPES))], attributes, opset)

    return make


def _cumulate(op: str) -> Maker:
    def make(draw: Draw) -> Drawn:
        shape = draw.shape(1, 4)
        attributes = {name: draw.whole(0, 1) for name in ("exclusive", "reverse") if draw.maybe(0.7)}
        dtype = draw.dtype((np.float32, np.float32, np.float64, np.int32, np.int64))
        axis = fixed(draw.axis(len(shape)), draw.one([np.int64, np.int32]))
        return Drawn(op, [draw.data(shape, dtype), axis], attributes, draw.opset(op, 11))

    return make


def top_k(draw: Draw) -> Drawn:
    """TopK of different elements."""
    opset, shape = draw.opset("TopK", 10), draw.shape(1, 4)
    axis = draw.axis(len(shape))
    dtype = draw.dtype((np.float32, np.float32, np.float64, np.int64, np.int32) if opset >= 11 else (np.float32,))
    count = int(np.prod(shape))
    array = draw.numbers.permutation(count).reshape(shape).astype(dtype)
    attributes: dict[str, object] = (
        {"axis": axis if opset >= 11 else axis % len(shape)} if axis != -1 or draw.maybe() else {}
    )
    if opset >= 11 and draw.maybe(0.7):
        attributes |= {"largest": draw.whole(0, 1), "sorted": 1}
    k = draw.whole(0, shape[axis]) if draw.maybe(0.6) else min(draw.whole(1, 3), shape[axis])
    return Drawn("TopK", [Operand(array, 0.1), fixed([k])], attributes, opset, ["y", "indices"])


def unique(draw: Draw) -> Drawn:
    """Unique, flat or along an axis."""
    shape = draw.shape(1, 3)
    attributes: dict[str, object] = {"sorted": 1 if draw.maybe(0.8) else 0}
    if draw.maybe(0.4):
        attributes["axis"] = draw.axis(len(shape))
    dtype = draw.dtype((np.float32, np.int64, np.int8, np.float64))
    x = Operand(draw.between(0, 4, shape, np.int64).astype(dtype), 0.1)
    names = ["y", "indices", "inverse", "counts"]
    return Drawn("Unique", [x], attributes, draw.opset("Unique", 11), names[: draw.whole(1, 4)])


def non_zero(draw: Draw) -> Drawn:
    """NonZero of several types."""
    dtype = draw.dtype((np.float32, np.int64, np.bool_, np.int32, np.uint8))
    x = Operand(draw.between(-1, 2, draw.shape(1, 4), np.int64).astype(dtype), 0.1)
    return Drawn("NonZero", [x], {}, draw.opset("NonZero", 9))


def compress(draw: Draw) -> Drawn:
    """Compress along an axis or of all elements; conditions may be short."""
    shape = draw.shape(1, 4)
    axis = draw.axis(len(shape)) if draw.maybe(0.7) else None
    extent = int(np.prod(shape)) if axis is None else shape[axis]
    condition = Operand(draw.values((extent - (extent > 1 and draw.maybe(0.2)),), np.bool_), 0.4)
    attributes = {} if axis is None else {"axis": axis}
    return Drawn("Compress", [draw.data(shape, draw.dtype(NUMBERS)), condition], attributes, draw.opset("Compress", 9))


def determinant(draw: Draw) -> Drawn:
    """Det of a batch of matrices."""
    side = draw.whole(1, 5)
    shape = (*draw.shape(0, 2), side, side)
    return Drawn("Det", [draw.data(shape, draw.dtype((np.float32, np.float64)))], {}, draw.opset("Det", 11))


def one_hot(draw: Draw) -> Drawn:
    """OneHot with an axis anywhere and indices from either end."""
    shape, depth = draw.shape(0, 3), draw.whole(1, 7)
    index = draw.dtype((np.int64, np.int32, np.float32))
    indices = Operand(draw.between(-depth, depth, shape, np.int64).astype(index), 0.15)
    value = draw.dtype((np.float32, np.int64, np.int32))
    attributes = {"axis": draw.whole(-len(shape) - 1, len(shape))} if draw.maybe(0.7) else {}
    size = fixed(depth if draw.maybe() else [depth], draw.one([np.int64, np.int32, np.float32]))
    return Drawn("OneHot", [indices, size, draw.weight((2,), value)], attributes, draw.opset("OneHot", 9))


def suppression(draw: Draw) -> Drawn:
    """NonMaxSuppression of boxes in either form."""
    batch, classes, boxes = draw.whole(1, 2), draw.whole(1, 3), draw.extent(1)
    corner = draw.between(0, 1, (batch, boxes, 2))
    box = np.concatenate([corner, np.add(corner, draw.between(0.05, 0.6, (batch, boxes, 2)))], -1).astype(np.float32)
    limits = [
        fixed([draw.whole(0, 5)]),
        fixed([draw.real(0.1, 0.9)], np.float32),
        fixed([draw.real(0, 0.7)], np.float32),
    ]
    operands = [
        Operand(box, 0.1),
        Operand(draw.between(0, 1, (batch, classes, boxes)), 0.1),
        *limits[: draw.whole(0, 3)],
    ]
    attributes = {"center_point_box": draw.whole(0, 1)} if draw.maybe(0.7) else {}
    return Drawn("NonMaxSuppression", operands, attributes, draw.opset("NonMaxSuppression", 10))


MAKERS: dict[str, Maker] = {
    **{op: _reduce(op) for op in (*REDUCTIONS, *LOGARITHMIC)},
    **{op: _arg(op) for op in ("ArgMax", "ArgMin")},
    **{op: _cumulate(op) for op in ("CumSum", "CumProd")},
    "TopK": top_k,
    "Unique": unique,
    "NonZero": non_zero,
    "Compress": compress,
    "Det": determinant,
    "OneHot": one_hot,
    "NonMaxSuppression": suppression,
}
