"""What reading operands of a register tile costs beyond the count of bytes: conflicts in a cache, panels from afar.

Takes sizes and a machine; gives cycles and yes or no. Invariant: plain numbers, which a cost model adds up and a test
repeats by hand.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tessera_build.ir.machine.cpu import CpuMachine

Floats = npt.NDArray[np.float64]

# Lines this far apart share a set of the first-level cache, which has `l1_bytes` / this many ways.
ALIASING_BYTES = 4096
CYCLES_A_CONFLICT = 1.2
LEAST_USES = 4


def cycles_lost_to_conflicts(rows: npt.NDArray[np.int64], row_bytes: int, machine: CpuMachine) -> Floats:
    """Cycles that a step of the reduction loses where rows of a tile fall into one set of the first-level cache.

    Rows beyond the number of ways evict each other's lines. Measured on rows 4 and 12 KiB apart, 8 ways: 9 rows of
    3 registers lose one cycle a step, 13 of 2 lose 6, 14 of 2 lose 10.
    """
    shared = row_bytes > 0 and row_bytes % ALIASING_BYTES == 0
    beyond = np.maximum(0, rows - machine.l1_bytes // ALIASING_BYTES)
    return np.asarray(beyond * (CYCLES_A_CONFLICT if shared else 0.0), np.float64)


def prefetch_pays(uses: int, width: int, weight_bytes: int, machine: CpuMachine) -> bool:
    """Whether to ask for the next panel of a matrix: its weights do not stay in the second-level cache, and each panel
    is used (by tiles of rows, one after another) some times, at most as often as it has columns.

    Measured with cold weights and 128 rows, shares of the peak: 768 x 768 from 96 to 99 %, 768 x 3072 and 3072 x 768
    1 % more; windows gain nothing, and 1x1 convolutions lose 1 to 2 %. Where memory is the limit, asking costs: 768 x
    3072 with 1, 8, 16, 32 and 64 rows takes 1.07, 1.39, 1.17, 0.98 and 0.98 of the time without.
    """
    return LEAST_USES <= uses <= width and weight_bytes * 4 >= machine.l2_bytes
