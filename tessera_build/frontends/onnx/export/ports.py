"""A model whose inputs and results are of types that numpy has: what onnxruntime's Python door can be asked.

Takes an exported model; gives one with conversions around it. Invariant: the types between hold every value of those
that they stand for, so nothing is rounded on the way.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper

from tessera_build.frontends.onnx.export.writer import CODES
from tessera_build.frontends.onnx.load import ELEMENT_TYPES
from tessera_build.ir.core.types import BF16, DTYPES, F32, I32, STORAGE_FLOATS, DType
from tessera_build.ir.graph.nodes import Array

_INSIDE = "/as stored"


def plain(dtype: DType) -> DType:
    """The type to hand over in the place of one that numpy does not have."""
    if dtype == BF16 or dtype in STORAGE_FLOATS:
        return F32
    return I32 if dtype.bits < 8 and dtype.kind != "bool" else dtype


def with_plain_ports(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a Cast behind each such input and before each such result, which keep their names."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    names = {
        port.name: port.name + _INSIDE
        for port in (*graph.input, *graph.output)
        if (dtype := DTYPES[ELEMENT_TYPES[port.type.tensor_type.elem_type]]) != plain(dtype)
    }
    _rename(graph, names)
    before = [_converted(port, names[port.name], inwards=True) for port in graph.input if port.name in names]
    behind = [_converted(port, names[port.name], inwards=False) for port in graph.output if port.name in names]
    nodes = [*before, *graph.node, *behind]
    del graph.node[:]
    graph.node.extend(nodes)
    return copy


def _converted(port: onnx.ValueInfoProto, inside: str, *, inwards: bool) -> onnx.NodeProto:
    """The conversion at one port, whose type it changes."""
    stored = port.type.tensor_type.elem_type
    given = CODES[plain(DTYPES[ELEMENT_TYPES[stored]]).name]
    port.type.tensor_type.elem_type = given
    ends = (port.name, inside) if inwards else (inside, port.name)
    return helper.make_node("Cast", [ends[0]], [ends[1]], to=stored if inwards else given)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give the values that nodes read and make other names, graphs inside them included."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, names)


def as_plain(array: Array) -> Array:
    """An array for an input of such a model."""
    for dtype in DTYPES.values():
        if dtype.numpy == array.dtype:
            return array if plain(dtype) == dtype else array.astype(plain(dtype).numpy)
    return array
