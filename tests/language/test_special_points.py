"""Derivatives where formulas meet: at zero, at bounds, where operands are equal; what torch gives there, in torch.

Takes functions of the language and what torch said of them (`torch_points`); gives assertions on the first derivative,
and where the function is smooth on the second, in float64 by the interpreter and in float32 as compiled.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
from onnx import helper

from tessera import executor, graph, op
from tessera.model.tensor import Value
from tessera_build.ir.graph.nodes import Array
from tests.language.numeric import Doubles

pytestmark = pytest.mark.numerics
Function = Callable[..., Value]

POINTS = np.asarray([-30.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 6.0, 30.0])
WANTED: dict[str, list[list[float]]] = json.loads(
    (Path(__file__).parent / "special_points.json").read_text(encoding="utf-8")
)
SMOOTH: dict[str, Function] = {
    "softplus": op.softplus,
    "logsigmoid": op.logsigmoid,
    "mish": op.mish,
    "silu": op.silu,
    "gelu": op.gelu,
    "softsign": op.softsign,
    "log1p of squares": lambda x: op.log1p(x * x),
    "third power": lambda x: op.power(x, 3.0),
    "atan2 to one": lambda x: op.atan2(x, op.ones_like(x)),
    "hypot of one": lambda x: op.hypot(x, op.ones_like(x)),
    "logaddexp of zero": lambda x: op.logaddexp(x, op.zeros_like(x)),
    "expm1": op.expm1,
}
BENT: dict[str, Function] = {
    "relu": op.relu,
    "relu6": op.relu6,
    "leaky_relu": op.leaky_relu,
    "elu": op.elu,
    "elu of 2": lambda x: op.elu(x, 2.0),
    "celu": op.celu,
    "celu of 2": lambda x: op.celu(x, 2.0),
    "selu": op.selu,
    "hard_swish": op.hard_swish,
    "absolute": op.absolute,
    "clip": lambda x: op.clip(x, -1.0, 1.0),
    "clip from zero": lambda x: op.clip(x, 0.0),
    "clip to one": lambda x: op.clip(x, None, 1.0),
    "maximum": lambda x: op.maximum(x, x * x),
}


def _found(function: Callable[..., object], x: Array, orders: int) -> list[Doubles]:
    def first(v: Value) -> Value:
        return _slope(function, v)

    def second(v: Value) -> Value:
        return _slope(first, v)

    every: list[Callable[..., object]] = [function, first, second]
    return [np.asarray(graph.jit(each)(x), np.float64) for each in every[:orders]]


def _slope(function: Callable[..., object], x: Value) -> Value:
    def total(v: Value) -> Value:
        found = function(v)
        assert isinstance(found, Value)
        return op.reduce_sum(found)

    slope = graph.grad(total)(x)
    assert isinstance(slope, Value)
    return slope


def _agree(function: Function, values: list[list[float]]) -> None:
    with executor.using(None):
        for found, value in zip(_found(function, POINTS, len(values)), values, strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-9, atol=1e-12)
    for found, value in zip(_found(function, POINTS.astype(np.float32), len(values)), values, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_function_when_its_formulas_meet_then_two_derivatives_are_torchs(name: str) -> None:
    _agree(SMOOTH[name], WANTED[name])


@pytest.mark.parametrize("name", BENT)
def test_bent_function_when_at_its_bend_then_derivative_is_torchs(name: str) -> None:
    _agree(BENT[name], WANTED[name])


def test_softplus_when_its_value_is_small_then_keeps_its_digits() -> None:
    x = np.concatenate([np.linspace(-85, 20, 4001), -np.logspace(-6, 1, 500)]).astype(np.float32)
    found = np.asarray(graph.jit(cast("Function", op.softplus))(x))
    assert float(np.abs(found / np.logaddexp(0, x.astype(np.float64)) - 1).max()) < 1e-6


@pytest.mark.parametrize(("name", "scale"), [("elu", 1.0), ("celu", 1.0), ("selu", 1.7580993408473766), ("expm1", 1.0)])
def test_exponential_unit_when_below_zero_then_value_and_slope_keep_their_digits(name: str, scale: float) -> None:
    function = cast("Function", getattr(op, name))
    x = -np.concatenate([np.linspace(0.2, 60, 500), np.logspace(-30, 0, 300)]).astype(np.float32)
    value, slope = _found(function, x, 2)
    assert float(np.abs(value / (scale * np.expm1(x.astype(np.float64))) - 1).max()) < 1e-6
    assert float(np.abs(slope / (scale * np.exp(x.astype(np.float64))) - 1).max()) < 1e-5


def test_expm1_when_its_exponential_overflows_then_its_slope_does() -> None:
    slope = _found(cast("Function", op.expm1), np.asarray([700.0, np.inf], np.float32), 2)[1]
    np.testing.assert_array_equal(slope, [np.inf, np.inf])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's hypot overflows on purpose
@pytest.mark.parametrize("name", ["atan2", "hypot", "logaddexp"])
def test_function_of_two_when_given_signed_zeros_and_infinities_then_is_numpys(name: str) -> None:
    points = np.asarray([-np.inf, -1e30, -60.0, -2.0, -0.0, 0.0, 1e-20, 1.0, 50.0, 1e30, np.inf])
    a, b = (np.ascontiguousarray(each.ravel()) for each in np.meshgrid(points, points))
    wanted = getattr(np, name)(a, b)
    function = graph.jit(cast("Function", getattr(op, name)))
    with executor.using(None):
        np.testing.assert_allclose(np.asarray(function(a, b)), wanted, rtol=1e-12)
    found = np.asarray(graph.jit(cast("Function", getattr(op, name)))(a.astype(np.float32), b.astype(np.float32)))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-40)


def test_activations_when_given_infinities_and_nan_then_are_what_torch_gives() -> None:
    x = np.asarray([-np.inf, np.inf, np.nan, -0.0], np.float32)
    for name in ("softplus", "elu", "leaky_relu", "celu", "selu"):
        found = np.asarray(graph.jit(cast("Function", getattr(op, name)))(x))
        np.testing.assert_allclose(found, WANTED[f"{name} at the ends"][0], rtol=1e-6, err_msg=name)
    np.testing.assert_array_equal(np.asarray(graph.jit(lambda v: op.clip(v, -1.0, 1.0))(x)), [-1, 1, np.nan, 0])
    slope = np.asarray(graph.jit(lambda v: _slope(op.softplus, v))(x[:2]))
    np.testing.assert_array_equal(slope, [0, 1])


def test_clip_when_a_bound_is_nan_then_gives_nan_as_numpy_and_torch_do() -> None:
    x, bounds = np.asarray([-3.0, 0.5, 3.0], np.float32), np.asarray([np.nan, np.nan, 1.0], np.float32)
    for low, high in ((bounds, None), (None, bounds)):
        found = graph.jit(lambda v, b, least=low is None: op.clip(v, None, b) if least else op.clip(v, b))(x, bounds)
        np.testing.assert_array_equal(np.asarray(found), np.clip(x, low, high))
    np.testing.assert_array_equal(np.asarray(graph.jit(lambda v: op.clip(v, float("nan")))(x)), [np.nan] * 3)


_NODES: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "Softplus": ({}, {}),
    "Mish": ({}, {}),
    "Relu": ({}, {}),
    "LeakyRelu": ({"alpha": 0.2}, {}),
    "PRelu": ({}, {"slope": 0.25}),
    "Elu": ({"alpha": 2.0}, {}),
    "Celu": ({"alpha": 2.0}, {}),
    "Selu": ({}, {}),
    "HardSwish": ({}, {}),
    "HardSigmoid": ({"alpha": 1 / 6}, {}),
    "ThresholdedRelu": ({"alpha": 0.5}, {}),
    "Clip": ({}, {"low": -1.0, "high": 1.0}),
    "Max": ({}, {"zero": 0.0}),
}


@pytest.mark.parametrize("name", _NODES)
def test_imported_operator_when_at_its_special_points_then_derivatives_are_torchs(name: str, tmp_path: Path) -> None:
    attributes, constants = _NODES[name]
    shape = [len(POINTS)]
    node = helper.make_node(name, ["x", *constants], ["y"])
    node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    numbers = [helper.make_tensor(n, onnx.TensorProto.FLOAT, [], [value]) for n, value in constants.items()]
    ends = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n in ("x", "y")]
    model = helper.make_model(
        helper.make_graph([node], "m", ends[:1], ends[1:], numbers), opset_imports=[helper.make_opsetid("", 22)]
    )
    onnx.save(model, tmp_path / "m.onnx")
    net = graph.from_onnx(tmp_path / "m.onnx")
    wanted = WANTED[f"ONNX {name}"]
    for found, value in zip(_found(net, POINTS.astype(np.float32), len(wanted)), wanted, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)


def test_kept_numbers_when_torch_is_there_then_are_its_own() -> None:
    pytest.importorskip("torch")
    found = importlib.import_module("tests.language.torch_points").numbers()
    assert found.keys() == WANTED.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, WANTED[name], rtol=1e-12, atol=1e-15, err_msg=name)
