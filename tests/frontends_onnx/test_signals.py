"""Cumulative sums and products, Hardmax, determinants, batch statistics and operators of old opsets, as compiled code.

Takes re-drawn shapes and attributes, static and dynamic. Invariant: onnxruntime or numpy judges, never onnx's cases.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.built import assert_built_agrees, run_built
from tests.frontends_onnx.oracle import floats, make_model, one_node

pytestmark = pytest.mark.numerics


def assert_close(found: Array, wanted: Array, rtol: float, atol: float = 0.0) -> None:
    """Equal within both tolerances, compared in f64."""
    np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64), rtol=rtol, atol=atol)


@pytest.mark.parametrize("op", ["CumSum", "CumProd"])
@pytest.mark.parametrize(("shape", "axis"), [((37,), 0), ((3, 40), -1), ((3, 40), 0), ((2, 9, 35), 1), ((4, 1, 5), 1)])
@pytest.mark.parametrize(("exclusive", "reverse"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_cumulation_when_shape_and_direction_are_drawn_then_is_numpys(
    op: str, shape: tuple[int, ...], axis: int, exclusive: int, reverse: int
) -> None:
    opset = 14 if op == "CumSum" else 26
    names = [f"d{i}" if extent > 5 else extent for i, extent in enumerate(shape)]
    model = one_node(op, {"x": names}, {"axis": np.array(axis)}, opset, exclusive=exclusive, reverse=reverse)
    x = 1 + floats(*shape) / 8
    ((found,),) = run_built(model, [{"x": x}])
    turned = np.flip(x, axis) if reverse else x
    wide = (np.cumsum if op == "CumSum" else np.cumprod)(turned.astype(np.float64), axis)
    if exclusive:
        first = np.full_like(np.take(wide, [0], axis), op == "CumProd")
        wide = np.concatenate([first, np.delete(wide, -1, axis)], axis)
    wanted = np.flip(wide, axis) if reverse else wide
    assert_close(found, wanted, rtol=2e-5, atol=1e-5)


def test_cumulation_when_the_axis_is_data_then_follows_it() -> None:
    node = helper.make_node("CumSum", ["x", "axis"], ["y"])
    model = make_model([node], {"x": (np.float32, [3, 4, 5]), "axis": (np.int64, [])}, ["y"], opset=14)
    for axis in (0, 1, 2, -1, -3):
        assert_built_agrees(model, {"x": floats(3, 4, 5), "axis": np.array(axis)})


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float64])
def test_cumulation_when_elements_are_other_numbers_then_agrees_with_onnxruntime(dtype: type[np.generic]) -> None:
    node = helper.make_node("CumSum", ["x", "axis"], ["y"], reverse=1)
    model = make_model([node], {"x": (dtype, ["N", 33])}, ["y"], {"axis": np.array(1)}, opset=14)
    assert_built_agrees(model, {"x": (floats(6, 33) * 100).astype(dtype)})


@pytest.mark.parametrize(("opset", "axis"), [(13, -1), (13, 0), (11, 1), (11, 2), (9, 0)])
def test_hardmax_when_ties_and_axes_are_drawn_then_agrees_with_onnxruntime(opset: int, axis: int) -> None:
    x = np.round(floats(3, 4, 5) * 2)  # with ties
    assert_built_agrees(one_node("Hardmax", {"x": ("N", 4, 5)}, opset=opset, axis=axis), {"x": x})


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_determinant_when_matrices_are_drawn_then_is_numpys(size: int) -> None:
    x = floats(6, size, size)
    x[0] = 0
    x[1, :, 0] = x[1, :, -1]  # singular
    x[2] = np.eye(size)[::-1]  # needs every exchange of rows
    ((found,),) = run_built(one_node("Det", {"x": ("N", size, size)}, opset=11), [{"x": x}])
    assert_close(found, np.linalg.det(x.astype(np.float64)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("periodic", [0, 1])
@pytest.mark.parametrize("op", ["HannWindow", "HammingWindow", "BlackmanWindow"])
def test_window_when_its_size_is_data_then_agrees_with_onnxruntime(op: str, periodic: int) -> None:
    node = helper.make_node(op, ["size"], ["y"], periodic=periodic)
    model = make_model([node], {"size": (np.int64, [])}, ["y"], opset=17)
    for size in (5, 64, 101):
        assert_built_agrees(model, {"size": np.array(size)}, tolerance=1e-5)


@pytest.mark.parametrize(
    "sizes", [(8, 16, 8192, 0.0, 4096.0), (80, 512, 22050, 20.0, 8000.0), (23, 400, 16000, 125.0, 7600.0)]
)
def test_mel_weights_when_sizes_are_drawn_then_agree_with_onnxruntime(sizes: tuple[float, ...]) -> None:
    names = ("bins", "length", "rate", "low", "high")
    types = [np.int64] * 3 + [np.float32] * 2
    node = helper.make_node("MelWeightMatrix", names, ["y"])
    inputs = {name: (kind, ()) for name, kind in zip(names, types, strict=True)}
    feeds: dict[str, Array] = {n: np.array(v, kind) for n, v, kind in zip(names, sizes, types, strict=True)}
    assert_built_agrees(make_model([node], inputs, ["y"], opset=17), feeds)


def test_batch_normalisation_when_training_then_moves_its_statistics() -> None:
    node = helper.make_node(
        "BatchNormalization", ["x", "s", "b", "m", "v"], ["y", "rm", "rv"], training_mode=1, momentum=0.7
    )
    weights = {name: np.abs(floats(4)) + 0.5 for name in "sbmv"}
    model = make_model([node], {"x": (np.float32, ["N", 4, 3, 5])}, ["y", "rm", "rv"], weights, opset=15)
    x = floats(6, 4, 3, 5) * 2 + 1
    ((y, mean, variance),) = run_built(model, [{"x": x}])
    wide = x.astype(np.float64)
    own = wide.mean((0, 2, 3)), wide.var((0, 2, 3))
    assert_close(mean, weights["m"] * 0.7 + own[0] * 0.3, rtol=1e-5)
    assert_close(variance, weights["v"] * 0.7 + own[1] * 0.3, rtol=1e-5)
    shape = (1, 4, 1, 1)
    normal = (wide - own[0].reshape(shape)) / np.sqrt(own[1].reshape(shape) + 1e-5)
    assert_close(y, normal * weights["s"].reshape(shape) + weights["b"].reshape(shape), rtol=1e-4, atol=1e-4)


# -- narrow floats ----------------------------------------------------------------------------------------------------

X, W = floats(4, 2000), floats(2000, 32) / 40
NARROW: dict[str, tuple[onnx.ModelProto, Callable[..., Array]]] = {
    "MatMul": (one_node("MatMul", {"x": X}, {"w": W}), lambda x, w: x @ w),
    "ReduceSum": (one_node("ReduceSum", {"x": X}, {"a": np.array([1])}, keepdims=0), lambda x, _: x.sum(1)),
    "ReduceMean": (one_node("ReduceMean", {"x": X}, axes=[1], keepdims=0), lambda x, _: x.mean(1)),
    "Softmax": (one_node("Softmax", {"x": X}), lambda x, _: np.exp(x) / np.exp(x).sum(1, keepdims=True)),
    "LogSoftmax": (one_node("LogSoftmax", {"x": X}), lambda x, _: x - np.log(np.exp(x).sum(1, keepdims=True))),
    "Mish": (one_node("Mish", {"x": X}, opset=18), lambda x, _: x * np.tanh(np.log1p(np.exp(x)))),
}


@pytest.mark.parametrize("code", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
@pytest.mark.parametrize("name", NARROW)
def test_narrow_floats_when_added_up_then_are_rounded_once(name: str, code: int) -> None:
    model, meaning = NARROW[name]
    narrow = onnx.ModelProto()
    narrow.CopyFrom(model)
    dtype = helper.tensor_dtype_to_np_dtype(code)
    narrow.graph.input[0].type.tensor_type.elem_type = code
    for weight in narrow.graph.initializer:
        array = numpy_helper.to_array(weight)
        if array.dtype == np.float32:
            weight.CopyFrom(numpy_helper.from_array(array.astype(dtype), weight.name))
    x, w = X.astype(dtype), W.astype(dtype)
    ((found,),) = run_built(narrow, [{"x": x}])
    wanted = meaning(x.astype(np.float64), w.astype(np.float64))
    assert found.dtype == dtype
    last_place = 2.0**-10 if code == TensorProto.FLOAT16 else 2.0**-7
    assert_close(found.astype(np.float64), wanted, rtol=0.52 * last_place, atol=last_place * 1e-3)


# -- old opsets -------------------------------------------------------------------------------------------------------

A = floats(2, 3, 4, 5)
OLD: dict[str, tuple[onnx.ModelProto, Callable[..., Array]]] = {
    "axis 1": (
        one_node("Add", {"x": A}, {"b": floats(3, 4)}, opset=6, broadcast=1, axis=1),
        lambda a, b: a + b[:, :, None],
    ),
    "axis 2": (one_node("Mul", {"x": A}, {"b": floats(4)}, opset=1, broadcast=1, axis=2), lambda a, b: a * b[:, None]),
    "suffix": (one_node("Sub", {"x": A}, {"b": floats(4, 5)}, opset=6, broadcast=1), lambda a, b: a - b),
    "equal shapes": (one_node("Div", {"x": A}, {"b": A + 9}, opset=6), lambda a, b: a / b),
    "slope": (
        one_node("PRelu", {"x": A}, {"b": floats(3)}, opset=6),
        lambda a, b: np.where(a < 0, a * b[:, None, None], a),
    ),
    "pads": (
        one_node("Pad", {"x": A}, opset=1, paddings=[0, 0, 1, 0, 0, 0, 0, 2], value=2.0),
        lambda a: np.pad(a, [(0, 0), (0, 0), (1, 0), (0, 2)], constant_values=2),
    ),
    "shape": (one_node("Reshape", {"x": A}, opset=1, shape=[6, -1]), lambda a: a.reshape(6, -1)),
    "tiles": (
        one_node("Tile", {"x": A}, {"t": np.array(3.0, np.float32), "a": np.array(1.0, np.float32)}, opset=1),
        lambda a: np.tile(a, (1, 3, 1, 1)),
    ),
    "memory": (one_node("Relu", {"x": A}, opset=1, consumed_inputs=[0]), lambda a: np.maximum(a, 0)),
    "word": (one_node("Cast", {"x": A * 9}, opset=1, to="INT32"), lambda a: a.astype(np.int32)),
    "selu": (one_node("Selu", {"x": A}, opset=1), lambda a: 1.0507 * np.where(a > 0, a, 1.6732 * (np.exp(a) - 1))),
}


@pytest.mark.parametrize("name", OLD)
def test_operator_when_of_an_old_opset_then_means_what_it_meant(name: str) -> None:
    model, meaning = OLD[name]
    weights = [numpy_helper.to_array(w) for w in model.graph.initializer]
    x = A * 9 if name == "word" else A
    ((found,),) = run_built(model, [{"x": x}])
    wanted = meaning(x, *weights) if name != "tiles" else meaning(x)
    assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert found.shape == wanted.shape


def test_gemm_when_factors_are_no_whole_numbers_then_scales_integers() -> None:
    node = helper.make_node("Gemm", ["a", "b", "c"], ["y"], alpha=0.5, beta=1.5)
    a, b, c = (np.arange(n, dtype=np.int32).reshape(s) for n, s in ((6, (2, 3)), (12, (3, 4)), (4, (4,))))
    model = make_model([node], {"a": (np.int32, [2, 3])}, ["y"], {"b": b, "c": c}, opset=13)
    ((found,),) = run_built(model, [{"a": a}])
    np.testing.assert_array_equal(found, (0.5 * (a @ b) + 1.5 * c).astype(np.int32))
