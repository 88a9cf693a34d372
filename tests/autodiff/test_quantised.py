"""Derivatives of quantised models: weights kept as integers are constants, rounded activations are refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import helper

from bundle_format.errors import TesseraError
from tessera_build.frontends.onnx import read_onnx
from tessera_build.ir.graph.autodiff.entries import with_grad
from tessera_build.ir.graph.nodes import Array, Module
from tests.autodiff.checking import check, drawn
from tests.autodiff.models import widened
from tests.frontends_onnx.oracle import make_model

pytestmark = pytest.mark.unit

WEIGHTS: dict[str, Array] = {
    "w": np.arange(-6, 6, dtype=np.int8).reshape(3, 4),
    "scale": np.asarray(0.25, np.float32),
    "zero": np.asarray(0, np.int8),
}


def _rounded_weights() -> Module:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["wide"]),
        helper.make_node("MatMul", ["x", "wide"], ["h"]),
        helper.make_node("Tanh", ["h"], ["y"]),
    ]
    return read_onnx(make_model(nodes, {"x": (np.float32, ("N", 3))}, ["y"], WEIGHTS))


def _rounded_activations() -> Module:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=1),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    return read_onnx(make_model(nodes, {"x": (np.float32, ("N", 3))}, ["y"], {"w": WEIGHTS["w"]}))


def _rounded_between() -> Module:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("Tanh", ["d"], ["y"]),
    ]
    return read_onnx(make_model(nodes, {"x": (np.float32, ("N", 3))}, ["y"], WEIGHTS))


def test_weights_of_eight_bits_when_differentiated_around_then_agrees_with_differences() -> None:
    module = widened(_rounded_weights())
    check(module, drawn(module, "main", 60), order=2)


def test_weights_of_eight_bits_when_differentiated_by_then_refused() -> None:
    with pytest.raises(TesseraError, match="not floating-point"):
        with_grad(_rounded_weights(), "main", ["w"])


@pytest.mark.parametrize("make", [_rounded_activations, _rounded_between])
def test_activations_of_eight_bits_when_differentiated_then_refused(make: Callable[[], Module]) -> None:
    with pytest.raises(TesseraError, match="rounded to 8 bits") as caught:
        with_grad(make(), "main", ["x"])
    assert caught.value.code == "NOT_DIFFERENTIABLE"
