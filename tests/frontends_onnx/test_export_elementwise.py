"""Exported elementwise ops and conversions: onnxruntime gives what the scalar table says, for every element type."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bundle_format.errors import TesseraError
from tessera_build.ir.core.scalar import SCALAR_OPS
from tessera_build.ir.core.types import BF16, BOOL, DTYPES, F8E4M3, F64, STORAGE_FLOATS, DType, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Attribute
from tessera_build.ir.graph.ops.elementwise import NOT_GRAPH_OPS
from tessera_build.ir.graph.reference import run
from tessera_build.verify.compare import error_of
from tests.frontends_onnx.exported import run_exported

pytestmark = [pytest.mark.numerics, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

COUNT = 40
TYPES = [d for d in DTYPES.values() if d not in STORAGE_FLOATS or d == F8E4M3]
# In f64 onnxruntime 1.31 has no code for these; `logistic` is defined in f32.
SINGLE = frozenset({"erf", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "logistic"})
LIMITS = {64: 1e-14, 32: 1e-6, 16: 2e-3, 8: 0.3}


def _numbers(dtype: DType) -> Array:
    generator = np.random.default_rng(3)
    if dtype == BOOL:
        return generator.integers(0, 2, COUNT).astype(bool)
    if dtype.is_float:
        special = [0.0, 1.0, -1.0, 0.5, 3.0, -2.5]
        return np.concatenate([generator.normal(size=COUNT - len(special)) * 2, special]).astype(dtype.numpy)
    low = 0 if dtype.kind == "unsigned" else -(1 << (dtype.bits - 1))
    high = (1 << (dtype.bits - (dtype.kind == "signed"))) - 1
    wide = np.uint64 if low == 0 else np.int64
    few = generator.integers(max(low, -20), min(high, 20) + 1, COUNT - 3).astype(wide)
    return np.concatenate([few, np.asarray([low, high, 1], wide)]).astype(dtype.numpy)


def _operands(name: str, dtype: DType) -> list[Array]:
    """Numbers where the operation is defined: divisors and exponents are not any."""
    first, other = _numbers(dtype), np.flip(_numbers(dtype)).copy()
    if name == "select":
        return [_numbers(BOOL), first, other]
    if name in ("div", "mod", "rem") and not dtype.is_float:
        other = np.where(other == 0, np.ones((), dtype.numpy), other).astype(dtype.numpy)
    if name in ("shl", "shr"):
        most = dtype.bits + 2 if dtype.bits > 4 else dtype.bits // 2 + 1
        other = np.random.default_rng(4).integers(0, most, COUNT).astype(dtype.numpy)
    if name == "pow":
        first = np.abs(first.astype(np.float64)).clip(0, 7).astype(dtype.numpy)
        other = other.astype(np.float64).clip(0, 2).astype(dtype.numpy)
    return [first, other][: SCALAR_OPS[name]]


def _agree(op: str, operands: Sequence[Array], types: Sequence[DType], **attributes: Attribute) -> bool:
    """Whether the op takes these types; asserts that the export computes what it means."""
    builder = GraphBuilder()
    inputs = [builder.input(f"x{i}", tensor(dtype, COUNT)) for i, dtype in enumerate(types)]
    feeds = {f"x{i}": array for i, array in enumerate(operands)}
    try:
        builder.output("y", builder.op(op, *inputs, **attributes))
        wanted = run(builder.finish(), "main", feeds)["y"]
    except (TesseraError, TypeError):  # the type rule's no, or numpy's
        return False
    found = run_exported(builder.finish(), "main", feeds)["y"]
    exact = not types[-1].is_float or wanted.dtype == np.bool_ or op in ("cast", "bitcast")
    limit = 0.0 if exact else 2e-2 if types[-1] == BF16 else LIMITS[types[-1].bits]
    assert error_of(found, wanted) <= limit, f"{op} of {types[-1]}"
    return True


@pytest.mark.parametrize("name", [name for name in SCALAR_OPS if name not in NOT_GRAPH_OPS])
def test_operation_when_exported_then_onnxruntime_agrees_for_every_type(name: str) -> None:
    tried = 0
    for dtype in TYPES:
        if dtype == F64 and name in SINGLE:
            continue
        operands = _operands(name, dtype)
        types = [BOOL, dtype, dtype] if name == "select" else [dtype] * len(operands)
        tried += _agree(name, operands, types)
    assert tried


@pytest.mark.parametrize("source", TYPES, ids=str)
def test_conversion_when_exported_then_onnxruntime_agrees_for_every_type(source: DType) -> None:
    numbers = _numbers(source)
    if source.is_float and source.bits > 8:
        numbers[:3] = np.asarray([300.5, -300.5, -1.5]).astype(source.numpy)
    assert all(_agree("cast", [numbers], [source], dtype=dtype) for dtype in TYPES)
    whole = source.bits >= 8 and source not in (BOOL, F8E4M3)
    for dtype in TYPES if whole else ():
        if dtype.bits == source.bits and dtype not in (BOOL, F8E4M3):
            assert _agree("bitcast", [numbers], [source], dtype=dtype)
