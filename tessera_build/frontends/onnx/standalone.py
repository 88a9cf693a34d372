"""A model around one node, for callers that have an operator and its operands but no graph.

Takes a node and arrays; gives a model whose inputs have the arrays' types and whose outputs have no stated type.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from tessera_build.frontends.onnx.specialise import as_array


def model_of_node(node: onnx.NodeProto, inputs: Sequence[object], opset: int | None = None) -> onnx.ModelProto:
    """The node as a model of the given opset (by default the newest)."""
    names = list(dict.fromkeys(name for name in node.input if name))
    infos = [_info(name, value) for name, value in zip(names, inputs, strict=True)]
    results = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], node.op_type, infos, results)
    version = opset or onnx.defs.onnx_opset_version()
    imports = [helper.make_opsetid("", version)]
    if node.domain not in ("", "ai.onnx"):
        imports.append(helper.make_opsetid(node.domain, _newest(node.domain)))
    return helper.make_model(graph, opset_imports=imports)


def _info(name: str, value: object) -> onnx.ValueInfoProto:
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], np.ndarray):
        code = helper.np_dtype_to_tensor_dtype(value[0].dtype)
        return helper.make_tensor_sequence_value_info(name, code, None)
    array = as_array(name, value)
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def _newest(domain: str) -> int:
    versions = [s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.domain == domain]
    return max(versions, default=1)
