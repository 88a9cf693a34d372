"""What the tests of this room share: linked objects loaded by ctypes, ELF tables read independently, services.

Takes: IR text or linked bytes.
Gives: `load`, `dynamic_symbols`, `program_headers`, `Services`.
Invariant: the ELF fields are read here with their own offsets, not with the linker's records.
"""

import ctypes
import itertools
import os
import struct
from pathlib import Path

from tessera_build.backends.llvm.linker import link
from tessera_build.backends.llvm.memory import MEMORY_IR
from tessera_build.backends.llvm.objects import CodegenOptions, compile_ir

X86_64 = CodegenOptions("x86_64-unknown-linux-gnu", "x86-64")
AARCH64 = CodegenOptions("aarch64-unknown-linux-gnu", "generic")
_numbers = itertools.count()


def build(*modules: str, exports: tuple[str, ...], options: CodegenOptions = X86_64) -> bytes:
    """Compile modules and link them with the memory functions."""
    return link([compile_ir(text, options) for text in (*modules, MEMORY_IR)], exports, "libtest.so")


def load(library: bytes, folder: Path) -> ctypes.CDLL:
    """Write the library under a name of its own and open it with every symbol bound at once."""
    path = folder / f"library_{next(_numbers)}.so"
    path.write_bytes(library)
    return ctypes.CDLL(str(path), mode=os.RTLD_NOW)


def program_headers(library: bytes) -> list[tuple[int, int, int, int, int, int]]:
    """(type, flags, offset, address, file size, memory size) of each program header."""
    start, count = struct.unpack_from("<Q", library, 32)[0], struct.unpack_from("<H", library, 56)[0]
    rows = [struct.unpack_from("<IIQQQQQQ", library, start + 56 * number) for number in range(count)]
    return [(kind, flags, offset, address, stored, size) for kind, flags, offset, address, _, stored, size, _ in rows]


def dynamic_symbols(library: bytes) -> dict[str, tuple[int, int]]:
    """name → (section number, address) of `.dynsym`, found through the section headers."""
    start, count = struct.unpack_from("<Q", library, 40)[0], struct.unpack_from("<H", library, 60)[0]
    sections = [struct.unpack_from("<IIQQQQIIQQ", library, start + 64 * number) for number in range(count)]
    table = next(row for row in sections if row[1] == 11)
    strings = sections[table[6]]
    text = library[strings[4] : strings[4] + strings[5]]
    found: dict[str, tuple[int, int]] = {}
    for name, _, _, section, value, _ in struct.iter_unpack("<IBBHQQ", library[table[4] : table[4] + table[5]]):
        found[text[name : text.index(0, name)].decode()] = (section, value)
    found.pop("")
    return found


class Services(ctypes.Structure):
    """The services table of the ABI, filled with this process's C library."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("version", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("allocate", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("parallel_for", ctypes.c_void_p),
        ("thread_create", ctypes.c_void_p),
        ("thread_join", ctypes.c_void_p),
        ("semaphore_init", ctypes.c_void_p),
        ("semaphore_wait", ctypes.c_void_p),
        ("semaphore_post", ctypes.c_void_p),
        ("profile", ctypes.c_void_p),
        ("cancel", ctypes.c_void_p),
        ("thread_yield", ctypes.c_void_p),
        ("current_cpu", ctypes.c_void_p),
        ("get_affinity", ctypes.c_void_p),
        ("set_affinity", ctypes.c_void_p),
    )


Allocate = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
Release = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
ThreadCreate = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


def address(function: object) -> int:
    """The address behind a ctypes function or callback."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]


class Host:
    """A services table whose allocations are counted; keep it alive as long as the pool.

    `whole` False: one of before its last members, as hosts have that were compiled then.
    """

    def __init__(self, whole: bool = True) -> None:
        self.library = ctypes.CDLL(None)
        self.library.aligned_alloc.restype = ctypes.c_void_p
        self.library.aligned_alloc.argtypes = [ctypes.c_uint64, ctypes.c_uint64]
        self.library.free.argtypes = [ctypes.c_void_p]
        self.live: set[int] = set()
        self._allocate, self._release = Allocate(self._take), Release(self._give)
        self.table = Services(
            size=ctypes.sizeof(Services) if whole else 96,
            version=1,
            allocate=address(self._allocate),
            release=address(self._release),
            thread_create=address(self.library.pthread_create),
            thread_join=address(self.library.pthread_join),
            semaphore_init=address(self.library.sem_init),
            semaphore_wait=address(self.library.sem_wait),
            semaphore_post=address(self.library.sem_post),
            thread_yield=address(self.library.sched_yield) if whole else 1,  # what lies behind a table is not looked at
            current_cpu=address(self.library.sched_getcpu) if whole else 1,
            get_affinity=address(self.library.sched_getaffinity) if whole else 1,
            set_affinity=address(self.library.pthread_setaffinity_np) if whole else 1,
        )

    def _take(self, _: int, size: int, alignment: int) -> int:
        pointer: int = self.library.aligned_alloc(alignment, size)
        ctypes.memset(pointer, 0xA5, size)  # nothing may rely on zeroed memory
        self.live.add(pointer)
        return pointer

    def _give(self, _: int, pointer: int) -> None:
        self.live.remove(pointer)
        self.library.free(pointer)
