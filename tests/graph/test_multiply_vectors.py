"""Products with one vector: which node each becomes, and that they compute what they did."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.types import F16, F32, F64, DType, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.passes.multiply_vectors import MultiplyVectors
from tessera_build.ir.graph.passes.pipeline import run_passes
from tests.graph.graphs import assert_same_results, normal, ops_of

pytestmark = pytest.mark.unit
N, K = symbol("N"), symbol("K")
Shape = tuple[Extent, ...]
ROWS, EXCHANGED, KEPT = ["reshape", "mul", "reduce"], ["reshape", "matmul", "reshape"], ["matmul"]
TURNED = [*ROWS, "reshape"]  # a row of sums


def _builder() -> GraphBuilder:
    return GraphBuilder(dims={"N": (1, None), "K": (1, None)})


def _product(a: Shape, b: Shape, constant: str = "", dtype: DType = F32, **flags: bool) -> GraphBuilder:
    builder = _builder()
    operands = [
        builder.constant(normal(seed, *[e for e in shape if isinstance(e, int)]).astype(dtype.numpy))
        if name in constant
        else builder.input(name, tensor(dtype, *shape))
        for seed, (name, shape) in enumerate((("a", a), ("b", b)))
    ]
    builder.output("y", builder.op("matmul", *operands, **flags))
    return builder


@pytest.mark.parametrize(
    ("a", "b", "flags", "ops"),
    [
        ((9, 24), (24, 1), "", ROWS),
        ((9, 24), (1, 24), "b", ROWS),
        ((5, 9, 24), (5, 24, 1), "", ROWS),
        ((5, 9, 24), (24, 1), "", ROWS),
        ((9, 24), (5, 24, 1), "", ROWS),
        ((5, 1, 9, 24), (3, 1, 24), "b", ROWS),
        ((N, 24), (24, 1), "", ROWS),
        ((9, K), (K, 1), "", ROWS),
        ((1, 24), (24, 1), "", ROWS),
        ((24, 9), (24, 1), "a", EXCHANGED),
        ((5, 24, 9), (5, 24, 1), "a", EXCHANGED),
        ((24, N), (1, 24), "ab", EXCHANGED),
        ((1, 24), (9, 24), "b", TURNED),
        ((24, 1), (9, 24), "ab", TURNED),
        ((5, 1, 24), (9, 24), "b", TURNED),
        ((1, 24), (3, 9, 24), "b", TURNED),
        ((1, K), (N, K), "b", TURNED),
        ((9, 8), (8, 1), "", KEPT),
        ((1, 8), (9, 8), "b", KEPT),
        ((1, 24), (24, 9), "", KEPT),
        ((9, 24), (24, 2), "", KEPT),
        ((2, 24), (9, 24), "b", KEPT),
    ],
)
def test_product_when_one_operand_is_a_vector_then_the_matrix_is_read_along_its_rows(
    a: Shape, b: Shape, flags: str, ops: list[str]
) -> None:
    module = _product(a, b, transpose_a="a" in flags, transpose_b="b" in flags).finish()
    after = MultiplyVectors().run(module)
    assert ops_of(after) == ops
    assert_same_results(module, after)


@pytest.mark.parametrize(("flags", "shape"), [("", (9, 24)), ("a", (24, 9))])
def test_product_when_the_matrix_is_constant_then_it_is_the_operand_that_is_packed(
    flags: str, shape: tuple[int, int]
) -> None:
    module = _product(shape, (24, 1), "a", transpose_a="a" in flags).finish()
    after = run_passes(module, verify_each=True)
    assert ops_of(after) == EXCHANGED
    assert_same_results(module, after)


def test_product_when_the_row_meets_a_constant_matrix_then_stays() -> None:
    module = _product((1, 24), (9, 24), "b", transpose_b=True).finish()
    assert ops_of(MultiplyVectors().run(module)) == KEPT


def test_product_when_half_floats_would_be_rounded_before_they_are_added_then_stays() -> None:
    assert ops_of(MultiplyVectors().run(_product((9, 24), (24, 1), dtype=F16).finish())) == KEPT
    assert ops_of(MultiplyVectors().run(_product((9, 24), (24, 1), dtype=F64).finish())) == ROWS


def test_product_when_its_entry_gives_derivatives_then_stays() -> None:
    module = replace(_product((9, 24), (24, 1)).finish(), derivatives=frozenset({"main"}))
    assert ops_of(MultiplyVectors().run(module)) == KEPT
