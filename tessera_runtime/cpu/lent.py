"""Memory of large outputs: what an array gives back when it goes is what the next run writes into.

Takes: sizes, and blocks to lend.
Gives: arrays of bytes, each over memory that nothing else looks at.
Invariant: memory is kept by the shelf or by one array, never by both; a shelf keeps no more blocks than it was made
for, so it holds about what one run's outputs take.

Fresh pages have to be zeroed by the system when they are first written: of BERT-base's gradients, 438 MB a run, that
was an eighth of the time.
"""

from collections import deque
from typing import Final, final

import numpy as np

from tessera_runtime.arrays import Array, address_of

WORTH_KEEPING: Final = 1 << 17  # what is smaller comes from the C library's heap, which seldom gives it back


@final
class Shelf:
    """Blocks that are free, oldest first. Every operation is atomic: arrays go at any time, in any thread."""

    def __init__(self, most: int) -> None:
        self._free: deque[Array] = deque(maxlen=most)

    def take(self, size: int) -> Array | None:
        """An array over a free block of `size` bytes, if there is one; see `lend`."""
        for _ in range(len(self._free)):
            try:
                block = self._free.popleft()
            except IndexError:  # another thread was faster
                break
            if block.nbytes == size:
                return self.lend(block)
            self._free.append(block)
        return None

    def lend(self, block: Array) -> Array:
        """An array over a block that comes to the shelf when the last array that looks at it is gone."""
        return np.asarray(_Loan(block, self._free))

    def clear(self) -> None:
        """Give what is free back to the system."""
        self._free.clear()


@final
class _Loan:
    """The owner that numpy keeps behind an array."""

    __slots__ = ("__array_interface__", "_block", "_home")

    def __init__(self, block: Array, home: deque[Array]) -> None:
        self._block, self._home = block, home
        data = (address_of(block), False)
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": block.shape, "data": data}

    def __del__(self) -> None:
        self._home.append(self._block)
