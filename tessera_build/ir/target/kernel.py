"""The grammar of Target IR's kernels: scalars, vectors of machine width, pointers, structured loops.

Takes buffers as pointers (memref arguments) plus i64 arguments; gives code that a back end prints one to one. All
address arithmetic is explicit, in elements. Invariant: every vector has the width of one register or less, every
name in `Op` is a row of `OPS`, and nothing needs a run-time library.

A CPU kernel's arguments: its buffers, then its symbolic dims (i64, function attribute `dims`), then the index of the
parallel iteration (i64). It returns status 0, or the code of the first `Check` that failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tessera_build.ir.core.node import Def, Node, Region, Use

# name -> number of operands. Scalars and vectors alike; operands of one type, except select's and masks' conditions.
OPS: dict[str, int] = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "rem": 2, "neg": 1, "abs": 1, "fma": 3, "sqrt": 1,
    "min": 2, "max": 2,  # floats: b where b < a (a > b), else a: a NaN in a stays, as x86's and PTX's do
    "eq": 2, "ne": 2, "lt": 2, "le": 2, "gt": 2, "ge": 2, "and": 2, "or": 2, "xor": 2, "not": 1, "select": 3,
    "mulhi": 2,  # the upper half of a product of u32
    "shl": 2, "lshr": 2, "ashr": 2, "floor": 1, "ceil": 1, "round": 1,
    "scale": 2,  # a * 2**b for a whole number b of a's type, rounded once; a NaN scaled by an infinity is that or zero
    "cast": 1,  # numeric conversion, as ir/core/conversion.py defines it; the storage floats have none
    "bitcast": 1,
    "dot4": 3,  # i32 lanes a, of bytes b (unsigned) and c (signed), four a lane: a + sum of b * c, which wraps
    "dot2": 2,  # of lanes of two i16 each: the sum of two products as i32
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class TargetNode(Node):
    """Base of the target nodes."""

    dialect: ClassVar[str] = "ttarget"


@dataclass(frozen=True, slots=True, eq=False)
class Const(TargetNode):
    """A constant scalar or, for a vector type, the same value in every lane."""

    result: Def
    value: float | int


@dataclass(frozen=True, slots=True, eq=False)
class Op(TargetNode):
    """One arithmetic operation of `OPS` on scalars or lane by lane."""

    result: Def
    name: str
    operands: tuple[Use, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Splat(TargetNode):
    """A scalar in every lane of a vector."""

    result: Def
    operand: Use


@dataclass(frozen=True, slots=True, eq=False)
class LaneIndex(TargetNode):
    """Vector of integers 0, 1, 2, ..."""

    result: Def


@dataclass(frozen=True, slots=True, eq=False)
class Extract(TargetNode):
    """One lane of a vector."""

    result: Def
    operand: Use
    lane: int


@dataclass(frozen=True, slots=True, eq=False)
class Insert(TargetNode):
    """The vector with one lane replaced."""

    result: Def
    operand: Use
    value: Use
    lane: int


@dataclass(frozen=True, slots=True, eq=False)
class Shuffle(TargetNode):
    """Lanes picked from the concatenation of two vectors of one type."""

    result: Def
    left: Use
    right: Use
    lanes: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Load(TargetNode):
    """Load a scalar or a vector of consecutive elements at pointer + index; where `mask` is false, `other`."""

    effects: ClassVar[bool] = True
    result: Def
    pointer: Use
    index: Use
    mask: Use | None = None
    other: Use | None = None
    alignment: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Gather(TargetNode):
    """Lane i: the element at pointer + indices[i]; where `mask` is false, `other`."""

    effects: ClassVar[bool] = True
    result: Def
    pointer: Use
    indices: Use
    mask: Use
    other: Use


@dataclass(frozen=True, slots=True, eq=False)
class Store(TargetNode):
    """Store a scalar or vector at pointer + index, where `mask` holds; `stream`: past the caches."""

    effects: ClassVar[bool] = True
    pointer: Use
    index: Use
    value: Use
    mask: Use | None = None
    alignment: int = 0
    stream: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Scatter(TargetNode):
    """Lane i goes to pointer + indices[i], where `mask` holds; lanes in ascending order."""

    effects: ClassVar[bool] = True
    pointer: Use
    indices: Use
    value: Use
    mask: Use


@dataclass(frozen=True, slots=True, eq=False)
class Prefetch(TargetNode):
    """Ask for the cache line at pointer + index; `level` 1 is the nearest cache."""

    effects: ClassVar[bool] = True
    pointer: Use
    index: Use
    level: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Alloca(TargetNode):
    """`elements` of scratch on the stack, 64-byte aligned. Type: memref."""

    effects: ClassVar[bool] = True
    result: Def
    elements: int


@dataclass(frozen=True, slots=True, eq=False)
class Loop(TargetNode):
    """index = start, start + step, ... while index < stop. Body's arguments: index (i64), then the carried values."""

    effects: ClassVar[bool] = True
    results: tuple[Def, ...]
    start: Use
    stop: Use
    step: int
    carried: tuple[Use, ...]
    body: Region


@dataclass(frozen=True, slots=True, eq=False)
class Branch(TargetNode):
    """Run one of two regions on a scalar bool."""

    effects: ClassVar[bool] = True
    results: tuple[Def, ...]
    condition: Use
    then: Region
    otherwise: Region


@dataclass(frozen=True, slots=True, eq=False)
class Check(TargetNode):
    """Return status `code` from the kernel unless the scalar bool holds."""

    effects: ClassVar[bool] = True
    condition: Use
    code: int
