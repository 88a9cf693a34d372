"""Matrix products: MatMul with numpy's rules for vectors, and Gemm.

Takes two or three tensors; gives core ops. Invariant: contracted and batch extents that ONNX needs to be equal are
made equal before the product is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.ir.core.types import F64


def matrix_product(c: Context, a: Tensor, b: Tensor, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """a @ b for operands of rank 2 and more; batch axes broadcast."""
    k_a, k_b = a.shape[-2 if transpose_a else -1], b.shape[-1 if transpose_b else -2]
    shared = c.unify(k_a, k_b, "the contracted extents of a matrix product differ")
    batch = c.broadcast_shape([a.shape[:-2], b.shape[:-2]])
    a = c.fitted(a, (*batch, *((shared, a.shape[-1]) if transpose_a else (a.shape[-2], shared))))
    b = c.fitted(b, (*batch, *((b.shape[-2], shared) if transpose_b else (shared, b.shape[-1]))))
    return c.op("matmul", a, b, transpose_a=transpose_a, transpose_b=transpose_b)


def matrices(c: Context, a: Tensor, b: Tensor, product: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """A product of matrices of operands that may be vectors: one row on the left, one column on the right."""
    if a.rank == 0 or b.rank == 0:
        raise ill_formed("a matrix product takes no scalars", found=f"{a.type} and {b.type}")
    left = c.reshape(a, (1, *a.shape)) if a.rank == 1 else a
    right = c.reshape(b, (*b.shape, 1)) if b.rank == 1 else b
    result = product(left, right)
    shape = list(result.shape)
    if b.rank == 1:
        shape.pop(-1)
    if a.rank == 1:
        shape.pop(len(shape) - (1 if b.rank == 1 else 2))
    return c.reshape(result, shape)


def _matmul(c: Context, n: Call) -> Tensor:
    return matrices(c, n.input(0), n.input(1), lambda a, b: matrix_product(c, a, b))


def _gemm(c: Context, n: Call) -> Tensor:
    """alpha * a @ b + beta * bias."""
    a, b, bias = n.input(0), n.input(1), n.optional(2)
    if a.rank != 2 or b.rank != 2:
        raise ill_formed("Gemm takes matrices", expected="rank 2", found=f"{a.type} and {b.type}")
    alpha, beta = n.number("alpha", 1.0), n.number("beta", 1.0)
    result = matrix_product(c, a, b, bool(n.integer("transA", 0)), bool(n.integer("transB", 0)))
    # Factors that are no whole numbers scale integers, too: in f64, rounded towards zero at the end.
    exact = a.dtype.is_float or (alpha.is_integer() and beta.is_integer())
    wide = a.dtype if exact else F64
    result = c.cast(result, wide)
    if alpha != 1.0:
        result = c.op("mul", result, c.scalar(alpha, wide))
    if bias is not None and beta != 0.0:
        term = c.cast(bias, wide)
        result = c.op("add", result, term if beta == 1.0 else c.op("mul", term, c.scalar(beta, wide)))
    return c.cast(result, a.dtype)


CONTRACTION_OPERATORS: Mapping[str, Translator] = {"MatMul": _matmul, "Gemm": _gemm}
