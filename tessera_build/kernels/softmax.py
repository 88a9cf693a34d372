"""Softmax along the last axis, each row in three passes over column tiles: largest, sum, quotient.

Takes x[R, C] and out[R, C] and the numbers of a schedule; gives an unbound Tile IR function. Invariant: a row's result
depends on that row alone.
"""

from __future__ import annotations

from tessera.kernel import kernel
from tessera.tile import LOWEST, Carry, TileBuilder
from tessera.values import Buffer
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import F32, DType, memref


def softmax(dtype: DType, rows: Extent, columns: Extent, width: int = 64, order: str = "tree(16)") -> Function:
    """out = exp(x - max of row) / sum of row; `width` columns at a time, summed in `order` within a tile."""

    @kernel(x=memref(dtype, rows, columns), out=memref(dtype, rows, columns))
    def softmax(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
        for row in tile.range(rows):
            state = Carry(largest=tile.full((1, 1), LOWEST, F32), total=tile.zeros((1, 1), F32))
            for c in tile.range(columns, width, carry=state):
                part = tile.cast(tile.load(x[row : row + 1, c : c + width], pad=float("-inf")), F32)
                state.largest = tile.maximum(state.largest, tile.max(part, 1, order))
            for c in tile.range(columns, width, carry=state):
                part = tile.cast(tile.load(x[row : row + 1, c : c + width], pad=float("-inf")), F32)
                state.total = state.total + tile.sum(tile.exp(part - state.largest), 1, order)
            for c in tile.range(columns, width):
                part = tile.cast(tile.load(x[row : row + 1, c : c + width]), F32)
                weights = tile.exp(part - state.largest) / state.total
                tile.store(out[row : row + 1, c : c + width], tile.cast(weights, dtype))

    return softmax
