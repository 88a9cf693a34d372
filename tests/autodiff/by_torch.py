"""PyTorch's float32 gradients of an ONNX file at a point, as a peer's answer to how exact float32 can be there.

Takes a file, a point and what it is differentiated by; gives gradients by the names of the compiled entry's. Invariant:
what PyTorch does not differentiate by, averages of batch normalisations, is left out, as are constants without a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch

from benchmarks.gradients.eager import of_graph
from tessera_build.ir.graph.nodes import Array
from tests.autodiff.public import Point

_AVERAGES = (3, 4)  # operands of BatchNormalization


def differentiable(path: Path, wrt: Sequence[str]) -> tuple[str, ...]:
    """Those of `wrt` that the file names and that PyTorch differentiates by."""
    graph = onnx.load(str(path)).graph
    averages = {n.input[i] for n in graph.node if n.op_type == "BatchNormalization" for i in _AVERAGES}
    known = {*(i.name for i in (*graph.input, *graph.initializer)), *(o for n in graph.node for o in n.output)}
    return tuple(w for w in wrt if w in known and w not in averages)


def gradients_of(path: Path, point: Point, wrt: Sequence[str]) -> dict[str, Array]:
    """`<name>_gradient` for each of `wrt`, on one thread."""
    torch.set_num_threads(1)
    eager = of_graph(path, point.inputs, wrt)
    eager.run({name: torch.tensor(array.astype(np.float32)) for name, array in point.cotangents.items()})
    return {f"{name}_gradient": array for name, array in eager.gradients().items()}
