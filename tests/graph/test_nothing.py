"""The rules for extents of 0: where they fire, where they must not, and that results stay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import F32, I32, I64, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.passes.canonicalise import Canonicalise
from tests.graph.graphs import assert_same_results, normal, ops_of

pytestmark = pytest.mark.unit
N = symbol("N")
Make = Callable[[GraphBuilder, int], int]
WINDOW = {"strides": (1, 1), "low": (1, 1), "high": (1, 1), "dilations": (1, 1)}


def module_of(make: Make, *shape: int) -> Module:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, N, *shape))
    b.output("y", make(b, x))
    return b.finish()


def of_nothing(b: GraphBuilder, *shape: int) -> int:
    return b.constant(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("shape", "make", "expected"),
    [
        ((0,), lambda b, x: b.op("matmul", x, of_nothing(b, 0, 8)), ["broadcast_to"]),
        ((0, 4), lambda b, x: b.op("matmul", x, of_nothing(b, 4, 8)), ["broadcast_to"]),
        ((0,), lambda b, x: b.op("matmul", x, x, transpose_a=True), []),
        ((3, 0), lambda b, x: b.op("matmul", x, x, transpose_b=True), ["broadcast_to"]),
        ((0, 5, 5), lambda b, x: b.op("conv", x, of_nothing(b, 2, 0, 3, 3), **WINDOW), ["broadcast_to"]),
        ((3, 0, 5), lambda b, x: b.op("conv", x, b.constant(normal(0, 2, 3, 1, 3)), **WINDOW), ["broadcast_to"]),
        ((0,), lambda b, x: b.op("reduce", x, kind="sum", axes=(1,), keepdims=False), ["broadcast_to"]),
        ((0,), lambda b, x: b.op("reduce", x, kind="prod", axes=(1,), keepdims=True), ["broadcast_to"]),
        ((0,), lambda b, x: b.op("reduce", x, kind="max", axes=(1,), keepdims=False), ["broadcast_to"]),
        ((0,), lambda b, x: b.op("reduce", x, kind="min", axes=(0, 1), keepdims=False), []),
        ((0,), lambda b, x: b.op("softmax", b.op("neg", x), axis=1), ["broadcast_to"]),
        ((4,), lambda b, x: b.op("reduce", x, kind="sum", axes=(0,), keepdims=False), ["reduce"]),
    ],
)
def test_op_when_an_extent_is_0_then_its_result_is_known(
    shape: tuple[int, ...], make: Make, expected: list[str]
) -> None:
    module = module_of(make, *shape)
    after = Canonicalise().run(module)
    assert ops_of(after) == expected
    assert_same_results(module, after, tolerance=0)


@pytest.mark.parametrize(("keys", "columns", "heads"), [(0, 4, 2), (5, 0, 2), (5, 0, 1), (0, 0, 1)])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_when_there_are_no_keys_or_columns_then_it_is_the_mean_that_the_mask_gives(
    keys: int, columns: int, heads: int, masked: bool
) -> None:
    b = GraphBuilder()
    q = b.input("q", tensor(F32, N, 2, 3, columns))
    k = b.input("k", tensor(F32, N, heads, keys, columns))
    v = b.input("v", tensor(F32, N, heads, keys, 6))
    mask = (b.input("mask", tensor(F32, 3, keys)),) if masked else ()
    b.output("y", b.op("attention", q, k, v, *mask, scale=0.5))
    module = b.finish()
    after = Canonicalise().run(module)
    assert "attention" not in ops_of(after)
    assert_same_results(module, after, tolerance=1e-6)


def test_indices_when_the_rows_taken_are_empty_then_they_are_still_looked_at() -> None:
    b = GraphBuilder()
    table = b.input("table", tensor(F32, 3, 0))
    b.output("y", b.op("gather", table, b.input("i", tensor(I64, N)), axis=0))
    assert ops_of(Canonicalise().run(b.finish())) == ["gather"]


def test_integers_when_nothing_is_reduced_then_the_identity_is_of_their_type() -> None:
    b = GraphBuilder()
    x = b.input("x", tensor(I32, 2, 0))
    b.output("y", b.op("reduce", x, kind="max", axes=(1,), keepdims=False))
    module = b.finish()
    after = Canonicalise().run(module)
    (number,) = after.constants.values()
    assert (number.dtype, number.tolist()) == (np.dtype(np.int32), -(2**31))
