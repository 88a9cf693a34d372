"""Rules of the kernel nodes that only machines of groups have.

Takes a scope and a node; gives what is wrong with it. Invariant: each rule is one sentence of the node's docstring;
whether a fragment fits its instruction is the machine's table's to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from tessera_build.ir.core.spec import Scope
from tessera_build.ir.core.types import BOOL, I64, scalar
from tessera_build.ir.target.group import (
    AsyncCopy,
    AsyncWait,
    GroupIndex,
    Lane,
    MatrixLoad,
    MatrixMultiply,
    MatrixWait,
    SharedAlloc,
    SharedMatrix,
    WarpgroupMultiply,
)


def group_arguments(scope: Scope) -> Iterator[str]:
    """Buffers, then one i64 a dim; no results; `lanes` says how many lanes a group has."""
    function = scope.function
    listed = function.attributes.get("dims", ())
    dims = len(cast("tuple[object, ...]", listed)) if isinstance(listed, tuple) else 0
    types = [scope.type(a) for a in function.args if a in function.types]
    buffers = len(types) - dims
    if types[max(0, buffers) :] != [scalar(I64)] * dims or any(t.container != "memref" for t in types[:buffers]):
        yield f"arguments are ({', '.join(map(str, types))}), not buffers and then {dims} dims as i64"
    lanes = function.attributes.get("lanes")
    if not isinstance(lanes, int) or lanes < 1:
        yield f"a group has {lanes} lanes"
    if function.results:
        yield "a kernel has no results"


def place(scope: Scope, node: GroupIndex | Lane) -> Iterator[str]:
    """Numbers of groups and lanes are i64."""
    if scope.type(node.result) != scalar(I64):
        yield f"its number is {scope.type(node.result)}, not i64"


def shared_alloc(scope: Scope, node: SharedAlloc) -> Iterator[str]:
    """Some elements, as a memref, at the top of a kernel."""
    if node.elements < 1 or scope.type(node.result).container != "memref":
        yield f"{node.elements} elements as {scope.type(node.result)}"
    if all(node is not top for top in scope.function.nodes):
        yield "shared memory is allocated inside a region"


def async_copy(scope: Scope, node: AsyncCopy) -> Iterator[str]:
    """Two buffers of one element type, two i64 indices, 4, 8 or 16 bytes, and a scalar bool as mask."""
    target, source = scope.type(node.target), scope.type(node.source)
    if target.container != "memref" or source.container != "memref" or target.dtype != source.dtype:
        yield f"a copy of {source} to {target}"
    if any(scope.type(index) != scalar(I64) for index in (node.target_index, node.source_index)):
        yield "an index is not i64"
    if node.count not in {4, 8, 16}:
        yield f"a copy of {node.count} bytes"
    if node.mask is not None and scope.type(node.mask) != scalar(BOOL):
        yield f"the mask is {scope.type(node.mask)}, not a scalar bool"


def pending(_scope: Scope, node: AsyncWait | MatrixWait) -> Iterator[str]:
    """The number of pending batches is not negative."""
    if node.pending < 0:
        yield f"pending is {node.pending}"


def shared_address(scope: Scope, node: MatrixLoad | SharedMatrix) -> Iterator[str]:
    """A pointer and an i64 index."""
    if scope.type(node.pointer).container != "memref" or scope.type(node.index) != scalar(I64):
        yield f"the address is {scope.type(node.pointer)} and {scope.type(node.index)}"


def accumulators(scope: Scope, node: MatrixMultiply | WarpgroupMultiply) -> Iterator[str]:
    """The results have the types of the accumulators, and an instruction is named."""
    if [scope.type(r) for r in node.results] != [scope.type(a) for a in node.acc]:
        yield "the results do not have the accumulators' types"
    if not node.instruction:
        yield "no instruction is named"
