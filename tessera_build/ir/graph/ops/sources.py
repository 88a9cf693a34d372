"""Ops without operands: constants, the run-time value of a dimension expression, and counting arrays.

Takes attributes only; gives one tensor. Invariant: a constant's bytes live in the module under its digest, so nodes
stay small and equal constants are one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tessera_build.ir.core.dims import evaluate
from tessera_build.ir.core.types import Type, tensor
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import (
    Attributes,
    DimValues,
    Op,
    axis_of,
    dtype_attribute,
    expect_count,
    extent_of,
    extents_of,
    ints_of,
    static,
)


def _infer_constant(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("constant", types, 0)
    return (tensor(dtype_attribute(attributes, "dtype"), *ints_of(attributes, "shape")),)


def _evaluate_constant(arrays: Sequence[Array], _: Attributes, __: DimValues) -> tuple[Array, ...]:
    # The interpreter hands in the module's array; an op record knows no module.
    return (arrays[0],)


def _infer_dimension(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("dimension", types, 0)
    extent_of(attributes["value"])
    return (tensor(dtype_attribute(attributes, "dtype")),)


def _evaluate_dimension(_: Sequence[Array], attributes: Attributes, dims: DimValues) -> tuple[Array, ...]:
    value = evaluate(extent_of(attributes["value"]), dims)
    return (np.asarray(value, dtype_attribute(attributes, "dtype").numpy),)


def _infer_iota(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("iota", types, 0)
    shape = extents_of(attributes, "shape")
    axis_of(attributes, len(shape))
    return (tensor(dtype_attribute(attributes, "dtype"), *shape),)


def _evaluate_iota(_: Sequence[Array], attributes: Attributes, dims: DimValues) -> tuple[Array, ...]:
    shape = static(extents_of(attributes, "shape"), dims)
    axis = axis_of(attributes, len(shape))
    numbers = np.arange(shape[axis]).astype(dtype_attribute(attributes, "dtype").numpy)
    column = numbers.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return (np.asarray(np.broadcast_to(column, shape), order="C"),)


SOURCES: tuple[Op, ...] = (
    Op(
        "constant",
        "() <{digest, dtype, shape}> -> the module's array of that digest",
        _infer_constant,
        _evaluate_constant,
        ("digest", "dtype", "shape"),
    ),
    Op(
        "dimension",
        "() <{value, dtype}> -> scalar: the dimension expression at run time",
        _infer_dimension,
        _evaluate_dimension,
        ("value", "dtype"),
        ordered=True,
    ),
    Op(
        "iota",
        "() <{shape, axis, dtype}> -> 0, 1, 2, ... along axis",
        _infer_iota,
        _evaluate_iota,
        ("shape", "axis", "dtype"),
        ordered=True,
    ),
)
