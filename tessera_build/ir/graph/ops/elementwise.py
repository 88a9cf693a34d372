"""Elementwise ops: every row of the scalar table becomes a graph op with numpy broadcasting; and the conversions.

Takes tensors whose shapes broadcast; gives one tensor. Invariant: the value of one element is what the scalar
program of that one operation computes, so the graph and the levels below cannot disagree about an operation.
"""

from __future__ import annotations

from collections.abc import Sequence

from tessera_build.ir.core.scalar import (
    CONVERSIONS,
    SCALAR_OPS,
    ScalarBuilder,
    ScalarOp,
    ScalarProgram,
    evaluate,
    result_dtype,
)
from tessera_build.ir.core.types import BOOL, Type, dtype_of, tensor
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import (
    Attributes,
    DimValues,
    Infer,
    Op,
    dtype_attribute,
    expect_count,
    expect_float,
    expect_numbers,
    expect_same_dtype,
    mismatch,
    texts,
)
from tessera_build.ir.graph.ops.shapes import broadcast_shapes

BITWISE = frozenset({"not", "and", "or", "xor"})
SHIFTS = frozenset({"shl", "shr"})
# numpy computes these with code that differs between instruction sets (or asks libm): never folded at build time.
_CIRCULAR = frozenset({"sin", "cos", "tan", "asin", "acos", "atan"})
_HYPERBOLIC = frozenset({"sinh", "cosh", "tanh", "asinh", "acosh", "atanh"})
MACHINE_DEPENDENT = frozenset({"exp", "log", "erf", "sigmoid", "pow"}) | _CIRCULAR | _HYPERBOLIC
FLOAT_ONLY = (MACHINE_DEPENDENT - {"pow"}) | {"logistic", "sqrt", "rsqrt", "floor", "ceil", "round", "isnan"}
NUMBERS_ONLY = frozenset({"neg", "abs", "sign", "add", "sub", "mul", "div", "mod", "rem", "pow"})
NOT_GRAPH_OPS = frozenset({"const", "fma", "mulhi", *CONVERSIONS})


def _check_operands(name: str, types: Sequence[Type]) -> None:
    expect_count(name, types, SCALAR_OPS[name])
    if name == "select":
        if types[0].dtype != BOOL:
            raise mismatch("select needs a condition", "bool, T, T", texts(types))
        expect_same_dtype(name, types[1:])
        return
    expect_same_dtype(name, types)
    if name in BITWISE and types[0].dtype.is_float:
        raise mismatch(f"{name} is defined on truth values and integers", "bool or an integer type", texts(types))
    if name in SHIFTS and types[0].dtype.kind not in {"signed", "unsigned"}:
        raise mismatch(f"{name} is defined on integers", "an integer type", texts(types))
    if name in FLOAT_ONLY:
        expect_float(name, types[0])
    if name in NUMBERS_ONLY:
        expect_numbers(name, types[0])


def _elementwise(name: str) -> Op:
    def infer(types: Sequence[Type], _: Attributes) -> tuple[Type, ...]:
        _check_operands(name, types)
        return (
            tensor(result_dtype(name, [t.dtype for t in types]), *broadcast_shapes(name, [t.shape for t in types])),
        )

    def run(arrays: Sequence[Array], _: Attributes, __: DimValues) -> tuple[Array, ...]:
        builder = ScalarBuilder([dtype_of(a.dtype) for a in arrays])
        return evaluate(builder.finish(builder.op(name, *range(len(arrays)))), arrays)

    operands = ", ".join("cab"[i] if name == "select" else "ab"[i] for i in range(SCALAR_OPS[name]))
    signature = f"({operands}) -> {name}({operands}), operands broadcast"
    return Op(name, signature, infer, run, elementwise=True, ordered=name not in MACHINE_DEPENDENT)


def _infer_conversion(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("cast", types, 1)
    return (tensor(dtype_attribute(attributes, "dtype"), *types[0].shape),)


def _infer_bitcast(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    (result,) = _infer_conversion(types, attributes)
    if types[0].dtype.bits != result.dtype.bits:
        raise mismatch("bitcast keeps the width of elements", f"{types[0].dtype.bits} bits", result.dtype)
    return (result,)


def _conversion(name: str, meaning: str, infer: Infer) -> Op:
    def run(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
        op = ScalarOp(name, (0,), dtype_attribute(attributes, "dtype"))
        return evaluate(ScalarProgram((dtype_of(arrays[0].dtype),), (op,), (1,)), arrays)

    return Op(name, f"(x) <{{dtype}}> -> {meaning}", infer, run, ("dtype",), elementwise=True, ordered=True)


CAST = _conversion("cast", "x converted element by element, towards zero from float to integer", _infer_conversion)
BITCAST = _conversion("bitcast", "the bits of x's elements read as another type of their width", _infer_bitcast)

ELEMENTWISE: tuple[Op, ...] = (*(_elementwise(name) for name in SCALAR_OPS if name not in NOT_GRAPH_OPS), CAST, BITCAST)
