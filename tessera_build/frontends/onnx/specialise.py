"""A model made definite by the inputs of one call: for callers that build when they first run.

Takes a model and its inputs by name; gives a model over dense tensors of known shapes and the feeds that fit it.
Invariant: nothing is specialised that the caller did not ask for: shapes always (the inputs' own), values only those
of the operands that `fixed` names, sequences and optionals only in how many tensors they hold.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tessera_build.frontends.onnx.errors import UnsupportedError, ill_formed, unsupported
from tessera_build.frontends.onnx.load import array_of
from tessera_build.frontends.onnx.subgraphs import names_read
from tessera_build.ir.graph.nodes import Array

Value = Array | np.generic | Sequence["Value"] | onnx.TensorProto | None
# An operand that says how to compute, not what with: target shapes, axes, counts. Data is larger.
LARGEST_FIXED = 4096

_DECIDED_BY_ALL = frozenset(("Loop", "Range"))


@dataclass(frozen=True, slots=True)
class Specialised:
    """A model whose inputs are all dense tensors of static shape, and their arrays by name."""

    model: onnx.ModelProto
    feeds: Mapping[str, Array]


@dataclass(slots=True)
class _Draft:
    """The parts of the model that is being made."""

    model: onnx.ModelProto
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list[onnx.ValueInfoProto])
    head: list[onnx.NodeProto] = field(default_factory=list[onnx.NodeProto])
    feeds: dict[str, Array] = field(default_factory=dict[str, Array])

    def tensor(self, name: str, value: Value) -> None:
        """An input of the value's own type and shape."""
        array = as_array(name, value)
        code = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.inputs.append(helper.make_tensor_value_info(name, code, array.shape))
        self.feeds[name] = array

    def put(self, name: str, proto: onnx.TypeProto, value: Value) -> None:
        """An input of any type: sequences and optionals as nodes over tensor inputs."""
        kind = proto.WhichOneof("value")
        if kind == "optional_type":
            self._optional(name, proto.optional_type, value)
        elif kind == "sequence_type":
            self._sequence(name, proto.sequence_type, value)
        elif kind == "tensor_type":
            self.tensor(name, value)
        else:
            raise unsupported(f"input {name!r} is no tensor", found=str(kind).removesuffix("_type"))

    def _optional(self, name: str, proto: onnx.TypeProto.Optional, value: Value) -> None:
        if value is None:
            self.head.append(helper.make_node("Optional", [], [name], type=proto.elem_type))
            return
        inner = f"{name}.value"
        self.put(inner, proto.elem_type, value)
        self.head.append(helper.make_node("Optional", [inner], [name]))

    def _sequence(self, name: str, proto: onnx.TypeProto.Sequence, value: Value) -> None:
        if not isinstance(value, (list, tuple)):
            raise ill_formed(f"input {name!r} is a sequence", expected="a list of arrays", found=type(value).__name__)
        members = [f"{name}.{index}" for index in range(len(value))]
        for member, item in zip(members, value, strict=True):
            self.put(member, proto.elem_type, item)
        if members:
            self.head.append(helper.make_node("SequenceConstruct", members, [name]))
        else:
            dtype = proto.elem_type.tensor_type.elem_type
            self.head.append(helper.make_node("SequenceEmpty", [], [name], dtype=dtype))


def bind(model: onnx.ModelProto, inputs: Sequence[Value]) -> dict[str, Value]:
    """Inputs in the model's order by name; weights that old models list as inputs are left out or overridden."""
    weights = {w.name for w in model.graph.initializer}
    every = [i.name for i in model.graph.input]
    data = [name for name in every if name not in weights]
    names = data if len(inputs) <= len(data) else every
    if len(inputs) > len(names):
        raise ill_formed("the call has too many inputs", expected=f"{len(names)}: {', '.join(names)}")
    return dict(zip(names, inputs, strict=False))


def specialise(model: onnx.ModelProto, named: Mapping[str, Value], fixed: Collection[str] = ()) -> Specialised:
    """The model for inputs of these shapes; those in `fixed` become constants."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    draft = _Draft(copy)
    for info in model.graph.input:
        if info.name in fixed:
            copy.graph.initializer.append(numpy_helper.from_array(as_array(info.name, named[info.name]), info.name))
        elif info.name in named:
            draft.put(info.name, info.type, named[info.name])
        else:
            draft.inputs.append(info)
    nodes = [*draft.head, *copy.graph.node]
    del copy.graph.input[:], copy.graph.node[:]
    copy.graph.input.extend(draft.inputs)
    copy.graph.node.extend(nodes)
    return Specialised(copy, draft.feeds)


def as_array(name: str, value: object) -> Array:
    """One dense array; raises for strings and for what is no array."""
    if isinstance(value, onnx.TensorProto):
        return array_of(value, None)
    array = np.asarray(value)
    if array.dtype.kind in "OSUT":
        raise unsupported(f"input {name!r} holds strings", hint="do the text processing outside the model")
    return np.ascontiguousarray(array).reshape(array.shape)


def needed_values(model: onnx.ModelProto, error: UnsupportedError, named: Mapping[str, Value]) -> frozenset[str]:
    """The small inputs whose values the nodes that `error` names need at build time; empty when there are none."""
    nodes = {n.name or f"{n.op_type}_{i}": n for i, n in enumerate(model.graph.node)}
    makers = {output: node for node in model.graph.node for output in node.output}
    found: set[str] = set()
    for problem in error.problems:
        node = _named(nodes, problem.where or "")
        if node is not None:
            found.update(name for name in _sources(node, makers) if name in named and _is_small(named[name]))
    return frozenset(found)


def _named(nodes: Mapping[str, onnx.NodeProto], where: str) -> onnx.NodeProto | None:
    """The node of a name, or the outermost one around it: nodes of subgraphs are called `outer/inner`."""
    while where and where not in nodes:
        where = where.rpartition("/")[0]
    return nodes.get(where)


def _sources(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> Iterator[str]:
    """The graph inputs behind a node's operands; of a node with data, all operands but the first."""
    decides = len(node.input) == 1 or node.op_type in _DECIDED_BY_ALL
    captured = names_read(node) - set(node.input)
    open_names = [*(node.input if decides else node.input[1:]), *sorted(captured)]
    seen: set[str] = set()
    while open_names:
        name = open_names.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in makers:
            open_names += sorted(names_read(makers[name]))
        else:
            yield name


def _is_small(value: Value) -> bool:
    return isinstance(value, (np.ndarray, np.generic, int, float)) and np.size(value) <= LARGEST_FIXED
