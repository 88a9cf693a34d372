"""Channels-last: where transposes remain, and what they are replaced by."""

from __future__ import annotations

import pytest

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.passes.layout.reshapes import reshape_groups
from tessera_build.ir.graph.passes.pipeline import run_passes
from tests.graph.graphs import (
    assert_same_results,
    channel_constant,
    conv,
    image_input,
    nodes_of,
    normal,
    op_counts,
    ops_of,
    relu,
    type_of,
)

pytestmark = pytest.mark.unit
N, H, W = symbol("N"), symbol("H"), symbol("W")


def test_residual_block_when_run_then_one_transpose_at_the_input_and_one_at_the_output() -> None:
    b = GraphBuilder()
    x = relu(b, conv(b, image_input(b), 8, 1))
    y = b.op("add", b.op("mul", conv(b, x, 8, 2), channel_constant(b, x, 3)), channel_constant(b, x, 4))
    b.output("y", relu(b, b.op("add", y, x)))
    module = b.finish()
    after = run_passes(module)
    assert ops_of(after) == ["transpose", "conv", "max", "conv", "add", "add", "max", "transpose"]
    assert_same_results(module, after)


def test_mean_and_classifier_when_run_then_no_reshape_and_no_second_transpose() -> None:
    b = GraphBuilder()
    x = conv(b, image_input(b), 8, 1)
    mean = b.op("mul", b.op("reduce", x, kind="sum", axes=(2, 3), keepdims=True), b.scalar(1 / 63, x))
    flat = b.op("reshape", mean, shape=(N, 8))
    b.output("y", b.op("matmul", flat, b.constant(normal(2, 8, 5))))
    module = b.finish()
    after = run_passes(module)
    assert ops_of(after) == ["transpose", "conv", "reduce", "matmul"]
    assert_same_results(module, after)


@pytest.mark.parametrize("transpose_b", [False, True])
def test_flatten_when_classifier_is_constant_then_its_rows_are_permuted_instead(transpose_b: bool) -> None:
    b = GraphBuilder()
    x = conv(b, b.input("x", tensor(F32, N, 3, 4, 5)), 6, 1)
    flat = b.op("reshape", relu(b, x), shape=(N, 120))
    weights = normal(2, 120, 7)
    y = b.op("matmul", flat, b.constant(weights.T if transpose_b else weights), transpose_b=transpose_b)
    b.output("y", y)
    module = b.finish()
    after = run_passes(module)
    assert ops_of(after) == ["transpose", "conv", "max", "reshape", "matmul"]
    assert_same_results(module, after)


def test_flatten_when_size_is_symbolic_then_image_is_transposed_back() -> None:
    b = GraphBuilder()
    b.output("y", b.op("reshape", conv(b, image_input(b), 4, 1), shape=(N, 4 * H * W)))
    module = b.finish()
    after = run_passes(module)
    assert ops_of(after) == ["transpose", "conv", "transpose", "reshape"]
    assert_same_results(module, after)


def test_patches_when_flattened_for_a_transformer_then_transpose_vanishes() -> None:
    b = GraphBuilder()
    patches = b.op("reshape", conv(b, image_input(b), 4, 1), shape=(N, 4, H * W))
    b.output("y", b.op("transpose", patches, perm=(0, 2, 1)))
    module = b.finish()
    after = run_passes(module)
    assert ops_of(after) == ["transpose", "conv", "reshape"]
    assert_same_results(module, after)


def test_shuffle_when_channels_are_split_then_groups_move_within_the_last_axes() -> None:
    b = GraphBuilder()
    x = conv(b, image_input(b), 8, 1)
    split = b.op("transpose", b.op("reshape", x, shape=(N, 2, 4, H, W)), perm=(0, 2, 1, 3, 4))
    b.output("y", conv(b, b.op("reshape", split, shape=(N, 8, H, W)), 4, 2))
    module = b.finish()
    after = run_passes(module)
    (shuffle,) = (n for n in nodes_of(after, "transpose") if type_of(after, n.output).rank == 5)
    assert shuffle.attributes["perm"] == (0, 1, 2, 4, 3)
    assert op_counts(after)["transpose"] == 3
    assert_same_results(module, after)


def test_norm_when_exported_between_explicit_transposes_then_they_cancel() -> None:
    b = GraphBuilder()
    x = conv(b, image_input(b), 8, 1)
    last = b.op("softmax", b.op("transpose", x, perm=(0, 2, 3, 1)), axis=3)
    first = b.op("mul", b.op("transpose", last, perm=(0, 3, 1, 2)), b.scalar(3.0, x))
    b.output("y", b.op("reduce", conv(b, b.op("add", first, x), 4, 2), kind="max", axes=(1, 2, 3)))
    module = b.finish()
    after = run_passes(module)
    assert op_counts(after)["transpose"] == 1
    assert_same_results(module, after)


def test_branches_when_joined_then_concat_is_along_the_last_axis() -> None:
    b = GraphBuilder()
    x = image_input(b)
    joined = b.op("concat", conv(b, x, 4, 1), x, conv(b, x, 2, 2, 1), axis=1)
    b.output("y", b.op("reduce", joined, kind="max", axes=(2, 3)))
    module = b.finish()
    after = run_passes(module)
    (concat,) = nodes_of(after, "concat")
    assert concat.attributes["axis"] == 3
    assert op_counts(after)["transpose"] == 1
    assert_same_results(module, after)


def test_one_dimensional_conv_when_run_then_is_channels_last_too() -> None:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, N, 3, W))
    w = b.constant(normal(0, 4, 3, 3))
    y = b.op("conv", x, w, strides=(1,), low=(1,), high=(1,), dilations=(1,))
    b.output("y", b.op("reduce", y, kind="max", axes=(2,)))
    module = b.finish()
    after = run_passes(module)
    assert ops_of(after) == ["transpose", "conv", "reduce"]
    assert_same_results(module, after)


def test_pooling_when_no_conv_is_near_then_stays_channels_first() -> None:
    b = GraphBuilder()
    ones = (1, 1, 1, 1)
    window: dict[str, tuple[int, ...]] = {"window": (1, 1, 2, 2), "strides": (1, 1, 2, 2), "dilations": ones}
    y = b.op("reduce_window", image_input(b), kind="max", low=(0, 0, 0, 0), high=(0, 0, 0, 0), **window)
    b.output("y", relu(b, y))
    assert ops_of(run_passes(b.finish())) == ["reduce_window", "max"]


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((N, 4, H, W), (N, 4, H * W), [((0,), (0,)), ((1,), (1,)), ((2, 3), (2,))]),
        ((N, 8, H), (N, 2, 4, H), [((0,), (0,)), ((1,), (1, 2)), ((2,), (3,))]),
        ((2, 3, 4), (6, 2, 2), [((0, 1), (0,)), ((2,), (1, 2))]),
        ((1, 5, 1), (5,), [((1,), (0,))]),
        ((5,), (1, 5, 1), [((0,), (1,))]),
        ((4, 6), (3, 8), [((0, 1), (0, 1))]),
        ((N * H, 2), (N, H, 2), [((0,), (0, 1)), ((1,), (2,))]),
    ],
)
def test_reshape_groups_when_axes_join_or_split_then_are_the_finest(
    source: tuple[int, ...], target: tuple[int, ...], expected: list[tuple[tuple[int, ...], tuple[int, ...]]]
) -> None:
    groups = reshape_groups(source, target)
    assert groups is not None
    assert [(g.sources, g.results) for g in groups] == expected
