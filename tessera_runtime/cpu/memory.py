"""Memory that compiled code asks for while it runs, on the C library's heap.

Takes: sizes and alignments, as `tessera_services` passes them; addresses of outputs that a run allocated.
Gives: the two callbacks; numpy arrays that own such memory.
Invariant: what a run allocated and hands over is freed once, when the last array that looks at it goes.
"""

import ctypes
from typing import Final, final

import numpy as np

from tessera_runtime.arrays import Array
from tessera_runtime.cpu.available import shortage

_C: Final = ctypes.CDLL(None)
_Allocate: Final = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
_Release: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)


def _allocate(_context: int | None, size: int, alignment: int) -> int:
    """tessera_services.allocate; NULL when there is no memory."""
    # The C library wants a size that is a multiple of the alignment.
    rounded = -(-size // alignment) * alignment
    return 0 if shortage(rounded) is not None else _aligned_alloc(alignment, rounded) or 0


def _release(_context: int | None, pointer: int | None) -> None:
    """tessera_services.release."""
    _free(pointer)


_aligned_alloc = _C.aligned_alloc
_aligned_alloc.argtypes = (ctypes.c_size_t, ctypes.c_size_t)
_aligned_alloc.restype = ctypes.c_void_p
_free = _C.free
_free.argtypes = (ctypes.c_void_p,)
_free.restype = None
# Kept for the life of the process: C code holds their addresses.
ALLOCATE: Final = _Allocate(_allocate)
RELEASE: Final = _Release(_release)


@final
class _Block:
    """The owner that numpy keeps behind an array."""

    __slots__ = ("__array_interface__", "_address", "_free")

    def __init__(self, address: int, size: int) -> None:
        self._address, self._free = address, _free  # a module's names may be gone when an interpreter ends
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (size,), "data": (address, False)}

    def __del__(self) -> None:
        self._free(self._address)


def take_memory(address: int, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Array:
    """An array over memory that `ALLOCATE` gave, which goes with it."""
    size = dtype.itemsize
    for extent in shape:
        size *= extent
    return np.asarray(_Block(address, size)).view(dtype).reshape(shape)
