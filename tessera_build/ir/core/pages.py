"""Arrays that lie in mapped files, and the memory that they take while they are read.

Takes arrays; gives nothing. Invariant: what an array holds never changes: pages that were dropped are read again from
the file when somebody asks.
"""

from __future__ import annotations

import mmap
from typing import cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


def drop_pages(array: Array) -> None:
    """Let go of the memory that holds a mapped array's bytes; other arrays are left alone.

    A model's weights are read twice, for their digest and to be packed: without this, a build of a 2 GB model holds
    the file and the packed weights at the same time.
    """
    base = _owner(array)
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def _owner(array: object) -> object:
    """What the bytes of an array, or of a view of one, belong to."""
    while True:
        if isinstance(array, np.ndarray):
            array = cast(object, array.base)
        elif isinstance(array, memoryview):
            array = cast(object, array.obj)
        else:
            return array
