"""Memory of other libraries whose elements numpy does not have, by DLPack.

Takes: an object with `__dlpack__` in the memory of the CPU.
Gives: what `numpy.asarray` makes an array of integers of (their bits), with the format's name of the elements.
Invariant: nothing is copied, such an array cannot be written to, and it keeps the memory alive.
"""

import ctypes
from collections.abc import Mapping
from typing import Final, Protocol, cast, final

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
class Lent:
    """The bits of elements called `name`. A capsule that nobody renames gives the memory back when it goes."""

    def __init__(self, capsule: object, name: str, interface: Mapping[str, object]) -> None:
        self._capsule = capsule
        self.name = name
        self.__array_interface__ = dict(interface)


def lent_bits(value: Exports) -> Lent | None:
    """The memory of a tensor; None where it is not the CPU's, or its elements are none of those."""
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
    interface: dict[str, object] = {"version": 3, "typestr": f"<u{size}", "shape": shape}
    if 0 in shape:
        return Lent(b"", name, interface | {"data": b""})
    strides = tuple(step * size for step in cast("list[int]", tensor.strides[:rank])) if tensor.strides else None
    address = cast("int | None", tensor.data) or 0
    return Lent(
        capsule, name, interface | {"strides": strides, "data": (address + cast(int, tensor.byte_offset), True)}
    )
