"""What reading operands of a register tile costs beyond the count of bytes: conflicts in a cache, panels from afar.

Takes sizes and a machine; gives cycles and yes or no. Invariant: plain numbers, which a cost model adds up and a test
repeats by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tessera_build.ir.machine.cpu import CpuMachine

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Lines this far apart share a set of the first-level cache, which has `l1_bytes` / this many ways.
ALIASING_BYTES = 4096
_LINE_BYTES = 64
CYCLES_A_CONFLICT = 1.2
LEAST_USES = 4


def cycles_lost_to_conflicts(rows: Sequence[tuple[Integers, int]], machine: CpuMachine) -> Floats:
    """Cycles that a step of the reduction loses where rows of a tile fall into few sets of the first-level cache.

    `rows`: for one or two axes of a tile, how many there are, one number a candidate, and how many bytes apart. Those
    beyond the number of ways evict each other's lines. Measured on rows 4 and 12 KiB apart, 8 ways: 9 rows of 3
    registers lose one cycle a step, 13 of 2 lose 6, 14 of 2 lose 10.
    """
    (outer, far), (inner, near) = rows if len(rows) > 1 else ((np.ones_like(rows[0][0]), 0), *rows)
    most = int(outer.max(initial=1)), int(inner.max(initial=1))
    table = _beyond_ways((far, near), most, machine.l1_bytes // ALIASING_BYTES)
    return table[outer - 1, inner - 1] * CYCLES_A_CONFLICT


@lru_cache(maxsize=256)
def _beyond_ways(apart: tuple[int, int], most: tuple[int, int], ways: int) -> Floats:
    """Lines that have no place in their set, by the number of rows less one along both axes."""
    table = np.zeros(most, np.float64)
    for outer in range(most[0]):
        found: dict[int, set[int]] = {}
        for inner in range(most[1]):
            lines = {(index * apart[0] + inner * apart[1]) // _LINE_BYTES for index in range(outer + 1)}
            for line in lines:
                found.setdefault(line % (ALIASING_BYTES // _LINE_BYTES), set()).add(line)
            table[outer, inner] = sum(max(0, len(held) - ways) for held in found.values())
    return table


def prefetch_pays(uses: int, width: int, weight_bytes: int, machine: CpuMachine) -> bool:
    """Whether to ask for weights of a matrix before they are used, which do not stay in the second-level cache.

    Each panel is used (by tiles of rows, one after another) at most as often as it has columns. Measured on a Zen 4
    with cold weights and 128 rows, shares of the peak: 768 x 768 from 96 to 99 %, 768 x 3072 and 3072 x 768 1 % more;
    1x1 convolutions lose 1 to 2 %. With fewer uses than `LEAST_USES` (0: of a single row) tiles ask for what lies a
    little further on: 20 products of 9.4 MB on a Zen 5 with 1, 2, 4, 8, 16 and 24 rows are 1.04, 1.02, 1.84, 2.58, 2.11
    and 2.01 times as fast, two of 1 and 1.6 MB and one row, out of the third level, 1.11 times. Half of that cache is
    taken to be others': eight of 1 MB with 1, 4, 8 and 20 rows are 1.11, 1.19, 0.98 and 1.04 times as fast, a single
    one, which stays there, with 1 and 8 rows 0.92 and 0.96. A Zen 4 loads one register a cycle, and
    asking takes the place of a load: eight products of 9.4 MB with 2, 4 and 8 rows are 0.92, 0.71 and 0.96 times as
    fast, three of 1.6 MB with 1 and 2 rows 0.81 and 0.82; but a single row that reads GPT-2's from memory is 1.03
    times, 2.4 MB and more each, and of 9.4 MB 1.01 times.
    """
    if uses < LEAST_USES:
        large = not uses and weight_bytes >= 2 * machine.l2_bytes
        return (machine.asks_ahead or large) and weight_bytes * 2 > machine.l2_bytes
    return uses <= width and weight_bytes * 4 >= machine.l2_bytes
