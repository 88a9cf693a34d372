"""Machine code in memory, ready to be called.

Takes: the bytes of a shared object, whose digest was checked.
Gives: `CodeImage`, the functions of the C ABI.
Invariant: what runs is what was checked: the bytes lie in a sealed memory file that nobody can write any more, or in a
private file that has no name by the time the code runs.
"""

# Importing pathlib takes 3.5 ms of the 40 that importing the runtime may take.
# ruff: noqa: PTH108, PTH118
import _ctypes
import contextlib
import ctypes
import fcntl
import json
import os
from collections.abc import Callable
from typing import Final, cast, final

from tessera_runtime.errors import RunError

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

_Function = Callable[..., object]
_Prepare: Final = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_uint32, *[ctypes.c_void_p] * 3)
_Run: Final = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)
_PoolCreate: Final = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)
_Describe: Final = ctypes.CFUNCTYPE(ctypes.c_char_p)


@final
class CodeImage:
    """A mapped shared object. It is unmapped when the last user drops it, unless it was pinned."""

    def __init__(self, code: memoryview) -> None:
        self._pinned = False
        self._descriptor, self._library = _open_library(code)
        self.prepare: _Function = self._bind("tessera_prepare", _Prepare)
        self.run: _Function = self._bind("tessera_run", _Run)
        self.pool_create: _Function = self._bind("tessera_pool_create", _PoolCreate)

    def describe(self) -> object:
        """What the code says of itself."""
        return self._told("tessera_describe")

    def signature(self) -> object:
        """How many inputs and outputs its entries have; None of formats before 1.4, whose code does not say."""
        return self._told("tessera_signature") if hasattr(self._library, "tessera_signature") else None

    def address(self, name: str) -> int:
        """Where a function lies."""
        try:
            return cast(int, ctypes.cast(self._library[name], ctypes.c_void_p).value)
        except AttributeError:
            raise RunError("CODE_MISMATCH", "the code does not export a function of the ABI", where=name) from None

    def pin(self) -> None:
        """Keep the code mapped until the process ends: threads may be inside it."""
        self._pinned = True

    def __del__(self) -> None:
        # A constructor that failed leaves an object without a library.
        if hasattr(self, "_library") and not self._pinned:
            _ctypes.dlclose(self._library._handle)
            if self._descriptor >= 0:
                os.close(self._descriptor)

    def _told(self, name: str) -> object:
        return cast(object, json.loads(cast(bytes, self._bind(name, _Describe)())))

    def _bind(self, name: str, prototype: Callable[[int], _Function]) -> _Function:
        return prototype(self.address(name))


def _open_library(code: memoryview) -> tuple[int, ctypes.CDLL]:
    """Map the code. The descriptor stays open as long as the library: the loader of the C library takes two objects
    for one when they were opened by the same path, and `/proc/self/fd/N` is free for another as soon as N is closed.
    """
    with contextlib.suppress(OSError):
        descriptor = os.memfd_create("tessera-code", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            _write(descriptor, code)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            return descriptor, ctypes.CDLL(f"/proc/self/fd/{descriptor}")
        except OSError:
            os.close(descriptor)
    return -1, _open_from_file(code)


def _open_from_file(code: memoryview) -> ctypes.CDLL:
    """Map the code through a private file, where the kernel offers no memory files or no `/proc`."""
    path = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"tessera-{os.getpid()}-{os.urandom(12).hex()}.so")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o700)
        try:
            _write(descriptor, code)
            return ctypes.CDLL(path)
        finally:
            os.close(descriptor)
            os.unlink(path)
    except OSError as error:
        raise RunError(
            "CODE_UNMAPPABLE",
            "the system refuses to map the code of the bundle",
            where=path,
            found=str(error),
            hint="let TMPDIR name a folder from which code may be run (not mounted noexec)",
        ) from error


def _write(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
