"""Products of matrices whose bytes are the same on every machine.

Takes arrays of matrices in float64; gives their products. Invariant: an element is the sum of its terms from the first
to the last, each rounded once and added by itself, without BLAS, whose order is that of its blocks and threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 15  # elements that are added up at a time: they and their terms stay in the second-level cache
_STEP = 1 << 11  # multiply-adds that take as long as one call of numpy's

Floats = NDArray[np.float64]


def effort_of(shape: Sequence[int], depth: int) -> int:
    """How long a product of this shape takes, counted in multiply-adds: 1e9 are a second on a Zen 4."""
    size = math.prod(shape)
    return depth * max(size, _STEP * -(-size // _BLOCK))


def product_in_order(a: Floats, b: Floats) -> Floats:
    """Matrices [..., m, k] times [..., k, n], whose leading axes are broadcast."""
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    found = np.zeros((*batch, a.shape[-2], b.shape[-1]))
    _add_up(np.broadcast_to(a, (*batch, *a.shape[-2:])), np.broadcast_to(b, (*batch, *b.shape[-2:])), found)
    return found


def _add_up(a: Floats, b: Floats, found: Floats) -> None:
    """In parts along the first axis, for as long as they are larger than a block."""
    if found.size <= _BLOCK or len(found) == 1 == found.ndim - 1:
        term = np.empty_like(found)
        for step in range(a.shape[-1]):
            np.multiply(a[..., step, None], b[..., step, None, :], out=term)
            found += term
        return
    count = max(1, _BLOCK * len(found) // found.size)
    for start in range(0, len(found), count):
        part = slice(start, start + count) if count > 1 or found.ndim == 2 else start
        _add_up(a[part], b if found.ndim == 2 else b[part], found[part])
