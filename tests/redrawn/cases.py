"""One drawn node becomes a model with inputs: constants or inputs, static or dynamic dims, neighbours to fuse with.

Takes a seed; gives a `Case`. Invariant: the models of a node and of its grown twin are one model, or there is no twin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tessera_build.ir.graph.nodes import Array
from tests.redrawn.draw import Draw, Drawn, Operand

Maker = Callable[[Draw], Drawn]
Feeds = dict[str, Array]
MICROSOFT = "com.microsoft"
_BEFORE = ("Neg", "Abs", "Add", "Mul", "Relu", "Sigmoid", "Transpose", "Identity")
_AFTER = (
    "Relu",
    "Neg",
    "Add",
    "Mul",
    "Sigmoid",
    "Softmax",
    "Cast",
    "Transpose",
    "Reshape",
    "ReduceMean",
    "Tanh",
    "Sub",
)
_STATED = 0.75  # operands that are as often constant have static extents
_IR_OF_OPSET = ((25, 13), (24, 12), (23, 11), (21, 10), (19, 9))


@dataclass(frozen=True, slots=True)
class Case:
    """A model and the calls it is to answer."""

    name: str
    model: onnx.ModelProto
    calls: Sequence[Feeds]
    steps: int = 0  # that integers of a byte may differ by; floats then by as many of 1 in 100


@dataclass(slots=True)
class _Parts:
    """A graph that is being made."""

    nodes: list[onnx.NodeProto] = field(default_factory=list[onnx.NodeProto])
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list[onnx.ValueInfoProto])
    weights: list[TensorProto] = field(default_factory=list[TensorProto])
    calls: list[Feeds] = field(default_factory=list[Feeds])


def make(seed: int, name: str, maker: Maker) -> Case:
    """The case of a seed for one operator."""
    drawn, twin = maker(Draw(seed)), maker(Draw(seed, grown=True))
    dress = Draw(seed + 1_000_003)
    same = dress.maybe(0.45) and _alike(drawn, twin)
    constants = [dress.maybe(o.constant) for o in drawn.operands]
    if same and not _constants_alike(drawn, twin, constants):
        same = False
    parts = _Parts(calls=[{}, {}] if same else [{}])
    names = _operands(parts, dress, ([drawn, twin] if same else [drawn]), constants)
    _neighbours(parts, dress, drawn, names)
    return Case(name, _model(parts, drawn), parts.calls)


def _alike(drawn: Drawn, twin: Drawn) -> bool:
    """True when both are one node with operands of the same ranks."""
    if (drawn.op, drawn.opset, len(drawn.operands)) != (twin.op, twin.opset, len(twin.operands)):
        return False
    left, right = (_node(d, [""] * len(d.operands), ["y"]).SerializeToString(deterministic=True) for d in (drawn, twin))
    return left == right and all(_rank(a) == _rank(b) for a, b in zip(drawn.operands, twin.operands, strict=True))


def _rank(operand: Operand) -> object:
    return None if operand.array is None else (operand.array.ndim, operand.array.dtype)


def _constants_alike(drawn: Drawn, twin: Drawn, constants: list[bool]) -> bool:
    """True when no constant must have another shape for larger calls; constants of data take the first one's values."""
    for index, (left, right) in enumerate(zip(drawn.operands, twin.operands, strict=True)):
        if not constants[index] or left.array is None or right.array is None:
            continue
        if left.array.shape != right.array.shape:
            return False
        if left.array.dtype.kind in "iu" and not np.array_equal(left.array, right.array):
            return False
    return True


def _operands(parts: _Parts, dress: Draw, twins: Sequence[Drawn], constants: list[bool]) -> list[str]:
    names: list[str] = []
    symbols, free = dict[tuple[int, ...], str](), dict[tuple[int, ...], bool]()
    dynamic, shared = len(twins) > 1 or dress.maybe(0.35), dress.maybe(0.7)
    for index, operand in enumerate(twins[0].operands):
        if operand.array is None:
            names.append("")
            continue
        name = operand.name or f"x{index}"
        names.append(name)
        if constants[index]:
            parts.weights.append(numpy_helper.from_array(operand.array, name))
            continue
        arrays = [a for a in (t.operands[index].array for t in twins) if a is not None]
        dims: list[int | str] = []
        for axis, extents in enumerate(zip(*(a.shape for a in arrays), strict=True)):
            symbol = symbols.setdefault(extents, f"N{len(symbols)}") if shared else f"{name}_{axis}"
            if not shared or extents not in free:
                free[extents] = len(set(extents)) > 1 or (dynamic and extents[0] > 1 and dress.maybe(0.6))
            if operand.constant >= _STATED and len(set(extents)) == 1:
                dims.append(extents[0])  # how many axes, or how wide a kernel: that is seldom dynamic
                continue
            dims.append(symbol if free[extents] else extents[0])
        code = helper.np_dtype_to_tensor_dtype(operand.array.dtype)
        parts.inputs.append(helper.make_tensor_value_info(name, code, dims))
        for call, array in zip(parts.calls, arrays, strict=True):
            call[name] = array
    return names


def _node(drawn: Drawn, names: Sequence[str], outputs: Sequence[str]) -> onnx.NodeProto:
    while names and not names[-1]:
        names = names[:-1]
    node = helper.make_node(drawn.op, list(names), list(outputs), name="node", domain=drawn.domain)
    node.attribute.extend(helper.make_attribute(k, v) for k, v in sorted(drawn.attributes.items()))
    return node


def _neighbours(parts: _Parts, dress: Draw, drawn: Drawn, names: list[str]) -> None:
    """The node, sometimes between elementwise ones that fusion takes along."""
    chain = drawn.opset >= 13 or bool(drawn.domain)
    floats = [i for i in parts.inputs if i.type.tensor_type.elem_type == TensorProto.FLOAT and i.name in names]
    if chain and floats and dress.maybe(0.15):
        chosen = floats[0].name
        _elementwise(parts, dress.one(_BEFORE[: 6 if dress.maybe(0.8) else 8]), chosen, "before")
        names = ["before" if n == chosen else n for n in names]
    parts.nodes.append(_node(drawn, names, drawn.outputs))
    last = next(o for o in drawn.outputs if o)
    if chain and floats and dress.maybe(0.25) and _is_float(parts, drawn, last):
        for index in range(dress.whole(1, 2)):
            _elementwise(parts, dress.one(_AFTER), last, f"after{index}")
            last = f"after{index}"


def _is_float(parts: _Parts, drawn: Drawn, name: str) -> bool:
    """True when onnx infers a float32 tensor with axes."""
    inferred = onnx.shape_inference.infer_shapes(_model(parts, drawn))
    proto = next(i for i in inferred.graph.output if i.name == name).type.tensor_type
    return proto.elem_type == TensorProto.FLOAT and len(proto.shape.dim) > 0


def _elementwise(parts: _Parts, op: str, name: str, result: str) -> None:
    """A node over one value, with constants of its own where it needs two."""
    names, attributes = [name], dict[str, object]()
    if op in ("Add", "Mul", "Sub"):
        names.append(f"{result}_c")
        parts.weights.append(numpy_helper.from_array(np.asarray(1.5, np.float32), names[1]))
    if op == "Reshape":
        names.append(f"{result}_c")
        parts.weights.append(numpy_helper.from_array(np.asarray([-1], np.int64), names[1]))
    if op == "Cast":
        attributes["to"] = TensorProto.FLOAT16 if result == "after1" else TensorProto.DOUBLE
    if op == "ReduceMean":
        attributes["keepdims"] = 1
    node = helper.make_node(op, names, [result], name=result)
    node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
    parts.nodes.append(node)


def _model(parts: _Parts, drawn: Drawn) -> onnx.ModelProto:
    produced = [o for n in parts.nodes for o in n.output if o]
    read = {i for n in parts.nodes for i in n.input}
    results = [name for name in produced if name not in read or name in drawn.outputs]
    outputs = [onnx.ValueInfoProto(name=name) for name in results]
    graph = helper.make_graph(parts.nodes, "redrawn", parts.inputs, outputs, parts.weights)
    main = 21 if drawn.domain else drawn.opset
    imports = [helper.make_opsetid("", main)]
    if drawn.domain:
        imports.append(helper.make_opsetid(drawn.domain, drawn.opset))
    model = helper.make_model(graph, opset_imports=imports)
    model.ir_version = next((ir for opset, ir in _IR_OF_OPSET if main >= opset), 8)
    return model
