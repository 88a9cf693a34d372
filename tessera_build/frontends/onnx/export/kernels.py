"""Which element types onnxruntime computes an operator in, and which type to take in place of another one.

Takes an operator's name and an element type; gives an element type. Invariant: what stands in for a type holds all its
values exactly and, for integers, wraps to the same bits when it is cast back. Where there is no such type the operator
is written in the type itself, as ONNX allows, whether or not onnxruntime has code for it.

The rows were found by asking onnxruntime 1.31 to load one node of each operator and type, at the opset of `model.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.ir.core.types import (
    BF16,
    BOOL,
    F16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    STORAGE_FLOATS,
    U8,
    U16,
    U32,
    U64,
    DType,
)

_FLOATS = (F64, F32, F16)
_INTEGERS = (I64, I32, I16, I8, U64, U32, U16, U8)
_NUMBERS = (*_FLOATS, *_INTEGERS)
_MOVED = (*_NUMBERS, BF16, BOOL)
_SUMS = (*_FLOATS, I64, I32)
_ORDER = (*_FLOATS, I64, I32, I8, U64, U32, U8)
_RUNS: Mapping[str, tuple[DType, ...]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Mod", "Abs", "Sign"), _NUMBERS),
    **dict.fromkeys(("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Tile", "Compress"), _NUMBERS),
    **dict.fromkeys(("Exp", "Log", "Sqrt", "Reciprocal", "Tanh", "Sigmoid", "Floor", "Ceil", "Round"), _FLOATS),
    **dict.fromkeys(("Sin", "Cos", "Softmax", "Erf", "Tan", "Asin", "Acos", "Atan"), _FLOATS),
    **dict.fromkeys(("Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Conv", "Det", "MaxPool"), _FLOATS),
    **dict.fromkeys(("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"), _INTEGERS),
    **dict.fromkeys(("Gather", "GatherElements", "Concat", "Slice", "Shape", "ScatterElements", "ScatterND"), _MOVED),
    **dict.fromkeys(("ReduceSum", "ReduceProd", "CumSum"), _SUMS),
    **dict.fromkeys(("ReduceMax", "ReduceMin"), (*_SUMS, I8, U8)),
    **dict.fromkeys(("Max", "Min"), _ORDER),
    "AveragePool": (F32, F16),
    "BitShift": (U64, U32, U8),
    "CumProd": (*_SUMS, U64, U32),
    "Equal": (*_NUMBERS, BOOL),
    "Expand": (*_NUMBERS, BOOL),
    "Identity": (*_MOVED, *STORAGE_FLOATS),
    "IsNaN": (*_FLOATS, BF16),
    "MatMul": (*_SUMS, U64, U32),
    "Neg": (*_FLOATS, I64, I32, I16, I8),
    "Pad": (*_ORDER, BOOL),
    "Pow": _SUMS,
    "Reshape": (*_MOVED, *STORAGE_FLOATS),
    # What the scatters of opset 18 run when they combine, whatever types they are registered for.
    "ScatterCombined": (F64, F32, *_INTEGERS),
    "TopK": (*_FLOATS, I64, I32, I16, I8, U8),
    "Transpose": (*_MOVED, *STORAGE_FLOATS),
    "Unique": (F64, F32, I64, I8),
    "Where": (*_FLOATS, I64, I32, I8, U32, U8),
}
# In the order in which they are tried.
_WIDER: tuple[DType, ...] = (U8, I8, I32, U32, I64)
_WIDER_FLOATS: tuple[DType, ...] = (F32, F64)


def carrier(op: str, dtype: DType) -> DType:
    """The element type to compute `op` in, for operands of type `dtype`."""
    runs = _RUNS.get(op)
    if runs is None or dtype in runs:
        return dtype
    wider = _WIDER_FLOATS if dtype.is_float else _WIDER
    return next((other for other in wider if other in runs and _holds(other, dtype)), dtype)


def _holds(wide: DType, narrow: DType) -> bool:
    """Whether every value of `narrow` is one of `wide`."""
    if narrow.is_float:
        return wide.bits > narrow.bits
    if narrow == BOOL:
        return True
    if wide.kind == "unsigned":
        return narrow.kind == "unsigned" and wide.bits >= narrow.bits
    return wide.bits - 1 >= narrow.bits - (narrow.kind == "signed")
