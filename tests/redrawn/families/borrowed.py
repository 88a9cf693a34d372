"""Quantised, fused and classical operators: the drawn cases of their own tests, and the activations of com.microsoft.

Takes a Draw; gives nodes or whole cases. Invariant: what onnxruntime rounds by tables may differ by one step here.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import onnx

from tests.frontends_onnx import contrib_cases, ml_cases, quantised_cases
from tests.redrawn.cases import MICROSOFT, Case, Maker
from tests.redrawn.draw import Draw, Drawn, Operand, fixed

CaseMaker = Callable[[int], Case]
# Steps that onnxruntime's tables and float products in another order may differ by.
_STEPS = 1


def _quantised(name: str, make: Callable[[quantised_cases.Draw], onnx.ModelProto]) -> CaseMaker:
    def made(seed: int) -> Case:
        draw = quantised_cases.Draw(np.random.default_rng(seed))
        model = make(draw)
        return Case(name, model, [dict(draw.data)], _STEPS)

    return made


def _classical(name: str, make: Callable[[random.Random], ml_cases.Drawn]) -> CaseMaker:
    def made(seed: int) -> Case:
        draw = random.Random(seed)
        model, feeds = make(draw)
        return Case(name, model, [feeds])

    return made


CASES: dict[str, CaseMaker] = {
    **{name: _quantised(name, make) for name, make in quantised_cases.CASES.items()},
    **{name: _quantised(name, make) for name, make in contrib_cases.CASES.items()},
    **{f"ml_{name}": _classical(f"ml_{name}", make) for name, make in ml_cases.ML.items()},
}


def fused_activation(op: str) -> Maker:
    def make(draw: Draw) -> Drawn:
        shape = tuple(max(e, 1) for e in draw.shape(1, 4))
        operands = [draw.data(shape)]
        if op in ("BiasGelu", "FastGelu") and (op == "BiasGelu" or draw.maybe()):
            operands.append(draw.weight(shape[-1:]))
        return Drawn(op, operands, {}, 1, domain=MICROSOFT)

    return make


def skip_normalisation(op: str) -> Maker:
    def make(draw: Draw) -> Drawn:
        shape = (draw.extent(1, False), draw.extent(1, False), draw.extent(1, False))
        width = shape[-1:]
        operands = [draw.data(shape), draw.data(shape), draw.weight(width)]
        if op == "SkipLayerNormalization":
            operands.append(draw.optional(draw.weight(width)))
        operands.append(draw.optional(draw.weight(width)))
        outputs = draw.one([["y"], ["y", "", "", "sum"]])
        return Drawn(op, operands, {"epsilon": draw.one([1e-5, 1e-3])}, 1, outputs, MICROSOFT)

    return make


def fused_product(draw: Draw) -> Drawn:
    """FusedMatMul with transposed operands and a factor."""
    m, k, n, batch = draw.extent(1), draw.extent(1), draw.extent(1), draw.shape(0, 2)
    attributes: dict[str, object] = {name: draw.whole(0, 1) for name in ("transA", "transB") if draw.maybe(0.6)}
    if draw.maybe():
        attributes["alpha"] = draw.real(0.1, 2)
    left = (k, m) if attributes.get("transA") else (m, k)
    right = (n, k) if attributes.get("transB") else (k, n)
    return Drawn(
        "FusedMatMul", [draw.data((*batch, *left)), draw.weight((*batch, *right))], attributes, 1, domain=MICROSOFT
    )


def heads(draw: Draw) -> Drawn:
    """MultiHeadAttention of three tensors of three axes."""
    count, width, batch = draw.whole(1, 3), draw.one([1, 2, 4, 8]), draw.whole(1, 2)
    queries, keys = draw.extent(1, False), draw.extent(1, False)
    hidden = count * width
    attributes: dict[str, object] = {"num_heads": count}
    if draw.maybe(0.3):
        attributes["scale"] = draw.real(0.1, 1)
    operands = [draw.data((batch, queries, hidden)), draw.data((batch, keys, hidden)), draw.data((batch, keys, hidden))]
    if draw.maybe(0.4):
        operands.append(draw.weight((3 * hidden,)))
    return Drawn("MultiHeadAttention", operands, attributes, 1, domain=MICROSOFT)


def encode_labels(draw: Draw) -> Drawn:
    """LabelEncoder from integers or floats to either."""
    source, target = draw.one(["int64s", "floats"]), draw.one(["int64s", "floats"])
    keys = draw.random.sample(range(12), draw.whole(1, 6))
    values = [draw.whole(-50, 50) for _ in keys]
    attributes: dict[str, object] = {f"keys_{source}": [float(k) for k in keys] if source == "floats" else keys}
    attributes[f"values_{target}"] = [float(v) for v in values] if target == "floats" else values
    if draw.maybe():
        attributes["default_" + ("float" if target == "floats" else "int64")] = 7.0 if target == "floats" else 7
    dtype = np.float32 if source == "floats" else np.int64
    x = Operand(draw.between(0, 13, draw.shape(1, 3), np.int64).astype(dtype), 0.1)
    return Drawn("LabelEncoder", [x], attributes, 2, domain="ai.onnx.ml")


def extract_features(draw: Draw) -> Drawn:
    """ArrayFeatureExtractor of some columns."""
    shape = (draw.extent(1), draw.whole(1, 9))
    columns = fixed([draw.whole(0, shape[1] - 1) for _ in range(draw.whole(1, 4))], chance=0.6)
    x = draw.data(shape, draw.dtype((np.float32, np.int64, np.float64, np.int32)))
    return Drawn("ArrayFeatureExtractor", [x, columns], {}, 1, domain="ai.onnx.ml")


MAKERS: dict[str, Maker] = {
    **{op: fused_activation(op) for op in ("BiasGelu", "FastGelu", "QuickGelu")},
    **{op: skip_normalisation(op) for op in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")},
    "FusedMatMul": fused_product,
    "MultiHeadAttention": heads,
    "LabelEncoder": encode_labels,
    "ArrayFeatureExtractor": extract_features,
}
