"""Iterations for linear equations whose matrix is only applied: restarted GMRES, and conjugate gradients.

Takes a builder, a right side and what applies the map; writes loops, and gives the solution and whether it is one.
Invariant: memory is that of a fixed number of vectors, whatever the number of iterations; the residual that decides is
computed from the solution and not updated along the way.

GMRES after Saad and Schultz (1986), with directions made orthogonal twice, and the rotations kept as one matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import BOOL, I64, Type, tensor
from tessera_build.ir.graph.autodiff.emit import Emit
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Attribute
from tessera_build.ir.graph.ops.shapes import count

AIM = 0.1  # of the tolerance: what is asked of the iteration, so that the last rounding does not decide
_PROGRESS = 0.99  # a cycle that leaves more than this of the residual was the last one

Apply = Callable[[int], int]
Body = Callable[[str, tuple[int, ...]], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Method:
    """How a linear equation is iterated: the attributes of `linear_solve`."""

    kind: str
    tolerance: float
    limit: int
    restart: int


def solution(to: GraphBuilder, right: int, apply: Apply, method: Method) -> tuple[int, int]:
    """x with apply(x) = right, and whether the residual is small enough.

    The right side is divided by its largest element first: squares of very small ones would be zero.
    """
    type_, e = to.type(right), Emit(to)
    width = count(type_.shape)
    flat = e.reshape(right, (width,))
    largest = e.op("reduce", e.op("abs", flat), kind="max", axes=(0,), keepdims=False)
    some = e.op("gt", largest, e.scalar(0.0, largest))
    scale = e.op("select", some, largest, e.scalar(1.0, largest))

    def flattened(x: int) -> int:
        return e.reshape(apply(e.reshape(x, type_.shape)), (width,))

    krylov = _Krylov(to, e.op("div", flat, scale), flattened, method)
    x = krylov.gmres() if method.kind == "gmres" else krylov.cg()
    solved = krylov.solved(x)
    return e.reshape(e.op("mul", x, scale), type_.shape), solved


class _Krylov:
    """One equation with a vector as its right side."""

    def __init__(self, to: GraphBuilder, right: int, apply: Apply, method: Method) -> None:
        self.to, self.e = to, Emit(to)
        self.right, self.apply, self.method = right, apply, method
        self.type: Type = to.type(right)
        self.size = self.norm(right)
        self.target = self.e.scaled(self.size, AIM * method.tolerance)

    def solved(self, x: int) -> int:
        """Whether x is a solution."""
        rest = self.norm(self.residual(x))
        return self.e.op("le", rest, self.e.scaled(self.size, self.method.tolerance))

    def residual(self, x: int) -> int:
        """What is left of the right side."""
        return self.e.op("sub", self.right, self.apply(x))

    def dot(self, a: int, b: int) -> int:
        """The product of two vectors."""
        return self.e.op("reduce", self.e.op("mul", a, b), kind="sum", axes=(0,), keepdims=False)

    def norm(self, a: int) -> int:
        """The length of a vector."""
        return self.e.op("sqrt", self.dot(a, a))

    def along(self, weights: int, rows: int) -> int:
        """The combination of the rows of a matrix."""
        e = self.e
        (many,), (_, width) = e.shape(weights), e.shape(rows)
        return e.reshape(e.op("matmul", e.reshape(weights, (1, many)), rows), (width,))

    def image(self, rows: int, vector: int) -> int:
        """The product of every row with a vector."""
        e = self.e
        many, width = e.shape(rows)
        return e.reshape(e.op("matmul", rows, e.reshape(vector, (width, 1))), (many,))

    def places(self, many: int) -> int:
        """0, 1, ... as a vector."""
        return self.e.op("iota", shape=(many,), axis=0, dtype=I64)

    def at(self, index: str, more: int = 0) -> int:
        """The index of a loop as a number."""
        return self.e.op("dimension", value=symbol(index) + more, dtype=I64)

    def row(self, matrix: int, index: str, more: int = 0) -> int:
        """The row of a matrix at the index of a loop."""
        place, (_, width) = symbol(index) + more, self.e.shape(matrix)
        return self.e.reshape(self.e.slice(matrix, (place, 0), (place + 1, width), (1, 1)), (width,))

    def element(self, vector: int, index: str, more: int = 0) -> int:
        """The element of a vector at the index of a loop."""
        place = symbol(index) + more
        return self.e.reshape(self.e.slice(vector, (place,), (place + 1,), (1,)), ())

    def with_row(self, matrix: int, place: int, row: int) -> int:
        """The matrix with another row at one place."""
        e = self.e
        many, width = e.shape(matrix)
        assert isinstance(many, int)
        here = e.reshape(e.op("eq", self.places(many), place), (many, 1))
        return e.op("select", here, e.reshape(row, (1, width)), matrix)

    def repeat(self, carried: Sequence[int], body: Body, going: int, trips: int) -> tuple[int, ...]:
        """A loop over `carried` while its body's first result holds."""
        to = self.to
        index = to.fresh_index("turn")
        with to.region([to.type(v) for v in carried], {index: (0, trips - 1)}) as block:
            block.yields(*body(index, block.args))
        how: dict[str, Attribute] = {"index": index, "trips": trips, "conditional": True}
        return to.node("loop", (going, *carried), how, (block.region,))

    def gmres(self) -> int:
        """Cycles of at most `restart` directions."""
        e, (width,) = self.e, self.type.shape
        m = min(self.method.restart, self.method.limit, *([max(width, 1)] if isinstance(width, int) else []))

        def cycle(_: str, state: tuple[int, ...]) -> Sequence[int]:
            x, rest, size = state
            x = e.op("add", x, self._step(rest, size, m))
            rest = self.residual(x)
            left = self.norm(rest)
            better = e.op("lt", left, e.scaled(size, _PROGRESS))
            return e.op("and", e.op("gt", left, self.target), better), x, rest, left

        state = (e.zeros(self.type), self.right, self.size)
        begin = e.op("gt", self.size, self.target)
        return self.repeat(state, cycle, begin, -(-self.method.limit // m))[0]

    def _step(self, rest: int, size: int, m: int) -> int:
        """The step that leaves the least of a residual, out of m directions."""
        e = self.e
        basis = self.with_row(
            e.zeros(tensor(self.type.dtype, m + 1, *self.type.shape)), self._number(0), e.op("div", rest, size)
        )
        eye = np.eye(m + 1, dtype=self.type.dtype.numpy)
        carried = (basis, self.to.constant(eye), self.to.constant(eye[:m, :m]), self._number(0))

        def arnoldi(index: str, state: tuple[int, ...]) -> Sequence[int]:
            return self._arnoldi(index, state, size)

        going = e.op("gt", size, self.target)
        basis, turned, columns, used = self.repeat(carried, arnoldi, going, m)
        first = e.reshape(e.slice(turned, (0, 0), (m, 1)), (m,))
        wanted = e.op("mul", e.where(e.op("lt", self.places(m), used), first), size)
        matrix = e.reshape(e.transpose(columns, (1, 0)), (1, m, m))
        weights = e.nodes("solve", matrix, e.reshape(wanted, (1, m, 1)))[1]
        return self.along(e.reshape(weights, (m,)), e.slice(basis, (0, 0), (m, *self.type.shape)))

    def _arnoldi(self, index: str, state: tuple[int, ...], size: int) -> Sequence[int]:
        """One more direction: its part of the triangular matrix, and the rotation that clears what lies below."""
        e, (basis, turned, columns, _) = self.e, state
        image, parts = self._orthogonal(basis, self.apply(self.row(basis, index)))
        length = self.norm(image)
        some = e.op("gt", length, e.scalar(0.0, length))
        unit = e.op("div", image, e.op("select", some, length, e.scalar(1.0, length)))
        here, below = self.at(index), self.at(index, 1)
        (more,) = e.shape(parts)
        assert isinstance(more, int)
        places = self.places(more)
        column = self.image(turned, e.op("select", e.op("eq", places, below), length, parts))
        a, b = self.element(column, index), self.element(column, index, 1)
        radius = e.op("sqrt", e.op("add", e.op("mul", a, a), e.op("mul", b, b)))
        cosine, sine = e.op("div", a, radius), e.op("div", b, radius)
        upper, lower = self.row(turned, index), self.row(turned, index, 1)
        up = e.op("add", e.op("mul", cosine, upper), e.op("mul", sine, lower))
        low = e.op("sub", e.op("mul", cosine, lower), e.op("mul", sine, upper))
        turned = self.with_row(self.with_row(turned, here, up), below, low)
        ended = e.op("select", e.op("eq", places, here), radius, e.where(e.op("lt", places, here), column))
        columns = self.with_row(columns, here, e.slice(ended, (0,), (more - 1,)))
        left = e.op("mul", e.op("abs", self.element(self._first_column(turned), index, 1)), size)
        going = e.op("and", e.op("gt", left, self.target), some)
        return going, self.with_row(basis, below, unit), turned, columns, below

    def _orthogonal(self, basis: int, image: int) -> tuple[int, int]:
        """What of a vector is in no row of the basis, and its products with these."""
        e = self.e
        first = self.image(basis, image)
        image = e.op("sub", image, self.along(first, basis))
        second = self.image(basis, image)  # one pass loses orthogonality to rounding
        return e.op("sub", image, self.along(second, basis)), e.op("add", first, second)

    def _first_column(self, matrix: int) -> int:
        rows, _ = self.e.shape(matrix)
        return self.e.reshape(self.e.slice(matrix, (0, 0), (rows, 1)), (rows,))

    def _number(self, number: int) -> int:
        return self.to.scalar(number, I64)

    def cg(self) -> int:
        """Conjugate gradients: for maps that are their own transposes, and definite."""
        e = self.e
        square = self.dot(self.right, self.right)
        target = e.op("mul", self.target, self.target)

        def turn(_: str, state: tuple[int, ...]) -> Sequence[int]:
            x, rest, way, square = state
            image = self.apply(way)
            bend = self.dot(way, image)
            length = e.op("div", square, bend)
            x = e.op("add", x, e.op("mul", length, way))
            rest = e.op("sub", rest, e.op("mul", length, image))
            following = self.dot(rest, rest)
            way = e.op("add", rest, e.op("mul", e.op("div", following, square), way))
            going = e.op("and", e.op("gt", following, target), e.op("ne", bend, e.scalar(0.0, bend)))
            return going, x, rest, way, following

        state = (e.zeros(self.type), self.right, self.right, square)
        assert self.to.type(square) == tensor(self.type.dtype)
        begin = e.op("gt", square, target)
        assert self.to.type(begin) == tensor(BOOL)
        return self.repeat(state, turn, begin, self.method.limit)[0]
