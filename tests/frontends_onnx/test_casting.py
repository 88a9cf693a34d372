"""Casts between all element types as compiled code, against onnx's reference and ml_dtypes.

Takes every kind of value: all codes of narrow types, random bits of wide ones, the special ones. Invariant: floats are
compared bit for bit; a float beyond an integer's range, which ONNX leaves open, is not asked for.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference.ops.op_cast import cast_to

import tessera_build
import tessera_runtime
from tessera_build.frontends.onnx.load import ELEMENT_TYPES
from tessera_build.ir.core.types import BOOL, DTYPES, F8E4M3, F8E5M2, F16, F32, F64, I4, I8, U8, DType
from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.built import run_built

# numpy warns where a conversion meets NaN or overflows, which is what is tried here.
pytestmark = [pytest.mark.numerics, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

CODES = {name: code for code, name in ELEMENT_TYPES.items()}
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, 7.0, 100.25, 448.0, 465.0, 57344.0, 61440.0, 1e5, -1e5]
BEYOND = [np.nan, np.inf, -np.inf, 1e-45, -1e-40, 3e38, 65504.0, 65520.0]


def samples(dtype: DType) -> Array:
    """All codes of a narrow type, random bits and special values of a wide one."""
    if dtype == BOOL:
        return np.array([True, False])
    if dtype.bits <= 8:
        codes = np.arange(1 << dtype.bits, dtype=np.uint8)
        return codes.view(dtype.numpy) if dtype.is_float else codes.astype(np.int8).astype(dtype.numpy)
    random = np.random.default_rng(11)
    bits = random.integers(0, 256, 1000 * dtype.bytes, np.uint8).view(dtype.numpy)
    with np.errstate(all="ignore"):
        chosen = np.array(SPECIAL + BEYOND if dtype.is_float else [0, 1, 2, 100, 120], np.float64).astype(dtype.numpy)
    return np.concatenate([bits, chosen])


def in_range(values: Array, target: DType) -> Array:
    """Without floats that are beyond an integer's range, on which ONNX and C say nothing."""
    wide = values.astype(np.float64)
    if target.is_float or target == BOOL or values.dtype.kind in "iub":
        return values
    low = -(2.0 ** (target.bits - 1)) if target.kind == "signed" else 0
    high = 2.0 ** (target.bits - (target.kind == "signed"))
    return values[(np.trunc(wide) >= low) & (np.trunc(wide) < high)]


def model_of(source: DType, target: DType, **attributes: str | int) -> onnx.ModelProto:
    node = helper.make_node("Cast", ["x"], ["y"], to=CODES[target.name])
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    tensors = [helper.make_tensor_value_info(n, CODES[d.name], ["N"]) for n, d in (("x", source), ("y", target))]
    graph = helper.make_graph([node], "cast", tensors[:1], tensors[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=13)


def reference(values: Array, name: str, *, saturate: bool = True, mode: str = "up") -> Array:
    """What onnx's reference gives."""
    code = TensorProto.DataType.Name(CODES[name])
    return np.asarray(cast_to(values, getattr(TensorProto, code), saturate, mode))


def check(source: DType, target: DType) -> None:
    values = in_range(samples(source), target)
    if values.size == 0:
        return
    ((found,),) = run_built(model_of(source, target), [{"x": values}])
    with np.errstate(all="ignore"):
        # numpy has no casts from some narrow types to others, and clips in the narrow one.
        wide = values if source.bits > 8 or source == BOOL else values.astype(np.float32)
        wanted = values if source == target else reference(wide, target.name)
    assert found.dtype == wanted.dtype
    left, right = (a.astype(np.float64) if target.is_float else a.astype(np.int64) for a in (found, wanted))
    if target.name == "u64":
        left, right = found, wanted
    np.testing.assert_array_equal(left, right)


FEW = [F32, F16, F8E4M3, F8E5M2, I4, I8, U8, BOOL]


@pytest.mark.parametrize("target", [F32, F8E4M3, I4, U8], ids=str)
@pytest.mark.parametrize("source", FEW, ids=str)
def test_cast_when_compiled_then_gives_what_the_reference_says(source: DType, target: DType) -> None:
    check(source, target)


@pytest.mark.slow
@pytest.mark.parametrize("target", DTYPES.values(), ids=str)
@pytest.mark.parametrize("source", DTYPES.values(), ids=str)
def test_cast_when_between_any_two_types_then_gives_what_the_reference_says(source: DType, target: DType) -> None:
    check(source, target)


@pytest.mark.parametrize("target", ["f8e4m3", "f8e5m2", "f8e4m3fnuz", "f8e5m2fnuz"])
def test_cast_when_not_saturating_then_overflows(target: str) -> None:
    values = samples(F32)
    ((found,),) = run_built(model_of(F32, DTYPES[target], saturate=0), [{"x": values}])
    with np.errstate(all="ignore"):
        wanted = reference(values, target, saturate=False)
    np.testing.assert_array_equal(found.astype(np.float32), wanted.astype(np.float32))


@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("mode", ["up", "down", "nearest"])
def test_cast_to_an_exponent_when_asked_then_rounds_that_way(mode: str, saturate: int) -> None:
    values = np.abs(samples(F32))
    model = model_of(F32, DTYPES["f8e8m0"], saturate=saturate, round_mode=mode)
    ((found,),) = run_built(model, [{"x": values}])
    wanted = reference(values, "f8e8m0", saturate=bool(saturate), mode=mode)
    np.testing.assert_array_equal(found.view(np.uint8), wanted.view(np.uint8))


@pytest.mark.parametrize("name", ["i4", "u4", "i2", "u2", "f4e2m1", "f6e2m3", "f6e3m2", "f8e8m0", "bf16"])
def test_weight_when_packed_then_is_read_element_by_element(name: str) -> None:
    dtype = DTYPES[name]
    weight = samples(dtype)[:15]
    node = helper.make_node("Cast", ["w"], ["y"], to=TensorProto.FLOAT)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [weight.size])
    graph = helper.make_graph([node], "weight", [], [out], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=13)
    ((found,),) = run_built(model, [{}])
    np.testing.assert_array_equal(found, weight.astype(np.float32))


def test_half_when_the_processor_has_no_instructions_then_converts_in_software(tmp_path: Path) -> None:
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    path, nodes = tmp_path / "half.tessera", [helper.make_node("Add", ["x", "x"], ["y"])]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["N"]) for name in "xy"]
    model = helper.make_model(helper.make_graph(nodes, "half", tensors[:1], tensors[1:]), ir_version=10)
    tessera_build.build(model, targets=["x86-64-v2"], out=path, verify=False, workers=1)
    with tessera_runtime.load(path, threads=1) as loaded:
        found = loaded.run({"x": values})["y"]
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found, values + values)


@pytest.mark.parametrize(
    ("source", "target"), [(F32, "i32"), (F64, "u64"), (F16, "i16"), (BOOL, "u8"), (U8, "f8e5m2"), (I4, "u4")], ids=str
)
def test_bit_cast_when_widths_are_equal_then_keeps_the_bits(source: DType, target: str) -> None:
    model = model_of(source, DTYPES[target])
    model.graph.node[0].op_type = "BitCast"
    model.opset_import[0].version = 26
    values = samples(source)
    ((found,),) = run_built(model, [{"x": values}])
    mask = (1 << min(DTYPES[target].bits, 8)) - 1
    assert found.dtype == DTYPES[target].numpy
    np.testing.assert_array_equal(found.view(np.uint8) & mask, values.view(np.uint8) & mask)
