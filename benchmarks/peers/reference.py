"""What answers are compared with: those of onnxruntime without its optimiser.

Takes an ONNX file and feeds, of which it may need some; gives outputs by name, in their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from tessera_build.ir.graph.nodes import Array


def unoptimised(path: Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """One run of the file as it stands."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(None, {given.name: feeds[given.name] for given in session.get_inputs()})
    return {name: np.asarray(value) for name, value in zip(names, found, strict=True)}
