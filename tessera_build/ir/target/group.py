"""The grammar of Target IR's kernels for machines of groups: what they have beyond the nodes of `kernel.py`.

Takes one launch of `groups` groups, each of a fixed number of lanes that share a memory; gives code for one lane.
Invariant: every lane of a group reaches the same barriers, matrix operations and asynchronous copies in the same order.

A group kernel's arguments: its buffers, then its symbolic dims (i64, function attribute `dims`). Function attribute
`lanes`: how many lanes a group has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tessera_build.ir.core.node import Def, Use
from tessera_build.ir.target.kernel import TargetNode


@dataclass(frozen=True, slots=True, eq=False)
class GroupIndex(TargetNode):
    """Which group of the launch this is, from 0 (i64)."""

    result: Def


@dataclass(frozen=True, slots=True, eq=False)
class Lane(TargetNode):
    """Which lane of its group this is, from 0 (i64)."""

    result: Def


@dataclass(frozen=True, slots=True, eq=False)
class SharedAlloc(TargetNode):
    """`elements` of memory that a group shares, 128-byte aligned, at the top of a kernel. Type: memref."""

    effects: ClassVar[bool] = True
    result: Def
    elements: int


@dataclass(frozen=True, slots=True, eq=False)
class Barrier(TargetNode):
    """Wait for every lane of the group; what each wrote before, to shared or global memory, all read afterwards."""

    effects: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, eq=False)
class AsyncCopy(TargetNode):
    """Start copying `count` bytes from global memory, 16 at most, to shared memory; zeros where `mask` is false."""

    effects: ClassVar[bool] = True
    target: Use
    target_index: Use
    source: Use
    source_index: Use
    count: int
    mask: Use | None = None


@dataclass(frozen=True, slots=True, eq=False)
class AsyncCommit(TargetNode):
    """Close the batch of copies that this lane has started."""

    effects: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, eq=False)
class AsyncWait(TargetNode):
    """Wait until all but the last `pending` batches of this lane's copies are complete."""

    effects: ClassVar[bool] = True
    pending: int


@dataclass(frozen=True, slots=True, eq=False)
class MatrixLoad(TargetNode):
    """Eight-by-eight matrices of 16-bit elements from shared memory into a warp's fragments, one i32 a matrix.

    Lane 8 i + j gives the address of row j of matrix i; with `transposed` each matrix arrives transposed.
    """

    effects: ClassVar[bool] = True
    results: tuple[Def, ...]
    pointer: Use
    index: Use
    transposed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class MatrixMultiply(TargetNode):
    """One warp's matrix instruction on fragments: results = acc + a * b; `instruction` is a row of the machine."""

    results: tuple[Def, ...]
    instruction: str
    acc: tuple[Use, ...]
    a: tuple[Use, ...]
    b: tuple[Use, ...]


@dataclass(frozen=True, slots=True, eq=False)
class MatrixFence(TargetNode):
    """What this lane wrote to registers and shared memory is visible to the matrix operations that follow."""

    effects: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, eq=False)
class SharedMatrix(TargetNode):
    """The descriptor (i64) of an operand in shared memory at pointer + index.

    `leading` and `stride` are the distances in bytes between neighbouring 8 × 16-byte core matrices along the
    operand's two axes; the operand is not swizzled.
    """

    result: Def
    pointer: Use
    index: Use
    leading: int
    stride: int


@dataclass(frozen=True, slots=True, eq=False)
class WarpgroupMultiply(TargetNode):
    """Start a matrix instruction of four warps whose operands lie in shared memory: results = acc + a * b.

    `transposed`: whether a (b) lies with its summed axis outermost.
    """

    effects: ClassVar[bool] = True
    results: tuple[Def, ...]
    instruction: str
    acc: tuple[Use, ...]
    a: Use
    b: Use
    transposed: tuple[bool, bool] = (False, False)


@dataclass(frozen=True, slots=True, eq=False)
class MatrixWait(TargetNode):
    """Close the batch of `WarpgroupMultiply` that were started and wait until all but `pending` batches are done."""

    effects: ClassVar[bool] = True
    pending: int = 0


NODES: tuple[type[TargetNode], ...] = (
    GroupIndex,
    Lane,
    SharedAlloc,
    Barrier,
    AsyncCopy,
    AsyncCommit,
    AsyncWait,
    MatrixLoad,
    MatrixMultiply,
    MatrixFence,
    SharedMatrix,
    WarpgroupMultiply,
    MatrixWait,
)
