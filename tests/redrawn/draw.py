"""What the generators draw with: extents, shapes, axes and values, all from one seed.

Takes a seed and how far extents grow; gives drawn nodes as records. Invariant: a seed draws the same node whatever the
growth, except that each free extent above 1 is larger, so one dynamic model serves the calls of both.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import ml_dtypes
import numpy as np
from onnx import defs

from tessera_build.ir.graph.nodes import Array

T = TypeVar("T")
Type = type[np.generic]
FLOATS: tuple[Type, ...] = (np.float32, np.float32, np.float32, np.float32, np.float16, np.float64)
INTEGERS: tuple[Type, ...] = (np.int64, np.int32, np.int8, np.uint8, np.int16, np.uint16, np.uint32, np.uint64)
NUMBERS: tuple[Type, ...] = (*FLOATS, *FLOATS, *INTEGERS)
ANY: tuple[Type, ...] = (*NUMBERS, np.bool_)
BFLOAT16: Type = ml_dtypes.bfloat16
NEWEST = min(defs.onnx_opset_version(), 26)  # what onnxruntime 1.31 runs

_BRIEF_SINCE = 13
_EXTENTS = (1, 2, 2, 3, 3, 4, 5, 5, 7, 8, 9, 13, 16, 17)
_SMALL = (1, 1, 2, 2, 3, 3, 3, 4, 4, 5, 5, 6, 7, 8, 9, 16)
_LARGE = (19, 31, 32, 33, 64, 67, 101, 130)
_GROWTHS = (1, 1, 3, 14, 40)
_SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 3e38, -3e38, 1.0, -1.0, 0.5, 2.5, 65504.0)


@dataclass(frozen=True, slots=True)
class Operand:
    """One operand's value, none when left out; `constant` is how likely it is part of the model."""

    array: Array | None
    constant: float = 0.2
    name: str = ""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One node and its operands; `after` are nodes over its results, `opset` the version of its domain."""

    op: str
    operands: Sequence[Operand]
    attributes: Mapping[str, object] = field(default_factory=dict[str, object])
    opset: int = 17
    outputs: Sequence[str] = ("y",)
    domain: str = ""


class Draw:
    """Draws of one seed; `grown` adds to each free extent above 1."""

    def __init__(self, seed: int, grown: bool = False) -> None:
        self.random = random.Random(seed)
        self.numbers = np.random.default_rng([seed, grown])
        self._growth = self.random.choice(_GROWTHS) * grown
        self._specials = self.random.random() < 0.2
        self._empty = self.random.random() < 0.06

    def one(self, choices: Sequence[T]) -> T:
        """One of the choices."""
        return self.random.choice(choices)

    def maybe(self, chance: float = 0.5) -> bool:
        """True this often."""
        return self.random.random() < chance

    def whole(self, low: int, high: int) -> int:
        """An integer between both, which no growth changes."""
        return self.random.randint(low, high)

    def real(self, low: float, high: float) -> float:
        """A number between both that float32 holds."""
        return float(np.float32(self.random.uniform(low, high)))

    def extent(self, low: int = 0, large: bool = True) -> int:
        """A free extent, at least `low`."""
        drawn = self.random.choice((_LARGE if self.maybe(0.08) else _EXTENTS) if large else _SMALL)
        if self.maybe(0.15) and self._empty and low == 0:
            return 0
        drawn = max(drawn, low)
        return drawn + (self._growth if large else min(self._growth, 3)) if drawn > 1 else drawn

    def shape(self, low: int = 0, high: int = 4) -> tuple[int, ...]:
        """Free extents; few of them large."""
        rank = self.whole(low, high) if self.maybe(0.9) else high
        return tuple(self.extent(large=rank < 3) if rank < 4 else min(self.extent(large=False), 9) for _ in range(rank))

    def broadcast(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A shape that broadcasts to this one."""
        kept = list(shape[self.random.choice([0, 0, 0, self.whole(0, len(shape))]) :])
        return tuple(1 if self.maybe(0.2) else e for e in kept)

    def axis(self, rank: int) -> int:
        """An axis, from either end."""
        return self.whole(-rank, rank - 1)

    def axes(self, rank: int, low: int = 0) -> list[int]:
        """Different axes in any order, from either end."""
        chosen = self.random.sample(range(rank), self.whole(min(low, rank), rank))
        return [a - rank if self.maybe(0.3) else a for a in chosen]

    def opset(self, op: str, low: int = 7, high: int = NEWEST) -> int:
        """A version of ONNX in which the operator exists, mostly one at which it changed."""
        first = max(low, next((v for v in range(1, NEWEST + 1) if defs.has(op, v)), 0))
        if not defs.has(op, first):  # onnxruntime has operators in this domain that ONNX has not
            return 17
        newest = defs.onnx_opset_version()
        if high == NEWEST and defs.get_schema(op, newest).since_version > NEWEST and self.maybe(0.1):
            return newest  # only onnx's reference runs it
        high = max(first, high)
        since = {defs.get_schema(op, v).since_version for v in range(first, high + 1)}
        return max(first, self.one([*since, self.whole(first, high), min(high, 21)]))

    def brief(self, op: str, opset: int, dtype: Type) -> Type:
        """The element type, or bfloat16 in the place of a float that the operator has it for."""
        if np.dtype(dtype).kind != "f" or opset < _BRIEF_SINCE or not self.maybe(0.08):
            return dtype
        allowed = {name for t in defs.get_schema(op, opset).type_constraints for name in t.allowed_type_strs}
        return BFLOAT16 if "tensor(bfloat16)" in allowed else dtype

    def dtype(self, choices: Sequence[Type] = FLOATS) -> Type:
        """One of the element types."""
        return self.one(choices)

    def values(self, shape: Sequence[int], dtype: Type = np.float32, *, special: bool = False) -> Array:
        """Values of this shape: normal floats or small integers, sometimes with the ends of the type among them."""
        return (self._integers if np.dtype(dtype).kind in "iub" else self._floats)(tuple(shape), dtype, special)

    def _floats(self, shape: tuple[int, ...], dtype: Type, special: bool) -> Array:
        array = np.asarray(self.numbers.standard_normal(shape) * self.one([1, 1, 1, 3, 0.1]))
        if special and self._specials:
            chosen = self.numbers.random(shape) < 0.2
            array = np.where(chosen, self.numbers.choice(np.array(_SPECIAL), shape), array)
        with np.errstate(over="ignore"):
            return np.asarray(array).astype(dtype)

    def _integers(self, shape: tuple[int, ...], dtype: Type, special: bool) -> Array:
        if dtype == np.bool_:
            return np.asarray(self.numbers.random(shape) < 0.5)
        info = np.iinfo(np.dtype(dtype).name)
        array = np.asarray(self.numbers.integers(max(info.min, -9), 10, shape)).astype(dtype)
        if special and self._specials:
            ends = np.array([info.min, info.max, info.max - 1, 0, 1], dtype)
            array = np.where(self.numbers.random(shape) < 0.2, self.numbers.choice(ends, shape), array)
        return np.asarray(array, dtype)

    def between(self, low: float, high: float, shape: Sequence[int], dtype: Type = np.float32) -> Array:
        """Evenly drawn numbers; of integers, `high` is left out."""
        if np.dtype(dtype).kind in "iu":
            return np.asarray(self.numbers.integers(int(low), max(int(high), int(low) + 1), tuple(shape))).astype(dtype)
        return np.asarray(self.numbers.uniform(low, high, tuple(shape))).astype(dtype)

    def data(self, shape: Sequence[int], dtype: Type = np.float32, *, special: bool = False) -> Operand:
        """An operand that is mostly given at run time."""
        return Operand(self.values(shape, dtype, special=special), 0.12)

    def weight(self, shape: Sequence[int], dtype: Type = np.float32) -> Operand:
        """An operand that is as often part of the model."""
        return Operand(self.values(shape, dtype), 0.6)

    def optional(self, operand: Operand, chance: float = 0.5) -> Operand:
        """The operand, or none."""
        return operand if self.maybe(chance) else ABSENT


ABSENT = Operand(None)


def fixed(value: object, dtype: Type = np.int64, chance: float = 0.92) -> Operand:
    """An operand that says how to compute, hence mostly part of the model."""
    return Operand(np.asarray(value, dtype), chance)
