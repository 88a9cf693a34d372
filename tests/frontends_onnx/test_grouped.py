"""GroupQueryAttention's variants against onnxruntime: sinks, all keys rather than earlier ones, scores as a result."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from onnx import helper

from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.built import assert_built_agrees
from tests.frontends_onnx.oracle import floats, make_model

pytestmark = pytest.mark.numerics

HEADS, SHARED, DEPTH = 4, 2, 8


@dataclass(frozen=True, slots=True)
class Variant:
    """What differs from one prompt with a causal mask."""

    attributes: dict[str, float] = field(default_factory=dict[str, float])
    operands: tuple[str, ...] = ()
    batch: int = 2
    steps: int = 3
    past: int = 0
    told: bool = False  # whether only data tell the total length


VARIANTS = {
    "sink": Variant({}, ("sink",)),
    "sink behind a cache": Variant({}, ("sink",), steps=1, past=5),
    "sink, bias and window": Variant({"local_window_size": 2}, ("bias", "sink")),
    "sink, capped": Variant({"softcap": 5.0}, ("sink",)),
    "smooth": Variant({"smooth_softmax": 1}),
    "all keys": Variant({"causal": 0}),
    "all keys behind a cache": Variant({"causal": 0}, batch=1, past=4),
    "scores": Variant({"qk_output": 1}),
    "scores, capped with bias": Variant({"qk_output": 1, "softcap": 3.0}, ("bias",)),
    "weights": Variant({"qk_output": 2}),
    "weights with a sink": Variant({"qk_output": 2}, ("sink",), steps=1, past=4),
    "told": Variant({}, (), steps=1, past=5, told=True),
}


def _feeds(variant: Variant) -> dict[str, Array]:
    total = variant.past + variant.steps
    feeds: dict[str, Array] = {"q": floats(variant.batch, variant.steps, HEADS * DEPTH)}
    feeds |= {name: floats(variant.batch, variant.steps, SHARED * DEPTH) for name in "kv"}
    if variant.past:
        feeds |= {name: floats(variant.batch, SHARED, variant.past, DEPTH) for name in ("past_k", "past_v")}
    feeds |= {"lengths": np.full(variant.batch, total - 1, np.int32)}
    feeds |= {"total": np.asarray(total, np.int32)} if variant.told else {}
    feeds |= {"bias": floats(1, HEADS, variant.steps, total)} if "bias" in variant.operands else {}
    return feeds | ({"sink": floats(HEADS)} if "sink" in variant.operands else {})


def _model(variant: Variant, feeds: dict[str, Array], dynamic: bool) -> onnx.ModelProto:
    order = ["q", "k", "v", "past_k", "past_v", "lengths", "total", "", "", "", "bias", "sink"]
    names = [name if name in feeds or name == "total" else "" for name in order]
    results = ["y", "keys", "values", *(["scores"] if "qk_output" in variant.attributes else [])]
    node = helper.make_node("GroupQueryAttention", names, results, domain="com.microsoft")
    attributes = {"num_heads": HEADS, "kv_num_heads": SHARED, **variant.attributes}
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    symbols = {variant.batch: "B", variant.past: "P", variant.past + variant.steps: "T", variant.steps: "S"}
    free = {"q": (0, 1), "k": (0, 1), "v": (0, 1), "past_k": (0, 2), "past_v": (0, 2), "lengths": (0,), "bias": (2, 3)}
    inputs = {
        name: (
            array.dtype.type,
            [symbols[e] if dynamic and i in free.get(name, ()) else e for i, e in enumerate(array.shape)],
        )
        for name, array in feeds.items()
    }
    weights = {} if variant.told else {"total": np.asarray(variant.past + variant.steps, np.int32)}
    model = make_model([node], inputs, results, weights)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_grouped_attention_when_varied_then_agrees(name: str, dynamic: bool) -> None:
    variant = VARIANTS[name]
    feeds = _feeds(variant)
    assert_built_agrees(_model(variant, feeds, dynamic), feeds)
