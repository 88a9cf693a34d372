"""The op `cumulate`: what a line's elements combine to up to each of them.

Takes a tensor of three axes; gives one of its shape and type. Invariant: elements are combined one by one along the
middle axis, each step rounded in the tensor's own type, so that a result never depends on how the work was divided.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import Attributes, DimValues, Op, expect_count, flag_of, mismatch, word_of

KINDS = ("sum", "prod")


def _infer(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("cumulate", types, 1)
    word_of(attributes, "kind", KINDS)
    flag_of(attributes, "exclusive")
    flag_of(attributes, "reverse")
    if types[0].rank != 3 or types[0].dtype.kind == "bool":
        raise mismatch("cumulate's operand does not fit", "numbers [A, N, B]", types[0])
    return (types[0],)


def _evaluate(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    (x,), reverse, product = arrays, flag_of(attributes, "reverse"), attributes["kind"] == "prod"
    combine = np.multiply if product else np.add
    total = np.full((x.shape[0], x.shape[2]), 1 if product else 0).astype(x.dtype)
    result = np.empty_like(x)
    with np.errstate(all="ignore"):
        for i in reversed(range(x.shape[1])) if reverse else range(x.shape[1]):
            before, total = total, combine(total, x[:, i]).astype(x.dtype)
            result[:, i] = before if flag_of(attributes, "exclusive") else total
    return (result,)


CUMULATIONS: tuple[Op, ...] = (
    Op(
        "cumulate",
        "(x[A, N, B]) <{kind, exclusive, reverse}> -> x[:, 0] to x[:, n] combined, without x[:, n] where exclusive",
        _infer,
        _evaluate,
        ("kind", "exclusive", "reverse"),
        defaults={"exclusive": False, "reverse": False},
        ordered=True,
    ),
)
