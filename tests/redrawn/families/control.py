"""Choices, loops, scans and sequences, with bodies that read values from around them.

Takes seeds; gives whole cases. Invariant: what a loop carries keeps its type and shape, and its trips are few.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tessera_build.ir.graph.nodes import Array
from tests.redrawn.cases import Case
from tests.redrawn.draw import Draw

_FLOAT, _INT64, _BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
_ONE = ("Relu", "Neg", "Tanh", "Abs", "Sigmoid")
_TWO = ("Add", "Mul", "Max", "Sub")


def _info(name: str, code: int, shape: Sequence[int | str | None] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, code, shape)


def _node(op: str, inputs: Sequence[str], outputs: Sequence[str], attributes: Mapping[str, object]) -> onnx.NodeProto:
    node = helper.make_node(op, list(inputs), list(outputs), name="node")
    node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
    return node


def _case(
    name: str,
    nodes: list[onnx.NodeProto],
    feeds: Mapping[str, Array],
    outputs: Sequence[str],
    draw: Draw,
    known: Mapping[str, Array] | None = None,
) -> Case:
    """A case whose inputs have dynamic extents, or static ones."""
    dynamic = draw.maybe()
    fixed = {e for a in feeds.values() for e in a.shape if e == 1 or draw.maybe(0.3)}
    inputs = [
        _info(
            n,
            helper.np_dtype_to_tensor_dtype(a.dtype),
            [f"N{e}" if dynamic and e not in fixed else e for e in a.shape],
        )
        for n, a in feeds.items()
    ]
    weights = [numpy_helper.from_array(np.asarray(a), n) for n, a in (known or {}).items()]
    graph = helper.make_graph(nodes, name, inputs, [onnx.ValueInfoProto(name=o) for o in outputs], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", draw.one([13, 16, 19, 21]))], ir_version=9)
    return Case(name, model, [dict(feeds)])


def _shape(draw: Draw) -> tuple[int, ...]:
    return tuple(draw.one([1, 2, 3, 5, 8, 17]) for _ in range(draw.whole(1, 3)))


def choice(seed: int) -> Case:
    """If over outer values, the condition given, known or compared."""
    draw = Draw(seed)
    shape = _shape(draw)
    feeds = {"x": draw.values(shape), "z": draw.values(shape)}
    branches = {}
    for key in ("then_branch", "else_branch"):
        first = helper.make_node(draw.one(_TWO), ["x", "z"], [f"{key}_a"])
        second = helper.make_node(draw.one(_ONE), [f"{key}_a"], [f"{key}_y"])
        nodes = [first, second] if draw.maybe(0.7) else [helper.make_node(draw.one(_ONE), ["x"], [f"{key}_y"])]
        branches[key] = helper.make_graph(nodes, key, [], [_info(f"{key}_y", _FLOAT)])
    nodes, known = list[onnx.NodeProto](), dict[str, Array]()
    kind = draw.one(["given", "known", "compared"])
    if kind == "given":
        feeds["c"] = np.asarray(draw.maybe())
    elif kind == "known":
        known["c"] = np.asarray(draw.maybe())
    else:
        nodes += [
            helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
            helper.make_node("ReduceMax", ["z"], ["other"], keepdims=0),
            helper.make_node("Greater", ["top", "other"], ["c"]),
        ]
    nodes.append(_node("If", ["c"], ["i"], branches))
    nodes.append(helper.make_node(draw.one(_ONE), ["i"], ["y"]))
    return _case("If", nodes, feeds, ["y"], draw, known)


def loop(seed: int) -> Case:
    """Loop by count, by condition or by both, with carried values and collected ones."""
    draw = Draw(seed)
    shape, trips, stop = _shape(draw), draw.whole(0, 5), draw.whole(1, 6)
    collects = draw.maybe(0.4)
    body = [
        helper.make_node(draw.one(_TWO), ["s", "x"], ["t"]),
        helper.make_node(draw.one(_ONE), ["t"], ["s_out"]),
        helper.make_node("Less", ["i", "stop"], ["go_out"])
        if draw.maybe()
        else helper.make_node("Identity", ["go"], ["go_out"]),
    ]
    outputs = [_info("go_out", _BOOL, []), _info("s_out", _FLOAT, shape)]
    if collects:
        body.append(helper.make_node("Mul", ["t", "t"], ["scan"]))
        outputs.append(_info("scan", _FLOAT, shape))
    inputs = [_info("i", _INT64, []), _info("go", _BOOL, []), _info("s", _FLOAT, shape)]
    graph = helper.make_graph(body, "body", inputs, outputs)
    names = ["last", "all"][: 1 + collects]
    feeds, known = {"x": draw.values(shape)}, {"stop": np.asarray(stop), "go0": np.asarray(True)}
    (feeds if draw.maybe(0.4) else known)["trips"] = np.asarray(trips)
    (feeds if draw.maybe(0.5) else known)["s0"] = draw.values(shape)
    node = helper.make_node("Loop", ["trips", "go0", "s0"], names, name="node", body=graph)
    return _case("Loop", [node], feeds, names, draw, known)


def scan(seed: int) -> Case:
    """Scan over the first axis, either way, with one state."""
    draw = Draw(seed)
    steps, shape = draw.one([1, 2, 5, 8]), _shape(draw)[:2]
    body = [
        helper.make_node(draw.one(_TWO), ["s", "x"], ["t"]),
        helper.make_node(draw.one(_ONE), ["t"], ["s_out"]),
        helper.make_node(draw.one(_ONE), ["t"], ["o"]),
    ]
    infos = [_info(n, _FLOAT, shape) for n in ("s", "x", "s_out", "o")]
    graph = helper.make_graph(body, "body", infos[:2], infos[2:])
    attributes: dict[str, object] = {}
    if draw.maybe():
        attributes["scan_input_directions"] = [draw.whole(0, 1)]
    if draw.maybe():
        attributes["scan_output_directions"] = [draw.whole(0, 1)]
    feeds = {"s0": draw.values(shape), "xs": draw.values((steps, *shape))}
    attributes |= {"body": graph, "num_scan_inputs": 1}
    node = _node("Scan", ["s0", "xs"], ["last", "all"], attributes)
    return _case("Scan", [node], feeds, ["last", "all"], draw)


def sequence(seed: int) -> Case:
    """Tensors put into a sequence, changed there, and joined again."""
    draw = Draw(seed)
    shape = _shape(draw)
    feeds = {n: draw.values(shape) for n in ("a", "b", "c")}
    nodes = [helper.make_node("SequenceConstruct", ["a", "b"], ["q0"])]
    known: dict[str, Array] = {}
    length, last = 2, "q0"
    for index in range(draw.whole(0, 3)):
        place, result = f"p{index}", f"q{index + 1}"
        if draw.maybe(0.6) or length == 1:
            known[place] = np.asarray(draw.whole(-length, length))
            nodes.append(helper.make_node("SequenceInsert", [last, "c", place], [result]))
            length += 1
        else:
            known[place] = np.asarray(draw.whole(-length, length - 1))
            nodes.append(helper.make_node("SequenceErase", [last, place], [result]))
            length -= 1
        last = result
    known["at"] = np.asarray(draw.whole(-length, length - 1))
    nodes.append(helper.make_node("SequenceAt", [last, "at"], ["one"]))
    nodes.append(helper.make_node("SequenceLength", [last], ["count"]))
    new = draw.whole(0, 1)
    axis = draw.axis(len(shape) + new)
    nodes.append(helper.make_node("ConcatFromSequence", [last], ["joined"], axis=axis, new_axis=new, name="node"))
    used = {n: a for n, a in feeds.items() if any(n in node.input for node in nodes)}
    return _case("sequence", nodes, used, ["one", "count", "joined"], draw, known)


def split(seed: int) -> Case:
    """SplitToSequence evenly, by sizes or into ones, and one part taken."""
    draw = Draw(seed)
    shape = _shape(draw)
    axis, extent = draw.axis(len(shape)), 0
    extent = shape[axis]
    known: dict[str, Array] = {}
    names, attributes = ["x"], dict[str, object]()
    kind = draw.one(["ones", "even", "sizes"])
    parts = extent
    if kind == "ones":
        attributes["keepdims"] = draw.whole(0, 1)
    elif kind == "even":
        size = draw.whole(1, extent)
        known["split"], parts = np.asarray(size), -(-extent // size)
        names.append("split")
    else:
        cut = draw.whole(0, extent)
        known["split"], parts = np.array([cut, extent - cut]), 2
        names.append("split")
    known["at"] = np.asarray(draw.whole(-parts, parts - 1))
    nodes = [
        _node("SplitToSequence", names, ["q"], {**attributes, "axis": axis}),
        helper.make_node("SequenceAt", ["q", "at"], ["y"]),
    ]
    return _case("SplitToSequence", nodes, {"x": draw.values(shape)}, ["y"], draw, known)


CONTROL: Mapping[str, Callable[[int], Case]] = {
    "If": choice,
    "Loop": loop,
    "Scan": scan,
    "sequence": sequence,
    "SplitToSequence": split,
}
