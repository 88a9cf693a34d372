"""Each rule of the canonical form, where it fires and where it must not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import BF16, BOOL, F16, F32, I32, I64, DType, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.passes.canonicalise import Canonicalise
from tests.graph.graphs import assert_same_results, nodes_of, normal, ops_of

pytestmark = pytest.mark.unit
N, W = symbol("N"), symbol("W")
Make = Callable[[GraphBuilder, int], int]


def module_of(make: Make, rank: int = 3) -> Module:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, *(N, 3, 4, 5)[:rank]))
    b.output("y", make(b, x))
    return b.finish()


def sums(keepdims: bool) -> Make:
    def make(b: GraphBuilder, x: int) -> int:
        total = b.op("reduce", x, kind="sum", axes=(1, 2), keepdims=keepdims)
        return b.op("reshape", total, shape=(N,))

    return make


def repeated_mask(b: GraphBuilder, x: int) -> int:
    mask = b.op("broadcast_to", b.op("slice", x, starts=(0, 0, 0), stops=(1, 1, 4), steps=(1, 1, 1)), shape=(3, 4))
    return b.op("add", x, mask)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda b, x: b.op("add", x, b.scalar(0, x)), []),
        (lambda b, x: b.op("mul", b.scalar(1, x), x), []),
        (lambda b, x: b.op("sub", x, b.constant(np.zeros((3, 1), np.float32))), []),
        (lambda b, x: b.op("div", x, b.scalar(1, x)), []),
        (lambda b, x: b.op("pow", x, b.scalar(1, x)), []),
        (lambda b, x: b.op("pow", x, b.scalar(2, x)), ["mul"]),
        (lambda b, x: b.op("pow", b.op("abs", x), b.scalar(0.5, x)), ["abs", "sqrt"]),
        (lambda b, x: b.op("pow", x, b.scalar(-1, x)), ["div"]),
        (lambda b, x: b.op("pow", x, b.scalar(3, x)), ["pow"]),
        (lambda b, x: b.op("sub", x, b.scalar(2, x)), ["add"]),
        (lambda b, x: b.op("sub", b.scalar(2, x), x), ["sub"]),
        (lambda b, x: b.op("div", x, b.scalar(8, x)), ["mul"]),
        (lambda b, x: b.op("div", x, b.scalar(3, x)), ["div"]),
        (lambda b, x: b.op("div", x, b.constant(np.asarray([3, 5, 6, 7], np.float32))), ["mul"]),
        (lambda b, x: b.op("div", x, b.scalar(1e-30, x)), ["div"]),
        (lambda b, x: b.op("div", x, b.scalar(0, x)), ["div"]),
        (lambda b, x: b.op("neg", b.op("neg", x)), []),
        (lambda b, x: b.op("abs", b.op("abs", x)), ["abs"]),
        (lambda b, x: b.op("cast", x, dtype=F32), []),
        (lambda b, x: b.op("cast", b.op("cast", x, dtype=I32), dtype=F32), ["cast", "cast"]),
        (lambda b, x: b.op("select", b.scalar(True, BOOL), x, b.op("neg", x)), []),
        (lambda b, x: b.op("select", b.op("isnan", x), x, x), []),
        (lambda b, x: b.op("transpose", x, perm=(0, 1, 2)), []),
        (lambda b, x: b.op("transpose", b.op("transpose", x, perm=(1, 0, 2)), perm=(1, 0, 2)), []),
        (lambda b, x: b.op("transpose", b.op("transpose", x, perm=(1, 2, 0)), perm=(0, 2, 1)), ["transpose"]),
        (lambda b, x: b.op("reshape", b.op("reshape", x, shape=(N, 12)), shape=(N, 6, 2)), ["reshape"]),
        (lambda b, x: b.op("reshape", b.op("reshape", x, shape=(N, 12)), shape=(N, 3, 4)), []),
        (lambda b, x: b.op("slice", x, starts=(0, 0, 0), stops=(N, 3, 4), steps=(1, 1, 1)), []),
        (lambda b, x: b.op("slice", x, starts=(0, 1, 0), stops=(N, 3, 4), steps=(1, 1, 1)), ["slice"]),
        (lambda b, x: b.op("pad", x, low=(0, 0, 0), high=(0, 0, 0)), []),
        (lambda b, x: b.op("concat", x, axis=1), []),
        (lambda b, x: b.op("broadcast_to", x, shape=(N, 3, 4)), []),
        (lambda b, x: b.op("add", x, b.op("broadcast_to", b.scalar(2, x), shape=(N, 3, 4))), ["add"]),
        (lambda b, x: b.op("neg", b.op("broadcast_to", x, shape=(2, N, 3, 4))), ["neg", "broadcast_to"]),
        (lambda b, x: b.op("gather", x, b.constant(np.array(2)), axis=1), ["slice", "reshape"]),
        (lambda b, x: b.op("gather", x, b.constant(np.array([-1])), axis=2), ["slice"]),
        (lambda b, x: b.op("gather", x, b.constant(np.array(0)), axis=0), ["slice", "reshape"]),
        (lambda b, x: b.op("gather", x, b.constant(np.array(1)), axis=0), ["gather"]),
        (lambda b, x: b.op("gather", x, b.constant(np.arange(3)), axis=1), []),
        (lambda b, x: b.op("gather", x, b.constant(np.array([0, 2, 1])), axis=1), ["gather"]),
        (lambda b, x: b.op("reduce", x, kind="sum", axes=(), keepdims=False), []),
        (sums(keepdims=True), ["reduce"]),
        (sums(keepdims=False), ["reduce"]),
    ],
)
def test_rule_when_its_op_stands_there_then_leaves_the_expected_ops(make: Make, expected: list[str]) -> None:
    module = module_of(make)
    after = Canonicalise().run(module)
    assert ops_of(after) == expected
    if "div" not in ops_of(module):
        assert_same_results(module, after, tolerance=0)


def test_reciprocals_when_switched_off_then_only_powers_of_two_are_multiplied() -> None:
    divisors = np.asarray([3, 5, 6, 7], np.float32)
    third = module_of(lambda b, x: b.op("div", x, b.constant(divisors)))
    quarter = module_of(lambda b, x: b.op("div", x, b.scalar(4, x)))
    assert ops_of(Canonicalise(reciprocals=False).run(third)) == ["div"]
    assert ops_of(Canonicalise(reciprocals=False).run(quarter)) == ["mul"]
    assert_same_results(third, Canonicalise().run(third), tolerance=2e-7)
    assert_same_results(quarter, Canonicalise().run(quarter), tolerance=0)


@pytest.mark.parametrize("narrow", [BF16, F16])
def test_reciprocals_when_floats_are_narrow_then_quotients_keep_their_bits(narrow: DType) -> None:
    def make(b: GraphBuilder, x: int) -> int:
        small = b.op("cast", x, dtype=narrow)
        return b.op("cast", b.op("div", small, b.scalar(3, small)), dtype=F32)

    module = module_of(make)
    after = Canonicalise().run(module)
    assert ops_of(after) == ["cast", "div", "cast"]
    assert_same_results(module, after, tolerance=0)


def test_reciprocals_when_one_number_is_divided_then_it_keeps_the_bits_of_its_quotient() -> None:
    def make(b: GraphBuilder, x: int) -> int:
        return b.op("div", b.op("reduce", x, kind="max", axes=(0, 1, 2), keepdims=True), b.scalar(255, x))

    module = module_of(make)
    after = Canonicalise().run(module)
    assert ops_of(after) == ["reduce", "div"]
    assert_same_results(module, after, tolerance=0)


def test_reciprocals_when_a_sum_is_divided_then_the_mean_of_equal_numbers_is_that_number() -> None:
    def make(b: GraphBuilder, x: int) -> int:
        return b.op("div", b.op("reduce", x, kind="sum", axes=(2,), keepdims=True), b.scalar(17, x))

    after = Canonicalise().run(module_of(make))
    assert ops_of(after) == ["reduce", "div"]


def test_constants_when_on_the_left_or_with_leading_ones_then_take_one_form() -> None:
    module = module_of(lambda b, x: b.op("max", b.constant(normal(0, 1, 1, 4)), x))
    after = Canonicalise().run(module)
    (node,) = nodes_of(after, "max")
    assert node.inputs[0] == after.entries["main"].args[0]
    assert [array.shape for array in after.constants.values()] == [(4,)]
    assert_same_results(module, after, tolerance=0)


def test_squeeze_when_scalars_follow_the_reduction_then_moves_before_them() -> None:
    def make(b: GraphBuilder, x: int) -> int:
        total = b.op("reduce", x, kind="sum", axes=(1, 2), keepdims=True)
        mean = b.op("div", total, b.op("cast", b.op("dimension", value=N * 4, dtype=I64), dtype=F32))
        return b.op("reshape", mean, shape=(N,))

    module = module_of(make)
    after = Canonicalise().run(module)
    assert sorted(ops_of(after)) == ["cast", "dimension", "div", "reduce"]
    assert_same_results(module, after, tolerance=0)


@pytest.mark.parametrize(
    ("value", "high_of_channels", "merged"), [(0.0, 0, True), (1.0, 0, False), (0.0, 1, False)], ids=str
)
def test_conv_when_image_was_padded_then_pads_itself(value: float, high_of_channels: int, merged: bool) -> None:
    def make(b: GraphBuilder, x: int) -> int:
        padded = b.op("pad", x, low=(0, 0, 1, 0), high=(0, high_of_channels, 0, 2), value=value)
        w = b.constant(normal(0, 2, 3 + high_of_channels, 3, 3))
        return b.op("conv", padded, w, strides=(1, 1), low=(1, 1), high=(1, 1), dilations=(1, 1))

    module = module_of(make, rank=4)
    after = Canonicalise().run(module)
    assert ops_of(after) == (["conv"] if merged else ["pad", "conv"])
    assert nodes_of(after, "conv")[0].attributes["low"] == ((2, 1) if merged else (1, 1))
    assert_same_results(module, after, tolerance=0)


@pytest.mark.parametrize(("kind", "value", "merged"), [("max", -np.inf, True), ("max", 0.0, False), ("sum", 0.0, True)])
def test_pooling_when_padded_with_its_identity_then_pads_itself(kind: str, value: float, merged: bool) -> None:
    def make(b: GraphBuilder, x: int) -> int:
        padded = b.op("pad", x, low=(0, 0, 1), high=(0, 0, 1), value=value)
        zeros, ones = (0, 0, 0), (1, 1, 1)
        window = (1, 1, 3)
        return b.op(
            "reduce_window", padded, kind=kind, window=window, strides=ones, low=zeros, high=zeros, dilations=ones
        )

    module = module_of(make)
    after = Canonicalise().run(module)
    assert ops_of(after) == (["reduce_window"] if merged else ["pad", "reduce_window"])
    assert_same_results(module, after, tolerance=0)


def test_matmul_when_last_axes_were_swapped_then_flag_instead_of_transpose() -> None:
    def make(b: GraphBuilder, x: int) -> int:
        swapped = b.op("transpose", x, perm=(0, 2, 1))
        return b.op("matmul", swapped, x)

    module = module_of(make)
    after = Canonicalise().run(module)
    (node,) = nodes_of(after)
    assert (node.op, node.attributes["transpose_a"], node.attributes["transpose_b"]) == ("matmul", True, False)
    assert_same_results(module, after, tolerance=0)


@pytest.mark.parametrize(
    ("flags", "constant", "twice", "merged"),
    [
        ((True, False), False, False, True),
        ((False, False), False, False, False),
        ((True, True), False, False, False),
        ((True, False), True, False, False),
        ((True, False), False, True, False),
    ],
)
def test_transpose_when_of_a_product_that_nothing_else_reads_then_operands_change_places(
    flags: tuple[bool, bool], constant: bool, twice: bool, merged: bool
) -> None:
    b = GraphBuilder(dims={"batch": (1, None)})
    left = b.input("x", tensor(F32, N, 5, 3))
    shape = (4, 5) if flags[1] else (5, 4)
    right = b.constant(normal(0, *shape)) if constant else b.input("y", tensor(F32, *shape))
    left = left if flags[0] else b.op("exp", b.op("transpose", left, perm=(0, 2, 1)))
    product = b.op("matmul", left, right, transpose_a=flags[0], transpose_b=flags[1])
    b.output("z", b.op("exp", b.op("transpose", product, perm=(0, 2, 1))))
    if twice:
        b.output("product", product)
    module = b.finish()
    found = Canonicalise().run(module)
    assert_same_results(module, found)
    last = nodes_of(found, "matmul")[0]
    assert (ops_of(found)[-2:] == ["matmul", "exp"]) == merged
    assert not merged or (last.attributes["transpose_a"], last.attributes["transpose_b"]) == (True, False)


def test_matmul_when_batch_axes_moved_too_then_keeps_the_transpose() -> None:
    def make(b: GraphBuilder, x: int) -> int:
        moved = b.op("transpose", x, perm=(0, 3, 1, 2))
        return b.op("matmul", moved, b.op("reshape", x, shape=(N, 5, 4, 3)))

    assert "transpose" in ops_of(Canonicalise().run(module_of(make, rank=4)))


def test_reshape_of_reduce_when_reduction_is_read_twice_then_stays() -> None:
    def make(b: GraphBuilder, x: int) -> int:
        total = b.op("reduce", x, kind="sum", axes=(1,), keepdims=True)
        spread = b.op("mul", x, total)
        return b.op("add", spread, b.op("reshape", b.op("reshape", total, shape=(N, 4)), shape=(N, 1, 4)))

    assert ops_of(Canonicalise().run(module_of(make))).count("reduce") == 1


def test_gather_when_indices_are_not_constant_then_stays() -> None:
    b = GraphBuilder()
    x, indices = b.input("x", tensor(F32, N, 3)), b.input("i", tensor(I64, W))
    b.output("y", b.op("gather", x, indices, axis=1))
    assert ops_of(Canonicalise().run(b.finish())) == ["gather"]


def test_attention_when_mask_was_repeated_then_takes_the_small_one() -> None:
    b = GraphBuilder()
    q = b.input("q", tensor(F32, N, 2, W, 4))
    mask = b.op("broadcast_to", b.input("mask", tensor(F32, N, 1, 1, W)), shape=(N, 1, W, W))
    b.output("y", b.op("attention", q, q, q, mask, scale=0.5))
    module = b.finish()
    after = Canonicalise().run(module)
    assert ops_of(after) == ["attention"]
    assert_same_results(module, after, tolerance=0)
