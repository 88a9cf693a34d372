"""Operators of com.microsoft beyond the fused ones, and those that ONNX had on trial, against onnxruntime's kernels."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from bundle_format.errors import TesseraError
from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.built import assert_built_agrees, run_built
from tests.frontends_onnx.node_case import Case, node_of
from tests.frontends_onnx.oracle import floats, integers, make_model

pytestmark = pytest.mark.numerics


def _model(case: Case, domain: str, dynamic: bool) -> onnx.ModelProto:
    node = node_of(case, domain)
    inputs = {
        name: (array.dtype.type, [f"{name}{i}" for i in range(array.ndim)] if dynamic else array.shape)
        for name, array in case.inputs.items()
    }
    model = make_model([node], inputs, [r for r in case.results if r], case.weights, case.opset)
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


_RANDOM = np.random.default_rng(3)
_WORDS: Array = _RANDOM.integers(0, 3, (4, 17)).astype(np.int64)
_SHORT: Array = _RANDOM.integers(-900, 900, (2, 5, 7)).astype(np.int16)
_CODES: Array = _RANDOM.integers(0, 256, 24 * 32 // 2).astype(np.uint8)
_GRID: Array = np.clip(floats(2, 4, 3, 2), -1.4, 1.4)
_TURNED: dict[str, Array] = {"x": floats(1, 3, 5, 6), "w": floats(3, 4, 3, 3)}
CONTRIB: dict[str, Case] = {
    "expand": Case("ExpandDims", {"x": floats(2, 3)}, {"a": np.asarray(-2, np.int32)}),
    "expand-bytes": Case("ExpandDims", {"x": np.arange(6, dtype=np.uint8)}, {"a": np.asarray(0, np.int32)}),
    "range": Case("Range", {"a": np.asarray(2.5, np.float32), "b": np.asarray([9], np.float32)}),
    "range-step": Case("Range", {n: np.asarray(v, np.int32) for n, v in {"a": 9, "b": -2, "c": -3}.items()}),
    "unique": Case("Unique", {"x": np.asarray([2, 1, 1, 3, 4, 3], np.float32)}, results=("y", "i", "n")),
    "grid": Case("GridSample", {"x": floats(2, 3, 5, 6), "g": _GRID}, attributes={"align_corners": 1}),
    "grid-cubic": Case("GridSample", {"x": floats(2, 3, 5, 6), "g": _GRID}, attributes={"mode": "bicubic"}),
    "unfold": Case("UnfoldTensor", {"x": floats(3, 11)}, attributes={"dim": -1, "size": 4, "step": 3}),
    "unfold-inside": Case("UnfoldTensor", {"x": floats(3, 11, 2)}, attributes={"dim": 1, "size": 3}),
    "turned": Case("ConvTransposeWithDynamicPads", _TURNED, {"p": integers(1, 0, 1, 1)}, {"strides": [2, 1]}),
    "turned-told": Case(
        "ConvTransposeWithDynamicPads",
        {"x": floats(1, 3, 5, 6), "p": integers(1, 0, 1, 1)},
        {"w": floats(3, 4, 3, 3), "b": floats(4)},
        {"strides": [2, 2]},
        operands=("x", "w", "p", "b"),
    ),
    "short": Case("MatMulInteger16", {"a": _SHORT, "b": np.swapaxes(_SHORT, 1, 2)}),
    **{
        f"four-bits-{kind}": Case(
            "MatMulBnb4",
            {"x": floats(3, 32)},
            {"w": _CODES, "s": abs(floats(24 * 32 // 16))},
            {"N": 24, "K": 32, "block_size": 16, "quant_type": kind},
        )
        for kind in (0, 1)
    },
    **{
        f"words-{size}": Case("NGramRepeatBlock", {"w": _WORDS, "s": floats(4, 3)}, attributes={"ngram_size": size})
        for size in (1, 2, 3, 4)
    },
}
TRIAL: dict[str, Case] = {
    "affine": Case("Affine", {"x": floats(7)}, attributes={"alpha": 1.5, "beta": -0.5}),
    "scale": Case("Scale", {"x": floats(2, 7)}, attributes={"scale": 0.3}),
    "tanh": Case("ScaledTanh", {"x": floats(2, 7)}, attributes={"alpha": 1.7, "beta": 0.6}),
    "softplus": Case("ParametricSoftplus", {"x": floats(9)}, attributes={"alpha": 1.7, "beta": 0.6}),
    "image": Case("ImageScaler", {"x": floats(2, 3, 4, 5)}, attributes={"scale": 2.0, "bias": [0.5, -1.0, 2.0]}),
    "crop": Case("Crop", {"x": floats(2, 3, 6, 7)}, attributes={"border": [1, 2, 0, 1]}),
    "crop-size": Case("Crop", {"x": floats(2, 3, 6, 7)}, attributes={"border": [1, 2, 0, 0], "scale": [3, 4]}),
    "slice": Case("DynamicSlice", {"x": floats(5, 7)}, {"s": integers(1, -5), "e": integers(9, -1)}),
    "slice-told": Case("DynamicSlice", {"x": floats(5, 7), "s": integers(1), "e": integers(-1)}, {"a": integers(1)}),
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", CONTRIB)
def test_operator_of_microsoft_when_built_then_agrees(name: str, dynamic: bool) -> None:
    case = CONTRIB[name]
    if case.op in ("ConvTransposeWithDynamicPads", "Range"):
        dynamic = False
    assert_built_agrees(_model(case, "com.microsoft", dynamic), case.inputs)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", TRIAL)
def test_operator_on_trial_when_built_then_agrees(name: str, dynamic: bool) -> None:
    case = TRIAL[name]
    opset = 9  # the last that has them
    model = _model(case, "", dynamic and "told" not in name)
    model.opset_import[0].version = opset
    assert_built_agrees(model, case.inputs)


def test_words_when_fewer_than_a_sequence_then_none_is_forbidden() -> None:
    case = CONTRIB["words-4"]
    model = _model(case, "com.microsoft", dynamic=True)
    for length in (1, 2, 3, 4, 5):
        assert_built_agrees(model, {"w": _WORDS[:, :length], "s": floats(4, 3)})


def test_transposed_convolution_when_told_padding_cuts_everything_then_the_run_is_refused() -> None:
    case = CONTRIB["turned-told"]
    with pytest.raises(TesseraError, match="cuts more"):
        run_built(_model(case, "com.microsoft", dynamic=False), [{**case.inputs, "p": integers(9, 9, 9, 9)}])
