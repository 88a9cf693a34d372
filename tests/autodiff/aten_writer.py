"""What rows of the table of torch's operators write with.

Takes traced values and numbers; gives values of a builder. Invariant: what cannot be written raises `Unmapped`.
"""

# ruff: noqa: ANN401  values of traced programs are anything

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tessera_build.ir.core.types import BOOL, F32, F64, I8, I32, I64, U8, DType, Type
from tessera_build.ir.graph.builder import GraphBuilder

DTYPES = {
    torch.float64: F64,
    torch.float32: F32,
    torch.int64: I64,
    torch.int32: I32,
    torch.int8: I8,
    torch.uint8: U8,
    torch.bool: BOOL,
}
Row = Callable[..., Any]


class Unmapped(Exception):  # noqa: N818  no error: a sample that is passed over
    """No row for what was traced."""


class Writer:
    """Writes one program."""

    def __init__(self) -> None:
        self.b = GraphBuilder()

    def type(self, x: int) -> Type:
        return self.b.type(x)

    def shape(self, x: int) -> tuple[int, ...]:
        return self.type(x).static_shape

    def value(self, x: Any, dtype: DType = F64) -> int:
        """A traced value, or a number as a constant."""
        if isinstance(x, Value):
            return x.id
        if isinstance(x, (bool, int, float)):
            return self.b.scalar(x, dtype)
        raise Unmapped(f"operand {x!r}")

    def pair(self, x: Any, y: Any) -> tuple[int, int]:
        """Two operands in one type: a tensor's before a number's, a float's before an integer's."""
        known = [self.type(v.id).dtype for v in (x, y) if isinstance(v, Value)]
        numbers = [v for v in (x, y) if not isinstance(v, Value)]
        dtype = max(known, key=_rank)
        if any(isinstance(n, float) for n in numbers) and not dtype.is_float:
            dtype = F64
        return self.cast(self.value(x, dtype), dtype), self.cast(self.value(y, dtype), dtype)

    def cast(self, x: int, dtype: DType) -> int:
        return x if self.type(x).dtype == dtype else self.b.op("cast", x, dtype=dtype)

    def reshape(self, x: int, shape: Sequence[int]) -> int:
        return self.b.op("reshape", x, shape=tuple(shape))

    def reduce(self, x: int, kind: str, dims: Any, keepdim: bool) -> int:
        rank = len(self.shape(x))
        dims = [dims] if isinstance(dims, int) else list(dims or [])
        axes = tuple(sorted({d % rank for d in dims})) if dims and rank else tuple(range(rank))
        return self.b.op("reduce", x, kind=kind, axes=axes, keepdims=keepdim)

    def count(self, x: int, dims: Any) -> int:
        rank = len(self.shape(x))
        dims = [dims] if isinstance(dims, int) else list(dims or [])
        axes = {d % rank for d in dims} if dims and rank else set(range(rank))
        return math.prod(self.shape(x)[a] for a in axes)


class Value:
    """A traced tensor. `plain`: known to lie row by row from the beginning of its memory."""

    def __init__(self, number: int, *, plain: bool = False) -> None:
        self.id = number
        self.plain = plain


def _rank(dtype: DType) -> tuple[int, int]:
    return ({"bool": 0, "unsigned": 1, "signed": 1, "float": 2}[dtype.kind], dtype.bits)


def element_type(dtype: Any) -> DType:
    if dtype not in DTYPES:
        raise Unmapped(str(dtype))
    return DTYPES[dtype]


def fail(what: str) -> int:
    raise Unmapped(what)
