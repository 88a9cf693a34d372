"""The grammar of Schedule IR: a task is a function of compute definitions, or one call of a tile-language kernel.

Takes buffers as function arguments; gives a DAG of `Compute` nodes (output axes, reduction axes, index maps, a scalar
program) or a `KernelCall`. Invariant: a definition says what every element is and nothing about the order in which
elements are computed; order lives in the trace (`trace.py`), which addresses axes by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tessera_build.ir.core.attributes import Attr
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.node import Def, Node, Use
from tessera_build.ir.core.scalar import ScalarProgram

# `max` and `min` keep a NaN; `largest` passes it over, but for one that comes last, which may stay.
Combine = Literal["none", "sum", "max", "min", "prod", "largest"]


@dataclass(frozen=True, slots=True)
class Axis:
    """A named axis that runs from 0 to `extent` - 1."""

    name: str
    extent: Extent


@dataclass(frozen=True, slots=True)
class Access:
    """Which element a read takes: one index expression per axis of the buffer, over axis names and `_r<i>`.

    The symbol `_r<i>` stands for the (integer) value of read i, which must come earlier; negative values count from
    the end. With `pad`, indices outside the buffer give that value; without, every index is inside by construction.
    """

    indices: tuple[Extent, ...]
    pad: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Compute(Node):
    """result[axes] = combine over reduction axes of program(reads..., index values...).

    `program` has one input per read, then one i64 input per entry of `index_values` (expressions over axis names).
    """

    dialect: ClassVar[str] = "tsched"

    result: Def
    reads: tuple[Use, ...]
    accesses: tuple[Access, ...]
    axes: tuple[Axis, ...]
    reduction: tuple[Axis, ...]
    combine: Combine
    program: ScalarProgram
    index_values: tuple[Extent, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class KernelCall(Node):
    """Call a kernel written in the tile language; `parameters` are its compile-time attributes by name."""

    dialect: ClassVar[str] = "tsched"

    results: tuple[Def, ...]
    kernel: str
    operands: tuple[Use, ...]
    parameters: tuple[tuple[str, Attr], ...] = ()
