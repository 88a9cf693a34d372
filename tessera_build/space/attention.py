"""Numbers for the attention kernel: rows and columns of its register tiles, keys in a softmax step.

Takes extents and a machine; gives an `AttentionSchedule`. Invariant: decided by extents alone; every row of queries is
computed in one order, wherever in a tile it lies.
"""

from __future__ import annotations

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import F32
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.kernels.attention_plan import PANEL_BYTES, kept_keys
from tessera_build.kernels.attention_shape import AttentionSchedule, AttentionShape

# Keys as they lie up to so many queries: columns of them would be collected for a few products each.
FEW_QUERIES = 3


# Keys of a softmax step: at most; where queries see few beyond their own number, because steps leave out what a mask
# hides; where their number is not known. 12 heads of 64, x86-64-v4: 384 keys in steps of 128 take 5.16 ms, whole 4.83,
# with tiles of four vectors 4.64; causal attention over 512 in steps of 128 6.30, with those tiles 5.77, of 64 5.18. An
# unknown number in steps of 128: 512 keys take 3 %, 1024 keys 4 % longer.
MOST_KEYS, FEW_SEEN, SOME_KEYS = 1024, 64, 512
# Queries that read a block of keys and turn it into columns together, where the columns of all keys are not kept: 4
# heads of 2304 keys run at 66 GFLOP/s with 6 of them, 87 with 48, 92 with 96, 94 with 192.
TOGETHER = 192
# Few queries take eight keys at once in 32 registers, two in 16: 12 heads, one query, 129 keys of 64 columns on
# x86-64-v3 ran 1.06 times as fast with four keys, 1.10 times with two; eight spilled 167 registers, two 4.
# Rows of a register tile by its vectors, of 32 registers. What a vector more is taken to save, as a share of the time:
# a choice between widths that compute as much, not a measurement.
_ROWS = {1: 12, 2: 12, 3: 8, 4: 6}
_WIDER = 0.01


def attention_schedule(shape: AttentionShape, machine: CpuMachine) -> AttentionSchedule:
    """Register tiles of as many vectors as columns fill; as many query rows as fit beside them."""
    order, many = f"tree({machine.lanes})", machine.registers >= 32
    queries, keys = shape.queries, shape.keys
    if isinstance(queries, int) and queries <= FEW_QUERIES:
        block = _even_block(keys, 16 * machine.lanes, machine.lanes)
        vectors, at_once = (4, 8) if many else (2, 2)
        return AttentionSchedule(
            queries, machine.lanes, vectors * machine.lanes, block=block, order=order, keys_at_once=at_once
        )
    tile_n, tile_e = (_width(extent, machine) for extent in (keys, shape.value_depth))
    vectors = max(tile_n, tile_e) // machine.lanes
    rows = most = _ROWS[vectors] if many else 4
    if isinstance(queries, int):  # the last tile computes rows again, and a tile has a vector to load beside its sums
        sizes = range(1, min(most, queries) + 1)
        rows = min(sizes, key=lambda r: (-(-queries // r) * (vectors * r + 1), -r))
    fitting = max(FEW_SEEN, PANEL_BYTES // (shape.depth * F32.bytes) // FEW_SEEN * FEW_SEEN)
    block = _even_block(keys, min(MOST_KEYS if isinstance(keys, int) else SOME_KEYS, fitting), tile_n)
    if shape.reach is not None:
        block = FEW_SEEN
    kept = kept_keys(shape, -(-block // tile_n) * tile_n, F32) is not None
    tiles = 1 if kept else max(1, TOGETHER // rows)
    return AttentionSchedule(tile_m=rows, tile_n=tile_n, tile_e=tile_e, block=block, rows=1, order=order, tiles=tiles)


def _width(extent: Extent, machine: CpuMachine) -> int:
    """Columns of a register tile: of so many vectors that least is computed past the end, and else of most.

    One vector of an unknown number: 16 keys take 0.65, 77 keys 0.89 of the time that they take in tiles of two.
    """
    if not isinstance(extent, int):
        return machine.lanes
    widths = [n * machine.lanes for n in (range(1, len(_ROWS) + 1) if machine.registers >= 32 else (1, 2))]
    return min(widths, key=lambda width: (-(-extent // width) * width * (1.0 - _WIDER * width / machine.lanes), -width))


def _even_block(keys: Extent, most: int, unit: int) -> int:
    """Keys in a block: all of them up to `most`, and else even shares."""
    if not isinstance(keys, int):
        return most
    share = -(-keys // -(-keys // most))
    return -(-share // unit) * unit
