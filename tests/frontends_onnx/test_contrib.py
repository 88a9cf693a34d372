"""The float operators of com.microsoft, each against onnxruntime's own kernel, with stated shapes and with dims."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import helper

from tessera_build.frontends.onnx import ModelError, UnsupportedError, read_onnx
from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.node_case import Case, node_of
from tests.frontends_onnx.oracle import assert_agrees, floats, make_model

pytestmark = pytest.mark.numerics


IMAGE: dict[str, Array] = {"x": floats(2, 3, 8, 9)}
KERNEL: dict[str, Array] = {"w": floats(4, 3, 3, 3), "b": floats(4)}
ROWS: dict[str, Array] = {"x": floats(2, 5, 16), "s": floats(2, 5, 16)}
WORDS: dict[str, Array] = {
    "we": floats(9, 16),
    "pe": floats(12, 16),
    "se": floats(2, 16),
    "g": floats(16),
    "b": floats(16),
}
IDS: Array = np.random.default_rng(0).integers(0, 9, (2, 5)).astype(np.int32)
CASES: dict[str, Case] = {
    "matmul-scaled": Case(
        "FusedMatMul", {"a": floats(2, 4, 3), "b": floats(2, 5, 4)}, {}, {"alpha": 0.5, "transA": 1, "transB": 1}
    ),
    "matmul-batch-a": Case("FusedMatMul", {"a": floats(5, 2, 3, 4), "b": floats(2, 3, 4, 6)}, {}, {"transBatchA": 1}),
    "matmul-batch-b": Case(
        "FusedMatMul", {"a": floats(2, 3, 5, 4), "b": floats(6, 2, 3, 4)}, {}, {"transBatchB": 1, "transB": 1}
    ),
    "matmul-vector": Case("FusedMatMul", {"a": floats(4), "b": floats(2, 4, 3)}),
    "matmul-old": Case("TransposeMatMul", {"a": floats(4, 3), "b": floats(4, 5)}, {}, {"transA": 1}),
    "gelu": Case("Gelu", {"x": floats(3, 17)}),
    "gelu-bias": Case("BiasGelu", {"x": floats(2, 3, 17), "b": floats(17)}),
    "gelu-fast": Case("FastGelu", {"x": floats(2, 3, 17)}),
    "gelu-fast-bias": Case("FastGelu", {"x": floats(2, 3, 17), "b": floats(17)}),
    "gelu-quick": Case("QuickGelu", {"x": floats(3, 17)}, {}, {"alpha": 1.3}),
    "conv-sum": Case(
        "FusedConv", {**IMAGE}, {**KERNEL, "z": floats(2, 4, 8, 9)}, {"pads": [1, 1, 1, 1], "activation": "Relu"}
    ),
    "skip": Case(
        "SkipLayerNormalization",
        ROWS,
        {"g": floats(16), "b": floats(16), "bias": floats(16)},
        {"epsilon": 1e-5},
        ("y", "", "", "t"),
    ),
    "skip-plain": Case("SkipLayerNormalization", ROWS, {"g": floats(16)}),
    "skip-broadcast": Case("SkipLayerNormalization", {"x": ROWS["x"], "s": floats(5, 16)}, {"g": floats(16)}),
    "skip-simplified": Case(
        "SkipSimplifiedLayerNormalization", ROWS, {"g": floats(16), "bias": floats(16)}, {}, ("y", "", "", "t")
    ),
    "simplified": Case("SimplifiedLayerNormalization", {"x": floats(2, 5, 16)}, {"g": floats(16)}, domain=""),
    "embed": Case(
        "EmbedLayerNormalization",
        {"i": IDS, "s": IDS % 2, "m": np.array([[1, 1, 1, 0, 0], [1] * 5], np.int32)},
        WORDS,
        {},
        ("y", "lengths", "sum"),
        ("i", "s", "we", "pe", "se", "g", "b", "m"),
    ),
    "embed-plain": Case(
        "EmbedLayerNormalization",
        {"i": IDS},
        {n: WORDS[n] for n in ("we", "pe", "g", "b")},
        {},
        ("y", "lengths"),
        ("i", "", "we", "pe", "", "g", "b"),
    ),
    "distances": Case("CDist", {"a": floats(5, 8), "b": floats(6, 8)}, {}, {"metric": "euclidean"}),
    "lower": Case("Trilu", {"x": floats(5, 8)}, {}, {"upper": 0}),
}
for _name, _parameters in {
    "Relu": [],
    "LeakyRelu": [0.3],
    "Tanh": [],
    "Sigmoid": [],
    "HardSigmoid": [0.3, 0.4],
    "Clip": [-0.2, 0.5],
}.items():
    _stated = {"activation_params": _parameters} if _parameters else {}
    CASES[f"conv-{_name}"] = Case("FusedConv", IMAGE, KERNEL, {"pads": [1, 1, 1, 1], "activation": _name, **_stated})
for _name, _named in {"LeakyRelu": {"activation_alpha": 0.3}, "Elu": {"activation_alpha": 0.4}, "Softplus": {}}.items():
    CASES[f"gemm-{_name}"] = Case(
        "FusedGemm",
        {"a": floats(3, 4), "b": floats(5, 4), "c": floats(5)},
        {},
        {"transB": 1, "alpha": 0.7, "beta": 0.2, "activation": _name, **_named},
    )


def model_of(case: Case, named: bool) -> onnx.ModelProto:
    node = node_of(case, case.domain)
    kinds = {
        n: (a.dtype.type, [f"{n}{i}" if named and e > 1 else e for i, e in enumerate(a.shape)])
        for n, a in case.inputs.items()
    }
    model = make_model([node], kinds, [o for o in case.results if o], case.weights)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_operator_when_onnxruntime_has_it_then_agrees(name: str, named: bool) -> None:
    case = CASES[name]
    assert_agrees(model_of(case, named), case.inputs)


def test_model_when_onnxruntime_has_optimised_it_then_gives_the_same(tmp_path: object) -> None:
    """A small transformer block, rewritten by onnxruntime into its own operators."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Add", ["h", "b1"], ["i"]),
        helper.make_node("Gelu", ["i"], ["j"]),
        helper.make_node("MatMul", ["j", "w2"], ["k"]),
        helper.make_node("Add", ["k", "x"], ["l"]),
        helper.make_node("LayerNormalization", ["l", "g", "b"], ["m"]),
        helper.make_node("Transpose", ["m"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["m", "t"], ["y"]),
    ]
    weights = {"w1": floats(16, 32), "b1": floats(32), "w2": floats(32, 16), "g": floats(16), "b": floats(16)}
    model = make_model(nodes, {"x": (np.float32, ["n", "s", 16])}, ["y"], weights, 20)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = f"{tmp_path}/optimised.onnx"
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(options.optimized_model_filepath)
    assert {n.op_type for n in optimised.graph.node if n.domain == "com.microsoft"} >= {"FusedMatMul", "BiasGelu"}
    assert_agrees(optimised, {"x": floats(2, 7, 16)})


@pytest.mark.errors
def test_activation_when_unknown_then_is_refused() -> None:
    case = Case("FusedConv", IMAGE, KERNEL, {"activation": "Snake"})
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(model_of(case, named=False))
    assert "Snake" in caught.value.diagnostics()


def test_embeddings_when_tables_differ_in_width_then_are_refused_not_broadcast() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
        g (int32[2, 3] i, float[7, 4] w, float[3, 1] p, float[4] g, float[4] b) => (float[2, 3, 4] y, int32[2] m) {
            y, m = com.microsoft.EmbedLayerNormalization(i, "", w, p, "", g, b)
        }"""
    )
    with pytest.raises(ModelError) as caught:
        read_onnx(model)
    assert "differ in width" in caught.value.diagnostics()
