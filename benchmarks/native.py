"""Machine code for measurements: a function compiled from LLVM IR, called through ctypes, and the FMA ceiling.

Takes IR text; gives callables. Invariant: what is timed is the compiled function alone — loops run in machine code.
"""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tessera_build.backends.llvm.linker import link
from tessera_build.backends.llvm.memory import MEMORY_IR
from tessera_build.backends.llvm.objects import CodegenOptions, compile_ir

# Runs a kernel's parallel iterations one after the other, as a launch on one thread does.
LAUNCH_IR = """
declare i32 @kernel(ptr, i64)
define i32 @launch(ptr %arguments, i64 %count) {
entry:
  br label %head
head:
  %index = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp slt i64 %index, %count
  br i1 %more, label %body, label %done
body:
  %status = call i32 @kernel(ptr %arguments, i64 %index)
  %next = add i64 %index, 1
  br label %head
done:
  ret i32 0
}
"""
_CHAINS = 12  # more than latency times rate on every machine we know


def function(texts: Sequence[str], name: str, options: CodegenOptions) -> Callable[[int, int], int]:
    """Compile and link IR; gives the exported `i32 name(ptr, i64)`."""
    image = link([compile_ir(text, options) for text in (*texts, MEMORY_IR)], [name], "benchmark.so")
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        Path(file.name).write_bytes(image)
        found = getattr(ctypes.CDLL(file.name), name)
    found.argtypes, found.restype = [ctypes.c_void_p, ctypes.c_int64], ctypes.c_int32
    return found


def peak_gflops(lanes: int, options: CodegenOptions) -> Callable[[], float]:
    """A measurement of fused multiply-adds of `lanes` f32 per second, in GFLOP/s, on independent chains."""
    run = function([_peak_ir(lanes)], "chains", options)
    storage = (ctypes.c_float * (lanes * 2))()
    steps = 200_000

    def measure() -> float:
        start = time.perf_counter()
        run(ctypes.addressof(storage), steps)
        return steps * _CHAINS * lanes * 2 / (time.perf_counter() - start) / 1e9

    return measure


def _peak_ir(lanes: int) -> str:
    vector = f"<{lanes} x float>"
    phis = [f"%a{i} = phi {vector} [ zeroinitializer, %entry ], [ %b{i}, %loop ]" for i in range(_CHAINS)]
    halves, ones = f"{vector} splat (float 0.5)", f"{vector} splat (float 1.0)"
    steps = [f"%b{i} = call {vector} @llvm.fma.v{lanes}f32({vector} %a{i}, {halves}, {ones})" for i in range(_CHAINS)]
    sums = [f"%s{i} = fadd {vector} {'%b0' if i == 1 else f'%s{i - 1}'}, %b{i}" for i in range(1, _CHAINS)]
    body, totals = "\n  ".join(phis + steps), "\n  ".join(sums)
    return f"""
define i32 @chains(ptr %out, i64 %steps) {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  {body}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %steps
  br i1 %more, label %loop, label %done
done:
  {totals}
  store {vector} %s{_CHAINS - 1}, ptr %out, align 4
  ret i32 0
}}
declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})
"""
