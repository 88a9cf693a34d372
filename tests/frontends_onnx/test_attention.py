"""Attention in ONNX's and onnxruntime's forms, against onnxruntime; and what the compiler recognises of it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import helper

from tessera_build.frontends.onnx import UnsupportedError, read_onnx
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.reference import run
from tests.frontends_onnx.oracle import assert_agrees, expected, floats, make_model

pytestmark = pytest.mark.numerics
BATCH, HEADS, SHARED, DEPTH, NEW, OLD = 2, 4, 2, 8, 5, 6
# Which axes of an operand of rank 4 or 3 a model has as dims.
LENGTHS = {"q": "m", "k": "n", "v": "n", "pk": "past", "pv": "past"}


def model_of(
    node: onnx.NodeProto, inputs: Mapping[str, Array], weights: Mapping[str, Array] | None = None, named: bool = True
) -> onnx.ModelProto:
    """A model of one node; batch and lengths are dims, heads and depths are stated."""
    kinds: dict[str, tuple[type[np.generic], Sequence[int | str]]] = {}
    for name, array in inputs.items():
        shape: list[int | str] = list(array.shape)
        if named and name in LENGTHS:
            shape[0], shape[2 if array.ndim == 4 else 1] = "batch", LENGTHS[name]
        kinds[name] = (array.dtype.type, shape)
    model = make_model([node], kinds, [o for o in node.output if o], weights, 24)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def heads(keys: int = NEW, count: int = HEADS) -> dict[str, Array]:
    return {
        "q": floats(BATCH, HEADS, NEW, DEPTH),
        "k": floats(BATCH, count, keys, DEPTH),
        "v": floats(BATCH, count, keys, 6),
    }


def ops_after_passes(module: Module) -> list[str]:
    return [n.op for n in graph_nodes(run_passes(module).entries["main"])]


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("count", [HEADS, SHARED, 1])
def test_attention_when_heads_share_keys_then_agrees_and_is_one_op(count: int, causal: int) -> None:
    inputs = heads(count=count)
    module = assert_agrees(model_of(helper.make_node("Attention", [*inputs], ["y"], is_causal=causal), inputs), inputs)
    ops = ops_after_passes(module)
    assert ops.count("attention") == 1
    assert not {"matmul", "softmax", "broadcast_to"} & set(ops)


def test_attention_when_passes_have_run_then_gives_the_same() -> None:
    inputs = heads(count=SHARED)
    model = model_of(helper.make_node("Attention", [*inputs], ["y"], is_causal=1, scale=0.3), inputs)
    found = run(run_passes(read_onnx(model)), "main", inputs)["y"]
    np.testing.assert_allclose(found.astype(np.float64), expected(model, inputs)[0].astype(np.float64), 0, 1e-5)


@pytest.mark.parametrize("kind", ["float", "bool", "heads"])
@pytest.mark.parametrize("causal", [0, 1])
def test_attention_when_masked_then_agrees_even_for_rows_without_keys(kind: str, causal: int) -> None:
    inputs = heads(keys=7)
    shape = (BATCH, HEADS, NEW, 7) if kind == "heads" else (NEW, 7)
    mask: Array = floats(*shape)
    if kind == "bool":
        mask = np.random.default_rng(0).integers(0, 2, shape).astype(np.bool_)
        mask[1] = False
    inputs["mask"] = mask
    node = helper.make_node("Attention", [*inputs], ["y"], is_causal=causal)
    assert_agrees(model_of(node, inputs, named=False), inputs)


@pytest.mark.parametrize("mode", range(4))
@pytest.mark.parametrize("softcap", [0.0, 2.0])
def test_attention_when_scores_are_shown_then_are_those_of_the_stage(mode: int, softcap: float) -> None:
    inputs = heads() | {"mask": floats(NEW, NEW + OLD)}
    inputs |= {"pk": floats(BATCH, HEADS, OLD, DEPTH), "pv": floats(BATCH, HEADS, OLD, 6)}
    node = helper.make_node(
        "Attention", [*inputs], ["y", "ok", "ov", "scores"], qk_matmul_output_mode=mode, softcap=softcap
    )
    assert_agrees(model_of(node, inputs, named=False), inputs)


def test_attention_when_three_dimensional_then_splits_heads_itself() -> None:
    inputs: dict[str, Array] = {
        n: floats(BATCH, NEW, c * DEPTH) for n, c in (("q", HEADS), ("k", SHARED), ("v", SHARED))
    }
    node = helper.make_node("Attention", [*inputs], ["y"], q_num_heads=HEADS, kv_num_heads=SHARED)
    assert_agrees(model_of(node, inputs), inputs)


# -- com.microsoft ----------------------------------------------------------------------------------------------------


def contrib(op: str, operands: Sequence[str], results: Sequence[str] = ("y",), **attributes: object) -> onnx.NodeProto:
    node = helper.make_node(op, operands, results, domain="com.microsoft")
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return node


def flat(keys: int = 7) -> dict[str, Array]:
    return {n: floats(BATCH, NEW if n == "q" else keys, HEADS * DEPTH) for n in "qkv"}


MASKS: dict[str, Array] = {
    "lengths": np.array([3, 7], np.int32),
    "keys": np.array([[1, 1, 0, 1, 0, 0, 1], [1] * 7], np.int32),
    "queries": np.random.default_rng(1).integers(0, 2, (BATCH, NEW, 7)).astype(np.int32)
    | np.eye(NEW, 7, dtype=np.int32),
}


@pytest.mark.parametrize("mask", [None, *MASKS])
@pytest.mark.parametrize("biased", [False, True])
def test_multi_head_attention_when_masked_then_agrees(mask: str | None, biased: bool) -> None:
    inputs = flat()
    if mask is not None:
        inputs["m"] = MASKS[mask]
    weights = {"b": floats(3 * HEADS * DEPTH)} if biased else {}
    node = contrib("MultiHeadAttention", ["q", "k", "v", "b" if biased else "", "m" if mask else ""], num_heads=HEADS)
    module = assert_agrees(model_of(node, inputs, weights), inputs)
    assert "attention" in ops_after_passes(module)


def test_multi_head_attention_when_cached_then_gives_the_next_cache() -> None:
    inputs = flat(NEW) | {n: floats(BATCH, HEADS, OLD, DEPTH) for n in ("pk", "pv")}
    operands = ["q", "k", "v", "", "", "", "pk", "pv"]
    node = contrib("MultiHeadAttention", operands, ["y", "ok", "ov"], num_heads=HEADS, unidirectional=1)
    assert_agrees(model_of(node, inputs, named=False), inputs)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("sizes", [None, (32, 32, 24)])
def test_projected_attention_when_hidden_sizes_differ_then_agrees(sizes: tuple[int, ...] | None, causal: int) -> None:
    total = sum(sizes or (32, 32, 32))
    node = contrib("Attention", ["q", "w", "b", "m"], num_heads=HEADS, unidirectional=causal)
    if sizes:
        node.attribute.append(helper.make_attribute("qkv_hidden_sizes", sizes))
    inputs: dict[str, Array] = {"q": floats(BATCH, NEW, 12), "m": MASKS["keys"][:, :NEW]}
    assert_agrees(model_of(node, inputs, {"w": floats(12, total), "b": floats(total)}), inputs)


@pytest.mark.parametrize(("turned", "interleaved"), list(itertools.product([0, 1], repeat=2)))
@pytest.mark.parametrize("lengths", [(10, 10), (10, 8)], ids=["even", "ragged"])
@pytest.mark.parametrize("local", [-1, 3])
def test_grouped_query_attention_when_rows_have_other_lengths_then_new_keys_follow_old_ones(
    turned: int, interleaved: int, lengths: tuple[int, int], local: int
) -> None:
    """One new token a row, as in decoding; the cache holds nine tokens of one row and nine or seven of the other."""
    inputs: dict[str, Array] = {n: floats(BATCH, 1, c * 16) for n, c in (("q", HEADS), ("k", SHARED), ("v", SHARED))}
    inputs |= {n: floats(BATCH, SHARED, 9, 16) for n in ("pk", "pv")}
    inputs["counts"] = np.array(lengths, np.int32) - 1
    weights = {"total": np.array(10, np.int32), "c": floats(40, 8), "s": floats(40, 8)}
    node = contrib(
        "GroupQueryAttention",
        ["q", "k", "v", "pk", "pv", "counts", "total", *(["c", "s"] if turned else [])],
        ["y", "ok", "ov"],
        num_heads=HEADS,
        kv_num_heads=SHARED,
        do_rotary=turned,
        rotary_interleaved=interleaved * turned,
        local_window_size=local,
    )
    model = model_of(node, inputs, {n: np.asarray(a) for n, a in weights.items()}, named=False)
    found = run(read_onnx(model), "main", inputs)
    for name, wanted in zip(["y", "ok", "ov"], expected(model, inputs), strict=True):
        # What lies behind the keys of a shorter row is nobody's.
        rows = slice(0, 1) if name != "y" and lengths[1] < 10 else slice(None)
        np.testing.assert_allclose(found[name][rows].astype(np.float64), wanted[rows].astype(np.float64), 0, 1e-5)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("partial", [False, True])
def test_rotary_embedding_when_only_some_columns_turn_then_the_others_stay(partial: bool, interleaved: int) -> None:
    inputs: dict[str, Array] = {"q": floats(BATCH, NEW, HEADS * DEPTH), "p": np.arange(2 * NEW).reshape(BATCH, NEW)}
    width = 2 if partial else 4
    node = contrib("RotaryEmbedding", ["q", "p", "c", "s"], interleaved=interleaved)
    if partial:
        node.attribute.extend(
            helper.make_attribute(n, v) for n, v in (("rotary_embedding_dim", 4), ("num_heads", HEADS))
        )
    assert_agrees(model_of(node, inputs, {"c": floats(40, width), "s": floats(40, width)}, named=False), inputs)


@pytest.mark.errors
def test_grouped_query_attention_when_cache_is_quantised_then_is_refused() -> None:
    inputs: dict[str, Array] = {n: floats(BATCH, 1, c * 16) for n, c in (("q", HEADS), ("k", SHARED), ("v", SHARED))}
    node = contrib(
        "GroupQueryAttention",
        ["q", "k", "v", "", "", "counts", "total"],
        num_heads=HEADS,
        kv_num_heads=SHARED,
        k_quant_type="PER_TENSOR",
    )
    weights = {"total": np.array(1, np.int32), "counts": np.array([0, 0], np.int32)}
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(model_of(node, inputs, weights))
    assert "k_quant_type" in caught.value.diagnostics()


def test_attention_when_the_cache_may_be_empty_then_takes_the_first_call_too() -> None:
    inputs = heads() | {n: floats(BATCH, HEADS, OLD, w) for n, w in (("pk", DEPTH), ("pv", 6))}
    node = helper.make_node("Attention", ["q", "k", "v", "", "pk", "pv"], ["y", "ok", "ov"], is_causal=1)
    model = model_of(node, inputs)
    module = read_onnx(model, dims={"past": (0, 64)})
    empty = {n: np.zeros((BATCH, HEADS, 0, w), np.float32) for n, w in (("pk", DEPTH), ("pv", 6))}
    assert_agrees(model, inputs, inputs | empty, module=module)
