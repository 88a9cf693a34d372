"""Sums and products up to each element of a line.

Takes x[A, N, B] and gives its cumulation along the middle axis. Invariant: each line is walked once, in order; lines
that lie side by side share a tile, lane by lane.
"""

from __future__ import annotations

from tessera.kernel import kernel
from tessera.tile import Carry, TileBuilder
from tessera.values import Buffer
from tessera_build.ir.core.node import Function
from tessera_build.kernels.scatter import row_width
from tessera_build.kernels.subject import KernelSubject

# The scalar operation and the number that a line starts from.
_STEPS = {"sum": ("add", 0.0), "prod": ("mul", 1.0)}


def cumulate(subject: KernelSubject) -> Function:
    """out[a, n] = the elements x[a, 0] to x[a, n] combined."""
    outer, length, inner = subject.operands[0].shape
    operation, start = _STEPS[subject.word("kind")]
    width = row_width(inner, subject.lanes)

    @kernel(x=subject.buffer(0), out=subject.target(0))
    def cumulate(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
        for a in tile.range(outer):
            for b in tile.range(inner, width):
                line = Carry(total=tile.full((width,), start, x.dtype))
                for step in tile.range(length, carry=line):
                    n = length - 1 - step if subject.flag("reverse") else step
                    before = line.total
                    line.total = tile.map(operation, before, tile.load(x[a, n, b : b + width]))
                    tile.store(out[a, n, b : b + width], before if subject.flag("exclusive") else line.total)

    return cumulate
