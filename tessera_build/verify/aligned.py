"""Arrays that begin a cache line, as the runtime gives them to code.

Takes a size, or an array; gives memory of its own.
"""

from typing import Final

import numpy as np

from tessera_build.ir.graph.nodes import Array

_LINE_BYTES: Final = 64


def aligned_bytes(size: int) -> Array:
    """Memory that nothing was written into."""
    room = np.empty(size + _LINE_BYTES, np.uint8)
    start = -room.ctypes.data % _LINE_BYTES
    return room[start : start + size]


def aligned_copy(array: Array) -> Array:
    """The same elements in the same order of axes, without gaps."""
    found = aligned_bytes(array.nbytes).view(array.dtype).reshape(array.shape)
    found[...] = array
    return found
