"""What ONNX's own shape inference says of the values of a model, for looking past nodes that cannot be built.

Takes a model; gives the types it finds, by name. Invariant: a model that inference cannot handle gives no types, never
an error: what is wrong with the model is for the importer to say.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import shape_inference

# Inference copies the model; beyond this the copy costs more than the types are worth.
_LARGEST_BYTES = 1 << 30


def inferred_types(model: onnx.ModelProto) -> Mapping[str, onnx.ValueInfoProto]:
    """The types of the values inside the graph and of its outputs that inference or the model itself state."""
    stated = {info.name: info for info in (*model.graph.value_info, *model.graph.output)}
    if model.ByteSize() > _LARGEST_BYTES:
        return stated
    try:
        graph = shape_inference.infer_shapes(model, check_type=False, strict_mode=False, data_prop=True).graph
    except Exception:  # inference is onnx's C++: what it raises is not a closed list
        return stated
    return stated | {info.name: info for info in (*graph.value_info, *graph.output)}
