"""The thread pool that a shared object exports, as LLVM IR text.

Takes: the architecture (`x86_64` or `aarch64`); only the pause and the floating-point control word differ.
Gives: `pool_ir` (defines `POOL_EXPORTS`) and `floating_point_ir` (two internal functions for the host program).
Invariant: the pool is built on the services table alone, and which thread runs an index never changes a result: the
status of the lowest failing index wins, because no index is left out but those above one that failed.

A launch divides its indices into one range a thread, the same ones for the same count, so that a thread mostly finds
in its own cache what it wrote in the launch before; who is through with its own takes from the others'. Two threads
touch one counter only then.

One 64-bit word, `state`, carries a launch: bits 32-63 its number, `OPEN`, `WAITING` (the caller sleeps), `STOP`, and in
bits 0-15 how many workers are inside. A worker enters only by raising that count while the launch is open, so a caller
never waits for a worker that has not come, and no worker can see a job that has ended. Workers spin, then set `parked`
and sleep on their semaphore; both sides use sequentially consistent operations on `state` and `parked`, so that either
the worker sees the launch or the launch sees the worker parked. Before it is woken a worker is moved off its caller's
processor, where some schedulers put it and leave both. Whatever two threads write lies 128 bytes apart, since
processors fetch lines in pairs.
"""

from string import Template

from tessera_build.backends.llvm.errors import CompileError
from tessera_build.backends.llvm.pool_launch import PARALLEL_FOR, SHARE, WORKER
from tessera_build.backends.llvm.pool_lifetime import CREATE, DESTROY
from tessera_build.backends.llvm.pool_waking import WAITING, WAKING

POOL_EXPORTS = ("tessera_pool_create", "tessera_pool_parallel_for", "tessera_pool_destroy")
FLOATING_POINT_ENTER = "tessera.floating_point.enter"
FLOATING_POINT_LEAVE = "tessera.floating_point.leave"
MAXIMUM_THREADS = 4096

# Rounds of (load, pause) before a thread sleeps; a pause takes about 45 ns on Skylake and later, 20 ns on Zen 4 and 5.
# A worker without a launch waits 0.4 to 1 ms: not for the gap between two launches, but because a scheduler moves a
# thread that waits for a processor, and may leave one that sleeps again and again on its caller's. MobileNet-V2 on two
# threads, each turn after a rest, took 7.3 ms (on one 6.2) with 1000 rounds and 3.9 with these. A caller waits less:
# a worker that has no processor may need this one.
_IDLE_ROUNDS = 20_000
_FINISH_ROUNDS = 5_000
# From this round on, 10 to 20 µs, it lets others have the processor, which takes as long as so many pauses. On one
# processor for two threads MobileNet-V2 took 10.3 ms without that, and takes 6.3 as on one thread.
_PATIENT_ROUNDS = 500
_YIELD_ROUNDS = 16

_OFFSETS = {
    "wait": 0,
    "post": 8,
    "workers": 16,
    "yield": 24,
    "cpu": 32,
    "get_affinity": 40,
    "set_affinity": 48,
    "busy": 128,
    "body": 256,
    "argument": 264,
    "participants": 272,
    "failure_index": 280,  # read for every index
    "failure_status": 288,
    "failure_lock": 292,
    "state": 384,
    "done": 512,
    "range": 640,  # the caller's; a record ends with its worker's
    "records": 768,
}
_RECORD = {"pool": 0, "handle": 8, "number": 16, "semaphore": 64, "parked": 128, "bytes": 384}
_OPEN, _WAITING, _STOP, _ACTIVE, _LAUNCH = 1 << 16, 1 << 17, 1 << 18, 0xFFFF, 1 << 32

_X86_64_FLOATING_POINT = """declare void @llvm.x86.sse.ldmxcsr(ptr)
declare void @llvm.x86.sse.stmxcsr(ptr)

define internal i64 @tessera.floating_point.enter() nounwind {
  %word = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %word)
  %old = load i32, ptr %word
  store i32 8064, ptr %word ; 0x1F80: round to nearest, denormals kept, no traps
  call void @llvm.x86.sse.ldmxcsr(ptr %word)
  %result = zext i32 %old to i64
  ret i64 %result
}

define internal void @tessera.floating_point.leave(i64 %old) nounwind {
  %word = alloca i32
  %narrow = trunc i64 %old to i32
  store i32 %narrow, ptr %word
  call void @llvm.x86.sse.ldmxcsr(ptr %word)
  ret void
}
"""
_AARCH64_FLOATING_POINT = """declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)

define internal i64 @tessera.floating_point.enter() nounwind {
  %old = call i64 @llvm.aarch64.get.fpcr()
  call void @llvm.aarch64.set.fpcr(i64 0) ; round to nearest, denormals kept, no traps
  ret i64 %old
}

define internal void @tessera.floating_point.leave(i64 %old) nounwind {
  call void @llvm.aarch64.set.fpcr(i64 %old)
  ret void
}
"""
_FLOATING_POINT = {"x86_64": _X86_64_FLOATING_POINT, "aarch64": _AARCH64_FLOATING_POINT}
_PAUSE = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    # `isb` (option 15) waits some tens of cycles; `yield` is a no-op on most cores
    "aarch64": ("declare void @llvm.aarch64.isb(i32)", "call void @llvm.aarch64.isb(i32 15)"),
}


def pool_ir(architecture: str) -> str:
    """The pool as a module of its own: compile it once a machine and link it beside the host program."""
    declaration, pause = _PAUSE[_known(architecture)]
    values = {
        **_OFFSETS,
        **{f"record_{name}": offset for name, offset in _RECORD.items()},
        "OPEN": _OPEN,
        "CLOSED": ~_OPEN,
        "WAITING": _WAITING,
        "STOP": _STOP,
        "ACTIVE": _ACTIVE,
        "LAUNCH": _LAUNCH,
        "LAST_MASK": _WAITING | _ACTIVE,
        "LAST": _WAITING | 1,
        "idle_rounds": _IDLE_ROUNDS,
        "finish_rounds": _FINISH_ROUNDS,
        "patient_rounds": _PATIENT_ROUNDS,
        "yield_rounds": _YIELD_ROUNDS,
        "most": MAXIMUM_THREADS,
        "pause": pause,
    }
    parts = (SHARE, WAITING, WAKING, WORKER, PARALLEL_FOR, CREATE, DESTROY)
    text = "\n".join(Template(part).substitute(values) for part in parts)
    return f"{declaration}\n{floating_point_ir(architecture)}\n{text}"


def floating_point_ir(architecture: str) -> str:
    """`FLOATING_POINT_ENTER`: () → i64 saves the control word and sets the default; `FLOATING_POINT_LEAVE`: (i64).

    A host program calls them around `tessera_run`. They order nothing inside one function: arithmetic between them
    must sit in functions of other objects (kernels do), where LLVM cannot move it across.
    """
    return _FLOATING_POINT[_known(architecture)]


def _known(architecture: str) -> str:
    if architecture not in _PAUSE:
        raise CompileError("no thread pool for this architecture", expected=", ".join(_PAUSE), found=architecture)
    return architecture
