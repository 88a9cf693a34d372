"""Rules of the kernel nodes that touch memory.

Takes a scope and a node; gives what is wrong with it. Invariant: each rule is one sentence of the node's docstring.
"""

from __future__ import annotations

from collections.abc import Iterator

from tessera_build.ir.core.spec import Scope
from tessera_build.ir.core.types import BOOL, I64, Type, scalar
from tessera_build.ir.target.kernel import Alloca, Gather, Load, Prefetch, Scatter, Store
from tessera_build.ir.target.spec_kernel import lanes

Access = Load | Store | Gather | Scatter


def _value(scope: Scope, node: Access) -> Type:
    return scope.type(node.result if isinstance(node, Load | Gather) else node.value)


def address(scope: Scope, node: Load | Store | Prefetch) -> Iterator[str]:
    """A pointer and an i64 index."""
    if scope.type(node.pointer).container != "memref":
        yield f"the pointer is {scope.type(node.pointer)}"
    if scope.type(node.index) != scalar(I64):
        yield f"the index is {scope.type(node.index)}, not i64"


def lanes_of_addresses(scope: Scope, node: Gather | Scatter) -> Iterator[str]:
    """A pointer and a vector of integers with one lane a lane of the value."""
    indices, value = scope.type(node.indices), _value(scope, node)
    if scope.type(node.pointer).container != "memref":
        yield f"the pointer is {scope.type(node.pointer)}"
    if lanes(indices) < 1 or lanes(indices) != lanes(value) or indices.dtype.kind not in {"signed", "unsigned"}:
        yield f"indices {indices} for {value}"


def element(scope: Scope, node: Access) -> Iterator[str]:
    """The value is a scalar or a vector of the buffer's element type."""
    pointer, value = scope.type(node.pointer), _value(scope, node)
    if lanes(value) < 0 or value.dtype != pointer.dtype:
        yield f"{value} in a buffer of {pointer.dtype}"


def mask(scope: Scope, node: Access) -> Iterator[str]:
    """The mask is a bool a lane of the value; what stands in for masked lanes has the value's type."""
    value = _value(scope, node)
    if node.mask is not None and scope.type(node.mask) != Type(value.container, BOOL, value.shape):
        yield f"a mask {scope.type(node.mask)} over {value}"
    other = node.other if isinstance(node, Load | Gather) else None
    if other is not None and scope.type(other) != value:
        yield f"{scope.type(other)} in place of masked lanes of {value}"
    if isinstance(node, Load) and node.mask is None and node.other is not None:
        yield "a value for masked lanes without a mask"


def alignment(_scope: Scope, node: Load | Store) -> Iterator[str]:
    """The alignment, in bytes, is a power of two, or 0 for that of one element."""
    if node.alignment < 0 or node.alignment & (node.alignment - 1):
        yield f"alignment {node.alignment} is not a power of two"


def prefetch_level(_scope: Scope, node: Prefetch) -> Iterator[str]:
    """The level is that of a cache, 1 to 3."""
    if node.level not in {1, 2, 3}:
        yield f"cache level {node.level}"


def alloca(scope: Scope, node: Alloca) -> Iterator[str]:
    """Some elements, as a memref."""
    if node.elements < 1 or scope.type(node.result).container != "memref":
        yield f"{node.elements} elements as {scope.type(node.result)}"
