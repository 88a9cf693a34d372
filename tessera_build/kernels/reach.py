"""How far beyond its own number a query sees, read from a mask that is known when a model is built.

Takes a mask [B or 1, H or 1, M or 1, N] that is added to scores; gives a number of keys. Invariant: what lies beyond
reach has weight 0 beside any key that is seen.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt

# No score that is not itself near the end of f32 comes back from here.
HIDDEN = -1e30


def reach_of(mask: npt.NDArray[np.generic]) -> int | None:
    """How far beyond its own number a query sees, by a mask [B or 1, H or 1, M or 1, N] that is known and added.

    None for a mask of one row for all queries. A key is hidden by what leaves its weight 0 beside any seen one.
    """
    if mask.shape[2] == 1:
        return None
    small = np.less_equal(mask.astype(np.float32), np.float32(HIDDEN))
    hidden = cast("npt.NDArray[np.bool_]", small.all(axis=(0, 1)))
    return max(0, max(int(np.flatnonzero(~row)[-1]) - i if not row.all() else 0 for i, row in enumerate(hidden)))
