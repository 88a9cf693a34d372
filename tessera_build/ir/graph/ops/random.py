"""The op `random`: draws that a key decides, element by element.

Takes a key, a scalar of 64 bits; gives a tensor of any shape. Invariant: an element is a function of the key and of
its own number in row-major order, so equal keys give equal draws, in every run, on every machine and for every
number of threads; a longer tensor begins with the elements of a shorter one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tessera_build.ir.core.philox import DTYPES_OF, KINDS, draw
from tessera_build.ir.core.scalar import evaluate
from tessera_build.ir.core.types import I64, U64, Type, tensor
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import (
    Attributes,
    DimValues,
    Op,
    dtype_attribute,
    expect_count,
    extents_of,
    mismatch,
    static,
    word_of,
)


def _infer(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("random", types, 1)
    if types[0].rank or types[0].dtype not in (U64, I64):
        raise mismatch("random's key does not fit", "a scalar of u64 or i64", types[0])
    kind, dtype = word_of(attributes, "kind", KINDS), dtype_attribute(attributes, "dtype")
    if dtype not in DTYPES_OF[kind]:
        raise mismatch(f"random draws no {kind} of this type", " | ".join(map(str, DTYPES_OF[kind])), dtype)
    return (tensor(dtype, *extents_of(attributes, "shape")),)


def _evaluate(arrays: Sequence[Array], attributes: Attributes, dims: DimValues) -> tuple[Array, ...]:
    kind, dtype = word_of(attributes, "kind", KINDS), dtype_attribute(attributes, "dtype")
    shape = static(extents_of(attributes, "shape"), dims)
    numbers = np.arange(int(np.prod(shape)), dtype=np.int64)
    (drawn,) = evaluate(draw(kind, dtype, None, far=True), (np.asarray(arrays[0]).view(np.uint64), numbers))
    return (drawn.reshape(shape),)


RANDOM: tuple[Op, ...] = (
    Op(
        "random",
        "(key) <{kind, shape, dtype}> -> bits, uniform numbers in [0, 1) or normal ones, each of (key, its index)",
        _infer,
        _evaluate,
        ("kind", "shape", "dtype"),
    ),
)
