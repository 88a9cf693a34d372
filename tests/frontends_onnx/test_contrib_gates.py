"""Linear attention, its gates and norms, rotary embeddings of images and scores of heads, against onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tessera_build.frontends.onnx import UnsupportedError, read_onnx
from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.built import assert_built_agrees
from tests.frontends_onnx.oracle import floats, make_model

pytestmark = pytest.mark.numerics


@dataclass(frozen=True, slots=True)
class Case:
    """One node: its operator, its operands by name, "" left out, attributes, and results."""

    op: str
    operands: Mapping[str, Array | None]
    attributes: Mapping[str, object] = field(default_factory=dict[str, object])
    results: tuple[str, ...] = ("y",)
    free: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])


def _small(*shape: int) -> NDArray[np.float32]:
    return (floats(*shape) * 0.3).astype(np.float32)


def _half(*shape: int) -> Array:
    return floats(*shape).astype(np.float16)


BATCH, STEPS, HEADS, SHARED, KEY, VALUE = 2, 5, 4, 2, 8, 6
_PLACES: Array = np.random.default_rng(0).integers(0, 9, (3, BATCH, STEPS))
_PACKED: dict[str, Array | None] = {
    "q": _small(BATCH, STEPS, HEADS * KEY),
    "k": _small(BATCH, STEPS, SHARED * KEY),
    "v": _small(BATCH, STEPS, SHARED * VALUE),
}
_FREE = dict.fromkeys("qkvgb", (0, 1)) | {"s": (0,), "x": (0,), "z": (0,)}


def _linear(rule: str, state: bool) -> Case:
    operands = dict(_PACKED)
    operands["s"] = _small(BATCH, SHARED, KEY, VALUE) if state else None
    operands["g"] = -abs(_small(BATCH, STEPS, SHARED)) if "gated" in rule else None
    operands["b"] = abs(_small(BATCH, STEPS, SHARED)) if "delta" in rule else None
    attributes = {"update_rule": rule, "q_num_heads": HEADS, "kv_num_heads": SHARED}
    return Case("LinearAttention", operands, attributes, ("y", "state"), _FREE)


def _causal(activation: str, state: bool) -> Case:
    operands: dict[str, Array | None] = {"x": _small(BATCH, 6, STEPS), "w": _small(6, 1, 3), "bias": _small(6)}
    operands["s"] = _small(BATCH, 6, 2) if state else None
    return Case("CausalConvWithState", operands, {"activation": activation}, ("y", "state"), _FREE)


def _turned(layout: int, interleaved: int, sections: tuple[int, ...], rank: int) -> Case:
    x = _small(BATCH, STEPS, 3 * 16) if rank == 3 else _small(BATCH, 3, STEPS, 20)
    attributes: dict[str, object] = {"mrope_layout": layout, "interleaved": interleaved, "mrope_section": sections}
    attributes |= {"num_heads": 3} if rank == 3 else {"num_heads": 3, "rotary_embedding_dim": 16}
    operands = {"x": x, "places": _PLACES, "cos": _small(9, 8), "sin": _small(9, 8)}
    return Case("MRotaryEmbedding", operands, attributes)


def _gates(word: str, own: Array, scale: Array, gate: Array) -> Case:
    return Case(
        "GatedRMSNorm", {"x": own, "scale": scale, "z": gate}, {"activation": word, "epsilon": 1e-3}, free=_FREE
    )


_ROWS: Array = floats(2, 3, 24)
CASES: dict[str, Case] = {
    **{f"linear-{r}-{s}": _linear(r, s) for r in ("linear", "gated", "delta", "gated_delta") for s in (False, True)},
    **{f"causal-{a}-{s}": _causal(a, s) for a in ("none", "silu") for s in (False, True)},
    **{f"turned-{k}-{i}-3": _turned(k, i, (3, 3, 2), 3) for k in (0, 1) for i in (0, 1)},
    **{f"turned-{k}-{i}-4": _turned(k, i, (2, 3, 3), 4) for k in (0, 1) for i in (0, 1)},
    "gated-norm": _gates("silu", _ROWS, floats(8), floats(2, 3, 24)),
    "gated-norm-sigmoid": _gates("sigmoid", _ROWS, floats(24), floats(2, 3, 24)),
    "gated-norm-half": _gates("swish", _half(2, 3, 24), _half(8), _half(2, 3, 24)),
    "gated-sum": Case("GatedAdd", {"x": _ROWS, "y0": floats(2, 3, 24), "z": floats(2, 3, 1)}),
    "gated-sum-half": Case("GatedAdd", {"x": _half(2, 3, 24), "y0": _half(2, 3, 24), "z": _half(2, 3, 1)}),
    "scaled-silu": Case("ScaledSiLU", {"x": _ROWS}, {"alpha": 0.7}, free=_FREE),
    "scaled-silu-told": Case("ScaledSiLU", {"x": _half(2, 9), "scale": np.asarray(0.3, np.float32)}, free=_FREE),
    "branches": Case("BranchwiseRMSNorm", {"x": _ROWS, "scale": floats(24)}, {"num_branches": 3}, free=_FREE),
    "branches-one-scale": Case("BranchwiseRMSNorm", {"x": _ROWS, "scale": floats(8)}, {"num_branches": 3}),
    "branches-apart": Case("BranchwiseRMSNorm", {"x": _ROWS, "scale": floats(3, 24)}, {"epsilon": 0.1}),
    "branches-half": Case("BranchwiseRMSNorm", {"x": _half(2, 3, 24)}),
    "decay": Case(
        "LinearAttentionGate",
        {"a": _half(2, 3, 4), "shift": floats(4), "scale": floats(4), "z": _half(2, 3, 4)},
        results=("y", "learnt"),
    ),
    "decay-alone": Case("LinearAttentionGate", {"a": floats(2, 3, 4), "shift": floats(4), "scale": floats(4)}),
}


def _model(case: Case, dynamic: bool) -> tuple[onnx.ModelProto, dict[str, Array]]:
    given = {name: array for name, array in case.operands.items() if array is not None}
    node = helper.make_node(
        case.op, [n if n in given else "" for n in case.operands], list(case.results), domain="com.microsoft"
    )
    node.attribute.extend(helper.make_attribute(name, value) for name, value in case.attributes.items())
    inputs = {
        name: (
            array.dtype.type,
            ["BT"[i] if dynamic and i in case.free.get(name, ()) else e for i, e in enumerate(array.shape)],
        )
        for name, array in given.items()
    }
    model = make_model([node], inputs, case.results)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model, given


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_operator_when_built_then_agrees(name: str, dynamic: bool) -> None:
    model, feeds = _model(CASES[name], dynamic)
    assert_built_agrees(model, feeds, tolerance=2e-3 if "half" in name or name == "decay" else 1e-5)


@pytest.mark.parametrize("attribute", ["state_window", "dilation"])
def test_operator_when_it_goes_beyond_onnxs_own_then_is_refused(attribute: str) -> None:
    case = _causal("none", state=False)
    model, _ = _model(case, dynamic=False)
    model.graph.node[0].attribute.append(helper.make_attribute(attribute, 2))
    with pytest.raises(UnsupportedError, match=attribute):
        read_onnx(model)


@pytest.mark.parametrize("biased", [False, True])
def test_attention_when_its_scores_are_wanted_then_gives_them(biased: bool) -> None:
    feeds: dict[str, Array] = {"q": floats(2, 4, 32), "k": floats(2, 5, 32), "v": floats(2, 5, 32)}
    feeds |= {"bias": floats(1, 4, 4, 5)} if biased else {}
    names = ["q", "k", "v", "", "", "bias"] if biased else ["q", "k", "v"]
    node = helper.make_node("MultiHeadAttention", names, ["y", "", "", "qk"], domain="com.microsoft", num_heads=4)
    model = make_model([node], {n: (np.float32, a.shape) for n, a in feeds.items()}, ["y"])
    model.graph.output.append(helper.make_tensor_value_info("qk", TensorProto.FLOAT, ["B", "H", "M", "N"]))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert_built_agrees(model, feeds)
