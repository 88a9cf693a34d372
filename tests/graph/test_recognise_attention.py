"""Attention: the forms it is exported in, and what must not be taken for it."""

from __future__ import annotations

import numpy as np
import pytest

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import BOOL, F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder, graph_nodes
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.reference import run
from tests.graph.graphs import (
    assert_close,
    assert_same_results,
    attention_module,
    inputs_of,
    nodes_of,
    op_counts,
    ops_of,
    type_of,
)

pytestmark = pytest.mark.unit
N, W = symbol("N"), symbol("W")


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("scale_on", ["scores", "q", "k"])
def test_attention_when_exported_from_bert_then_only_head_transposes_remain(mask: bool, scale_on: str) -> None:
    after = run_passes(attention_module(mask, scale_on))
    (attention,) = nodes_of(after, "attention")
    assert attention.attributes["scale"] == 0.5
    assert len(attention.inputs) == 3 + mask
    assert {n.attributes["perm"] for n in nodes_of(after, "transpose")} == {(0, 2, 1, 3)}
    assert op_counts(after) == {"matmul": 3, "reshape": 4, "transpose": 4, "attention": 1}


def scores_of(b: GraphBuilder, rank: int = 4) -> tuple[int, int]:
    shape = (N, 2, W, 8) if rank == 4 else (N, W, 8)
    q, k, v = (b.input(name, tensor(F32, *shape)) for name in "qkv")
    return b.op("matmul", q, k, transpose_b=True), v


def with_softmax(b: GraphBuilder, scores: int, v: int) -> Module:
    b.output("y", b.op("matmul", b.op("softmax", scores, axis=b.type(scores).rank - 1), v))
    return b.finish()


def test_attention_when_operands_have_rank_three_then_is_one_head() -> None:
    b = GraphBuilder()
    scores, v = scores_of(b, rank=3)
    scores = b.op("add", scores, b.input("mask", tensor(F32, N, 1, W)))
    module = with_softmax(b, scores, v)
    after = run_passes(module)
    assert op_counts(after)["attention"] == 1
    assert_same_results(module, after)


@pytest.mark.parametrize("shape", [(), (W,), (W, W), (2, 1, W), (N, 2, W, W), (N, 1, W, 1)], ids=str)
def test_attention_when_mask_is_small_then_has_rank_four_and_every_key(shape: tuple[int, ...]) -> None:
    b = GraphBuilder()
    scores, v = scores_of(b)
    module = with_softmax(b, b.op("add", b.input("mask", tensor(F32, *shape)), scores), v)
    after = run_passes(module)
    (attention,) = nodes_of(after, "attention")
    mask = type_of(after, attention.inputs[3])
    assert (mask.rank, mask.shape[-1]) == (4, W)
    assert_same_results(module, after)


@pytest.mark.parametrize("lowest", [-np.inf, float(np.finfo(np.float32).min)])
@pytest.mark.parametrize("kept_first", [False, True])
@pytest.mark.parametrize("added", [False, True])
def test_attention_when_scores_are_selected_then_has_a_mask(lowest: float, kept_first: bool, added: bool) -> None:
    b = GraphBuilder()
    q, k, v = (b.input(name, tensor(F32, 2, 3, 5, 8)) for name in "qkv")
    scores = b.op("mul", b.op("matmul", q, k, transpose_b=True), b.scalar(0.5, F32))
    later = np.triu(np.ones((5, 5), np.bool_), 1)
    low = b.constant(np.full((1, 1), lowest, np.float32))
    choice = (scores, low) if kept_first else (low, scores)
    scores = b.op("select", b.constant(~later if kept_first else later), *choice)
    if added:
        scores = b.op("add", scores, b.input("mask", tensor(F32, 2, 1, 1, 5)))
    module = with_softmax(b, scores, v)
    after = run_passes(module)
    (attention,) = nodes_of(after, "attention")
    assert len(attention.inputs) == 4
    assert attention.attributes["scale"] == 0.5
    assert_same_results(module, after)


def test_attention_when_no_key_is_selected_then_weighs_all_keys_alike() -> None:
    b = GraphBuilder()
    scores, v = scores_of(b)
    seen = b.input("seen", tensor(BOOL, W, W))
    module = with_softmax(b, b.op("select", seen, scores, b.scalar(float(np.finfo(np.float32).min), F32)), v)
    after = run_passes(module)
    assert op_counts(after)["attention"] == 1
    inputs = {**inputs_of(module), "seen": np.zeros((3, 3), np.bool_)}
    rng = np.random.default_rng(0)
    inputs |= {n: rng.standard_normal((2, 2, 3, 8)).astype(np.float32) for n in "qkv"}
    for name, value in run(module, "main", inputs).items():
        assert_close(run(after, "main", inputs)[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("number", [-1e4, np.nan, np.inf])
def test_attention_when_hidden_scores_keep_some_weight_then_is_not_recognised(number: float) -> None:
    b = GraphBuilder()
    scores, v = scores_of(b)
    seen = b.input("seen", tensor(BOOL, W, W))
    module = with_softmax(b, b.op("select", seen, scores, b.scalar(number, F32)), v)
    assert "attention" not in op_counts(run_passes(module))


def repeated_heads(b: GraphBuilder, value: int, times: int) -> int:
    batch, heads, length, depth = b.type(value).shape
    apart = b.op("reshape", value, shape=(batch, heads, 1, length, depth))
    wide = b.op("broadcast_to", apart, shape=(batch, heads, times, length, depth))
    return b.op("reshape", wide, shape=(batch, heads * times, length, depth))


@pytest.mark.parametrize("transposed", [False, True])
def test_attention_when_keys_are_repeated_for_several_heads_then_reads_each_once(transposed: bool) -> None:
    b = GraphBuilder()
    q = b.input("q", tensor(F32, N, 6, W, 8))
    k, v = (b.input(name, tensor(F32, N, 2, W, 8)) for name in "kv")
    keys = repeated_heads(b, k, 3)
    if transposed:
        keys = b.op("transpose", keys, perm=(0, 1, 3, 2))
    scores = b.op("matmul", q, keys, transpose_b=not transposed)
    module = with_softmax(b, scores, repeated_heads(b, v, 3))
    after = run_passes(module)
    assert op_counts(after) == {"attention": 1}
    assert_same_results(module, after)


@pytest.mark.parametrize("mask", [None, (1, 1, 1, 9), (2, 6, 2, 9), (2, 1, 2, 9)], ids=str)
def test_attention_when_queries_are_few_then_heads_become_rows(mask: tuple[int, ...] | None) -> None:
    b = GraphBuilder()
    q = b.input("q", tensor(F32, 2, 6, 2, 8))
    k, v = (b.input(name, tensor(F32, 2, 2, 9, 8)) for name in "kv")
    scores = b.op("matmul", q, repeated_heads(b, k, 3), transpose_b=True)
    if mask is not None:
        scores = b.op("add", scores, b.input("mask", tensor(F32, *mask)))
    module = with_softmax(b, scores, repeated_heads(b, v, 3))
    after = run_passes(module)
    (attention,) = nodes_of(after, "attention")
    folded = mask != (2, 1, 2, 9)  # a mask for each query that all heads share would have to be repeated
    assert type_of(after, attention.inputs[0]).shape == ((2, 2, 6, 8) if folded else (2, 6, 2, 8))
    assert_same_results(module, after)


def test_attention_when_only_keys_are_repeated_then_keeps_the_repetition() -> None:
    b = GraphBuilder()
    q, v = (b.input(name, tensor(F32, N, 6, W, 8)) for name in "qv")
    k = b.input("k", tensor(F32, N, 2, W, 8))
    module = with_softmax(b, b.op("matmul", q, repeated_heads(b, k, 3), transpose_b=True), v)
    after = run_passes(module)
    assert op_counts(after)["broadcast_to"] == 1
    assert_same_results(module, after)


def zeroed(b: GraphBuilder, weights: int) -> int:
    return b.op("select", b.op("isnan", weights), b.scalar(0, weights), weights)


def test_attention_when_rows_without_keys_are_zeroed_then_result_is_zeroed() -> None:
    b = GraphBuilder()
    scores, v = scores_of(b)
    scores = b.op("add", scores, b.input("mask", tensor(F32, N, 1, W, W)))
    b.output("y", b.op("matmul", zeroed(b, b.op("softmax", scores, axis=3)), v))
    module = b.finish()
    after = run_passes(module)
    assert ops_of(after) == ["attention", "isnan", "select"]
    inputs = inputs_of(module)
    inputs["mask"][0, 0, 1] = -np.inf
    found = run(after, "main", inputs)["y"]
    assert_close(found, run(module, "main", inputs)["y"], atol=2e-5)
    assert not found[0, :, 1].any()


def test_attention_when_zeroed_weights_are_an_output_too_then_is_not_recognised() -> None:
    b = GraphBuilder()
    scores, v = scores_of(b)
    weights = b.op("softmax", scores, axis=3)
    b.output("weights", weights)
    b.output("y", b.op("matmul", zeroed(b, weights), v))
    assert "attention" not in ops_of(run_passes(b.finish()))


def test_attention_when_value_is_transposed_then_flag_becomes_a_transpose() -> None:
    b = GraphBuilder()
    q, k = (b.input(name, tensor(F32, N, 2, W, 8)) for name in "qk")
    v = b.input("v", tensor(F32, N, 2, 6, W))
    weights = b.op("softmax", b.op("matmul", q, k, transpose_b=True), axis=3)
    b.output("y", b.op("matmul", weights, v, transpose_b=True))
    module = b.finish()
    after = run_passes(module)
    assert sorted(ops_of(after)) == ["attention", "transpose"]
    assert_same_results(module, after)


def test_attention_when_scores_are_an_output_then_is_not_recognised() -> None:
    b = GraphBuilder()
    scores, v = scores_of(b)
    b.output("scores", scores)
    assert "attention" not in ops_of(run_passes(with_softmax(b, scores, v)))


def test_attention_when_weights_are_an_output_then_is_not_recognised() -> None:
    b = GraphBuilder()
    scores, v = scores_of(b)
    weights = b.op("softmax", scores, axis=3)
    b.output("weights", weights)
    b.output("y", b.op("matmul", weights, v))
    assert "attention" not in ops_of(run_passes(b.finish()))


def test_attention_when_scale_follows_the_mask_then_is_not_recognised() -> None:
    b = GraphBuilder()
    scores, v = scores_of(b)
    masked = b.op("add", scores, b.input("mask", tensor(F32, N, 1, 1, W)))
    assert "attention" not in ops_of(run_passes(with_softmax(b, b.op("mul", masked, b.scalar(0.5, masked)), v)))


def test_attention_when_heads_share_their_keys_then_is_not_recognised() -> None:
    b = GraphBuilder()
    q = b.input("q", tensor(F32, N, 2, W, 8))
    k, v = (b.input(name, tensor(F32, N, 1, W, 8)) for name in "kv")
    assert "attention" not in ops_of(run_passes(with_softmax(b, b.op("matmul", q, k, transpose_b=True), v)))


def test_attention_when_softmax_is_over_queries_then_is_not_recognised() -> None:
    b = GraphBuilder()
    scores, v = scores_of(b)
    b.output("y", b.op("matmul", b.op("softmax", scores, axis=2), v))
    assert "attention" not in ops_of(run_passes(b.finish()))


def test_attention_when_the_depth_of_heads_is_unknown_then_it_stays_products_and_a_softmax() -> None:
    b = GraphBuilder(dims={"D": (1, None)})
    q, k, v = (b.input(n, tensor(F32, 1, 2, 5, symbol("D"))) for n in "qkv")
    scores = b.op("softmax", b.op("matmul", q, k, transpose_b=True), axis=3)
    b.output("y", b.op("matmul", scores, v))
    module = run_passes(b.finish())
    assert "attention" not in [n.op for n in graph_nodes(module.entries["main"])]
