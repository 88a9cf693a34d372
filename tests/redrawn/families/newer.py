"""What other families leave out: optionals, maps over sequences, old scatters, gates, and operators of ai.onnx.ml.

Takes a Draw; gives nodes or whole cases. Invariant: one oracle at least can run each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx import ml_cases
from tests.redrawn.cases import Case, Maker
from tests.redrawn.draw import FLOATS, NUMBERS, Draw, Drawn, Operand

_GATED_SINCE = 28
_MAPPED = ("Neg", "Abs", "Tanh", "Relu", "Exp")


def gate(draw: Draw) -> Drawn:
    """SwiGLU of two tensors of one shape."""
    shape, dtype = draw.shape(0, 4), draw.dtype(FLOATS)
    attributes = {"alpha": draw.real(0.2, 2)} if draw.maybe() else {}
    return Drawn("SwiGLU", [draw.data(shape, dtype), draw.data(shape, dtype)], attributes, _GATED_SINCE)


def old_scatter(draw: Draw) -> Drawn:
    """Scatter, as ScatterElements was called before opset 11."""
    shape = tuple(max(e, 1) for e in draw.shape(1, 4))
    axis, dtype = draw.whole(0, len(shape) - 1), draw.dtype(NUMBERS)
    count = draw.whole(1, shape[axis])
    small = tuple(count if i == axis else e for i, e in enumerate(shape))
    order = np.argsort(draw.numbers.random(shape), axis)
    places = np.take(order, range(count), axis).astype(draw.one([np.int64, np.int32]))
    operands = [draw.data(shape, dtype), Operand(places, 0.3), Operand(draw.values(small, dtype), 0.2)]
    return Drawn("Scatter", operands, {"axis": axis} if axis or draw.maybe() else {}, draw.whole(9, 10))


def cast_alike(draw: Draw) -> Drawn:
    """CastLike between numbers that both types hold."""
    source, target = draw.dtype((*NUMBERS, np.bool_)), draw.dtype((*NUMBERS, np.bool_))
    x = Operand(draw.between(0, 100, draw.shape(0, 4), np.int64).astype(source), 0.1)
    like = Operand(draw.values(draw.shape(0, 2), target), 0.3)
    return Drawn("CastLike", [x, like], {}, draw.opset("CastLike", 15))


def regions(draw: Draw) -> Drawn:
    """MaxRoiPool of regions inside of the image."""
    batch, count, side = draw.whole(1, 2), draw.extent(1, False), draw.whole(4, 9)
    corner = draw.between(0, 3, (count, 2), np.int64)
    far = np.minimum(np.add(corner, draw.between(1, 6, (count, 2), np.int64)), side - 1)
    rois = np.concatenate([draw.between(0, batch, (count, 1), np.int64), corner, far], 1).astype(np.float32)
    found = {"pooled_shape": [draw.whole(1, 3), draw.whole(1, 3)], "spatial_scale": draw.one([1.0, 0.5])}
    x = draw.data((batch, draw.whole(1, 3), side, side))
    return Drawn("MaxRoiPool", [x, Operand(rois, 0.3)], found, draw.opset("MaxRoiPool"))


def vectorized(draw: Draw) -> Drawn:
    """FeatureVectorizer of some tensors."""
    rows, dtype = draw.extent(1), draw.dtype((np.float32, np.float64, np.int64, np.int32))
    widths = [draw.whole(1, 5) for _ in range(draw.whole(1, 3))]
    operands = [Operand(draw.values((rows, width), dtype), 0.0) for width in widths]
    return Drawn("FeatureVectorizer", operands, {"inputdimensions": widths}, 1, domain="ai.onnx.ml")


MAKERS: dict[str, Maker] = {
    "SwiGLU": gate,
    "Scatter": old_scatter,
    "CastLike": cast_alike,
    "MaxRoiPool": regions,
    "FeatureVectorizer": vectorized,
}


def _whole(name: str, nodes: list[onnx.NodeProto], feeds: dict[str, Array], outputs: list[str], draw: Draw) -> Case:
    dynamic = draw.maybe()
    inputs = [
        helper.make_tensor_value_info(
            n,
            helper.np_dtype_to_tensor_dtype(a.dtype),
            [f"{n}{i}" if dynamic else e for i, e in enumerate(a.shape)],
        )
        for n, a in feeds.items()
    ]
    at = numpy_helper.from_array(np.asarray(draw.whole(0, 1)), "at")
    graph = helper.make_graph(nodes, name, inputs, [onnx.ValueInfoProto(name=o) for o in outputs], [at])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", draw.one([18, 19, 21]))], ir_version=9)
    return Case(name, model, [feeds])


def optional(seed: int) -> Case:
    """A tensor put into an optional and taken out, with the question whether it is there."""
    draw = Draw(seed)
    feeds = {"x": draw.values(draw.shape(0, 3), draw.dtype((np.float32, np.int64)))}
    code = helper.np_dtype_to_tensor_dtype(feeds["x"].dtype)
    nodes = [helper.make_node("Optional", ["x"], ["o"]), helper.make_node("OptionalHasElement", ["o"], ["has"])]
    outputs = ["has", "y"]
    nodes += [helper.make_node("OptionalGetElement", ["o"], ["e"]), helper.make_node("Abs", ["e"], ["y"])]
    if draw.maybe():
        kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(code, None))
        nodes += [helper.make_node("Optional", [], ["n"], type=kind)]
        nodes += [helper.make_node("OptionalHasElement", ["n"], ["none"])]
        outputs.append("none")
    return _whole("optional", nodes, feeds, outputs, draw)


def mapped(seed: int) -> Case:
    """SequenceMap of a body over a sequence, and perhaps a tensor beside it; one result taken, all joined."""
    draw = Draw(seed)
    shape = draw.shape(1, 3)
    feeds = {name: draw.values(shape) for name in ("a", "b", "z")}
    first = helper.make_node("Add", ["s", "t"], ["m"]) if draw.maybe() else helper.make_node("Abs", ["s"], ["m"])
    body = [first, helper.make_node(draw.one(_MAPPED), ["m"], ["r"])]
    empty = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("s", "t", "r")]
    graph = helper.make_graph(body, "body", empty[:2], empty[2:])
    nodes = [
        helper.make_node("SequenceEmpty", [], ["e"], dtype=TensorProto.FLOAT),
        helper.make_node("SequenceInsert", ["e", "a"], ["one"]),
        helper.make_node("SequenceInsert", ["one", "b"], ["two"]),
        helper.make_node("SequenceMap", ["two", "z"], ["q"], body=graph),
        helper.make_node("SequenceAt", ["q", "at"], ["y"]),
        helper.make_node("ConcatFromSequence", ["q"], ["all"], axis=0),
        helper.make_node("SequenceLength", ["q"], ["count"]),
    ]
    return _whole("SequenceMap", nodes, feeds, ["y", "all", "count"], draw)


def trees(seed: int) -> Case:
    """TreeEnsemble of version 5: trees of one or two levels, with memberships in sets."""
    draw = Draw(seed)
    targets, features, count = draw.whole(1, 3), draw.whole(1, 3), draw.whole(1, 4)
    modes = [draw.one([0, 0, 1, 2, 3, 4, 5, 6]) for _ in range(count)]
    weights = [draw.real(-3, 3) for _ in range(2 * count)]
    sets = [v for m in modes if m == 6 for v in (*(float(draw.whole(0, 4)) for _ in range(draw.whole(1, 3))), np.nan)]

    def tensor(name: str, values: list[float]) -> TensorProto:
        return helper.make_tensor(name, TensorProto.FLOAT, [len(values)], values)

    found: dict[str, object] = {
        "n_targets": targets,
        "aggregate_function": draw.whole(0, 3),
        "post_transform": draw.one([0, 0, 1]),
        "tree_roots": list(range(count)),
        "nodes_featureids": [draw.whole(0, features - 1) for _ in range(count)],
        "nodes_splits": tensor("splits", [float(draw.whole(0, 4)) for _ in range(count)]),
        "nodes_modes": numpy_helper.from_array(np.array(modes, np.uint8), "modes"),
        "nodes_truenodeids": [2 * i for i in range(count)],
        "nodes_falsenodeids": [2 * i + 1 for i in range(count)],
        "nodes_trueleafs": [1] * count,
        "nodes_falseleafs": [1] * count,
        "leaf_targetids": [draw.whole(0, targets - 1) for _ in range(2 * count)],
        "leaf_weights": tensor("weights", weights),
    }
    if sets:
        found["membership_values"] = tensor("sets", sets)
    x = draw.between(0, 5, (draw.whole(1, 9), features), np.int64).astype(np.float32)
    model, feeds = ml_cases.model_of("TreeEnsemble", {"x": x}, [TensorProto.FLOAT], version=5, **found)
    return Case("TreeEnsemble", model, [feeds])


CASES: Mapping[str, Callable[[int], Case]] = {"optional": optional, "SequenceMap": mapped, "TreeEnsemble": trees}
