"""The matrix product out = a b, a tile of the result at a time.

Takes a[M, K], b[K, N] and out[M, N], the accumulation type and a schedule's numbers; gives an unbound Tile IR function.
Invariant: each element is one sum over k in ascending order (`seq`) or in the order of the machine's matrix
instruction (`hw`), in the accumulation type.
"""

from __future__ import annotations

from dataclasses import dataclass

from tessera.kernel import kernel
from tessera.tile import Carry, TileBuilder
from tessera.values import Buffer
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import F32, DType, memref


@dataclass(frozen=True, slots=True)
class ProductSchedule:
    """The tile of the result and the number of k that one step takes."""

    tile_m: int
    tile_n: int
    tile_k: int
    order: str = "seq"


def product(
    dtype: DType, extents: tuple[Extent, Extent, Extent], schedule: ProductSchedule, result: DType = F32
) -> Function:
    """The kernel for extents (M, N, K); accumulates in f32."""
    rows, columns, depth = extents
    m_step, n_step, k_step = schedule.tile_m, schedule.tile_n, schedule.tile_k

    @kernel(a=memref(dtype, rows, depth), b=memref(dtype, depth, columns), out=memref(result, rows, columns))
    def product(tile: TileBuilder, a: Buffer, b: Buffer, out: Buffer) -> None:
        for m in tile.range(rows, m_step):
            for n in tile.range(columns, n_step):
                state = Carry(total=tile.zeros((m_step, n_step), F32))
                for k in tile.range(depth, k_step, carry=state):
                    left = a[m : m + m_step, k : k + k_step]
                    right = b[k : k + k_step, n : n + n_step]
                    state.total = tile.dot(state.total, left, right, "mk,kn->mn", schedule.order)
                tile.store(out[m : m + m_step, n : n + n_step], tile.cast(state.total, result))

    return product
