"""Values by sorted keys: a binary search of a whole vector of numbers at once.

Takes x[N], ascending keys[K], values[K] and a default[]; gives out[N]. Invariant: the search takes the same steps for
every number, so nothing branches on data.
"""

from __future__ import annotations

from tessera.kernel import kernel
from tessera.tile import TileBuilder
from tessera.values import Buffer
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import I32, int_extent
from tessera_build.kernels.subject import KernelSubject


def look_up(subject: KernelSubject) -> Function:
    """out[n] = values[k] where keys[k] == x[n], else the default."""
    size, width = int_extent(subject.operands[1].shape[0]), subject.lanes

    names = ("x", "keys", "values", "default")
    operands = {name: subject.buffer(position) for position, name in enumerate(names)}

    @kernel(**operands, out=subject.target(0))
    def look_up(tile: TileBuilder, x: Buffer, keys: Buffer, values: Buffer, **more: Buffer) -> None:
        for first in tile.range(x.shape[0], width):
            wanted = tile.load(x[first : first + width])
            place, left = tile.full((width,), 0, I32), size
            while left > 1:
                half = left // 2
                below = tile.load(keys[place + (half - 1)]) < wanted
                place = tile.where(below, place + half, place)
                left -= half
            found = tile.map("eq", tile.load(keys[place]), wanted)
            chosen = tile.where(found, tile.load(values[place]), tile.load(more["default"][None]))
            tile.store(more["out"][first : first + width], chosen)

    return look_up
