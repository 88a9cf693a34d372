"""Det and onnxruntime's Inverse: batches of square matrices, whose size may be dynamic.

Takes matrices [..., N, N]; gives `determinant` and `solve`. Invariant: narrow floats are worked on in f32.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.ir.core.types import F32, F64, I64
from tessera_build.ir.graph.ops.shapes import count


def _matrices(c: Context, n: Call) -> Tensor:
    """The operand as [B, N, N] in a type that elimination works in."""
    x = n.input(0)
    if x.rank < 2 or not x.dtype.is_float:
        raise ill_formed(f"{n.op} takes matrices", found=str(x.type))
    size = c.unify(x.shape[-2], x.shape[-1], f"{n.op} takes square matrices")
    square = c.retyped(x, (*x.shape[:-2], size, size))
    return c.reshape(c.cast(square, F64 if x.dtype == F64 else F32), (count(x.shape[:-2]), size, size))


def _determinant(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    _, found = c.several("determinant", _matrices(c, n))
    return c.cast(c.reshape(found, x.shape[:-2]), x.dtype)


def _inverse(c: Context, n: Call) -> Tensor:
    x, matrices = n.input(0), _matrices(c, n)
    size = matrices.shape[1]
    row, column = (c.op("iota", shape=shape, axis=axis, dtype=I64) for axis, shape in ((0, (size, 1)), (1, (1, size))))
    unit = c.broadcast_to(c.cast(c.op("eq", row, column), matrices.dtype), matrices.shape)
    _, found = c.several("solve", matrices, unit)
    return c.cast(c.reshape(found, x.shape), x.dtype)


MATRIX_OPERATORS: Mapping[str, Translator] = {"Det": _determinant}
CONTRIB_MATRIX_OPERATORS: Mapping[str, Translator] = {"Inverse": _inverse}
