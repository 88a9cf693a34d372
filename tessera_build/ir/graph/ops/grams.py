"""`count_grams`: sequences of tokens counted by a trie, the core of TfIdfVectorizer.

Takes tokens and a trie as a double array; gives one row of totals for each row of tokens. Invariant: sequences are
taken in the order of their stride, then of their start, then of their length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tessera_build.ir.core.types import F32, I32, Type, tensor
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import (
    Attributes,
    DimValues,
    Op,
    expect_count,
    flag_of,
    int_of,
    mismatch,
    texts,
)

_WANTED = "x i32[N, C], base, parents and targets i32[P], weights f32[P]"


def _infer_count_grams(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("count_grams", types, 5)
    flag_of(attributes, "last")
    width, x = int_of(attributes, "width"), types[0]
    nodes = types[1].shape[0] if types[1].rank == 1 else 0
    if x.rank != 2 or x.dtype != I32 or list(types[1:]) != [*(tensor(I32, nodes),) * 3, tensor(F32, nodes)]:
        raise mismatch("count_grams' operands do not fit", _WANTED, texts(types))
    if min(width, int_of(attributes, "longest"), int_of(attributes, "strides")) < 1:
        raise mismatch("count_grams counts at least one kind of sequence", "positive numbers", dict(attributes))
    return (tensor(F32, x.shape[0], width),)


def _evaluate_count_grams(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    tokens = arrays[0].tolist()
    base, parents, targets, weights = (array.tolist() for array in arrays[1:])
    totals = np.zeros((len(tokens), int_of(attributes, "width")), np.float32)
    last = flag_of(attributes, "last")
    for row, total in zip(tokens, totals, strict=True):
        for stride in range(1, int_of(attributes, "strides") + 1):
            for start in range(len(row)):
                node = 1
                for depth, token in enumerate(row[start::stride][: int_of(attributes, "longest")]):
                    place = base[node] + token
                    if parents[place] != node:
                        break
                    node, target = place, targets[place]
                    if target >= 0 and (depth or stride == 1):
                        total[target] = weights[node] if last else total[target] + np.float32(weights[node])
    return (totals,)


GRAMS: tuple[Op, ...] = (
    Op(
        "count_grams",
        "(x[N, C], base[P], parents[P], targets[P], weights[P]) <{width, longest, strides, last}> -> totals [N, width] "
        "of the weights that sequences of tokens in x[n] lead to",
        _infer_count_grams,
        _evaluate_count_grams,
        ("width", "longest", "strides", "last"),
        {"last": False},
        ordered=True,
    ),
)
