"""Elementwise operators in every type that onnxruntime computes them in, as compiled code.

Takes the special values of each type with each other, and random ones. Invariant: integers and comparisons are equal,
floats differ by some last places, NaN and infinities stand where onnxruntime has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tessera_build.frontends.onnx.load import ELEMENT_TYPES
from tessera_build.ir.core.types import BOOL, DTYPES, DType
from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.built import run_built
from tests.frontends_onnx.oracle import expected, make_model

# numpy and onnxruntime warn where operands overflow, which is what is tried here.
pytestmark = [pytest.mark.numerics, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

CODES = {name: code for code, name in ELEMENT_TYPES.items()}
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 7.25, np.inf, -np.inf, np.nan, 1e-40, -1e-45, 3e38, -65504.0, 1e-3]
SIGNED, UNSIGNED = ("i8", "i16", "i32", "i64"), ("u8", "u16", "u32", "u64")
INTEGERS = (*SIGNED, *UNSIGNED)


def operands(dtype: DType, count: int, *, shifts: bool = False) -> list[Array]:
    """Special values of a type, each with each."""
    random = np.random.default_rng(3)
    if dtype == BOOL:
        values = np.array([False, True])
    elif dtype.is_float:
        values = np.append(FLOATS, random.standard_normal(13) * 4).astype(dtype.numpy)
    else:
        limits = np.iinfo(str(dtype.numpy))
        chosen = [0, 1, 2, 3, 5, 7, dtype.bits - 1] + ([] if shifts else [100, limits.max, limits.max // 3])
        chosen += [limits.min, -1, -2, -7, limits.min // 5] if dtype.kind == "signed" and not shifts else []
        values = np.array(chosen, dtype.numpy)
    grids = np.meshgrid(*[values] * count, indexing="ij")
    return [np.ascontiguousarray(g).reshape(-1) for g in grids]


def model_of(
    op: str, types: Sequence[DType], result: DType, opset: int = 20, **attributes: int | str
) -> onnx.ModelProto:
    names = [f"x{i}" for i in range(len(types))]
    node = helper.make_node(op, names, ["y"])
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    tensors = [helper.make_tensor_value_info(n, CODES[d.name], ["N"]) for n, d in zip(names, types, strict=True)]
    graph = helper.make_graph([node], op, tensors, [helper.make_tensor_value_info("y", CODES[result.name], ["N"])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def is_computed(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> bool:
    """Whether onnxruntime has the operator for these types."""
    try:
        expected(model, feeds)
    except Exception as error:
        if "NOT_IMPLEMENTED" in str(error) or "Type Error" in str(error):
            return False
        raise
    return True


def compare(model: onnx.ModelProto, arrays: Sequence[Array], places: float = 4, scale: float = 0) -> None:
    """Run both; floats may differ by so many last places of themselves, or of `scale`."""
    feeds = {f"x{i}": array for i, array in enumerate(arrays)}
    ((found,),) = run_built(model, [feeds])
    (wanted,) = expected(model, feeds)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    if wanted.dtype.kind != "f":
        np.testing.assert_array_equal(found, wanted)
        return
    limits = np.finfo(str(wanted.dtype))
    tiny, epsilon = float(limits.tiny), float(limits.eps)
    np.testing.assert_allclose(
        found.astype(np.float64),
        wanted.astype(np.float64),
        rtol=places * epsilon,
        atol=places * epsilon * (tiny + scale),
    )


UNARY = {
    **dict.fromkeys(("Abs", "Neg"), ("f64", "f32", "f16", *SIGNED)),
    "Sign": ("f64", "f32", "f16", *INTEGERS),
    **dict.fromkeys(("Floor", "Ceil", "Round"), ("f64", "f32", "f16")),
    **dict.fromkeys(("Sqrt", "Exp", "Log", "Tanh", "Sigmoid", "Reciprocal", "Relu"), ("f64", "f32", "f16")),
    **dict.fromkeys(("Sin", "Cos"), ("f64", "f32")),
    "Erf": ("f64", "f32", "f16"),
    **dict.fromkeys(("Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"), ("f64", "f32")),
    **dict.fromkeys(("Softplus", "Softsign", "Elu", "HardSigmoid", "Selu", "Celu", "Mish"), ("f32",)),
    **dict.fromkeys(("HardSwish", "LeakyRelu", "ThresholdedRelu"), ("f32",)),
    **dict.fromkeys(("BitwiseNot",), INTEGERS),
    **dict.fromkeys(("IsNaN", "IsInf"), ("f64", "f32", "f16")),
}
# onnxruntime approximates these, and formulas of several steps lose digits of small results: judged by their distance.
ROUGH = {"Sin", "Cos", "Mish", "Selu", "Celu", "Elu", "Softplus", "Erf", "Tanh", "Sigmoid"}


def run_unary(op: str, name: str) -> None:
    dtype = DTYPES[name]
    (x,) = operands(dtype, 1)
    if op in ("Sin", "Cos", "Tan"):
        x = x[~(np.abs(x) > 1e5) | np.isinf(x)]
    if op == "Acosh":
        x = x[x.astype(np.float64) > -np.inf]
    if op == "Sign" and name == "f16":  # of which onnxruntime finds 0 for a NaN, unlike for wider types
        x = x[~np.isnan(x)]
    result = BOOL if op.startswith("Is") else dtype
    model = model_of(op, [dtype], result)
    if not is_computed(model, {"x0": x}):
        pytest.skip("onnxruntime does not compute this type")
    compare(model, [x], scale=1 if op in ROUGH else 0)


@pytest.mark.parametrize("op", UNARY)
def test_unary_operator_when_its_first_type_is_computed_then_agrees_with_onnxruntime(op: str) -> None:
    run_unary(op, "f32" if "f32" in UNARY[op] else UNARY[op][0])


@pytest.mark.slow
@pytest.mark.parametrize(("op", "name"), [(op, name) for op, names in UNARY.items() for name in names])
def test_unary_operator_when_any_type_is_computed_then_agrees_with_onnxruntime(op: str, name: str) -> None:
    run_unary(op, name)


NUMBERS = ("f64", "f32", "f16", *INTEGERS)
BINARY = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Max", "Min"), NUMBERS),
    **dict.fromkeys(("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"), NUMBERS),
    **dict.fromkeys(("BitwiseAnd", "BitwiseOr", "BitwiseXor"), INTEGERS),
    **dict.fromkeys(("And", "Or", "Xor"), ("bool",)),
    "Pow": ("f64", "f32", "i32", "i64"),
    "PRelu": ("f64", "f32"),
}
COMPARING = {"Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "And", "Or", "Xor"}


def run_binary(op: str, name: str) -> None:
    dtype = DTYPES[name]
    x, y = operands(dtype, 2)
    if op == "Pow" and not dtype.is_float:
        base, exponent = x.astype(np.float64), y.astype(np.float64)
        kept = (np.abs(base) < 8) & (exponent >= 0) & (exponent < 8)
        x, y = x[kept], y[kept]
    if op == "PRelu":  # infinities times zero are NaN to us, and to onnx's formula; onnxruntime does not multiply
        kept = np.isfinite(x) & np.isfinite(y)
        x, y = x[kept], y[kept]
    model = model_of(op, [dtype, dtype], BOOL if op in COMPARING else dtype)
    if not is_computed(model, {"x0": x, "x1": y}):
        pytest.skip("onnxruntime does not compute this type")
    compare(model, [x, y])


@pytest.mark.parametrize("op", BINARY)
def test_binary_operator_when_its_first_type_is_computed_then_agrees_with_onnxruntime(op: str) -> None:
    run_binary(op, "i8" if "i8" in BINARY[op] else BINARY[op][0])


@pytest.mark.slow
@pytest.mark.parametrize(("op", "name"), [(op, name) for op, names in BINARY.items() for name in names])
def test_binary_operator_when_any_type_is_computed_then_agrees_with_onnxruntime(op: str, name: str) -> None:
    run_binary(op, name)


@pytest.mark.parametrize("name", ["i8", "i32", "i64", "u8", "u64", "f32", "f64", "f16"])
@pytest.mark.parametrize("fmod", [0, 1])
def test_mod_when_signs_differ_then_agrees_with_onnxruntime(name: str, fmod: int) -> None:
    dtype = DTYPES[name]
    x, y = operands(dtype, 2)
    if dtype.is_float and not fmod:
        pytest.skip("ONNX defines the remainder of floats as fmod alone")
    kept = y != 0
    if dtype.bits == 64 and not dtype.is_float and fmod:  # which onnxruntime computes in f64
        kept &= (np.abs(x.astype(np.float64)) < 2.0**53) & (np.abs(y.astype(np.float64)) < 2.0**53)
    if not dtype.is_float:
        kept &= (x != np.iinfo(str(dtype.numpy)).min) | (y.astype(np.float64) != -1)  # traps in onnxruntime
    compare(model_of("Mod", [dtype, dtype], dtype, fmod=fmod), [x[kept], y[kept]], 0)


@pytest.mark.parametrize("name", ["u8", "u32", "u64"])
@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_shift_when_counts_stay_below_the_width_then_agrees_with_onnxruntime(name: str, direction: str) -> None:
    dtype = DTYPES[name]
    x, y = operands(dtype, 2, shifts=True)
    compare(model_of("BitShift", [dtype, dtype], dtype, direction=direction), [x, y])


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_shift_when_counts_reach_the_width_then_no_bit_is_left(direction: str) -> None:
    x = np.array([-1, 5, -128, 127], np.int8)
    model = model_of("BitShift", [DTYPES["i8"]] * 2, DTYPES["i8"], opset=28, direction=direction)
    ((found,),) = run_built(model, [{"x0": x, "x1": np.array([8, 100, 9, -1], np.int8)}])
    assert found.tolist() == ([0, 0, 0, 0] if direction == "LEFT" else [-1, 0, -1, 0])


def test_integer_division_when_it_truncates_then_agrees_with_onnxruntime() -> None:
    for name in ("i32", "i64", "u8"):
        dtype = DTYPES[name]
        x, y = operands(dtype, 2)
        kept = (y != 0) & ((x != np.iinfo(str(dtype.numpy)).min) | (y.astype(np.float64) != -1))
        compare(model_of("Div", [dtype, dtype], dtype), [x[kept], y[kept]])


def test_dropout_when_nothing_is_dropped_then_training_is_inference() -> None:
    node = helper.make_node("Dropout", ["x", "ratio", "training"], ["y", "mask"])
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "dropout",
        [value("x", TensorProto.FLOAT, ["N"]), value("training", TensorProto.BOOL, [])],
        [value("y", TensorProto.FLOAT, ["N"]), value("mask", TensorProto.BOOL, ["N"])],
        [onnx.numpy_helper.from_array(np.array(0, np.float32), "ratio")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=10)
    x = np.arange(5, dtype=np.float32)
    ((y, mask),) = run_built(model, [{"x": x, "training": np.array(True)}])
    np.testing.assert_array_equal(y, x)
    assert mask.all()


@pytest.mark.parametrize("name", ["i32", "i64"])
def test_integer_power_when_exponents_are_any_then_wraps_and_truncates(name: str) -> None:
    dtype = DTYPES[name]
    bases, exponents = [0, 1, -1, 2, -2, 3, -7, 10], [0, 1, 2, 3, 5, 20, 63, 64, 101, -1, -2, -3]
    x, y = (np.array(g, dtype.numpy).reshape(-1) for g in np.meshgrid(bases, exponents, indexing="ij"))
    ((found,),) = run_built(model_of("Pow", [dtype, dtype], dtype, opset=15), [{"x0": x, "x1": y}])
    for base, exponent, result in zip(x.tolist(), y.tolist(), found.tolist(), strict=True):
        exact = base**exponent if exponent >= 0 else (base if exponent % 2 else abs(base)) * (abs(base) == 1)
        wrapped = (exact + (1 << (dtype.bits - 1))) % (1 << dtype.bits) - (1 << (dtype.bits - 1))
        assert result == wrapped, (base, exponent)


def test_power_when_the_exponent_alone_is_a_float_then_large_integers_keep_their_digits() -> None:
    x = np.array([16777217, -16777219, 3], np.int32)
    types = [DTYPES["i32"], DTYPES["f32"]]
    ((found,),) = run_built(model_of("Pow", types, types[0], opset=15), [{"x0": x, "x1": np.ones(3, np.float32)}])
    assert found.tolist() == x.tolist()


def test_power_when_the_exponent_has_a_wider_type_then_is_not_rounded() -> None:
    x, y = np.array([-0.456, -2, 3, 0.5], np.float16), np.array([2.0003, 3, 2.0003, -1.7], np.float32)
    types = [DTYPES["f16"], DTYPES["f32"]]
    ((found,),) = run_built(model_of("Pow", types, types[0], opset=15), [{"x0": x, "x1": y}])
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(found, np.power(x.astype(np.float32), y).astype(np.float16))


def test_softplus_when_its_value_is_small_then_is_right_to_the_last_places() -> None:
    x = np.concatenate([np.linspace(-85, 20, 4001), -np.logspace(-6, 1, 500)]).astype(np.float32)
    model = make_model([helper.make_node("Softplus", ["x"], ["y"])], {"x": (np.float32, x.shape)}, ["y"])
    ((found,),) = run_built(model, [{"x": x}])
    assert float(np.abs(found / np.logaddexp(0, x.astype(np.float64)) - 1).max()) < 1e-6
