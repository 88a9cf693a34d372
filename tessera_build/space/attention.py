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


# Keys of a softmax step: at most; where queries see few beyond their own number, because steps leave out what a mask
# hides; where their number is not known. 12 heads of 64, x86-64-v4: 384 keys in steps of 128 take 5.16 ms, whole 4.83,
# with tiles of four vectors 4.64; causal attention over 512 in steps of 128 6.30, with those tiles 5.77, of 64 5.18.
MOST_KEYS, FEW_SEEN, SOME_KEYS = 1024, 64, 128


def attention_schedule(shape: AttentionShape, machine: CpuMachine) -> AttentionSchedule:
    """Register tiles of two vectors, or four where columns fill them; as many query rows as fit beside them."""
    order, many = f"tree({machine.lanes})", machine.registers >= 32
    queries, keys = shape.queries, shape.keys
    if isinstance(queries, int) and queries <= FEW_QUERIES:
        block = _even_block(keys, 16 * machine.lanes, machine.lanes)
        vectors = 4 if many else 2
        return AttentionSchedule(
            queries, machine.lanes, vectors * machine.lanes, block=block, order=order, keys_at_once=8
        )
    tile_n, tile_e = (_width(extent, machine) for extent in (keys, shape.value_depth))
    vectors = max(tile_n, tile_e) // machine.lanes
    rows = most = 4 if not many else 12 if vectors == 2 else 6
    if isinstance(queries, int):  # the last tile computes rows again, and a tile has a vector to load beside its sums
        sizes = range(1, min(most, queries) + 1)
        rows = min(sizes, key=lambda r: (-(-queries // r) * (vectors * r + 1), -r))
    block = _even_block(keys, MOST_KEYS, tile_n) if isinstance(keys, int) else SOME_KEYS
    if shape.reach is not None:
        block = FEW_SEEN
    return AttentionSchedule(tile_m=rows, tile_n=tile_n, tile_e=tile_e, block=block, rows=1, order=order)


def _width(extent: Extent, machine: CpuMachine) -> int:
    """Columns of a register tile: four vectors where registers are many and whole tiles of them cost no more."""
    two, four = 2 * machine.lanes, 4 * machine.lanes
    fits = isinstance(extent, int) and -(-extent // four) * four == -(-extent // two) * two
    return four if fits and machine.registers >= 32 else two


def _even_block(keys: Extent, most: int, unit: int) -> int:
    """Keys in a block: all of them up to `most`, and else even shares."""
    if not isinstance(keys, int):
        return most
    share = -(-keys // -(-keys // most))
    return -(-share // unit) * unit
