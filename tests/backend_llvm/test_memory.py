"""memcpy, memmove and memset of our own, against Python's bytes."""

import ctypes
import platform

import pytest

from tessera_build.backends.llvm.linker import link
from tessera_build.backends.llvm.memory import MEMORY_FUNCTIONS, MEMORY_IR
from tessera_build.backends.llvm.objects import CodegenOptions, assembly, compile_ir
from tests.backend_llvm.harness import AARCH64, X86_64, load

SIZES = (*range(140), 191, 192, 193, 255, 256, 257, 1000, 4096)


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if platform.machine() != "x86_64":
        pytest.skip("runs x86-64 code")
    library = link([compile_ir(MEMORY_IR, X86_64)], sorted(MEMORY_FUNCTIONS), "libmemory.so")
    loaded = load(library, tmp_path_factory.mktemp("memory"))
    for name in ("memcpy", "memmove"):
        getattr(loaded, name).argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64]
    loaded.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64]
    for name in MEMORY_FUNCTIONS:
        getattr(loaded, name).restype = ctypes.c_void_p
    return loaded


def pattern(size: int) -> bytearray:
    return bytearray((index * 167 + index // 251) % 256 for index in range(size))


@pytest.mark.parametrize("distance", [-130, -64, -33, -7, -1, 0, 1, 5, 16, 63, 64, 65, 200])
def test_memmove_when_ranges_overlap_then_equals_python(memory: ctypes.CDLL, distance: int) -> None:
    for size in SIZES:
        content = pattern(size + 400)
        buffer = (ctypes.c_char * len(content)).from_buffer(bytearray(content))
        start = ctypes.addressof(buffer) + 200
        assert memory.memmove(start + distance, start, size) == start + distance
        content[200 + distance : 200 + distance + size] = content[200 : 200 + size]
        assert buffer.raw == bytes(content), f"size {size}"


def test_memcpy_when_ranges_are_apart_then_copies_exactly(memory: ctypes.CDLL) -> None:
    for size in SIZES:
        source = (ctypes.c_char * (size + 1)).from_buffer(pattern(size + 1))
        target = (ctypes.c_char * (size + 2)).from_buffer(bytearray(size + 2))
        memory.memcpy(ctypes.addressof(target) + 1, ctypes.addressof(source), size)
        assert target.raw == b"\0" + source.raw[:size] + b"\0"


def test_memset_when_called_then_fills_exactly(memory: ctypes.CDLL) -> None:
    for size in SIZES:
        target = (ctypes.c_char * (size + 2)).from_buffer(bytearray(size + 2))
        memory.memset(ctypes.addressof(target) + 1, 0x1A5, size)
        assert target.raw == b"\0" + b"\xa5" * size + b"\0"


@pytest.mark.parametrize(
    "options", [X86_64, CodegenOptions(X86_64.triple, "x86-64-v4"), AARCH64], ids=["sse2", "avx512", "neon"]
)
@pytest.mark.parametrize("name", ["memset", "memmove"])
def test_memory_when_compiled_then_no_loop_becomes_a_call_to_itself(options: CodegenOptions, name: str) -> None:
    body = assembly(MEMORY_IR, options).split(f"\n{name}:", 1)[1].split("\n\t.size", 1)[0]
    assert not [line for line in body.splitlines() if "mem" in line and not line.lstrip().startswith((".", "//", "#"))]


def test_compile_when_a_loop_clears_memory_then_our_memset_is_called() -> None:
    text = """define void @clear(ptr %to, i64 %count) {
entry:
  br label %loop
loop:
  %at = phi i64 [ 0, %entry ], [ %next, %loop ]
  %place = getelementptr i8, ptr %to, i64 %at
  store i8 0, ptr %place
  %next = add i64 %at, 1
  %more = icmp ult i64 %next, %count
  br i1 %more, label %loop, label %end
end:
  ret void
}"""
    library = link([compile_ir(text, X86_64), compile_ir(MEMORY_IR, X86_64)], ("clear",), "libclear.so")
    assert "memset" in assembly(text, X86_64)
    assert library[:4] == b"\x7fELF"
