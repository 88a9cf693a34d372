"""Re-drawn models of the operators that choose or place elements by data, with inputs.

Takes seeds; gives models of one node and a case each. Invariant: what is drawn is legal ONNX, with ties, negative
indices, runtime operands and both static and dynamic dims among the draws.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import helper

from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.oracle import Shape, make_model

Drawn = tuple[onnx.ModelProto, dict[str, Array]]


def model_of(op: str, operands: Mapping[str, Array], outputs: int, draw: random.Random, **attributes: object) -> Drawn:
    """A model of one node whose operands are inputs; each extent above 1 is a dim in half of the draws."""
    dynamic, opset = draw.random() < 0.5, int(str(attributes.pop("opset", 18)))
    names = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, list(operands), names, name="node")
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())

    def shape(name: str, array: Array) -> Shape:
        return [f"{name}{i}" if dynamic and e > 1 else e for i, e in enumerate(array.shape)]

    inputs = {name: (array.dtype.type, shape(name, array)) for name, array in operands.items()}
    return make_model([node], inputs, names, None, opset), dict(operands)


def _tied(draw: random.Random, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> Array:
    numbers = np.random.default_rng(draw.randrange(1 << 30))
    return (numbers.standard_normal(shape) * draw.choice([2, 60])).astype(draw.choice(dtypes))


def _shape(draw: random.Random, rank: int) -> tuple[int, ...]:
    return tuple(draw.randint(1, 6) for _ in range(rank))


def scatter_elements(draw: random.Random) -> Drawn:
    shape = _shape(draw, draw.randint(1, 4))
    axis = draw.randrange(len(shape))
    data = _tied(draw, shape, ("float32", "float64", "int64", "int32", "uint8"))
    places = tuple(
        draw.randint(1, 8) if i == axis else draw.choice([e, draw.randint(1, e)]) for i, e in enumerate(shape)
    )
    numbers = np.random.default_rng(draw.randrange(1 << 30))
    indices = numbers.integers(-shape[axis], shape[axis], places).astype(draw.choice(["int64", "int32"]))
    operands = {"data": data, "indices": indices, "updates": _tied(draw, places, (data.dtype.name,))}
    reduction = draw.choice(["none", "add", "mul", "max", "min"])
    stated = axis - draw.choice([0, len(shape)])
    return model_of("ScatterElements", operands, 1, draw, axis=stated, reduction=reduction)


def scatter_nd(draw: random.Random) -> Drawn:
    shape = _shape(draw, draw.randint(1, 4))
    depth, lead = draw.randint(1, len(shape)), _shape(draw, draw.randint(1, 2))
    numbers = np.random.default_rng(draw.randrange(1 << 30))
    indices = np.stack([numbers.integers(-e, e, lead) for e in shape[:depth]], -1)
    data = _tied(draw, shape, ("float32", "int64", "int32"))
    operands = {"data": data, "indices": indices, "updates": _tied(draw, lead + shape[depth:], (data.dtype.name,))}
    return model_of("ScatterND", operands, 1, draw, reduction=draw.choice(["none", "add", "mul", "max", "min"]))


def top_k(draw: random.Random) -> Drawn:
    shape = list(_shape(draw, draw.randint(1, 3)))
    axis = draw.randrange(len(shape))
    shape[axis] = draw.choice([1, 3, 17, 64, 300])
    dtypes = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8")
    operands = {"x": _tied(draw, tuple(shape), dtypes), "k": np.array([draw.randint(0, shape[axis])])}
    return model_of("TopK", operands, 2, draw, axis=axis, largest=draw.choice([0, 1]), opset=draw.choice([11, 18]))


def non_zero(draw: random.Random) -> Drawn:
    shape = _shape(draw, draw.randint(1, 4))
    x = np.where(np.greater(_tied(draw, shape, ("float32",)), 0), 0, 1)
    return model_of("NonZero", {"x": x.astype(draw.choice(["float32", "int64", "bool", "uint8"]))}, 1, draw)


def compress(draw: random.Random) -> Drawn:
    x = _tied(draw, _shape(draw, draw.randint(1, 3)), ("float32", "int64"))
    axis = draw.randrange(x.ndim)
    whole = draw.random() < 0.5
    length = draw.randint(1, x.size if whole else x.shape[axis])
    operands = {"x": x, "condition": np.array([draw.random() < 0.5 for _ in range(length)])}
    return model_of("Compress", operands, 1, draw) if whole else model_of("Compress", operands, 1, draw, axis=axis)


def unique(draw: random.Random) -> Drawn:
    x = _tied(draw, _shape(draw, draw.randint(1, 3)), ("int64", "int8", "float32")).clip(-2, 2).round()
    return model_of("Unique", {"x": x.astype(x.dtype)}, 4, draw, sorted=draw.choice([0, 1]))


def unique_slices(draw: random.Random) -> Drawn:
    x = _tied(draw, _shape(draw, draw.randint(1, 3)), ("int64", "float32")).clip(-1, 1).round()
    axis, ordered = draw.randrange(x.ndim), draw.choice([0, 1])
    return model_of("Unique", {"x": x}, 4, draw, sorted=ordered, axis=axis)


def suppression(draw: random.Random) -> Drawn:
    batches, classes, boxes = draw.randint(1, 2), draw.randint(1, 3), draw.randint(1, 60)
    numbers = np.random.default_rng(draw.randrange(1 << 30))
    operands: dict[str, Array] = {
        "boxes": numbers.random((batches, boxes, 4)).astype(np.float32),
        "scores": numbers.random((batches, classes, boxes)).round(draw.randint(1, 3)).astype(np.float32),
        "most": np.array([draw.choice([0, 1, 3, 100])]),
        "iou": np.array([draw.choice([0.0, 0.3, 0.5])], np.float32),
    }
    if draw.random() < 0.5:
        operands["least"] = np.array([draw.random()], np.float32)
    return model_of("NonMaxSuppression", operands, 1, draw, center_point_box=draw.choice([0, 1]))


CHOICES: Mapping[str, Callable[[random.Random], Drawn]] = {
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "TopK": top_k,
    "NonZero": non_zero,
    "Compress": compress,
    "Unique": unique,
    "Unique slices": unique_slices,
    "NonMaxSuppression": suppression,
}
