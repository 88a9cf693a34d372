"""What this machine can do at most: multiply-adds a second of one core, and bytes a second from each level of memory.

Takes: code generation options for this machine. Gives: measurements that can be repeated beside whatever they are
compared with. Invariant: what is timed is machine code of our own back end; the interpreter is outside the clock.
"""

import ctypes
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tessera_build.backends.llvm.linker import link
from tessera_build.backends.llvm.memory import MEMORY_IR
from tessera_build.backends.llvm.objects import CodegenOptions, compile_ir
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.verify.aligned import aligned_bytes

_CHAINS: Final = 12  # more than latency times rate on every machine we know
_CHAIN_STEPS: Final = 200_000
_STREAMS: Final = 8
_LEAST_BYTES: Final = 64 << 20  # read by one sample of the bandwidth of a cache
_MEMORY_BYTES: Final = 256 << 20  # more than any last-level cache we know
# Ways to read memory: stretches that are read side by side, and how many bytes further on is asked for. None is best
# everywhere: 8 times 32 vectors in turn drew 30.9 to 32.5 GB/s here, asking 33.4 to 34.1, two stretches 33.7 to 35.3.
_PATTERNS: Final = ((1, 0), (1, 5120), (2, 0), (4, 0))


@dataclass(frozen=True, slots=True)
class Roofline:
    """Of one core: `gflops` of fused multiply-adds, and GB/s read from the second-level cache and from memory."""

    gflops: float
    cache_gbps: float
    memory_gbps: float


def compiled_function(texts: Sequence[str], name: str, options: CodegenOptions) -> Callable[[int, int], int]:
    """Compile and link IR; gives the exported `i32 name(ptr, i64)`."""
    image = link([compile_ir(text, options) for text in (*texts, MEMORY_IR)], [name], "measured.so")
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        Path(file.name).write_bytes(image)
        found = getattr(ctypes.CDLL(file.name), name)
    found.argtypes, found.restype = [ctypes.c_void_p, ctypes.c_int64], ctypes.c_int32
    return found


def peak_gflops(
    lanes: int, options: CodegenOptions, clock: Callable[[], float] = time.perf_counter
) -> Callable[[], float]:
    """A measurement of fused multiply-adds of `lanes` f32 per second, in GFLOP/s, on independent chains."""
    run = compiled_function([_chains_ir(lanes)], "chains", options)
    storage = (ctypes.c_float * (lanes * 2))()

    def measure() -> float:
        start = clock()
        run(ctypes.addressof(storage), _CHAIN_STEPS)
        return _CHAIN_STEPS * _CHAINS * lanes * 2 / (clock() - start) / 1e9

    return measure


def read_gbps(lanes: int, options: CodegenOptions, size: int) -> Callable[[], float]:
    """A measurement of reading `size` bytes again and again, in GB/s."""
    run = compiled_function([_reads_ir(lanes)], "reads", options)
    memory = _written(size // _step_bytes(lanes) * _step_bytes(lanes))
    repeats = max(1, _LEAST_BYTES // memory.nbytes)

    def measure() -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            run(memory.ctypes.data, memory.nbytes // 4)
        return repeats * memory.nbytes / (time.perf_counter() - start) / 1e9

    return measure


def memory_gbps(lanes: int, options: CodegenOptions, threads: int = 1) -> Callable[[], float]:
    """A measurement of what all threads together read from memory at most, in GB/s: the best way of a few."""
    runs = [compiled_function([_reads_ir(lanes, *pattern)], "reads", options) for pattern in _PATTERNS]
    share = _MEMORY_BYTES // threads // _step_bytes(lanes) * _step_bytes(lanes)
    memory, pool = _written(share * threads), ThreadPoolExecutor(threads)
    begins = [memory.ctypes.data + number * share for number in range(threads)]

    def measure() -> float:
        best = math.inf
        for run in runs:
            start = time.perf_counter()
            list(pool.map(run, begins, [share // 4] * threads))
            best = min(best, time.perf_counter() - start)
        return memory.nbytes / best / 1e9

    return measure


def measure_roofline(machine: CpuMachine, options: CodegenOptions, rounds: int = 5) -> Roofline:
    """The best of a few rounds of each."""
    measures = (
        peak_gflops(machine.lanes, options),
        read_gbps(machine.lanes, options, machine.l2_bytes // 2),
        memory_gbps(machine.lanes, options),
    )
    found = [[measure() for measure in measures] for _ in range(rounds)]
    return Roofline(*(max(column) for column in zip(*found, strict=True)))


def _written(size: int) -> Array:
    """Memory whose pages are there: those never written are all one page of zeros."""
    memory = aligned_bytes(size)
    memory[...] = 1
    return memory


def _chains_ir(lanes: int) -> str:
    vector = f"<{lanes} x float>"
    phis = [f"%a{i} = phi {vector} [ zeroinitializer, %entry ], [ %b{i}, %loop ]" for i in range(_CHAINS)]
    halves, ones = f"{vector} splat (float 0.5)", f"{vector} splat (float 1.0)"
    steps = [f"%b{i} = call {vector} @llvm.fma.v{lanes}f32({vector} %a{i}, {halves}, {ones})" for i in range(_CHAINS)]
    body, totals = "\n  ".join(phis + steps), _total("%b", _CHAINS, vector)
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


def _step_bytes(lanes: int) -> int:
    """What one turn of the reading loop takes, over all its stretches."""
    return lanes * _STREAMS * 4


def _reads_ir(lanes: int, stretches: int = 1, ask_bytes: int = 0) -> str:
    vector, each = f"<{lanes} x float>", _STREAMS // stretches
    phis = [f"%a{i} = phi {vector} [ zeroinitializer, %entry ], [ %b{i}, %loop ]" for i in range(_STREAMS)]
    steps: list[str] = []
    for i in range(_STREAMS):
        steps += [
            f"%e{i} = add i64 %i, {i % each * lanes}",
            f"%p{i} = getelementptr float, ptr %stretch{i // each}, i64 %e{i}",
            f"%v{i} = load {vector}, ptr %p{i}, align 64",
            f"%b{i} = fadd {vector} %a{i}, %v{i}",
        ]
        if ask_bytes:
            steps.append(f"%q{i} = getelementptr i8, ptr %p{i}, i64 {ask_bytes}")
            steps.append(f"call void @llvm.prefetch.p0(ptr %q{i}, i32 0, i32 2, i32 1)")
    starts: list[str] = []
    for i in range(stretches):
        starts.append(f"%from{i} = mul i64 %length, {i}")
        starts.append(f"%stretch{i} = getelementptr float, ptr %data, i64 %from{i}")
    body, totals = "\n  ".join(phis + steps), _total("%b", _STREAMS, vector)
    before = "\n  ".join(starts)
    return f"""
declare void @llvm.prefetch.p0(ptr, i32, i32, i32)
define i32 @reads(ptr %data, i64 %count) {{
entry:
  %length = udiv i64 %count, {stretches}
  {before}
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  {body}
  %next = add i64 %i, {lanes * each}
  %more = icmp slt i64 %next, %length
  br i1 %more, label %loop, label %done
done:
  {totals}
  %first = extractelement {vector} %s{_STREAMS - 1}, i32 0
  %result = fptosi float %first to i32
  ret i32 %result
}}
"""


def _total(name: str, count: int, vector: str) -> str:
    """Lines that add `count` vectors up; the sum is %s<count - 1>."""
    firsts = [f"{name}0" if i == 1 else f"%s{i - 1}" for i in range(1, count)]
    return "\n  ".join(f"%s{i} = fadd {vector} {first}, {name}{i}" for i, first in enumerate(firsts, 1))
