"""Linear algebra: products of matrices and vectors, systems of equations.

Takes tensors; gives tensors. Invariant: 8-bit floats are multiplied and summed in the type that their policy names,
and only the result is rounded to them.
"""

from __future__ import annotations

from tessera.errors import LanguageError
from tessera.model.arguments import door
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, described, emit, emit_all, product
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import I64
from tessera_build.ir.graph.ops.shapes import count


@door
def matmul(a: Value, b: Value, *, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """a @ b over the last two axes; axes before them broadcast; a vector is a row or a column."""
    return product(a, b, transpose_a, transpose_b)


@door
def linear(x: Value, weight: Value, bias: Value | None = None) -> Tensor:
    """x @ weight + bias."""
    result = product(x, weight)
    return result if bias is None else emit("add", result, bias)


@door
def dot(a: Value, b: Value) -> Tensor:
    """The sum of the products of two vectors."""
    if a.ndim != 1 or b.ndim != 1:
        raise LanguageError(
            "TYPE_MISMATCH", "dot takes two vectors", site=here(), found=f"{described(a)} and {described(b)}"
        )
    return product(a, b)


@door
def outer(a: Value, b: Value) -> Tensor:
    """Every element of one vector times every element of another."""
    return emit("mul", emit("reshape", a, shape=(*a.shape, 1)), emit("reshape", b, shape=(1, *b.shape)))


@door
def solve_linear(a: Value, right: Value) -> Tensor:
    """x with a @ x = right, for square matrices in the last two axes of a."""
    if a.ndim < 2 or right.ndim != a.ndim:
        raise LanguageError(
            "TYPE_MISMATCH",
            "solve_linear takes matrices and right sides of one rank",
            site=here(),
            expected="a[..., n, n] and right[..., n, m]",
            found=f"{described(a)} and {described(right)}",
        )
    batch: Extent = count(a.shape[:-2])
    flat = [emit("reshape", x, shape=(batch, *x.shape[-2:])) for x in (a, right)]
    return emit("reshape", emit_second("solve", flat[0], flat[1]), shape=right.shape)


@door
def inverse(a: Value) -> Tensor:
    """The inverse of square matrices in the last two axes; to solve, `solve_linear` is cheaper and more exact."""
    _check_square("inverse", a)
    size = a.shape[-1]
    ones = emit("eq", *(emit("iota", shape=(size, size), axis=axis, dtype=I64) for axis in (0, 1)))
    unit = emit("broadcast_to", emit("cast", ones, dtype=a.dtype), shape=a.shape)
    return solve_linear(a, unit)


@door
def determinant(a: Value) -> Tensor:
    """The determinants of square matrices in the last two axes."""
    _check_square("determinant", a)
    flat = emit("reshape", a, shape=(count(a.shape[:-2]), *a.shape[-2:]))
    return emit("reshape", emit_second("determinant", flat), shape=a.shape[:-2])


def _check_square(name: str, a: Value) -> None:
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise LanguageError(
            "TYPE_MISMATCH",
            f"{name} takes square matrices",
            site=here(),
            expected="a[..., n, n]",
            found=described(a),
        )


def emit_second(op: str, *operands: Value) -> Tensor:
    """The second result of an op whose first one is room to work in."""
    return emit_all(op, operands, {})[1]
