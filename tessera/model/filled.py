"""Numbers as elements of a type, and tensors of them: filled ones, and ones that stand for constants.

Takes numbers and tensors; gives tensors of their shape and type. Invariant: nothing here is differentiable.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from tessera.model.arguments import Place, door
from tessera.model.elements import elements
from tessera.model.explain import element_number
from tessera.model.site import here
from tessera.model.tensor import Operand, Tensor, Value, constant_of, emit, emit_all, lift, trace_of
from tessera_build.ir.core.dims import Dim
from tessera_build.ir.core.types import BOOL, DType
from tessera_build.ir.graph.nodes import Array


def numbers_of(given: object, place: Place) -> Array:
    """An array, a number or lists of them as an array of numbers."""
    try:
        array = np.asarray(given)
    except ValueError:  # rows of different lengths
        array = np.asarray(None)
    if array.dtype.kind in "OSUMm":
        raise place.refused("numbers, in lists of one length, or an array of them", given)
    return cast(Array, array)


def scalar_of(value: Operand, dtype: DType, place: Place) -> Value:
    """A number, an extent or a scalar tensor as a scalar of a type; truth values are 0 and 1, too."""
    trace, site = trace_of((value,)), here()
    if isinstance(value, Dim):
        return Tensor(trace, lift(trace, value, dtype, site))
    if isinstance(value, int) and dtype == BOOL and value in (0, 1):
        value = bool(value)
    if isinstance(value, int | float):
        value = np.asarray(element_number(value, dtype, site))
    if not isinstance(value, Value):
        value = Tensor(trace, constant_of(trace, elements(numbers_of(value, place), dtype, site), site))
    if value.shape != () or value.dtype != dtype:
        raise place.refused(f"a number, or a tensor {dtype}[]", value)
    return value


@door
def full_like(x: Value, value: Operand) -> Tensor:
    """One number everywhere in a tensor of another one's shape and type."""
    scalar = scalar_of(value, x.dtype, Place("op.full_like", "value"))
    return scalar if not x.shape and isinstance(scalar, Tensor) else emit("broadcast_to", scalar, shape=x.shape)


@door
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
