"""The linker: what it makes runs, holds only what was asked for, and equals what other linkers make."""

import contextlib
import ctypes
import importlib.util
import platform
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera_build.backends.llvm.linker import LinkError, link
from tessera_build.backends.llvm.memory import MEMORY_IR
from tessera_build.backends.llvm.objects import compile_ir
from tests.backend_llvm.harness import X86_64, build, dynamic_symbols, load, program_headers

native = pytest.mark.skipif(platform.machine() != "x86_64", reason="runs x86-64 code")

KERNELS = """
@table = constant [4 x i32] [i32 3, i32 5, i32 7, i32 11]
@scale = global i32 2
@.private = private constant [3 x i8] c"ab\\00"
define i32 @kernel_add(i32 %a, i32 %b) { %r = add i32 %a, %b ret i32 %r }
define i32 @kernel_pick(i32 %a, i32 %index) {
  %at = getelementptr [4 x i32], ptr @table, i32 0, i32 %index
  %value = load i32, ptr %at
  %factor = load i32, ptr @scale
  %product = mul i32 %value, %factor
  %r = add i32 %a, %product
  ret i32 %r
}
define internal i32 @helper(i32 %a) noinline { %r = xor i32 %a, 85 ret i32 %r }
define i32 @kernel_mix(i32 %a, i32 %b) { %c = call i32 @helper(i32 %a) %r = sub i32 %c, %b ret i32 %r }
"""
HOST = """
declare i32 @kernel_add(i32, i32)
declare i32 @kernel_pick(i32, i32)
declare i32 @kernel_mix(i32, i32)
@scale = external global i32
@calls = internal global i64 0
@scratch = internal global [100 x i64] zeroinitializer, align 64
@dispatch = internal global [3 x ptr] [ptr @kernel_add, ptr @kernel_pick, ptr @kernel_mix]
@text = private constant [16 x i8] c"tessera kernels\\00"
@names = constant [1 x ptr] [ptr @text]
define internal i32 @helper(i32 %a) noinline { %r = add i32 %a, 1 ret i32 %r }
define i32 @tessera_run(i32 %which, i32 %a, i32 %b) {
  %at = getelementptr [3 x ptr], ptr @dispatch, i32 0, i32 %which
  %function = load volatile ptr, ptr %at
  %count = load i64, ptr @calls
  %more = add i64 %count, 1
  store i64 %more, ptr @calls
  %slot = getelementptr [100 x i64], ptr @scratch, i64 0, i64 %count
  store volatile i64 %more, ptr %slot
  %first = call i32 %function(i32 %a, i32 %b)
  %second = call i32 @kernel_add(i32 %first, i32 1000)
  %third = call i32 @helper(i32 %second)
  ret i32 %third
}
define void @tessera_set_scale(i32 %value) { store i32 %value, ptr @scale ret void }
define i64 @tessera_calls() { %r = load i64, ptr @calls ret i64 %r }
define ptr @tessera_name() { %r = load ptr, ptr @names ret ptr %r }
"""
EXPORTS = ("tessera_run", "tessera_set_scale", "tessera_calls", "tessera_name")


def exercise(library: ctypes.CDLL) -> list[object]:
    """Every kind of reference once; the answers are compared between linkers."""
    library.tessera_name.restype = ctypes.c_char_p
    library.tessera_calls.restype = ctypes.c_int64
    answers: list[object] = [library.tessera_name()]
    for scale in (2, -3):
        library.tessera_set_scale(scale)
        answers += [library.tessera_run(which, 40, index) for which in range(3) for index in range(4)]
    return [*answers, library.tessera_calls()]


def expected() -> list[object]:
    answers: list[object] = [b"tessera kernels"]
    for scale in (2, -3):
        answers += [40 + index + 1001 for index in range(4)]
        answers += [40 + (3, 5, 7, 11)[index] * scale + 1001 for index in range(4)]
        answers += [(40 ^ 85) - index + 1001 for index in range(4)]
    return [*answers, 24]


@native
def test_link_when_objects_refer_to_each_other_then_library_answers(tmp_path: Path) -> None:
    library = build(HOST, KERNELS, exports=EXPORTS)
    assert exercise(load(library, tmp_path)) == expected()


def test_link_when_objects_have_more_symbols_then_only_exports_are_dynamic() -> None:
    assert sorted(dynamic_symbols(build(HOST, KERNELS, exports=EXPORTS))) == sorted(EXPORTS)


def test_link_when_done_then_segments_are_never_writable_and_executable() -> None:
    headers = program_headers(build(HOST, KERNELS, exports=EXPORTS))
    loads = [(flags, offset, address) for kind, flags, offset, address, _, _ in headers if kind == 1]
    assert [flags for flags, _, _ in loads] == [4, 5, 6]
    assert all(offset % 4096 == address % 4096 for _, offset, address in loads)
    stacks = [flags for kind, flags, *_ in headers if kind == 0x6474E551]
    assert stacks == [6]


def test_link_when_code_is_placed_then_each_object_starts_a_cache_line() -> None:
    symbols = dynamic_symbols(build(KERNELS, exports=("kernel_add", "memcpy")))
    assert symbols["kernel_add"][1] % 64 == 0
    assert symbols["memcpy"][1] % 64 == 0


def test_link_when_export_order_changes_then_bytes_do_not() -> None:
    objects = [compile_ir(text, X86_64) for text in (HOST, KERNELS, MEMORY_IR)]
    first = link(objects, EXPORTS, "libtest.so")
    assert first == link(objects, EXPORTS[::-1], "libtest.so")
    assert b"libtest.so\0" in first


def test_link_when_symbols_are_undefined_then_error_lists_all() -> None:
    host = "declare i32 @expf()\ndeclare i32 @zeta()\n@gone = external global i32\n"
    host += "define i32 @f() { %a = call i32 @expf() %b = call i32 @zeta() %c = load i32, ptr @gone "
    host += "%d = add i32 %a, %b %e = add i32 %c, %d ret i32 %e }"
    with pytest.raises(LinkError) as caught:
        link([compile_ir(host, X86_64)], ("f", "missing"), "libtest.so")
    message = caught.value.diagnostics()
    assert all(f"`{name}`" in message for name in ("expf", "zeta", "gone", "missing"))


def test_link_when_a_symbol_is_defined_twice_then_error_names_both_objects() -> None:
    code = compile_ir("define i32 @twice() { ret i32 1 }", X86_64)
    with pytest.raises(LinkError, match=r"`twice` is defined in object 0 and in object 1"):
        link([code, code], ("twice",), "libtest.so")


@native
def test_link_when_a_weak_definition_meets_a_strong_one_then_strong_wins(tmp_path: Path) -> None:
    weak, strong = "define weak i32 @f() { ret i32 1 }", "define i32 @f() { ret i32 2 }"
    caller = "declare i32 @f()\ndefine i32 @g() { %r = call i32 @f() ret i32 %r }"
    assert load(build(weak, strong, caller, exports=("g",)), tmp_path).g() == 2
    assert load(build(weak, caller, exports=("g",)), tmp_path).g() == 1


def emit(text: str, relocation: str) -> bytes:
    compile_ir("define void @warm_up() { ret void }", X86_64)  # initialises LLVM
    module = llvm.parse_assembly(text)
    target = llvm.Target.from_triple(X86_64.triple)
    machine = target.create_target_machine(cpu="x86-64", reloc=relocation, codemodel="small")
    return machine.emit_object(module)


@pytest.mark.parametrize(
    ("text", "relocation", "reason"),
    [
        ("@a = dso_local global [9 x i32] zeroinitializer\ndefine i32 @f(i64 %i) { "
         "%p = getelementptr i32, ptr @a, i64 %i %r = load i32, ptr %p ret i32 %r }", "static", "position-independent"),
        ("@a = thread_local global i32 7\ndefine i32 @f() { %r = load i32, ptr @a ret i32 %r }", "pic", "thread-local"),
        ("@llvm.global_ctors = appending global [1 x { i32, ptr, ptr }] [{ i32, ptr, ptr } "
         "{ i32 65535, ptr @f, ptr null }]\ndefine void @f() { ret void }", "pic", "load time"),
        ("@a = common global i32 0\ndefine i32 @f() { %r = load i32, ptr @a ret i32 %r }", "pic", "common"),
        ("define i32 @g() { ret i32 1 }\n@f = ifunc i32 (), ptr @r\ndefine ptr @r() { ret ptr @g }\n"
         "define i32 @h() { %r = call i32 @f() ret i32 %r }", "pic", "load time"),
    ],
    ids=["absolute-32", "thread-local", "constructor", "common", "ifunc"],
)  # fmt: skip
def test_link_when_the_result_could_not_be_moved_or_shared_then_refused(
    text: str, relocation: str, reason: str
) -> None:
    with pytest.raises(LinkError, match=reason):
        link([emit(text, relocation)], ("f",), "libtest.so")


def test_link_when_a_constant_would_need_patching_then_refused() -> None:
    code = bytearray(compile_ir("define void @f() { ret void }\n@p = constant ptr @f", X86_64))
    start, count = struct.unpack_from("<Q", code, 40)[0], struct.unpack_from("<H", code, 60)[0]
    for row in range(start, start + 64 * count, 64):
        flags = struct.unpack_from("<Q", code, row + 8)[0]
        struct.pack_into("<Q", code, row + 8, flags & ~1)  # no section is writable
    with pytest.raises(LinkError, match="never writable"):
        link([bytes(code)], ("f",), "libtest.so")


GOT_USES = (
    (".globl asm_push; asm_push:; pushq answer@GOTPCREL(%rip); popq %rax; movl (%rax), %eax; ret"),
    (".globl asm_call; asm_call:; subq $8, %rsp; callq *target@GOTPCREL(%rip); addq $8, %rsp; ret"),
    (".globl asm_jump; asm_jump:; jmpq *target@GOTPCREL(%rip)"),
    (".globl asm_load; asm_load:; movq answer@GOTPCREL(%rip), %rax; movl (%rax), %eax; ret"),
    (".globl asm_same; asm_same:; leaq answer(%rip), %rcx; xorl %eax, %eax"),
    ("cmpq answer@GOTPCREL(%rip), %rcx; sete %al; ret"),
)
GOT_MODULE = (
    "".join(f'module asm "{line}"\n' for line in GOT_USES)
    + """
declare i32 @target()
@answer = external global i32
@llvm.compiler.used = appending global [2 x ptr] [ptr @target, ptr @answer], section "llvm.metadata"
"""
)
GOT_TARGETS = "@answer = global i32 42\ndefine i32 @target() { ret i32 77 }"
GOT_NAMES = ("asm_push", "asm_call", "asm_jump", "asm_load", "asm_same")


@native
def test_link_when_code_goes_through_the_offset_table_then_each_form_works(tmp_path: Path) -> None:
    library = load(build(GOT_MODULE, GOT_TARGETS, exports=GOT_NAMES), tmp_path)
    assert [getattr(library, name)() for name in GOT_NAMES] == [42, 77, 77, 42, 1]


def test_link_when_objects_are_of_two_processors_then_refused() -> None:
    from_arm = b"\xb7".join([compile_ir(KERNELS, X86_64)[:18], compile_ir(KERNELS, X86_64)[19:]])
    with pytest.raises(LinkError, match="one known processor"):
        link([compile_ir(HOST, X86_64), from_arm], (), "libtest.so")


def test_link_when_nothing_is_given_then_refused() -> None:
    with pytest.raises(LinkError):
        link([], (), "libtest.so")


SAMPLE = compile_ir(HOST, X86_64), compile_ir(KERNELS, X86_64)


@given(st.data())
def test_link_when_an_object_is_damaged_then_only_link_errors(data: st.DataObject) -> None:
    blob = bytearray(SAMPLE[0])
    for _ in range(data.draw(st.integers(1, 3))):
        blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(blob)))
    kept = bytes(blob) if data.draw(st.booleans()) else bytes(blob[:cut])
    with contextlib.suppress(LinkError):
        link([kept, SAMPLE[1]], EXPORTS, "libtest.so")


def other_linkers() -> list[list[str]]:
    """Command lines, up to the inputs, of the linkers that this machine has."""
    commands: list[list[str]] = []
    if shutil.which("cc"):
        commands.append(["cc", "-shared", "-nostdlib"])
    if lld := shutil.which("ld.lld"):
        commands.append([lld, "-shared"])
    elif importlib.util.find_spec("ziglang"):
        commands.append([sys.executable, "-m", "ziglang", "ld.lld", "-shared"])
    return commands


@native
@pytest.mark.parametrize("command", other_linkers() or [[]], ids=lambda command: command[0] if command else "none")
def test_link_when_compared_with_another_linker_then_same_symbols_and_answers(
    command: list[str], tmp_path: Path
) -> None:
    if not command:
        pytest.skip("neither cc nor ld.lld is here")
    hidden = KERNELS.replace("define i32 @kernel", "define hidden i32 @kernel").replace("@table = ", "@table = hidden ")
    hidden = hidden.replace("@scale = ", "@scale = hidden ")
    host = HOST.replace("@scale = external", "@scale = external hidden").replace("@names = ", "@names = hidden ")
    paths: list[str] = []
    for name, text in (("host", host), ("kernels", hidden), ("memory", MEMORY_IR)):
        (tmp_path / f"{name}.o").write_bytes(compile_ir(text, X86_64))
        paths.append(str(tmp_path / f"{name}.o"))
    output = tmp_path / "other.so"
    subprocess.run([*command, "-o", str(output), *paths], check=True, capture_output=True)
    theirs, ours = output.read_bytes(), build(host, hidden, exports=EXPORTS)
    assert set(dynamic_symbols(theirs)) == set(dynamic_symbols(ours)) == set(EXPORTS)
    assert exercise(load(theirs, tmp_path)) == exercise(load(ours, tmp_path)) == expected()


@pytest.mark.skipif(not shutil.which("readelf"), reason="binutils are not here")
def test_link_when_read_by_binutils_then_no_complaint(tmp_path: Path) -> None:
    path = tmp_path / "library.so"
    path.write_bytes(build(HOST, KERNELS, exports=EXPORTS))
    result = subprocess.run(["readelf", "-aW", "-D", str(path)], capture_output=True, text=True, check=True)
    assert "Warning" not in result.stderr + result.stdout
    assert "Error" not in result.stderr + result.stdout
    assert "TEXTREL" not in result.stdout
