"""Tensors that derivatives need beside those of the author: filled ones, and ones that stand for constants.

Takes tensors; gives tensors of their shape and type. Invariant: nothing here is differentiable.
"""

from __future__ import annotations

import numpy as np

from tessera.errors import LanguageError
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, constant_of, described, emit, trace_of
from tessera_build.ir.core.types import I16, I32, I64, DType

_SAME_WIDTH: dict[int, DType] = {16: I16, 32: I32, 64: I64}


def full_like(x: Value, value: float | int | bool) -> Tensor:
    """One number everywhere in a tensor of another one's shape and type."""
    trace = trace_of((x,))
    scalar = Tensor(trace, constant_of(trace, np.asarray(value).astype(x.dtype.numpy), here()))
    return scalar if not x.shape else emit("broadcast_to", scalar, shape=x.shape)


def stop_gradient(x: Value) -> Tensor:
    """x, which derivatives take for a constant: its bits leave the numbers that could change a little and come back."""
    if not x.dtype.is_float:
        return emit("cast", x, dtype=x.dtype)
    if x.dtype.bits not in _SAME_WIDTH:
        raise LanguageError(
            "TYPE_MISMATCH", "stop_gradient takes wide floats", site=here(), expected="16 bits", found=described(x)
        )
    return emit("bitcast", emit("bitcast", x, dtype=_SAME_WIDTH[x.dtype.bits]), dtype=x.dtype)
