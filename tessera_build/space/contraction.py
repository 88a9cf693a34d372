"""What a reduction is: a product, a product of bytes, which operand moves along which axis.

Takes definitions; gives facts about them. Invariant: facts are read off extents, accesses and scalar programs, never
off an operator's name.
"""

from __future__ import annotations

from tessera_build.ir.core.dims import Extent, symbols_of
from tessera_build.ir.core.types import I8, I32, U8
from tessera_build.ir.schedule.nodes import Compute

# A dynamic extent counts as this many when tiles are chosen; the other size gets its own version of the kernel.
ASSUMED_EXTENT = 64
# Lanes of registers whose halves are as good as registers.
_LONG = 16


def is_product(node: Compute) -> bool:
    """A sum of products of two reads, in their element type or, for integers, widened to another."""
    ops = node.program.ops
    product = bool(ops) and ops[-1].name == "mul" and len(set(ops[-1].args)) == 2
    widened = all(op.name == "cast" and not op.dtype.is_float for op in ops[:-1])
    return node.combine == "sum" and len(node.reads) == 2 and product and widened


def is_byte_product(node: Compute) -> bool:
    """A product of unsigned by signed bytes, added up in i32: what a machine's byte products compute."""
    return is_product(node) and node.program.inputs == (U8, I8) and node.program.ops[-1].dtype == I32


def has_quads(node: Compute) -> bool:
    """Bytes along an innermost reduction that can be taken by fours."""
    return is_byte_product(node) and bool(node.reduction) and node.reduction[-1].extent != 1


def moves(node: Compute, read: int, axis: str) -> bool:
    """Whether what a read takes changes along an axis."""
    return any(axis in symbols_of(i) for i in node.accesses[read].indices)


def known(extent: Extent) -> int:
    """The extent, or what is assumed of a dynamic one."""
    return extent if isinstance(extent, int) else ASSUMED_EXTENT


def rest_of(extent: Extent, tile: int, lanes: int) -> int:
    """Size of the last tile along a vector axis: what whole tiles leave, rounded up to registers or to half a long one.

    0 where they leave nothing, or so much that the last tile is like the others. Half a register is worth a tile of
    its own because processors that multiply and add 512 bits once a cycle do so with 256 bits twice.
    """
    if not isinstance(extent, int) or extent <= tile or extent % tile == 0:
        return 0
    rest, half = extent % tile, lanes // 2
    size = half if lanes >= _LONG and rest <= half else -(-rest // lanes) * lanes
    return size if size < tile else 0
