"""Numbers for the attention kernel: rows and columns of its register tiles, keys in a softmax step.

Takes extents and a machine; gives an `AttentionSchedule`. Invariant: decided by extents alone; every row of queries is
computed in one order, wherever in a tile it lies.
"""

from __future__ import annotations

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.kernels.attention import AttentionSchedule, AttentionShape

# Keys as they lie up to so many queries: columns of them would be collected for a few products each.
FEW_QUERIES = 3


def attention_schedule(shape: AttentionShape, machine: CpuMachine) -> AttentionSchedule:
    """Register tiles of two vectors; as many query rows as the registers hold beside them."""
    width, order = 2 * machine.lanes, f"tree({machine.lanes})"
    most = 12 if machine.registers >= 32 else 4
    queries = shape.queries
    if isinstance(queries, int) and queries <= FEW_QUERIES:
        block = _even_block(shape.keys, 16 * machine.lanes, machine.lanes)
        vectors = 4 if machine.registers >= 32 else 2
        return AttentionSchedule(
            queries, machine.lanes, vectors * machine.lanes, block=block, order=order, keys_at_once=8
        )
    rows = most
    if isinstance(queries, int):  # the last tile computes rows again, and a tile has a vector to load beside its sums
        rows = min(range(1, min(most, queries) + 1), key=lambda r: (-(-queries // r) * (2 * r + 1), -r))
    return AttentionSchedule(tile_m=rows, tile_n=width, tile_e=width, block=128, rows=1, order=order)


def _even_block(keys: Extent, most: int, lanes: int) -> int:
    """Keys in a block: all of them up to `most`, and else even shares."""
    if not isinstance(keys, int):
        return most
    share = -(-keys // -(-keys // most))
    return -(-share // lanes) * lanes
