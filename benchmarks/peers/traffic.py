"""What every runner of a model must read at least: its weights and its inputs, each once.

Takes an ONNX file and its inputs; gives bytes. Invariant: a table of which a `Gather` takes rows counts for nothing,
because a run reads few of them; what is read twice counts once, so that a share of the bandwidth is never too large.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from tessera_build.ir.graph.nodes import Array


def least_bytes(model: Path, feeds: Mapping[str, Array]) -> int:
    """Bytes of all weights that are read whole and of all inputs."""
    graph = onnx.load(str(model), load_external_data=False).graph
    whole = {name for node in graph.node for name in node.input[1 if node.op_type == "Gather" else 0 :]}
    weights = sum(_bytes(tensor) for tensor in graph.initializer if tensor.name in whole)
    inputs = {given.name for given in graph.input}
    return weights + sum(value.nbytes for name, value in feeds.items() if name in inputs)


def _bytes(tensor: onnx.TensorProto) -> int:
    dtype: np.dtype[np.generic] = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return math.prod(tensor.dims) * dtype.itemsize
