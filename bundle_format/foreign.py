"""Memory of other libraries as arrays, by DLPack: that of element types which numpy does not have, too.

Takes: an object with `__dlpack__` in the memory of the CPU.
Gives: an array over the same memory, and the format's name of its elements where numpy has integers of their bits only.
Invariant: nothing is copied; the array keeps alive what it was given, and refuses to be written to where that is shared
as bits.
"""

import ctypes
from collections.abc import Mapping
from typing import Final, Protocol, cast, final

import numpy as np

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]

_CPU: Final = 1
_LEGACY: Final = b"dltensor"
# (DLPack's type code, bits): the format's name. Of numbers that DLPack packs several to a byte there are none here.
_AS_BITS: Final = {
    (4, 16): "bf16",
    (10, 8): "f8e4m3",
    (11, 8): "f8e4m3fnuz",
    (12, 8): "f8e5m2",
    (13, 8): "f8e5m2fnuz",
    (14, 8): "f8e8m0",
}


class Exports(Protocol):
    """What gives its memory by DLPack."""

    def __dlpack__(self) -> object:
        """The capsule."""
        ...

    def __dlpack_device__(self) -> tuple[int, int]:
        """Where the memory is."""
        ...


@final
class _DLTensor(ctypes.Structure):
    """DLTensor of dlpack.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


@final
class _Lent:
    """Memory as numpy reads it. A capsule that nobody renames gives the memory back when it goes."""

    def __init__(self, capsule: object, interface: Mapping[str, object]) -> None:
        self._capsule = capsule
        self.__array_interface__ = dict(interface)


def borrowed(value: Exports) -> tuple[Array, str]:
    """The array, and the name of its elements, empty where numpy has them. Raises what numpy's `from_dlpack` raises."""
    try:
        return cast(Array, np.from_dlpack(value)), ""  # pyright: ignore[reportArgumentType]  for numpy's own types
    except (BufferError, RuntimeError):
        found = _as_bits(value)
        if found is None:
            raise
        return found


def _as_bits(value: Exports) -> tuple[Array, str] | None:
    """The bits of elements that numpy does not have; None for what cannot be read."""
    if value.__dlpack_device__()[0] != _CPU:
        return None
    capsule = value.__dlpack__()
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _DLTensor.from_address(cast(int, pointer(capsule, _LEGACY)))
    name = _AS_BITS.get((cast(int, tensor.code), cast(int, tensor.bits)))
    if name is None or tensor.lanes != 1:
        return None
    rank, size = cast(int, tensor.ndim), cast(int, tensor.bits) // 8
    shape = tuple(cast("list[int]", tensor.shape[:rank]))
    if 0 in shape:
        return np.empty(shape, f"<u{size}"), name
    strides = tuple(step * size for step in cast("list[int]", tensor.strides[:rank])) if tensor.strides else None
    address = cast(int, tensor.data) + cast(int, tensor.byte_offset)
    interface = {"version": 3, "typestr": f"<u{size}", "shape": shape, "strides": strides, "data": (address, True)}
    return np.asarray(_Lent(capsule, interface)), name
