"""A part of an ONNX model as a model of its own, and a model that gives out values from inside.

Takes a model and names of nodes or values; gives models that onnxruntime runs. Invariant: nodes and weights are those
of the model, unchanged; weights that only other nodes read are left behind.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from tessera_build.frontends.onnx.inferred import inferred_types
from tessera_build.frontends.onnx.load import load_model
from tessera_build.ir.graph.nodes import Array


@dataclass(frozen=True, slots=True)
class Part:
    """A sub-model: `inputs` are values of the whole model that it reads, `outputs` those that it gives out."""

    model: onnx.ModelProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]


def extract(source: str | Path | onnx.ModelProto, names: Collection[str]) -> Part | None:
    """The nodes called `names` (as the importer calls nodes) as a model; None where the model has none of them."""
    model, _ = load_model(source)
    named = [(node.name or f"{node.op_type}_{i}", node) for i, node in enumerate(model.graph.node)]
    chosen = [(name, node) for name, node in named if name in names]
    if not chosen:
        return None
    nodes = [node for _, node in chosen]
    made = {output for node in nodes for output in node.output if output}
    read = list(dict.fromkeys(name for node in nodes for name in _reads(node) if name not in made))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    kept = {id(node) for node in nodes}
    others = {name for _, node in named if id(node) not in kept for name in _reads(node)}
    wanted = others | {output.name for output in model.graph.output}
    outputs = [o for node in nodes for o in node.output if o in wanted] or [o for o in nodes[-1].output if o]
    types = dict(inferred_types(model)) | {info.name: info for info in model.graph.input}
    inputs = [name for name in read if name not in weights]
    graph = onnx.helper.make_graph(
        nodes,
        "part",
        [types.get(name, onnx.ValueInfoProto(name=name)) for name in inputs],
        [types.get(name, onnx.ValueInfoProto(name=name)) for name in outputs],
        [weights[name] for name in read if name in weights],
    )
    part = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    part.functions.extend(model.functions)
    return Part(part, tuple(inputs), tuple(outputs), tuple(name for name, _ in chosen))


def with_outputs(source: str | Path | onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """The model with `names`, values from inside it, as further outputs."""
    model, folder = load_model(source)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if folder is not None:
        onnx.external_data_helper.load_external_data_for_model(copy, str(folder))
    known = {info.name for info in (*copy.graph.output, *copy.graph.input)}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    return copy


def shaped(part: Part, inputs: Mapping[str, Array]) -> onnx.ModelProto:
    """The part with inputs of the arrays' element types and shapes."""
    model = onnx.ModelProto()
    model.CopyFrom(part.model)
    for info in model.graph.input:
        array = inputs[info.name]
        code = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        info.CopyFrom(onnx.helper.make_tensor_value_info(info.name, code, array.shape))
    return model


def _reads(node: onnx.NodeProto) -> list[str]:
    """What a node reads, in its subgraphs too."""
    found = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            inner = {o for n in graph.node for o in n.output} | {i.name for i in graph.input}
            inner |= {t.name for t in graph.initializer}
            found += [name for n in graph.node for name in _reads(n) if name not in inner]
    return found
