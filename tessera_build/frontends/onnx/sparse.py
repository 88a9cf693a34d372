"""Sparse weights, which Tessera stores dense.

Takes a sparse tensor's protobuf; gives its elements. Invariant: what is not stated is zero, and a few bytes never ask
for more memory than `MOST` elements take.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx

from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.load import array_of
from tessera_build.ir.graph.nodes import Array

MOST = 2**28


def dense(proto: onnx.SparseTensorProto, folder: Path | None) -> Array:
    """The elements of a sparse tensor; indices are flat, or one for each axis."""
    values, indices = array_of(proto.values, folder), array_of(proto.indices, folder)
    shape, what = tuple(int(d) for d in proto.dims), f"sparse tensor {proto.values.name!r}"
    if min(shape, default=0) < 0 or values.ndim != 1 or indices.dtype != np.int64:
        raise ill_formed(f"{what} does not hold what its type says", found=f"{values.shape} values of {shape}")
    if math.prod(shape) > MOST:
        raise unsupported(f"{what} has more elements than Tessera stores", found=str(shape), hint=f"at most {MOST}")
    if indices.shape == (values.size, len(shape)) and indices.ndim == 2:
        places = [indices[:, axis].astype(np.int64) for axis in range(len(shape))]
        if any(np.any((p < 0) | (p >= extent)) for p, extent in zip(places, shape, strict=True)):
            raise ill_formed(f"{what} has indices outside its shape", expected=str(shape))
        flat = np.ravel_multi_index(places, shape) if values.size else np.zeros(0, np.int64)
    elif indices.shape == values.shape:
        flat = indices.astype(np.int64)
        if np.any((flat < 0) | (flat >= math.prod(shape))):
            raise ill_formed(f"{what} has indices outside its shape", expected=str(shape))
    else:
        raise ill_formed(f"{what} has other indices than values", found=f"{indices.shape} for {values.shape}")
    found = np.zeros(math.prod(shape), values.dtype)
    found[flat] = values
    return found.reshape(shape)
