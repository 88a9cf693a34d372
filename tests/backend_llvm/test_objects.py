"""Compilation of IR text: determinism, refusals, and names checked before LLVM sees them."""

import gc
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tessera_build.backends.llvm.errors import CompileError
from tessera_build.backends.llvm.objects import CodegenOptions, assembly, compile_ir, native_options
from tessera_build.backends.llvm.target_names import KNOWN, check_names
from tests.backend_llvm.harness import AARCH64, X86_64

TEXT = """
%pair = type { i32, float }
define <16 x float> @kernel(<16 x float> %a, <16 x float> %b, ptr %c) {
  %at = getelementptr %pair, ptr %c, i32 1, i32 1
  %x = load float, ptr %at
  %one = insertelement <16 x float> poison, float %x, i32 0
  %all = shufflevector <16 x float> %one, <16 x float> poison, <16 x i32> zeroinitializer
  %r = call <16 x float> @llvm.fma.v16f32(<16 x float> %a, <16 x float> %b, <16 x float> %all)
  ret <16 x float> %r
}
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
"""
ROOT = Path(__file__).parents[2]
AVX512 = CodegenOptions(X86_64.triple, "x86-64-v4", ("+avx512bf16",))
SCRIPT = """
import hashlib, sys
from tests.backend_llvm.test_objects import AVX512, TEXT
from tessera_build.backends.llvm.objects import compile_ir
print(hashlib.sha256(compile_ir(TEXT, AVX512)).hexdigest())
"""


def test_compile_when_repeated_in_other_processes_then_bytes_are_equal() -> None:
    expected = hashlib.sha256(compile_ir(TEXT, AVX512)).hexdigest()
    compile_ir(TEXT.replace("kernel", "other"), AVX512)
    assert hashlib.sha256(compile_ir(TEXT, AVX512)).hexdigest() == expected
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(ROOT)}
    child = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert child.stdout.strip() == expected


def test_assembly_when_the_processor_has_wide_registers_then_they_are_used() -> None:
    assert "%zmm" in assembly(TEXT, AVX512)
    assert "fmla" in assembly(TEXT, AARCH64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("define i32 @f( {", "refuses"),
        ("define i32 @f() { ret i64 0 }", "refuses"),
        ("define void @f() { br label %gone }", "refuses"),
    ],
)
def test_compile_when_text_is_wrong_then_refused(text: str, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        compile_ir(text, X86_64)


def test_compile_when_an_intrinsic_needs_a_library_then_error_names_the_functions() -> None:
    text = "declare float @llvm.exp.f32(float)\ndeclare float @llvm.sin.f32(float)\ndeclare float @own(float)\n"
    text += (
        "define float @f(float %x) { %a = call float @llvm.exp.f32(float %x) %b = call float @llvm.sin.f32(float %a) "
    )
    text += "%c = call float @own(float %b) ret float %c }"
    with pytest.raises(CompileError) as caught:
        compile_ir(text, X86_64)
    assert caught.value.found == "expf, sinf"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (CodegenOptions(X86_64.triple, "x86-64-v9"), ["`x86-64-v9`", "x86-64-v"]),
        (CodegenOptions(X86_64.triple, "i686"), ["`i686`"]),
        (CodegenOptions(X86_64.triple, "x86-64", ("+avx512g", "avx2")), ["avx512f", "write +avx2"]),
        (CodegenOptions("riscv64-unknown-linux-gnu"), ["aarch64, x86_64"]),
        (CodegenOptions("x86_64-pc-windows-msvc", "x86-64"), ["linux"]),
        (CodegenOptions(X86_64.triple, "x86-64", optimization=9), ["0, 1, 2 or 3"]),
        (CodegenOptions(X86_64.triple, "x86-64", relocation="static"), ["position-independent"]),
    ],
)
def test_options_when_wrong_then_refused_before_llvm(options: CodegenOptions, words: list[str]) -> None:
    with pytest.raises(CompileError) as caught:
        compile_ir(TEXT, options)
    assert all(word in caught.value.diagnostics() for word in words)


def test_compile_when_a_function_attribute_names_an_unknown_feature_then_refused() -> None:
    text = 'define void @f() #0 { ret void }\nattributes #0 = { "target-cpu"="i686" "target-features"="+sse9" }'
    with pytest.raises(CompileError, match="does not know"):
        compile_ir(text, X86_64)


def test_compile_when_many_texts_are_refused_then_the_process_survives_the_garbage_collector() -> None:
    for _ in range(20):
        with pytest.raises(CompileError):
            compile_ir("define i32 @f() { ret i64 0 }", X86_64)
        gc.collect()
    assert compile_ir(TEXT, AVX512)[:4] == b"\x7fELF"


def test_native_options_when_asked_then_compile_here() -> None:
    assert compile_ir(TEXT, native_options())[:4] == b"\x7fELF"


LIST_SCRIPT = """
import sys, llvmlite.binding as llvm
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
llvm.Target.from_triple(sys.argv[1]).create_target_machine(cpu="help")
"""


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_names_when_compared_with_llvms_own_list_then_all_are_known(architecture: str) -> None:
    triple = f"{architecture}-unknown-linux-gnu"
    listing = subprocess.run([sys.executable, "-c", LIST_SCRIPT, triple], capture_output=True, text=True, check=True)
    processors, features = listing.stderr.split("Available features")
    assert KNOWN[architecture].processors <= {line.split()[0] for line in processors.splitlines() if " - " in line}
    assert KNOWN[architecture].features <= {line.split()[0] for line in features.splitlines() if " - " in line}


def test_names_when_all_are_known_then_accepted() -> None:
    check_names("x86_64", "znver4", ("+avx512f", "-amx-tile"))
