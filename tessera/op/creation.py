"""Tensors out of nothing: parameters, constants, ranges, filled ones.

Takes shapes whose extents may be symbolic; gives tensors. Invariant: `tensor` makes a parameter, which the model owns;
everything else is computed where it stands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, cast

import numpy as np

from tessera.errors import LanguageError
from tessera.model.annotation import TensorSpec
from tessera.model.arguments import Inside, Place, door
from tessera.model.elements import elements
from tessera.model.explain import expect_extent
from tessera.model.filled import full_like, numbers_of, scalar_of
from tessera.model.numeric import Numeric, f32, i64, numeric_of
from tessera.model.parameter import Initialiser, Parameter
from tessera.model.policies import bounds_of
from tessera.model.site import Site, here
from tessera.model.tensor import Operand, Tensor, Value, constant_of, emit, lift, trace_of
from tessera.model.trace import current, needed
from tessera.op.axes import Shape, extents_of_shape
from tessera_build.ir.core.dims import Dim, Extent
from tessera_build.ir.core.types import I64, DType
from tessera_build.ir.graph.infer import LARGEST_VALUE_BYTES
from tessera_build.ir.graph.nodes import Array

Element = Numeric | DType | str


@door
def tensor(
    shape: Annotated[Sequence[int], Inside()],
    dtype: Element = f32,
    name: str = "",
    *,
    init: Initialiser | Array | None = None,
    group: str = "weights",
) -> Parameter:
    """A parameter of the model. Without `init` it stays free: a safetensors file or a training step gives it numbers.

    Without a name it gets that of the variable or attribute that holds it.
    """
    site = here()
    if current() is not None and not name:
        raise LanguageError(
            "PARAMETER_IN_TRACE",
            "a parameter is made anew whenever the function is traced",
            site=site,
            hint="make it outside of the function, or in __init__ of a graph.Module; op.constant is part of a function",
        )
    if init is not None and not callable(init) and not isinstance(init, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise LanguageError(
            "BAD_ARGUMENT",
            "a parameter's initialiser is none",
            site=site,
            expected="op.init.normal(seed=1), or an array",
            found=repr(init)[:200],
        )
    numeric = numeric_of(dtype)
    spec = TensorSpec(_stored_shape(shape, numeric, site), numeric, (), site)
    parameter = Parameter(spec, name, init if callable(init) else None, group)
    if init is not None and not callable(init):
        parameter.assign(np.asarray(init), site)
    return parameter


def _stored_shape(shape: object, numeric: Numeric, site: Site | None) -> tuple[int, ...]:
    """The shape of a parameter: numbers, and no more of them than can be stored."""
    found = repr(shape)[:200]
    known = isinstance(shape, Sequence) and not isinstance(shape, str)
    extents = cast("Sequence[object]", shape) if known else (None,)
    numbers = tuple(e for e in extents if isinstance(e, int) and not isinstance(e, bool) and e >= 0)
    if len(numbers) < len(extents):
        raise LanguageError(
            "PARAMETER_SHAPE",
            "a parameter's extent is no number",
            site=site,
            expected="numbers of 0 or more: parameters are stored",
            found=found,
        )
    if math.prod(numbers) * numeric.dtype.bits > LARGEST_VALUE_BYTES * 8:
        raise LanguageError(
            "VALUE_TOO_LARGE",
            "a parameter is larger than any machine can hold",
            site=site,
            expected=f"at most {LARGEST_VALUE_BYTES >> 40} TiB",
            found=found,
        )
    return numbers


@door
def constant(array: Array | Sequence[float] | float, dtype: Element | None = None) -> Tensor:
    """An array that is part of the model; Python's numbers become f32 unless a type is named."""
    trace, site = trace_of(()), here()
    if isinstance(array, np.ndarray) and dtype is None:
        return Tensor(trace, constant_of(trace, array, site))
    wanted = f32.dtype if dtype is None else numeric_of(dtype).dtype
    numbers = numbers_of(array, Place("op.constant", "array"))
    return Tensor(trace, constant_of(trace, elements(numbers, wanted, site), site))


@door
def full(shape: Shape, value: Operand, dtype: Element = f32) -> Tensor:
    """One number everywhere: Python's, an extent, or a scalar tensor of this type."""
    extents, wanted = extents_of_shape(needed(), shape), numeric_of(dtype).dtype
    scalar = scalar_of(value, wanted, Place("op.full", "value"))
    return scalar if not extents and isinstance(scalar, Tensor) else emit("broadcast_to", scalar, shape=extents)


@door
def zeros(shape: Shape, dtype: Element = f32) -> Tensor:
    """Zeros."""
    return full(shape, 0, dtype)


@door
def ones(shape: Shape, dtype: Element = f32) -> Tensor:
    """Ones."""
    return full(shape, 1, dtype)


@door
def zeros_like(x: Value) -> Tensor:
    """Zeros of another tensor's shape and type."""
    return full_like(x, 0)


@door
def ones_like(x: Value) -> Tensor:
    """Ones of another tensor's shape and type."""
    return full_like(x, 1)


@door
def arange(count: Extent, dtype: Element = i64) -> Tensor:
    """0, 1, 2, ... below `count`, which may be symbolic; integers that the type does not hold are refused."""
    (extent,), wanted = extents_of_shape(needed(), (count,)), numeric_of(dtype).dtype
    if extent != 0:
        expect_extent(needed(), extent - 1, wanted)
    return emit("iota", shape=(extent,), axis=0, dtype=wanted)


@door
def eye(count: Extent, dtype: Element = f32) -> Tensor:
    """The identity matrix."""
    (extent,) = extents_of_shape(needed(), (count,))
    rows, columns = (emit("iota", shape=(extent, extent), axis=a, dtype=i64.dtype) for a in (0, 1))
    return emit("cast", emit("eq", rows, columns), dtype=numeric_of(dtype).dtype)


@door
def one_hot(indices: Value, depth: Extent, dtype: Element = f32) -> Tensor:
    """A last axis of `depth` elements, of which the one at the index is 1; a row of zeros where none is.

    The depth may be symbolic.
    """
    if indices.dtype.kind not in ("signed", "unsigned"):
        raise LanguageError(
            "TYPE_MISMATCH", "one_hot takes integers", site=here(), expected="an integer type", found=str(indices.dtype)
        )
    if not isinstance(depth, int) or depth - 1 > bounds_of(indices.dtype)[1]:  # places may be no numbers of its type
        indices = emit("cast", indices, dtype=I64)
    column = emit("reshape", indices, shape=(*indices.shape, 1))
    places = emit("iota", shape=extents_of_shape(needed(), (depth,), low=1), axis=0, dtype=indices.dtype)
    return emit("cast", emit("eq", column, places), dtype=numeric_of(dtype).dtype)


@door
def dimension(extent: Extent, dtype: Element = i64) -> Tensor:
    """An extent as a scalar tensor, such as the length of a sequence as a number to compute with."""
    wanted = numeric_of(dtype).dtype
    if isinstance(extent, Dim):
        return Tensor(needed(), lift(needed(), extent, wanted, here()))
    return full((), extent, wanted)


def as_tensor(operand: Operand) -> Value:
    """An operand as a tensor: arrays become constants, numbers f32."""
    if isinstance(operand, Value):
        return operand
    if isinstance(operand, Dim):
        return dimension(operand)
    return constant(operand)
