"""Elementwise ops: every row of the scalar table becomes a graph op with numpy broadcasting; and `cast`.

Takes tensors whose shapes broadcast; gives one tensor. Invariant: the value of one element is what the scalar
program of that one operation computes, so the graph and the levels below cannot disagree about an operation.
"""

from __future__ import annotations

from collections.abc import Sequence

from tessera_build.ir.core.scalar import SCALAR_OPS, ScalarBuilder, evaluate, result_dtype
from tessera_build.ir.core.types import BOOL, Type, dtype_of, tensor
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import (
    Attributes,
    DimValues,
    Op,
    dtype_attribute,
    expect_count,
    expect_float,
    expect_same_dtype,
    mismatch,
    texts,
)
from tessera_build.ir.graph.ops.shapes import broadcast_shapes

LOGICAL = frozenset({"not", "and", "or", "xor"})
FLOAT_ONLY = frozenset(
    {"exp", "log", "sqrt", "rsqrt", "tanh", "erf", "sigmoid", "sin", "cos", "floor", "ceil", "round", "isnan"}
)
# numpy computes these with code that differs between instruction sets (or asks libm): never folded at build time.
MACHINE_DEPENDENT = frozenset({"exp", "log", "tanh", "erf", "sigmoid", "sin", "cos", "pow"})
NOT_GRAPH_OPS = frozenset({"const", "fma", "cast"})


def _check_operands(name: str, types: Sequence[Type]) -> None:
    expect_count(name, types, SCALAR_OPS[name])
    if name == "select":
        if types[0].dtype != BOOL:
            raise mismatch("select needs a condition", "bool, T, T", texts(types))
        expect_same_dtype(name, types[1:])
        return
    expect_same_dtype(name, types)
    if name in LOGICAL and types[0].dtype != BOOL:
        raise mismatch(f"{name} is defined on truth values", "bool", texts(types))
    if name in FLOAT_ONLY:
        expect_float(name, types[0])


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


def _infer_cast(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("cast", types, 1)
    return (tensor(dtype_attribute(attributes, "dtype"), *types[0].shape),)


def _evaluate_cast(arrays: Sequence[Array], attributes: Attributes, _: DimValues) -> tuple[Array, ...]:
    builder = ScalarBuilder([dtype_of(arrays[0].dtype)])
    program = builder.finish(builder.cast(0, dtype_attribute(attributes, "dtype")))
    return evaluate(program, arrays)


CAST = Op(
    "cast",
    "(x) <{dtype}> -> x converted element by element, towards zero from float to integer",
    _infer_cast,
    _evaluate_cast,
    ("dtype",),
    elementwise=True,
    ordered=True,
)

ELEMENTWISE: tuple[Op, ...] = (*(_elementwise(name) for name in SCALAR_OPS if name not in NOT_GRAPH_OPS), CAST)
