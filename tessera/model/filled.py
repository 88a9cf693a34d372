"""Tensors that derivatives need beside those of the author: filled ones, and ones that stand for constants.

Takes tensors; gives tensors of their shape and type. Invariant: nothing here is differentiable.
"""

from __future__ import annotations

import numpy as np

from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, constant_of, emit, emit_all, trace_of


def full_like(x: Value, value: float | int | bool) -> Tensor:
    """One number everywhere in a tensor of another one's shape and type."""
    trace = trace_of((x,))
    scalar = Tensor(trace, constant_of(trace, np.asarray(value).astype(x.dtype.numpy), here()))
    return scalar if not x.shape else emit("broadcast_to", scalar, shape=x.shape)


def stop_gradient(x: Value) -> Tensor:
    """x, which derivatives take for a constant: its stated change is none."""
    trace = trace_of((x,))
    operand = Tensor(trace, x.value_in(trace))
    with trace.builder.region([operand.type]) as body:
        body.yields(*body.args)
    with trace.builder.region([operand.type] * 3) as change:
        change.yields(full_like(operand, 0).value_in(trace))
    (result,) = emit_all("stated", (operand,), {}, [body.region, change.region])
    return result
