"""The grammar of Target IR's kernels for machines of groups: what they have beyond the nodes of `kernel.py`.

Takes one launch of `groups` groups, each of a fixed number of lanes that share a memory; gives code for one lane.
Invariant: every lane of a group reaches the same barriers, matrix operations and asynchronous copies in the same order.

A group kernel's arguments: its buffers, then its symbolic dims (i64, function attribute `dims`). Function attribute
`lanes`: how many lanes a group has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tessera_build.ir.core.node import Def, Function, Use
from tessera_build.ir.core.types import I32, scalar
from tessera_build.ir.target.kernel import TargetNode

FRAGMENT = scalar(I32)  # one lane's share of an 8 × 8 matrix of 16-bit elements: two of them


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
class SharedFence(TargetNode):
    """What this lane wrote to shared memory is there for matrix instructions to read, once a barrier has passed."""

    effects: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, eq=False)
class WarpgroupFence(TargetNode):
    """What this lane wrote to registers is there for the `WarpgroupMultiply` that follow."""

    effects: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, eq=False)
class SharedMatrix(TargetNode):
    """The descriptor (i64) of an operand in shared memory at pointer + index, which is not swizzled.

    The operand consists of core matrices of 8 × 16 bytes, 128 bytes each; `leading` is the distance in bytes between
    neighbours along the summed axis, `stride` along the other one.
    """

    result: Def
    pointer: Use
    index: Use
    leading: int
    stride: int


@dataclass(frozen=True, slots=True, eq=False)
class WarpgroupMultiply(TargetNode):
    """Start a matrix instruction of four warps whose operands lie in shared memory: results = acc + a * b.

    `transposed`: whether the rows of a's (b's) core matrices run along the axis that is not summed.
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
    SharedFence,
    WarpgroupFence,
    SharedMatrix,
    WarpgroupMultiply,
    MatrixWait,
)

_ALIGNMENT = 128


def shared_offsets(kernel: Function) -> tuple[dict[int, int], int]:
    """Where each `SharedAlloc` lies when all share one block of memory, in bytes, and the block's size."""
    offsets: dict[int, int] = {}
    total = 0
    for node in kernel.nodes:
        if isinstance(node, SharedAlloc):
            offsets[node.result] = total
            taken = node.elements * kernel.types[node.result].dtype.bytes
            total += -(-taken // _ALIGNMENT) * _ALIGNMENT
    return offsets, total
